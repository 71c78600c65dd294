package sns

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Limits of a filter policy (AWS: "Filter policy constraints").
const (
	maxFilterBytes      = 256 << 10
	maxFilterKeys       = 5
	maxFilterComplexity = 150
	maxFilterDepth      = 20
)

// filter is one level of a filter policy: all keys must match, and one of
// either where there is one.
type filter struct {
	keys   map[string][]condition // leaf: any of them
	nested map[string]*filter     // body scope only
	either []*filter              // $or
}

// condition says whether one value matches. absent is for a key that is not
// there.
type condition struct {
	match  func(v any) bool
	absent bool
}

// parseFilter reads a filter policy; scope "" is MessageAttributes.
func parseFilter(text, scope string) (*filter, error) {
	if len(text) > maxFilterBytes {
		return nil, invalid("FilterPolicy: Filter policy is too large")
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var raw any
	if err := dec.Decode(&raw); err != nil || dec.More() {
		return nil, invalid("FilterPolicy: failed to parse JSON. %v", err)
	}
	object, ok := raw.(map[string]any)
	if !ok {
		return nil, invalid("FilterPolicy: Filter policy must be an object")
	}
	p := &filterParser{body: scope == "MessageBody", complexity: 1}
	f, err := p.level(object, 1)
	if err != nil {
		return nil, invalid("FilterPolicy: %v", err)
	}
	if p.keys > maxFilterKeys {
		return nil, invalid("FilterPolicy: Filter policy can not have more than %d keys", maxFilterKeys)
	}
	if p.complexity > maxFilterComplexity {
		return nil, invalid("FilterPolicy: Filter policy is too complex")
	}
	return f, nil
}

type filterParser struct {
	body             bool
	keys, complexity int
}

func (p *filterParser) level(object map[string]any, depth int) (*filter, error) {
	if depth > maxFilterDepth {
		return nil, fmt.Errorf("Filter policy is nested too deeply")
	}
	f := &filter{keys: map[string][]condition{}, nested: map[string]*filter{}}
	for key, value := range object {
		if list, ok := value.([]any); ok && key == "$or" && allObjects(list) && len(list) > 1 {
			for _, e := range list {
				sub, err := p.level(e.(map[string]any), depth+1)
				if err != nil {
					return nil, err
				}
				f.either = append(f.either, sub)
			}
			continue
		}
		switch v := value.(type) {
		case []any:
			conditions, err := p.leaf(key, v, depth)
			if err != nil {
				return nil, err
			}
			f.keys[key] = conditions
		case map[string]any:
			if !p.body {
				return nil, fmt.Errorf("Filter policy scope MessageAttributes does not support nested filter policy")
			}
			if len(v) == 0 {
				return nil, fmt.Errorf("Empty objects are not allowed: \"%s\"", key)
			}
			sub, err := p.level(v, depth+1)
			if err != nil {
				return nil, err
			}
			f.nested[key] = sub
		default:
			return nil, fmt.Errorf("\"%s\" must be an object or an array", key)
		}
	}
	return f, nil
}

// allObjects tells "$or" as an operator from a key of that name.
func allObjects(list []any) bool {
	return !slices.ContainsFunc(list, func(v any) bool {
		m, ok := v.(map[string]any)
		return !ok || len(m) == 0 || slices.ContainsFunc([]string{"prefix", "suffix", "anything-but", "numeric", "exists", "cidr", "equals-ignore-case", "wildcard"},
			func(op string) bool { _, is := m[op]; return is && len(m) == 1 })
	})
}

func (p *filterParser) leaf(key string, list []any, depth int) ([]condition, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("Empty arrays are not allowed: \"%s\"", key)
	}
	p.keys++
	p.complexity *= len(list)
	if p.body {
		p.complexity *= depth // nesting counts (AWS: "Filter policy constraints")
	}
	p.complexity = min(p.complexity, 1<<20)
	var out []condition
	for _, v := range list {
		c, err := parseCondition(key, v)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func parseCondition(key string, v any) (condition, error) {
	switch v := v.(type) {
	case string, bool, nil:
		return condition{match: func(x any) bool { return x == v }}, nil
	case json.Number:
		want, err := number(v)
		return condition{match: func(x any) bool { return isNumber(x, want) }}, err
	case map[string]any:
		if len(v) != 1 {
			return condition{}, fmt.Errorf("Only one key allowed in match expression of \"%s\"", key)
		}
		for op, arg := range v {
			return operator(op, arg)
		}
	}
	return condition{}, fmt.Errorf("Match value must be String, number, true, false, or null: \"%s\"", key)
}

// text makes a condition about strings.
func text(fn func(string) bool) condition {
	return condition{match: func(v any) bool { s, ok := v.(string); return ok && fn(s) }}
}

func operator(op string, arg any) (condition, error) {
	if op == "anything-but" {
		return anythingBut(arg)
	}
	switch op {
	case "exists":
		want, ok := arg.(bool)
		if !ok {
			return condition{}, fmt.Errorf("exists match pattern must be either true or false.")
		}
		return condition{match: func(any) bool { return want }, absent: !want}, nil
	case "numeric":
		list, ok := arg.([]any)
		if !ok {
			return condition{}, fmt.Errorf("Value of numeric must be an array.")
		}
		return numeric(list)
	}
	s, ok := arg.(string)
	if !ok && slices.Contains([]string{"prefix", "suffix", "equals-ignore-case", "cidr", "wildcard"}, op) {
		return condition{}, fmt.Errorf("%s match pattern must be a string", op)
	}
	switch op {
	case "prefix":
		return text(func(v string) bool { return strings.HasPrefix(v, s) }), nil
	case "suffix":
		return text(func(v string) bool { return strings.HasSuffix(v, s) }), nil
	case "equals-ignore-case":
		return text(func(v string) bool { return strings.EqualFold(v, s) }), nil
	case "wildcard":
		if strings.Contains(s, "**") {
			return condition{}, fmt.Errorf("Consecutive wildcard characters are not allowed")
		}
		return text(func(v string) bool { return wild(s, v) }), nil
	case "cidr":
		return cidr(s)
	}
	return condition{}, fmt.Errorf("Unrecognized match type %s", op)
}

func cidr(s string) (condition, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		ip, err2 := netip.ParseAddr(s)
		if err2 != nil {
			return condition{}, fmt.Errorf("Malformed CIDR, one '/' required")
		}
		prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	return text(func(v string) bool {
		ip, err := netip.ParseAddr(v)
		return err == nil && prefix.Contains(ip.Unmap())
	}), nil
}

// anythingBut takes a value, a list of values, or a prefix, suffix,
// equals-ignore-case or wildcard.
func anythingBut(arg any) (condition, error) {
	var not []condition
	switch v := arg.(type) {
	case []any:
		if len(v) == 0 {
			return condition{}, fmt.Errorf("Empty arrays are not allowed in anything-but")
		}
		for _, e := range v {
			c, err := parseCondition("anything-but", e)
			if err != nil {
				return c, err
			}
			not = append(not, c)
		}
	case map[string]any:
		for op, arg := range v {
			args, many := arg.([]any)
			if !many {
				args = []any{arg}
			}
			for _, a := range args {
				if !slices.Contains([]string{"prefix", "suffix", "equals-ignore-case", "wildcard"}, op) || len(v) != 1 {
					return condition{}, fmt.Errorf("Unsupported anything-but pattern: %s", op)
				}
				c, err := operator(op, a)
				if err != nil {
					return c, err
				}
				not = append(not, c)
			}
		}
	default:
		c, err := parseCondition("anything-but", arg)
		if err != nil {
			return c, err
		}
		not = append(not, c)
	}
	return condition{match: func(v any) bool {
		return !slices.ContainsFunc(not, func(c condition) bool { return c.match(v) })
	}}, nil
}

// maxNumber bounds numbers in filter policies (AWS: "Numeric value matching").
const maxNumber = 1e9

func number(n any) (float64, error) {
	jn, ok := n.(json.Number)
	if !ok {
		return 0, fmt.Errorf("Value of numeric must be a number")
	}
	f, err := jn.Float64()
	if err != nil || f > maxNumber || f < -maxNumber {
		return 0, fmt.Errorf("Value of numeric must be between -1.0E9 and +1.0E9, inclusive")
	}
	return f, nil
}

// isNumber compares with five decimals.
func isNumber(v any, want float64) bool {
	f, ok := numberOf(v)
	return ok && f-want < 5e-6 && want-f < 5e-6
}

func numberOf(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}

func numeric(list []any) (condition, error) {
	var tests []func(float64) bool
	if len(list) != 2 && len(list) != 4 {
		return condition{}, fmt.Errorf("Invalid member in numeric match: a comparison is an operator and a number, a range is two of them")
	}
	for n := 0; n < len(list); n += 2 {
		op, _ := list[n].(string)
		want, err := number(list[n+1])
		if err != nil {
			return condition{}, err
		}
		low, high := n == 0, n == 2 || len(list) == 2
		switch {
		case op == "=" && len(list) == 2:
			tests = append(tests, func(v float64) bool { return v-want < 5e-6 && want-v < 5e-6 })
		case op == ">" && low:
			tests = append(tests, func(v float64) bool { return v > want })
		case op == ">=" && low:
			tests = append(tests, func(v float64) bool { return v >= want })
		case op == "<" && high:
			tests = append(tests, func(v float64) bool { return v < want })
		case op == "<=" && high:
			tests = append(tests, func(v float64) bool { return v <= want })
		default:
			return condition{}, fmt.Errorf("Unrecognized numeric range operator: %s", op)
		}
	}
	if len(list) == 4 {
		low, _ := number(list[1])
		if high, _ := number(list[3]); high < low {
			return condition{}, fmt.Errorf("Bottom must be less than top")
		}
	}
	return condition{match: func(v any) bool {
		f, ok := numberOf(v)
		return ok && !slices.ContainsFunc(tests, func(t func(float64) bool) bool { return !t(f) })
	}}, nil
}
