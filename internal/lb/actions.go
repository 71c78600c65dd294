package lb

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"slipway/internal/lb/forward"
)

// compiledAction is what a rule does; exactly one part is set.
type compiledAction struct {
	forward  *compiledForward
	redirect *Redirect
	fixed    *FixedResponse
}

type compiledForward struct {
	groups  []*group
	weights []int
	total   int
	sticky  time.Duration // 0: none between groups
}

func compileActions(as []Action, groups map[string]*group) (compiledAction, error) {
	var out compiledAction
	for i := range as {
		a := &as[i]
		switch a.Type {
		case "forward":
			if a.Forward == nil {
				return out, fmt.Errorf("action forward names no target group")
			}
			f := &compiledForward{}
			if a.Forward.StickinessEnabled {
				f.sticky = time.Duration(a.Forward.StickinessSeconds) * time.Second
			}
			for _, w := range a.Forward.TargetGroups {
				g := groups[w.ARN]
				if g == nil {
					return out, fmt.Errorf("action forward names the unknown target group %s", w.ARN)
				}
				weight := w.Weight
				if len(a.Forward.TargetGroups) == 1 && weight == 0 {
					weight = 1 // a single group needs no weight
				}
				f.groups, f.weights, f.total = append(f.groups, g), append(f.weights, weight), f.total+weight
			}
			out.forward = f
		case "redirect":
			out.redirect = a.Redirect
		case "fixed-response":
			out.fixed = a.FixedResponse
		default:
			return out, fmt.Errorf("action type %q is not built", a.Type)
		}
	}
	n := 0
	for _, set := range []bool{out.forward != nil, out.redirect != nil, out.fixed != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return out, fmt.Errorf("a rule needs exactly one of forward, redirect and fixed-response, not %d", n)
	}
	return out, nil
}

// group chooses by weight; nil when all weights are nought.
func (f *compiledForward) group() *group {
	if len(f.groups) == 1 {
		return f.groups[0]
	}
	if f.total == 0 {
		return nil
	}
	n := rand.IntN(f.total)
	for i, w := range f.weights {
		if n < w {
			return f.groups[i]
		}
		n -= w
	}
	return nil
}

const maxLocation = 8 << 10

// redirect fills x.Reply; false when the URL is too long. ports maps AWS's ports of
// the load balancer's listeners to the real ones, for clients that came by those.
func redirect(x *forward.Exchange, r *Redirect, ports map[string]string) bool {
	path, query, _ := x.Req.Path()
	host := string(hostName(x.Req.Host))
	repl := strings.NewReplacer("#{protocol}", strings.ToUpper(x.Options.Scheme), "#{host}", host,
		"#{port}", strconv.Itoa(x.Options.Port), "#{path}", strings.TrimPrefix(string(path), "/"), "#{query}", string(query))
	part := func(v, def string) string {
		if v == "" {
			v = def
		}
		return repl.Replace(v)
	}
	q := string(query)
	if r.Query != nil {
		q = repl.Replace(*r.Query)
	}
	scheme := strings.ToLower(part(r.Protocol, "#{protocol}"))
	port := part(r.Port, "#{port}")
	if real := ports[port]; real != "" && forward.Shifted(x.Req.Host, x.Options) {
		port = real
	}
	url := scheme + "://" + part(r.Host, "#{host}") + ":" + port + part(r.Path, "/#{path}")
	if q != "" {
		url += "?" + q
	}
	if len(url) > maxLocation || strings.ContainsAny(url, "\r\n\x00") {
		return false
	}
	status := 302
	if r.StatusCode == "HTTP_301" {
		status = 301
	}
	x.Reply = forward.Reply{Status: status, Location: url, HTML: true}
	return true
}
