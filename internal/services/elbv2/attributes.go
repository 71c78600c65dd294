package elbv2

import (
	"sort"
	"strconv"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/lazyre"
)

// attribute is a setting with its default and rule. Sources: API reference,
// LoadBalancerAttribute, TargetGroupAttribute and ListenerAttribute.
type attribute struct {
	otherwise string
	check     func(string) bool
	// refuse says why a valid value other than the default cannot be had.
	refuse string
}

func oneOf(values ...string) func(string) bool {
	return func(s string) bool {
		for _, v := range values {
			if s == v {
				return true
			}
		}
		return false
	}
}

func between(low, high int) func(string) bool {
	return func(s string) bool {
		n, err := strconv.Atoi(s)
		return err == nil && n >= low && n <= high
	}
}

var (
	boolean   = oneOf("true", "false")
	anything  = func(string) bool { return true }
	offOr     = func(f func(string) bool) func(string) bool { return func(s string) bool { return s == "off" || f(s) } }
	cookieTok = lazyre.New("^[!#$%&'*+.^_`|~0-9A-Za-z-]{0,512}$")
)

const noLogs = "Slipway does not deliver load balancer logs to S3 yet; slipway's own access log is in its data directory"

var balancerAttributes = map[string]attribute{
	"access_logs.s3.enabled":                                   {"false", boolean, noLogs},
	"access_logs.s3.bucket":                                    {"", anything, ""},
	"access_logs.s3.prefix":                                    {"", anything, ""},
	"connection_logs.s3.enabled":                               {"false", boolean, noLogs},
	"connection_logs.s3.bucket":                                {"", anything, ""},
	"connection_logs.s3.prefix":                                {"", anything, ""},
	"health_check_logs.s3.enabled":                             {"false", boolean, noLogs},
	"health_check_logs.s3.bucket":                              {"", anything, ""},
	"health_check_logs.s3.prefix":                              {"", anything, ""},
	"deletion_protection.enabled":                              {"false", boolean, ""},
	"load_balancing.cross_zone.enabled":                        {"true", oneOf("true"), ""},
	"idle_timeout.timeout_seconds":                             {"60", between(1, 4000), ""},
	"client_keep_alive.seconds":                                {"3600", between(60, 604800), ""},
	"ipv6.deny_all_igw_traffic":                                {"false", boolean, ""},
	"routing.http.desync_mitigation_mode":                      {"defensive", oneOf("monitor", "defensive", "strictest"), ""},
	"routing.http.drop_invalid_header_fields.enabled":          {"false", boolean, ""},
	"routing.http.preserve_host_header.enabled":                {"false", boolean, ""},
	"routing.http.x_amzn_tls_version_and_cipher_suite.enabled": {"false", boolean, ""},
	"routing.http.xff_client_port.enabled":                     {"false", boolean, ""},
	"routing.http.xff_header_processing.mode":                  {"append", oneOf("append", "preserve", "remove"), ""},
	"routing.http2.enabled":                                    {"true", boolean, ""},
	"waf.fail_open.enabled":                                    {"false", boolean, ""},
	"zonal_shift.config.enabled":                               {"false", boolean, ""},
}

var groupAttributes = map[string]attribute{
	"deregistration_delay.timeout_seconds":   {"300", between(0, 3600), ""},
	"stickiness.enabled":                     {"false", boolean, ""},
	"stickiness.type":                        {"lb_cookie", oneOf("lb_cookie", "app_cookie"), ""},
	"stickiness.lb_cookie.duration_seconds":  {"86400", between(1, 604800), ""},
	"stickiness.app_cookie.cookie_name":      {"", cookieTok.MatchString, ""},
	"stickiness.app_cookie.duration_seconds": {"86400", between(1, 604800), ""},
	"load_balancing.algorithm.type":          {"round_robin", oneOf("round_robin", "least_outstanding_requests", "weighted_random"), ""},
	"load_balancing.algorithm.anomaly_mitigation": {"off", oneOf("on", "off"),
		"Slipway does not detect anomalous targets yet"},
	"load_balancing.cross_zone.enabled":                                              {"use_load_balancer_configuration", oneOf("true", "false", "use_load_balancer_configuration"), ""},
	"slow_start.duration_seconds":                                                    {"0", func(s string) bool { return s == "0" || between(30, 900)(s) }, ""},
	"target_group_health.dns_failover.minimum_healthy_targets.count":                 {"1", offOr(between(1, 1000)), ""},
	"target_group_health.dns_failover.minimum_healthy_targets.percentage":            {"off", offOr(between(1, 100)), ""},
	"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count":      {"1", between(1, 1000), ""},
	"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": {"off", offOr(between(1, 100)), ""},
}

var listenerAttributes = map[string]attribute{
	"routing.http.response.server.enabled": {"true", boolean, ""},
}

// groupAttribute is a target group's setting, its default where none was set.
func groupAttribute(g *TargetGroup, key string) string {
	if v, ok := g.Attributes[key]; ok {
		return v
	}
	return groupAttributes[key].otherwise
}

// pair is one key and value, in the shapes of all three kinds.
type pair struct{ key, value string }

// merge checks settings and returns them on top of the old ones.
func merge(table map[string]attribute, old map[string]string, set []pair) (map[string]string, error) {
	out := map[string]string{}
	for k, v := range old {
		out[k] = v
	}
	for _, p := range set {
		a, ok := table[p.key]
		if !ok {
			return nil, awserr.New("InvalidConfigurationRequest", "The attribute key '%s' is not recognized; known keys are: %s", p.key, strings.Join(keys(table), ", "))
		}
		if !a.check(p.value) {
			return nil, awserr.New("InvalidConfigurationRequest", "The value '%s' is not valid for the attribute '%s'", p.value, p.key)
		}
		if a.refuse != "" && p.value != a.otherwise {
			return nil, awserr.New("InvalidConfigurationRequest", "The attribute '%s' cannot be set to '%s': %s.", p.key, p.value, a.refuse)
		}
		out[p.key] = p.value
	}
	if out["load_balancing.algorithm.type"] != "" && out["load_balancing.algorithm.type"] != "round_robin" && out["slow_start.duration_seconds"] != "" && out["slow_start.duration_seconds"] != "0" {
		return nil, awserr.New("InvalidConfigurationRequest", "Slow start works with the round_robin algorithm only: set 'load_balancing.algorithm.type' to round_robin or 'slow_start.duration_seconds' to 0")
	}
	if out["stickiness.enabled"] == "true" && out["stickiness.type"] == "app_cookie" && out["stickiness.app_cookie.cookie_name"] == "" {
		return nil, awserr.New("InvalidConfigurationRequest", "Stickiness by app_cookie needs the attribute 'stickiness.app_cookie.cookie_name'")
	}
	return out, nil
}

// all lists every attribute with its value, sorted by key: tools compare the
// whole list.
func all(table map[string]attribute, set map[string]string) []pair {
	var out []pair
	for _, k := range keys(table) {
		v, ok := set[k]
		if !ok {
			v = table[k].otherwise
		}
		out = append(out, pair{k, v})
	}
	return out
}

func keys(table map[string]attribute) []string {
	var out []string
	for k := range table {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
