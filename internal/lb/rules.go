package lb

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"slipway/internal/lb/forward"
	"slipway/internal/lb/h1"
)

// rule is a compiled listener rule. priority 0 is the default rule.
type rule struct {
	priority int
	match    []matcher
	action   compiledAction
}

// matcher tests one condition.
type matcher func(x *forward.Exchange) bool

func compileRule(r *Rule) (rule, error) {
	out := rule{priority: r.Priority}
	for i := range r.Conditions {
		m, err := compileCondition(&r.Conditions[i])
		if err != nil {
			return out, fmt.Errorf("rule %s: %w", r.ARN, err)
		}
		out.match = append(out.match, m)
	}
	return out, nil
}

func (r *rule) matches(x *forward.Exchange) bool {
	for _, m := range r.match {
		if !m(x) {
			return false
		}
	}
	return true
}

func compileCondition(c *Condition) (matcher, error) {
	var exprs []*regexp.Regexp
	for _, v := range c.RegexValues {
		e, err := regexp.Compile(v)
		if err != nil {
			return nil, fmt.Errorf("condition %s: %w", c.Field, err)
		}
		exprs = append(exprs, e)
	}
	fold := c.Field != "path-pattern" && c.Field != "http-request-method"
	values := make([][]byte, len(c.Values))
	for i, v := range c.Values {
		values[i] = []byte(v)
	}
	any := func(b []byte) bool {
		for _, v := range values {
			if glob(v, b, fold) {
				return true
			}
		}
		return slices.ContainsFunc(exprs, func(e *regexp.Regexp) bool { return e.Match(b) })
	}
	switch c.Field {
	case "host-header":
		return func(x *forward.Exchange) bool { return any(hostName(x.Req.Host)) }, nil
	case "path-pattern":
		return func(x *forward.Exchange) bool {
			path, _, _ := x.Req.Path()
			return any(path)
		}, nil
	case "http-request-method":
		return func(x *forward.Exchange) bool {
			return slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(v, x.Req.Method) })
		}, nil
	case "http-header":
		return headerCondition(c.HeaderName, any)
	case "query-string":
		return queryCondition(c.Query), nil
	case "source-ip":
		return sourceCondition(c.Values)
	}
	return nil, fmt.Errorf("condition field %q is not known", c.Field)
}

func headerCondition(name string, any func([]byte) bool) (matcher, error) {
	if name == "" {
		return nil, fmt.Errorf("condition http-header has no header name")
	}
	want := []byte(name)
	return func(x *forward.Exchange) bool {
		for i := range x.Req.Fields {
			if f := &x.Req.Fields[i]; bytes.EqualFold(f.Name, want) && any(f.Value) {
				return true
			}
		}
		return false
	}, nil
}

func queryCondition(want []QueryString) matcher {
	type pair struct{ key, value []byte }
	pairs := make([]pair, len(want))
	for i, q := range want {
		pairs[i] = pair{[]byte(q.Key), []byte(q.Value)}
	}
	return func(x *forward.Exchange) bool {
		_, query, ok := x.Req.Path()
		for ok && len(query) > 0 {
			var one []byte
			one, query, _ = bytes.Cut(query, []byte("&"))
			key, value, _ := bytes.Cut(one, []byte("="))
			for _, p := range pairs {
				if (len(p.key) == 0 || glob(p.key, key, true)) && glob(p.value, value, true) {
					return true
				}
			}
		}
		return false
	}
}

func sourceCondition(values []string) (matcher, error) {
	var nets []netip.Prefix
	for _, v := range values {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			return nil, fmt.Errorf("condition source-ip: %w", err)
		}
		nets = append(nets, p.Masked())
	}
	return func(x *forward.Exchange) bool {
		a := x.Client.Addr()
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
	}, nil
}

// hostName is Host without its port.
func hostName(h []byte) []byte {
	if i := bytes.LastIndexByte(h, ':'); i >= 0 && bytes.IndexByte(h[i:], ']') < 0 {
		return h[:i]
	}
	return h
}

// glob matches * (any run) and ? (one byte) in linear space and time bounded by
// the product of the lengths.
func glob(p, s []byte, fold bool) bool {
	var pi, si, mark int
	star := -1
	for si < len(s) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, si
			pi++
		case pi < len(p) && (p[pi] == '?' || p[pi] == s[si] || fold && h1.Lower(p[pi]) == h1.Lower(s[si])):
			pi++
			si++
		case star >= 0:
			mark++
			pi, si = star+1, mark
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}
