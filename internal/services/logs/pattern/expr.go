package pattern

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// expr is a condition over a message's parts. Exactly one member is set.
type expr struct {
	and, or []*expr
	cmp     *comparison
}

// comparison compares one part with a value.
type comparison struct {
	part selector // JSON
	name int      // space-delimited: index of the field
	op   string   // = != < > <= >= null true false exists missing

	text     string
	wildcard *wildcard
	re       *regexp.Regexp
	number   float64
	numeric  bool
}

// holds evaluates e; values gives the values of a comparison's part.
func (e *expr) holds(test func(*comparison) bool) bool {
	switch {
	case e.cmp != nil:
		return test(e.cmp)
	case e.and != nil:
		for _, x := range e.and {
			if !x.holds(test) {
				return false
			}
		}
		return true
	}
	for _, x := range e.or {
		if x.holds(test) {
			return true
		}
	}
	return false
}

// each visits all comparisons.
func (e *expr) each(fn func(*comparison)) {
	if e.cmp != nil {
		fn(e.cmp)
	}
	for _, x := range append(e.and[:len(e.and):len(e.and)], e.or...) {
		x.each(fn)
	}
}

// wildcard is a text with stars.
type wildcard struct{ parts []string }

func (w *wildcard) match(s string) bool {
	first, last := w.parts[0], w.parts[len(w.parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range w.parts[1 : len(w.parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

// compareText compares a text by = != and, where both are numbers, by order.
func (c *comparison) compareText(s string) bool {
	equal := false
	switch {
	case c.re != nil:
		equal = c.re.MatchString(s)
	case c.wildcard != nil:
		equal = c.wildcard.match(s)
	case c.numeric:
		if v, err := strconv.ParseFloat(s, 64); err == nil {
			return c.compareNumber(v)
		}
		return c.op == "!="
	default:
		equal = s == c.text
	}
	return c.op == "=" && equal || c.op == "!=" && !equal
}

func (c *comparison) compareNumber(v float64) bool {
	if !c.numeric {
		return c.compareText(strconv.FormatFloat(v, 'f', -1, 64))
	}
	switch c.op {
	case "=":
		return v == c.number
	case "!=":
		return v != c.number
	case "<":
		return v < c.number
	case ">":
		return v > c.number
	case "<=":
		return v <= c.number
	case ">=":
		return v >= c.number
	}
	return false
}

// parser reads the inside of { } and [ ].
type parser struct {
	s       string
	at      int
	depth   int
	regexes int
}

const maxDepth = 50

func (p *parser) fail(format string, args ...any) error {
	return &SyntaxError{column(p.s, min(p.at, len(p.s))), fmt.Sprintf(format, args...)}
}

func (p *parser) space() {
	for p.at < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.at]) >= 0 {
		p.at++
	}
}

// take consumes a token if it is next.
func (p *parser) take(token string) bool {
	p.space()
	if strings.HasPrefix(p.s[p.at:], token) {
		p.at += len(token)
		return true
	}
	return false
}

// word consumes a keyword in any case.
func (p *parser) word(w string) bool {
	p.space()
	end := p.at + len(w)
	if end > len(p.s) || !strings.EqualFold(p.s[p.at:end], w) || end < len(p.s) && isName(p.s[end]) {
		return false
	}
	p.at = end
	return true
}

func isName(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// or and and read expressions: && binds more than ||. leaf reads a comparison.
func (p *parser) or(leaf func() (*expr, error)) (*expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("the conditions are nested too deeply")
	}
	defer func() { p.depth-- }()
	e := &expr{}
	for {
		x, err := p.and(leaf)
		if err != nil {
			return nil, err
		}
		if e.or = append(e.or, x); !p.take("||") {
			return e, nil
		}
	}
}

func (p *parser) and(leaf func() (*expr, error)) (*expr, error) {
	e := &expr{}
	for {
		var x *expr
		var err error
		if p.take("(") {
			if x, err = p.or(leaf); err == nil && !p.take(")") {
				err = p.fail("a parenthesis is not closed")
			}
		} else {
			x, err = leaf()
		}
		if err != nil {
			return nil, err
		}
		if e.and = append(e.and, x); !p.take("&&") {
			return e, nil
		}
	}
}

// operator reads = != <= >= < >.
func (p *parser) operator() string {
	for _, op := range []string{"!=", "<=", ">=", "=", "<", ">"} {
		if p.take(op) {
			return op
		}
	}
	return ""
}

// value reads what a part is compared with; ends are characters that end an unquoted text.
func (p *parser) value(c *comparison, ends string) error {
	p.space()
	start := p.at
	switch {
	case p.at == len(p.s):
		return p.fail("a value must follow the operator")
	case p.s[p.at] == '"':
		t, next, err := quoted(p.s, p.at)
		if err != nil {
			return err
		}
		c.setText(t.text)
		p.at = next
	case p.s[p.at] == '%':
		t, next, err := parseTerm(p.s, p.at)
		if err != nil {
			return err
		}
		if p.regexes++; p.regexes > maxRegexes {
			return p.fail("a pattern may hold two regular expressions at most")
		}
		c.re, p.at = t.re, next
	default:
		for p.at < len(p.s) && strings.IndexByte(ends, p.s[p.at]) < 0 && !strings.HasPrefix(p.s[p.at:], "&&") && !strings.HasPrefix(p.s[p.at:], "||") {
			p.at++
		}
		text := strings.TrimSpace(p.s[start:p.at])
		if text == "" {
			return p.fail("a value must follow the operator")
		}
		if n, err := strconv.ParseFloat(text, 64); err == nil && !strings.ContainsAny(text, "xXpPnN_") {
			c.number, c.numeric, c.text = n, true, text
		} else {
			c.setText(text)
		}
	}
	if !c.numeric && c.op != "=" && c.op != "!=" {
		p.at = start
		return p.fail("%s compares with a number", c.op)
	}
	return nil
}

func (c *comparison) setText(s string) {
	c.text = s
	if strings.Contains(s, "*") {
		c.wildcard = &wildcard{strings.Split(s, "*")}
	}
}
