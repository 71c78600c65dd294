package elbv2

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
)

var nameRule = lazyre.New(`^[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?$`)

func invalid(format string, args ...any) error {
	return awserr.New("ValidationError", format, args...)
}

func checkName(what, name string) error {
	if !nameRule.MatchString(name) {
		return invalid("The %s name '%s' must have 1 to 32 letters, digits and hyphens, and must not begin or end with a hyphen", what, name)
	}
	if strings.HasPrefix(name, "internal-") {
		return invalid("The %s name '%s' must not begin with 'internal-'", what, name)
	}
	return nil
}

// describe gives AWS's words for a reason code.
var describe = map[string]string{
	"Elb.RegistrationInProgress":      "Target registration is in progress",
	"Elb.InitialHealthChecking":       "Initial health checks in progress",
	"Target.DeregistrationInProgress": "Target deregistration is in progress",
	"Target.NotRegistered":            "Target is not registered to the target group",
	"Target.NotInUse":                 "Target group is not configured to receive traffic from the load balancer",
}

// normalizeActions checks actions and returns them as Describe shows them: a
// forward with both its short and its long form.
func normalizeActions(in []api.Action) ([]api.Action, error) {
	if len(in) == 0 {
		return nil, invalid("At least one action must be specified")
	}
	out := append([]api.Action{}, in...)
	for i := range out {
		a := &out[i]
		if a.Order == nil && len(in) > 1 {
			a.Order = new(int64(i + 1))
		}
		last := i == len(out)-1
		switch ptr.Value(a.Type) {
		case "forward":
			if err := normalizeForward(a); err != nil {
				return nil, err
			}
		case "redirect":
			if err := checkRedirect(a.RedirectConfig); err != nil {
				return nil, err
			}
			fillRedirect(a)
		case "fixed-response":
			if err := checkFixed(a.FixedResponseConfig); err != nil {
				return nil, err
			}
		case "authenticate-oidc", "authenticate-cognito", "jwt-validation":
			return nil, awserr.New("InvalidLoadBalancerAction", "Slipway does not implement the action type '%s' yet", *a.Type)
		default:
			return nil, invalid("The action type '%s' is not valid", ptr.Value(a.Type))
		}
		if !last {
			return nil, awserr.New("InvalidLoadBalancerAction", "Only one of forward, redirect and fixed-response is allowed, and it must be the last action")
		}
	}
	return out, nil
}

func normalizeForward(a *api.Action) error {
	f := a.ForwardConfig
	if f == nil || len(f.TargetGroups) == 0 {
		if ptr.Value(a.TargetGroupArn) == "" {
			return invalid("A forward action needs 'TargetGroupArn' or 'ForwardConfig.TargetGroups'")
		}
		f = &api.ForwardActionConfig{TargetGroups: []api.TargetGroupTuple{{TargetGroupArn: a.TargetGroupArn, Weight: new(int64(1))}}}
	} else {
		c := *f
		c.TargetGroups = append([]api.TargetGroupTuple{}, f.TargetGroups...)
		f = &c
	}
	if len(f.TargetGroups) > 5 {
		return awserr.New("TooManyTargetGroups", "A forward action takes at most 5 target groups")
	}
	for i := range f.TargetGroups {
		g := &f.TargetGroups[i]
		if g.Weight == nil {
			g.Weight = new(int64(1))
		}
		if *g.Weight < 0 || *g.Weight > 999 {
			return invalid("The weight %d of target group '%s' is not between 0 and 999", *g.Weight, ptr.Value(g.TargetGroupArn))
		}
	}
	if len(f.TargetGroups) == 1 {
		if a.TargetGroupArn != nil && *a.TargetGroupArn != ptr.Value(f.TargetGroups[0].TargetGroupArn) {
			return invalid("'TargetGroupArn' and 'ForwardConfig' name different target groups")
		}
		a.TargetGroupArn = f.TargetGroups[0].TargetGroupArn
	} else {
		a.TargetGroupArn = nil
	}
	if f.TargetGroupStickinessConfig == nil {
		f.TargetGroupStickinessConfig = &api.TargetGroupStickinessConfig{Enabled: new(false)}
	}
	if st := f.TargetGroupStickinessConfig; ptr.Value(st.Enabled) && (ptr.Value(st.DurationSeconds) < 1 || ptr.Value(st.DurationSeconds) > 604800) {
		return invalid("'TargetGroupStickinessConfig.DurationSeconds' must be between 1 and 604800")
	}
	a.ForwardConfig = f
	return nil
}

func checkRedirect(c *api.RedirectActionConfig) error {
	if c == nil {
		return invalid("A redirect action needs 'RedirectConfig'")
	}
	if code := ptr.Value(c.StatusCode); code != "HTTP_301" && code != "HTTP_302" {
		return invalid("'RedirectConfig.StatusCode' must be HTTP_301 or HTTP_302, not '%s'", code)
	}
	switch p := ptr.Value(c.Protocol); p {
	case "", "HTTP", "HTTPS", "#{protocol}":
	default:
		return invalid("'RedirectConfig.Protocol' must be HTTP, HTTPS or #{protocol}, not '%s'", p)
	}
	if p := ptr.Value(c.Port); p != "" && p != "#{port}" && !between(1, 65535)(p) {
		return invalid("'RedirectConfig.Port' must be 1 to 65535 or #{port}, not '%s'", p)
	}
	if p := ptr.Value(c.Path); p != "" && !strings.HasPrefix(p, "/") {
		return invalid("'RedirectConfig.Path' must begin with '/'")
	}
	same := func(v *string, d string) bool { return ptr.Value(v) == "" || *v == d }
	if same(c.Protocol, "#{protocol}") && same(c.Host, "#{host}") && same(c.Port, "#{port}") && same(c.Path, "/#{path}") {
		return awserr.New("InvalidLoadBalancerAction", "The redirect must change the protocol, host, port or path, or it would loop")
	}
	return nil
}

// fillRedirect writes the defaults in, as Describe shows them.
func fillRedirect(a *api.Action) {
	c := *a.RedirectConfig
	for _, f := range []struct {
		v **string
		d string
	}{{&c.Protocol, "#{protocol}"}, {&c.Host, "#{host}"}, {&c.Port, "#{port}"}, {&c.Path, "/#{path}"}, {&c.Query, "#{query}"}} {
		if *f.v == nil {
			*f.v = new(f.d)
		}
	}
	a.RedirectConfig = &c
}

func checkFixed(c *api.FixedResponseActionConfig) error {
	if c == nil {
		return invalid("A fixed-response action needs 'FixedResponseConfig'")
	}
	n, err := strconv.Atoi(ptr.Value(c.StatusCode))
	if err != nil || len(*c.StatusCode) != 3 || (n/100 != 2 && n/100 != 4 && n/100 != 5) {
		return invalid("'FixedResponseConfig.StatusCode' must be 2XX, 4XX or 5XX, not '%s'", ptr.Value(c.StatusCode))
	}
	if len(ptr.Value(c.MessageBody)) > 1024 {
		return invalid("'FixedResponseConfig.MessageBody' has %d bytes, more than 1024", len(*c.MessageBody))
	}
	switch t := ptr.Value(c.ContentType); t {
	case "", "text/plain", "text/css", "text/html", "application/javascript", "application/json":
		return nil
	default:
		return invalid("'FixedResponseConfig.ContentType' '%s' is not one of text/plain, text/css, text/html, application/javascript, application/json", t)
	}
}

// normalizeConditions checks the conditions of a rule and returns them in
// both forms that Describe shows.
func normalizeConditions(in []api.RuleCondition) ([]api.RuleCondition, error) {
	if len(in) == 0 {
		return nil, invalid("A rule needs at least one condition")
	}
	out := append([]api.RuleCondition{}, in...)
	seen, values := map[string]bool{}, 0
	for i := range out {
		c := &out[i]
		field := ptr.Value(c.Field)
		if seen[field] && field != "http-header" && field != "query-string" {
			return nil, invalid("A rule takes one '%s' condition only", field)
		}
		seen[field] = true
		n, err := normalizeCondition(c, field)
		if err != nil {
			return nil, err
		}
		values += n
	}
	if values > 5 {
		return nil, invalid("A rule takes at most 5 condition values, this one has %d", values)
	}
	return out, nil
}

func normalizeCondition(c *api.RuleCondition, field string) (int, error) {
	switch field {
	case "host-header":
		if c.HostHeaderConfig == nil {
			c.HostHeaderConfig = &api.HostHeaderConditionConfig{Values: c.Values, RegexValues: c.RegexValues}
		}
		c.Values, c.RegexValues = c.HostHeaderConfig.Values, c.HostHeaderConfig.RegexValues
		return check(field, c.Values, c.RegexValues)
	case "path-pattern":
		if c.PathPatternConfig == nil {
			c.PathPatternConfig = &api.PathPatternConditionConfig{Values: c.Values, RegexValues: c.RegexValues}
		}
		c.Values, c.RegexValues = c.PathPatternConfig.Values, c.PathPatternConfig.RegexValues
		return check(field, c.Values, c.RegexValues)
	case "http-header":
		if c.HttpHeaderConfig == nil || ptr.Value(c.HttpHeaderConfig.HttpHeaderName) == "" {
			return 0, invalid("An http-header condition needs 'HttpHeaderConfig' with a header name")
		}
		if name := *c.HttpHeaderConfig.HttpHeaderName; len(name) > 40 || strings.EqualFold(name, "host") || !cookieTok.MatchString(name) || strings.Contains(name, "*") {
			return 0, invalid("The header name '%s' of an http-header condition must be a token of at most 40 characters, without wildcards, and not Host (use host-header)", name)
		}
		return check(field, c.HttpHeaderConfig.Values, c.HttpHeaderConfig.RegexValues)
	case "http-request-method":
		if c.HttpRequestMethodConfig == nil {
			return 0, invalid("An http-request-method condition needs 'HttpRequestMethodConfig'")
		}
		for _, m := range c.HttpRequestMethodConfig.Values {
			if !regexp.MustCompile(`^[A-Z_-]{1,40}$`).MatchString(m) {
				return 0, invalid("The method '%s' of an http-request-method condition must be 1 to 40 upper-case letters, '-' or '_'", m)
			}
		}
		return check(field, c.HttpRequestMethodConfig.Values, nil)
	case "query-string":
		if c.QueryStringConfig == nil || len(c.QueryStringConfig.Values) == 0 {
			return 0, invalid("A query-string condition needs 'QueryStringConfig' with values")
		}
		for _, q := range c.QueryStringConfig.Values {
			if ptr.Value(q.Value) == "" || len(*q.Value) > 128 || len(ptr.Value(q.Key)) > 128 {
				return 0, invalid("Each value of a query-string condition needs a 'Value' of 1 to 128 characters")
			}
		}
		return len(c.QueryStringConfig.Values), nil
	case "source-ip":
		if c.SourceIpConfig == nil {
			return 0, invalid("A source-ip condition needs 'SourceIpConfig'")
		}
		for _, v := range c.SourceIpConfig.Values {
			if _, err := netip.ParsePrefix(v); err != nil || v == "255.255.255.255/32" {
				return 0, invalid("The source IP '%s' is not a valid CIDR block", v)
			}
		}
		return check(field, c.SourceIpConfig.Values, nil)
	}
	return 0, invalid("The condition field '%s' must be one of host-header, http-header, http-request-method, path-pattern, query-string, source-ip", field)
}

func check(field string, values, regexes []string) (int, error) {
	if len(values)+len(regexes) == 0 {
		return 0, invalid("A condition value must be specified for '%s'", field)
	}
	for _, v := range values {
		if v == "" || len(v) > 128 {
			return 0, invalid("The condition value '%s' of '%s' must have 1 to 128 characters", v, field)
		}
		if field == "host-header" && !strings.Contains(v, ".") {
			return 0, invalid("The condition value '%s' of 'host-header' must contain a '.'", v)
		}
	}
	for _, v := range regexes {
		if _, err := regexp.Compile(v); err != nil || len(v) > 128 {
			return 0, invalid("The regular expression '%s' of '%s' is not valid or longer than 128 characters", v, field)
		}
	}
	return len(values) + len(regexes), nil
}

var matcherRule = lazyre.New(`^\d{3}(-\d{3})?(,\d{3}(-\d{3})?)*$`)

func checkHealthCheck(h HealthCheck) error {
	switch {
	case h.Protocol != "HTTP" && h.Protocol != "HTTPS":
		return invalid("Health check protocol '%s' must be HTTP or HTTPS", h.Protocol)
	case h.Port != "traffic-port" && !between(1, 65535)(h.Port):
		return invalid("Health check port '%s' must be 'traffic-port' or in the range 1 to 65535", h.Port)
	case h.Interval < 5 || h.Interval > 300:
		return invalid("Health check interval '%d' must be between 5 and 300 seconds", h.Interval)
	case h.Timeout < 2 || h.Timeout > 120:
		return invalid("Health check timeout '%d' must be between 2 and 120 seconds", h.Timeout)
	case h.Timeout >= h.Interval:
		return invalid("Health check timeout '%d' must be smaller than the interval '%d'", h.Timeout, h.Interval)
	case h.HealthyThreshold < 2 || h.HealthyThreshold > 10:
		return invalid("Healthy threshold count '%d' must be between 2 and 10", h.HealthyThreshold)
	case h.UnhealthyThreshold < 2 || h.UnhealthyThreshold > 10:
		return invalid("Unhealthy threshold count '%d' must be between 2 and 10", h.UnhealthyThreshold)
	case !strings.HasPrefix(h.Path, "/") || len(h.Path) > 1024 || strings.ContainsAny(h.Path, " \r\n\t"):
		return invalid("Health check path '%s' must begin with '/' and have at most 1024 characters, none of them a space", h.Path)
	case !matcherRule.MatchString(h.Matcher):
		return invalid("Health check matcher HTTP code '%s' must be a code between 200 and 499, a list or a range", h.Matcher)
	}
	for part := range strings.FieldsFuncSeq(h.Matcher, func(r rune) bool { return r == ',' || r == '-' }) {
		if !between(200, 499)(part) {
			return invalid("Health check matcher HTTP code '%s' must be within range 200 to 499", part)
		}
	}
	return nil
}
