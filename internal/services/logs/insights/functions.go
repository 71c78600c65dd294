package insights

import (
	"math"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// function is a scalar function and how many arguments it takes.
type function struct {
	least, most int
	fn          func(a []value) value
}

func maths(fn func(float64) float64) function {
	return function{1, 1, func(a []value) value {
		if n, ok := num(a[0]); ok {
			if v := fn(n); !math.IsNaN(v) && !math.IsInf(v, 0) {
				return v
			}
		}
		return nil
	}}
}

func texts(fn func(string) value) function {
	return function{1, 1, func(a []value) value {
		if a[0] == nil {
			return nil
		}
		return fn(show(a[0]))
	}}
}

// extreme is greatest (1) or least (-1).
func extreme(sign int) function {
	return function{1, 100, func(a []value) value {
		var best value
		for _, v := range a {
			if v != nil && (best == nil || compare(v, best)*sign > 0) {
				best = v
			}
		}
		return best
	}}
}

// trimmed removes characters at the ends: white space unless they are named.
func trimmed(fn func(s, cut string) string) function {
	return function{1, 2, func(a []value) value {
		if a[0] == nil {
			return nil
		}
		cut := " \t\r\n"
		if len(a) > 1 {
			cut = show(a[1])
		}
		return fn(show(a[0]), cut)
	}}
}

// rounded puts a time on a multiple of a span.
func rounded(up bool) function {
	return function{2, 2, func(a []value) value {
		at, ok1 := num(a[0])
		step, ok2 := num(a[1])
		if !ok1 || !ok2 || step <= 0 {
			return nil
		}
		n := math.Floor(at/step) * step
		if up && n < at {
			n += step
		}
		return stamp(n)
	}}
}

func address(fn func(netip.Addr) bool) function {
	return function{1, 1, func(a []value) value {
		ip, err := netip.ParseAddr(show(a[0]))
		return err == nil && fn(ip)
	}}
}

func subnet(fn func(netip.Addr) bool) function {
	return function{2, 2, func(a []value) value {
		ip, err1 := netip.ParseAddr(show(a[0]))
		net, err2 := netip.ParsePrefix(show(a[1]))
		return err1 == nil && err2 == nil && fn(ip) && net.Contains(ip)
	}}
}

var functions map[string]function

func init() {
	any4 := func(netip.Addr) bool { return true }
	v6 := func(a netip.Addr) bool { return a.Is6() }
	functions = map[string]function{
		"abs": maths(math.Abs), "ceil": maths(math.Ceil), "floor": maths(math.Floor), "round": maths(math.Round), "log": maths(math.Log), "sqrt": maths(math.Sqrt),
		"greatest": extreme(1), "least": extreme(-1),
		"ispresent": {1, 1, func(a []value) value { return a[0] != nil }},
		"isempty":   {1, 1, func(a []value) value { return a[0] == nil || show(a[0]) == "" }},
		"isblank":   {1, 1, func(a []value) value { return a[0] == nil || strings.TrimSpace(show(a[0])) == "" }},
		"coalesce": {1, 100, func(a []value) value {
			for _, v := range a {
				if v != nil {
					return v
				}
			}
			return nil
		}},
		"concat": {1, 100, func(a []value) value {
			var b strings.Builder
			for _, v := range a {
				b.WriteString(show(v))
			}
			return b.String()
		}},
		"trim": trimmed(strings.Trim), "ltrim": trimmed(strings.TrimLeft), "rtrim": trimmed(strings.TrimRight),
		"strlen":  texts(func(s string) value { return float64(utf8.RuneCountInString(s)) }),
		"toupper": texts(func(s string) value { return strings.ToUpper(s) }), "tolower": texts(func(s string) value { return strings.ToLower(s) }),
		"upper": texts(func(s string) value { return strings.ToUpper(s) }), "lower": texts(func(s string) value { return strings.ToLower(s) }),
		"substr": {2, 3, substr},
		"replace": {3, 3, func(a []value) value {
			if a[0] == nil {
				return nil
			}
			return strings.ReplaceAll(show(a[0]), show(a[1]), show(a[2]))
		}},
		"strcontains": {2, 2, func(a []value) value { return a[0] != nil && strings.Contains(show(a[0]), show(a[1])) }},
		"bin":         rounded(false), "datefloor": rounded(false), "dateceil": rounded(true),
		"frommillis": {1, 1, func(a []value) value {
			if n, ok := num(a[0]); ok {
				return stamp(n)
			}
			return nil
		}},
		"tomillis": {1, 1, func(a []value) value {
			if s, ok := a[0].(stamp); ok {
				return float64(s)
			}
			return nil
		}},
		"isvalidip": address(any4), "isvalidipv4": address(netip.Addr.Is4), "isvalidipv6": address(v6),
		"isipinsubnet": subnet(any4), "isipv4insubnet": subnet(netip.Addr.Is4), "isipv6insubnet": subnet(v6),
	}
}

// substr counts characters from 0.
func substr(a []value) value {
	from, ok := num(a[1])
	if a[0] == nil || !ok {
		return nil
	}
	r := []rune(show(a[0]))
	begin := int(min(max(from, 0), float64(len(r))))
	stop := len(r)
	if len(a) == 3 {
		if n, ok := num(a[2]); ok {
			stop = begin + int(min(max(n, 0), float64(len(r)-begin)))
		}
	}
	return string(r[begin:stop])
}
