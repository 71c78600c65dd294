package pattern

import (
	"encoding/json"
	"strconv"
	"strings"
)

// selector is the way to a value in a JSON document.
type selector struct {
	text  string
	steps []step
}

// step is a property, an index, or all of them.
type step struct {
	key   string
	index int // where key is "" and all is false
	all   bool
}

const maxSelected = 1000 // values that wildcards may find

// parseSelector reads $.a.b[0]["c"][*]; it begins at the dollar sign.
func (p *parser) parseSelector() (selector, error) {
	p.space()
	start := p.at
	if !p.take("$") {
		return selector{}, p.fail("a property selector that begins with $ must stand here")
	}
	var sel selector
	for p.at < len(p.s) {
		switch p.s[p.at] {
		case '.':
			p.at++
			from := p.at
			if p.at < len(p.s) && p.s[p.at] == '*' {
				p.at++
				sel.steps = append(sel.steps, step{all: true})
				continue
			}
			for p.at < len(p.s) && (isName(p.s[p.at]) || p.s[p.at] == '-' || p.s[p.at] == '@' || p.s[p.at] == ':' || p.s[p.at] >= 0x80) {
				p.at++
			}
			if from == p.at {
				return sel, p.fail("the name of a property must follow the dot")
			}
			sel.steps = append(sel.steps, step{key: p.s[from:p.at]})
		case '[':
			st, err := p.bracket()
			if err != nil {
				return sel, err
			}
			sel.steps = append(sel.steps, st)
		default:
			sel.text = p.s[start:p.at]
			return sel, p.some(sel)
		}
	}
	sel.text = p.s[start:p.at]
	return sel, p.some(sel)
}

func (p *parser) some(sel selector) error {
	if len(sel.steps) == 0 {
		return p.fail("a property must follow $")
	}
	return nil
}

// bracket reads [0], [*], ['name'] or ["name"].
func (p *parser) bracket() (step, error) {
	end := strings.IndexByte(p.s[p.at:], ']')
	if end < 0 {
		return step{}, p.fail("the bracket is not closed")
	}
	in := strings.TrimSpace(p.s[p.at+1 : p.at+end])
	p.at += end + 1
	if in == "*" {
		return step{all: true}, nil
	}
	if n := len(in); n > 2 && (in[0] == '\'' || in[0] == '"') && in[n-1] == in[0] {
		return step{key: in[1 : n-1]}, nil
	}
	i, err := strconv.Atoi(in)
	if err != nil || i < 0 {
		return step{}, p.fail("%q is no index", in)
	}
	return step{index: i}, nil
}

// find returns the values that the selector finds in a document.
func (s *selector) find(doc any) []any {
	now := []any{doc}
	for _, st := range s.steps {
		var next []any
		for _, v := range now {
			switch v := v.(type) {
			case map[string]any:
				if st.all {
					for _, x := range v {
						next = append(next, x)
					}
				} else if x, ok := v[st.key]; ok && st.key != "" {
					next = append(next, x)
				}
			case []any:
				if st.all {
					next = append(next, v...)
				} else if st.key == "" && st.index < len(v) {
					next = append(next, v[st.index])
				}
			}
			if len(next) > maxSelected {
				return next[:maxSelected]
			}
		}
		if now = next; len(now) == 0 {
			return nil
		}
	}
	return now
}

// parseJSON reads { ... }.
func parseJSON(s string) (*expr, error) {
	p := &parser{s: s}
	p.take("{")
	e, err := p.or(p.jsonComparison)
	if err != nil {
		return nil, err
	}
	if !p.take("}") {
		return nil, p.fail("&&, || or } must stand here")
	}
	if p.space(); p.at < len(s) {
		return nil, p.fail("nothing may follow the closing brace")
	}
	return e, nil
}

func (p *parser) jsonComparison() (*expr, error) {
	sel, err := p.parseSelector()
	if err != nil {
		return nil, err
	}
	c := &comparison{part: sel}
	switch {
	case p.word("IS"):
		for _, k := range []string{"NULL", "TRUE", "FALSE"} {
			if p.word(k) {
				c.op = strings.ToLower(k)
			}
		}
		if c.op == "" {
			return nil, p.fail("NULL, TRUE or FALSE must follow IS")
		}
	case p.word("NOT"):
		if !p.word("EXISTS") {
			return nil, p.fail("EXISTS must follow NOT")
		}
		c.op = "missing"
	case p.word("EXISTS"):
		c.op = "exists"
	default:
		if c.op = p.operator(); c.op == "" {
			return nil, p.fail("an operator must follow the property")
		}
		if err := p.value(c, " \t\r\n)}"); err != nil {
			return nil, err
		}
	}
	return &expr{cmp: c}, nil
}

// document parses a message; nil where it is no JSON object or array.
func document(message string) any {
	t := strings.TrimLeft(message, " \t\r\n")
	if t == "" || t[0] != '{' && t[0] != '[' {
		return nil
	}
	var doc any
	if json.Unmarshal([]byte(t), &doc) != nil {
		return nil
	}
	return doc
}

// inJSON evaluates a comparison: it holds if it does for any value found.
func (c *comparison) inJSON(doc any) bool {
	found := c.part.find(doc)
	switch c.op {
	case "exists":
		return len(found) > 0
	case "missing":
		return len(found) == 0
	}
	for _, v := range found {
		if c.holdsFor(v) {
			return true
		}
	}
	return false
}

func (c *comparison) holdsFor(v any) bool {
	switch v := v.(type) {
	case nil:
		return c.op == "null"
	case bool:
		if c.op == "true" || c.op == "false" {
			return v == (c.op == "true")
		}
		return c.compareText(strconv.FormatBool(v))
	case float64:
		return c.compareNumber(v)
	case string:
		return c.compareText(v)
	}
	return false
}

// text is a JSON value as metrics and extracted values show it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "" // what was JSON can be
	}
	return string(b)
}
