// Package pattern parses the filter patterns of CloudWatch Logs and matches
// messages against them ("Filter pattern syntax" in the CloudWatch Logs user
// guide): unstructured patterns (terms, "quoted phrases", -excluded and
// ?alternative terms, %regular expressions%), JSON patterns ({ $.a = 1 }) and
// space-delimited ones ([ip, user, status = 4*]).
package pattern

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// SyntaxError says what is wrong and at which character, counted from 1.
type SyntaxError struct {
	Column int
	What   string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.What) }

// Pattern is a parsed pattern. It is safe for concurrent use.
type Pattern struct {
	all, none, any []term
	json           *expr
	fields         *delimited
}

// term is a phrase or a regular expression.
type term struct {
	text string
	re   *regexp.Regexp
}

func (t term) in(message string) bool {
	if t.re != nil {
		return t.re.MatchString(message)
	}
	return strings.Contains(message, t.text)
}

const maxRegexes = 2

// Parse reads a pattern; the empty one matches everything.
func Parse(s string) (*Pattern, error) {
	trimmed := strings.TrimSpace(s)
	switch {
	case strings.HasPrefix(trimmed, "{"):
		e, err := parseJSON(s)
		return &Pattern{json: e}, err
	case strings.HasPrefix(trimmed, "["):
		d, err := parseDelimited(s)
		return &Pattern{fields: d}, err
	}
	p, regexes := &Pattern{}, 0
	for at := 0; at < len(s); {
		if s[at] == ' ' || s[at] == '\t' {
			at++
			continue
		}
		list, start := &p.all, at
		switch s[at] {
		case '-':
			list = &p.none
			at++
		case '?':
			list = &p.any
			at++
		}
		t, next, err := parseTerm(s, at)
		if err != nil {
			return nil, err
		}
		if t.re != nil {
			if regexes++; regexes > maxRegexes {
				return nil, &SyntaxError{column(s, start), "a pattern may hold two regular expressions at most"}
			}
		}
		*list = append(*list, t)
		at = next
	}
	return p, nil
}

func column(s string, at int) int { return utf8.RuneCountInString(s[:at]) + 1 }

func parseTerm(s string, at int) (term, int, error) {
	switch {
	case at == len(s) || s[at] == ' ':
		return term{}, 0, &SyntaxError{column(s, at), "a term must follow - or ?"}
	case s[at] == '"':
		return quoted(s, at)
	case s[at] == '%':
		end := strings.IndexByte(s[at+1:], '%')
		if end < 0 {
			return term{}, 0, &SyntaxError{column(s, at), "the regular expression has no closing %"}
		}
		re, err := regexp.Compile(s[at+1 : at+1+end])
		if err != nil {
			return term{}, 0, &SyntaxError{column(s, at), "the regular expression is not valid: " + err.Error()}
		}
		return term{re: re}, at + end + 2, nil
	}
	end := at
	for end < len(s) && s[end] != ' ' && s[end] != '\t' {
		r, size := utf8.DecodeRuneInString(s[end:])
		if r < 0x80 && !plain(byte(r)) {
			return term{}, 0, &SyntaxError{column(s, end), fmt.Sprintf("the character %q must stand in double quotes", r)}
		}
		end += size
	}
	return term{text: s[at:end]}, end, nil
}

// plain are the characters that need no quotes.
func plain(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("_-.:/#@$*+=&,;!~|", c) >= 0
}

func quoted(s string, at int) (term, int, error) {
	var b strings.Builder
	for i := at + 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		case s[i] == '"':
			return term{text: b.String()}, i + 1, nil
		default:
			b.WriteByte(s[i])
		}
	}
	return term{}, 0, &SyntaxError{column(s, at), "the quoted phrase has no closing quote"}
}

// Match reports whether a message matches. Alternatives count only where no
// plain term stands beside them, as on AWS.
func (p *Pattern) Match(message string) bool {
	if p.json != nil || p.fields != nil {
		_, ok := p.Find(message)
		return ok
	}
	for _, t := range p.none {
		if t.in(message) {
			return false
		}
	}
	for _, t := range p.all {
		if !t.in(message) {
			return false
		}
	}
	if len(p.all) > 0 || len(p.any) == 0 {
		return true
	}
	for _, t := range p.any {
		if t.in(message) {
			return true
		}
	}
	return false
}

// Found are the values of a message that matched.
type Found struct {
	p      *Pattern
	doc    any
	fields []string
}

// Find matches a message and keeps its parts.
func (p *Pattern) Find(message string) (Found, bool) {
	switch {
	case p.json != nil:
		doc := document(message)
		return Found{p: p, doc: doc}, doc != nil && p.json.holds(func(c *comparison) bool { return c.inJSON(doc) })
	case p.fields != nil:
		v := p.fields.match(message)
		return Found{p: p, fields: v}, v != nil
	}
	return Found{p: p}, p.Match(message)
}

// Value is the text of a part that the pattern can name: $.property or $field.
// ok is false where the message has none.
func (f Found) Value(sel *Selector) (v string, ok bool) {
	switch {
	case f.doc != nil && sel.json != nil:
		if found := sel.json.find(f.doc); len(found) > 0 && found[0] != nil {
			return text(found[0]), true
		}
	case f.fields != nil && sel.json == nil:
		for i, n := range f.p.fields.names {
			if n == sel.field {
				return f.fields[i], true
			}
		}
	}
	return "", false
}

// Values are the parts that the pattern names, as TestMetricFilter shows them.
func (f Found) Values() map[string]string {
	out := map[string]string{}
	if f.fields != nil {
		for i, n := range f.p.fields.names {
			out["$"+n] = f.fields[i]
		}
	}
	if f.p.json != nil {
		f.p.json.each(func(c *comparison) {
			if found := c.part.find(f.doc); len(found) > 0 {
				out[c.part.text] = text(found[0])
			}
		})
	}
	return out
}

// Selector names a part of a message.
type Selector struct {
	json  *selector
	field string
}

// Selector reads $.property (for JSON patterns) or $field (for
// space-delimited ones, which must have it).
func (p *Pattern) Selector(s string) (*Selector, error) {
	switch {
	case p.json != nil:
		ps := &parser{s: s}
		sel, err := ps.parseSelector()
		if err == nil && ps.at < len(s) {
			err = ps.fail("nothing may follow the selector")
		}
		return &Selector{json: &sel}, err
	case p.fields != nil && strings.HasPrefix(s, "$"):
		for _, n := range p.fields.names {
			if n == s[1:] {
				return &Selector{field: n}, nil
			}
		}
	}
	return nil, &SyntaxError{1, fmt.Sprintf("the pattern has no part %s", s)}
}

// Literal is a text that every matching message holds, "" where none is
// known: what does not hold it need not be looked at.
func (p *Pattern) Literal() string {
	longest := ""
	for _, t := range p.all {
		if t.re == nil && len(t.text) > len(longest) {
			longest = t.text
		}
	}
	return longest
}
