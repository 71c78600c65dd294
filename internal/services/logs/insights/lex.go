package insights

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SyntaxError says what is wrong and where, both counted from 1.
type SyntaxError struct {
	Line, Column int
	What         string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.What)
}

// NotBuilt names a part of the language that Slipway does not have.
type NotBuilt struct{ What string }

func (e *NotBuilt) Error() string { return "the command " + e.What + " is not built" }

type kind int

const (
	end kind = iota
	ident
	text
	number
	regex
	symbol // operators, parentheses, commas, bars
)

type token struct {
	kind kind
	s    string // of ident and symbol; the content of text
	n    float64
	unit string // 5m
	re   *regexp.Regexp
	at   int // byte in the query
	to   int
}

// lexer cuts a query into tokens.
type lexer struct {
	q   string
	at  int
	out []token
}

func failAt(q string, at int, format string, args ...any) error {
	before := q[:min(at, len(q))]
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return &SyntaxError{line, column, fmt.Sprintf(format, args...)}
}

func lex(q string) ([]token, error) {
	l := &lexer{q: q}
	for {
		l.space()
		if l.at == len(q) {
			return append(l.out, token{kind: end, at: l.at, to: l.at}), nil
		}
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		t.to = l.at
		l.out = append(l.out, t)
		if len(l.out) > 10_000 {
			return nil, failAt(q, l.at, "the query is too long")
		}
	}
}

// space passes over white space and comments.
func (l *lexer) space() {
	for l.at < len(l.q) {
		switch c := l.q[l.at]; {
		case c == '#':
			n := strings.IndexByte(l.q[l.at:], '\n')
			if n < 0 {
				l.at = len(l.q)
				return
			}
			l.at += n
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			l.at++
		default:
			return
		}
	}
}

func (l *lexer) next() (token, error) {
	start := l.at
	c := l.q[start]
	switch {
	case c == '"' || c == '\'':
		return l.quoted(c)
	case c == '`':
		n := strings.IndexByte(l.q[start+1:], '`')
		if n < 0 {
			return token{}, failAt(l.q, start, "the backtick is not closed")
		}
		l.at = start + n + 2
		return token{kind: ident, s: l.q[start+1 : start+1+n], at: start, unit: "`"}, nil
	case c >= '0' && c <= '9':
		return l.number()
	case c == '/' && l.regexMayFollow():
		return l.regex()
	case isIdent(rune(c)) || c >= 0x80:
		for l.at < len(l.q) {
			r, size := utf8.DecodeRuneInString(l.q[l.at:])
			if !isIdent(r) && !(r >= '0' && r <= '9') && r != '.' {
				break
			}
			l.at += size
		}
		if l.at == start {
			return token{}, failAt(l.q, start, "the character %q is not understood", l.q[start:start+1])
		}
		return token{kind: ident, s: l.q[start:l.at], at: start}, nil
	}
	for _, s := range []string{"!=", "<=", ">=", "=~", "==", "=", "<", ">", "+", "-", "*", "/", "%", "^", "(", ")", "[", "]", ",", "|"} {
		if strings.HasPrefix(l.q[start:], s) {
			l.at += len(s)
			return token{kind: symbol, s: s, at: start}, nil
		}
	}
	return token{}, failAt(l.q, start, "the character %q is not understood", c)
}

func isIdent(r rune) bool { return r == '@' || r == '_' || r == '$' || unicode.IsLetter(r) }

// regexMayFollow tells a regular expression from a division.
func (l *lexer) regexMayFollow() bool {
	if len(l.out) == 0 {
		return true
	}
	t := l.out[len(l.out)-1]
	switch t.kind {
	case ident:
		// parse @message /re/: a field, and then an expression
		return t.unit != "`" && isKeyword(t.s) || len(l.out) > 1 && strings.EqualFold(l.out[len(l.out)-2].s, "parse")
	case symbol:
		return t.s != ")" && t.s != "]"
	}
	return false
}

func isKeyword(s string) bool {
	switch strings.ToLower(s) {
	case "like", "not", "and", "or", "in", "parse", "filter":
		return true
	}
	return false
}

func (l *lexer) regex() (token, error) {
	start := l.at
	for i := start + 1; i < len(l.q); i++ {
		switch l.q[i] {
		case '\\':
			i++
		case '/':
			re, err := regexp.Compile(strings.ReplaceAll(l.q[start+1:i], `\/`, `/`))
			if err != nil {
				return token{}, failAt(l.q, start, "the regular expression is not valid: %s", err)
			}
			l.at = i + 1
			return token{kind: regex, re: re, at: start}, nil
		}
	}
	return token{}, failAt(l.q, start, "the regular expression has no closing slash")
}

func (l *lexer) quoted(q byte) (token, error) {
	var b strings.Builder
	for i := l.at + 1; i < len(l.q); i++ {
		switch c := l.q[i]; {
		case c == '\\' && i+1 < len(l.q) && (l.q[i+1] == q || l.q[i+1] == '\\'):
			i++
			b.WriteByte(l.q[i])
		case c == q:
			t := token{kind: text, s: b.String(), at: l.at}
			l.at = i + 1
			return t, nil
		default:
			b.WriteByte(c)
		}
	}
	return token{}, failAt(l.q, l.at, "the text has no closing quote")
}

func (l *lexer) number() (token, error) {
	start := l.at
	for l.at < len(l.q) && (l.q[l.at] >= '0' && l.q[l.at] <= '9' || l.q[l.at] == '.') {
		l.at++
	}
	if l.at < len(l.q) && (l.q[l.at] == 'e' || l.q[l.at] == 'E') {
		i := l.at + 1
		if i < len(l.q) && (l.q[i] == '+' || l.q[i] == '-') {
			i++
		}
		if i < len(l.q) && l.q[i] >= '0' && l.q[i] <= '9' {
			for i < len(l.q) && l.q[i] >= '0' && l.q[i] <= '9' {
				i++
			}
			l.at = i
		}
	}
	n, err := strconv.ParseFloat(l.q[start:l.at], 64)
	if err != nil {
		return token{}, failAt(l.q, start, "%q is no number", l.q[start:l.at])
	}
	from := l.at
	for l.at < len(l.q) && unicode.IsLetter(rune(l.q[l.at])) {
		l.at++
	}
	return token{kind: number, n: n, unit: l.q[from:l.at], at: start}, nil
}
