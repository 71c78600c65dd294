package pattern

import (
	"strconv"
	"strings"
)

// delimited is a space-delimited pattern: fields, and where any number of others may stand.
type delimited struct {
	names    []string // without "$"; the number of the field, counted from 1, where it has no name
	ellipsis int      // index before which any fields may stand; -1: nowhere
	where    *expr    // nil: every message with these fields
}

const maxFields = 200

// parseDelimited reads [a, b = 4*, ..., c].
func parseDelimited(s string) (*delimited, error) {
	p := &parser{s: s}
	p.take("[")
	d := &delimited{ellipsis: -1}
	var all []*expr
	if p.take("]") {
		return nil, p.fail("a pattern needs at least one field")
	}
	for {
		if len(d.names) > maxFields {
			return nil, p.fail("a pattern may have %d fields at most", maxFields)
		}
		if p.take("...") {
			if d.ellipsis >= 0 {
				return nil, p.fail("an ellipsis may stand once only")
			}
			d.ellipsis = len(d.names)
		} else {
			e, err := d.field(p)
			if err != nil {
				return nil, err
			}
			if e != nil {
				all = append(all, e)
			}
		}
		if p.take("]") {
			break
		}
		if !p.take(",") {
			return nil, p.fail("a comma or ] must stand here")
		}
	}
	if p.space(); p.at < len(s) {
		return nil, p.fail("nothing may follow the closing bracket")
	}
	if all != nil {
		d.where = &expr{and: all}
	}
	return d, nil
}

// field reads one field: a name, or conditions on it, or nothing.
func (d *delimited) field(p *parser) (*expr, error) {
	p.space()
	d.names = append(d.names, strconv.Itoa(len(d.names)+1))
	if p.at < len(p.s) && (p.s[p.at] == ',' || p.s[p.at] == ']') {
		return nil, nil
	}
	start := p.at
	if name := p.name(); name != "" {
		p.space()
		if p.at < len(p.s) && (p.s[p.at] == ',' || p.s[p.at] == ']') {
			d.names[len(d.names)-1] = name
			return nil, nil
		}
	}
	p.at = start
	named := false
	return p.or(func() (*expr, error) {
		name := p.name()
		if name == "" {
			return nil, p.fail("the name of a field must stand here")
		}
		if !named {
			d.names[len(d.names)-1], named = name, true
		}
		c := &comparison{name: -1}
		for i, n := range d.names {
			if n == name {
				c.name = i
			}
		}
		if c.name < 0 {
			return nil, p.fail("the field %s is not known here", name)
		}
		if c.op = p.operator(); c.op == "" {
			return nil, p.fail("an operator must follow the field's name")
		}
		return &expr{cmp: c}, p.value(c, ",])")
	})
}

func (p *parser) name() string {
	p.space()
	start := p.at
	for p.at < len(p.s) && (isName(p.s[p.at]) || p.s[p.at] == '-' || p.s[p.at] == '.' || p.s[p.at] == '$' || p.s[p.at] >= 0x80) {
		p.at++
	}
	return strings.TrimPrefix(p.s[start:p.at], "$")
}

// split cuts a message into fields: at spaces, but [...] and "..." are one field, without what encloses it.
func split(message string) []string {
	var out []string
	for i := 0; i < len(message); {
		c := message[i]
		if c == ' ' || c == '\t' {
			i++
			continue
		}
		if closing := map[byte]byte{'[': ']', '"': '"'}[c]; closing != 0 {
			if end := strings.IndexByte(message[i+1:], closing); end >= 0 {
				out = append(out, message[i+1:i+1+end])
				i += end + 2
				continue
			}
		}
		end := strings.IndexAny(message[i:], " \t")
		if end < 0 {
			end = len(message) - i
		}
		out = append(out, message[i:i+end])
		i += end
	}
	return out
}

// values lays a message's fields under the pattern's; nil where they do not fit.
func (d *delimited) values(message string) []string {
	f := split(message)
	switch {
	case d.ellipsis < 0 && len(f) != len(d.names), len(f) < len(d.names):
		return nil
	case d.ellipsis < 0:
		return f
	}
	after := len(d.names) - d.ellipsis
	return append(f[:d.ellipsis:d.ellipsis], f[len(f)-after:]...)
}

// match returns the fields' values; nil where the message does not match.
func (d *delimited) match(message string) []string {
	v := d.values(message)
	if v == nil || d.where != nil && !d.where.holds(func(c *comparison) bool { return c.compareText(v[c.name]) }) {
		return nil
	}
	return v
}
