package cloudwatch

import (
	"fmt"
	"strings"

	api "slipway/internal/api/cloudwatch"
)

// ruleExpr is a composite alarm's rule. state gives an alarm's state by name.
type ruleExpr func(state func(name string) string) bool

// maxChildren is how many alarms a rule may name.
const maxChildren = 100

type ruleParser struct {
	text  string
	at    int
	depth int
	names []string
	seen  map[string]bool
}

// parseRule reads an AlarmRule and returns it with the names of the alarms in
// it. Errors name the position.
func parseRule(text string) (ruleExpr, []string, error) {
	p := &ruleParser{text: text, seen: map[string]bool{}}
	x, err := p.or()
	if err == nil && p.word() != "" {
		err = p.unexpected()
	}
	if err == nil && len(p.names) > maxChildren {
		err = fmt.Errorf("AlarmRule must not name more than %d alarms", maxChildren)
	}
	return x, p.names, err
}

// word is the next token: a keyword, a bracket, or "".
func (p *ruleParser) word() string {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	rest := p.text[p.at:]
	if rest == "" {
		return ""
	}
	if rest[0] == '(' || rest[0] == ')' {
		return rest[:1]
	}
	end := strings.IndexAny(rest, " \t\r\n()")
	if end < 0 {
		end = len(rest)
	}
	return rest[:end]
}

func (p *ruleParser) unexpected() error {
	if w := p.word(); w != "" {
		return fmt.Errorf("AlarmRule: unexpected %q at position %d", shortened(w, 40), p.at+1)
	}
	return fmt.Errorf("AlarmRule: unexpected end at position %d", p.at+1)
}

func (p *ruleParser) or() (ruleExpr, error) {
	a, err := p.and()
	for err == nil && p.word() == "OR" {
		p.at += len("OR")
		left := a
		b, e := p.and()
		a, err = func(s func(string) string) bool { return left(s) || b(s) }, e
	}
	return a, err
}

func (p *ruleParser) and() (ruleExpr, error) {
	a, err := p.not()
	for err == nil && p.word() == "AND" {
		p.at += len("AND")
		left := a
		b, e := p.not()
		a, err = func(s func(string) string) bool { return left(s) && b(s) }, e
	}
	return a, err
}

func (p *ruleParser) not() (ruleExpr, error) {
	if p.depth++; p.depth > 200 {
		return nil, fmt.Errorf("AlarmRule is nested too deeply")
	}
	defer func() { p.depth-- }()
	w := p.word()
	switch w {
	case "NOT":
		p.at += len(w)
		x, err := p.not()
		return func(s func(string) string) bool { return !x(s) }, err
	case "TRUE", "FALSE":
		p.at += len(w)
		return func(func(string) string) bool { return w == "TRUE" }, nil
	case "(":
		p.at++
		x, err := p.or()
		if err == nil && p.word() != ")" {
			err = p.unexpected()
		}
		p.at++
		return x, err
	case api.StateValueAlarm, api.StateValueOk, api.StateValueInsufficientData:
		p.at += len(w)
		name, err := p.argument()
		return func(s func(string) string) bool { return s(name) == w }, err
	}
	return nil, p.unexpected()
}

// argument reads ("name"), (name) or (arn).
func (p *ruleParser) argument() (string, error) {
	if p.word() != "(" {
		return "", p.unexpected()
	}
	p.at++
	rest := strings.TrimLeft(p.text[p.at:], " \t\r\n")
	p.at = len(p.text) - len(rest)
	var name string
	if strings.HasPrefix(rest, `"`) {
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			return "", fmt.Errorf("AlarmRule: the quotation mark at position %d is not closed", p.at+1)
		}
		name = rest[1 : 1+end]
		p.at += end + 2
	} else {
		end := strings.IndexByte(rest, ')')
		if end < 0 {
			return "", fmt.Errorf("AlarmRule: the bracket before position %d is not closed", p.at+1)
		}
		name = strings.TrimSpace(rest[:end])
		p.at += end
	}
	if p.word() != ")" {
		return "", p.unexpected()
	}
	p.at++
	if name = alarmName(name); name == "" {
		return "", fmt.Errorf("AlarmRule: an alarm's name is missing before position %d", p.at)
	}
	if !p.seen[name] {
		p.seen[name] = true
		p.names = append(p.names, name)
	}
	return name, nil
}
