// Package pattern parses the filter patterns of CloudWatch Logs and matches
// messages against them ("Filter pattern syntax" in the CloudWatch Logs user
// guide). Built so far: unstructured patterns (terms, "quoted phrases",
// -excluded and ?alternative terms, %regular expressions%). JSON patterns
// ({...}) and space-delimited ones ([...]) are ErrNotBuilt.
package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// ErrNotBuilt says that a pattern is of a kind that is not built yet.
var ErrNotBuilt = errors.New("pattern: JSON and space-delimited patterns are not built yet")

// SyntaxError says what is wrong and at which character, counted from 1.
type SyntaxError struct {
	Column int
	What   string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.What) }

// Pattern is a parsed pattern. It is safe for concurrent use.
type Pattern struct {
	all, none, any []term
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
	if strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		return nil, ErrNotBuilt
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
