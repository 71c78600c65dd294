package mathexpr

import (
	"fmt"
	"strconv"
	"strings"
)

// Expr is a parsed expression; it is safe for concurrent use.
type Expr struct {
	root node
	// IDs are the ids of other queries that it names.
	IDs []string
	// search and all say that it uses SEARCH, METRICS.
	search, all bool
	// bands are the ids that it wants an anomaly detection band of.
	bands []string
}

// Searches says whether it uses SEARCH.
func Searches(e *Expr) bool { return e != nil && e.search }

// UsesMetrics says whether it uses METRICS: it depends on every plain metric.
func (e *Expr) UsesMetrics() bool { return e.all }

// Bands are the ids that ANOMALY_DETECTION_BAND is used on.
func (e *Expr) Bands() []string { return e.bands }

// Band says whether the expression is an ANOMALY_DETECTION_BAND and nothing
// else, and of which id.
func (e *Expr) Band() (id string, ok bool) {
	b, ok := e.root.(band)
	return b.id, ok
}

type node interface {
	eval(*Env) (Value, error)
}

type (
	constant Value
	variable string
	unary    struct {
		op string
		x  node
	}
	binary struct {
		op   string
		a, b node
	}
	call struct {
		name string
		fn   function
		args []node
	}
	array []node
	band  struct {
		id    string
		width node // nil: the default
	}
)

// maxDepth bounds recursion; AWS bounds an expression to 2048 characters.
const maxDepth = 200

type parser struct {
	text  string
	toks  []token
	at    int
	depth int
	expr  *Expr
	seen  map[string]bool
}

type token struct {
	kind byte // 'n'umber, 'i'dentifier, 't'ext, 'o'perator, 0 at the end
	text string
	num  float64
	pos  int // column, from 1
}

// Parse reads an expression. Errors name the column.
func Parse(text string) (*Expr, error) {
	p := &parser{text: text, expr: &Expr{}, seen: map[string]bool{}}
	if err := p.scan(); err != nil {
		return nil, err
	}
	root, err := p.binary(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != 0 {
		return nil, fmt.Errorf("column %d: unexpected %q", t.pos, t.text)
	}
	p.expr.root = root
	return p.expr, nil
}

func (p *parser) scan() error {
	s := p.text
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c >= '0' && c <= '9' || c == '.':
			j := i
			for j < len(s) && (s[j] >= '0' && s[j] <= '9' || s[j] == '.' || (s[j] == 'e' || s[j] == 'E') && j+1 < len(s) && (s[j+1] >= '0' && s[j+1] <= '9' || s[j+1] == '-') || s[j] == '-' && (s[j-1] == 'e' || s[j-1] == 'E')) {
				j++
			}
			v, err := strconv.ParseFloat(s[i:j], 64)
			if err != nil {
				return fmt.Errorf("column %d: %q is not a number", i+1, s[i:j])
			}
			p.toks = append(p.toks, token{'n', s[i:j], v, i + 1})
			i = j
		case c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z':
			j := i
			for j < len(s) && (s[j] == '_' || s[j] >= '0' && s[j] <= '9' || s[j]|0x20 >= 'a' && s[j]|0x20 <= 'z') {
				j++
			}
			p.toks = append(p.toks, token{'i', s[i:j], 0, i + 1})
			i = j
		case c == '"' || c == '\'':
			j := i + 1
			for j < len(s) && s[j] != c {
				if j++; s[j-1] == '\\' {
					j++
				}
			}
			if j >= len(s) {
				return fmt.Errorf("column %d: the string does not end", i+1)
			}
			p.toks = append(p.toks, token{'t', strings.ReplaceAll(s[i+1:j], `\`+string(c), string(c)), 0, i + 1})
			i = j + 1
		default:
			op := s[i : i+1]
			if i+1 < len(s) {
				switch two := s[i : i+2]; two {
				case "==", "!=", "<=", ">=", "&&", "||":
					op = two
				}
			}
			if !strings.Contains("== != <= >= && || + - * / ^ < > ( ) [ ] ,", op) || op == "=" || op == "!" || op == "&" || op == "|" {
				return fmt.Errorf("column %d: unexpected %q", i+1, op)
			}
			p.toks = append(p.toks, token{'o', op, 0, i + 1})
			i += len(op)
		}
	}
	p.toks = append(p.toks, token{pos: len(s) + 1, text: "end of the expression"})
	return nil
}

func (p *parser) peek() token { return p.toks[p.at] }

func (p *parser) next() token {
	t := p.toks[p.at]
	if t.kind != 0 {
		p.at++
	}
	return t
}

func (p *parser) expect(op string) error {
	if t := p.next(); t.kind != 'o' || t.text != op {
		return fmt.Errorf("column %d: expected %q instead of %q", t.pos, op, t.text)
	}
	return nil
}

// levels are the binary operators, loosest first.
var levels = [][]string{{"||", "OR"}, {"&&", "AND"}, {"==", "!=", "<", "<=", ">", ">="}, {"+", "-"}, {"*", "/"}}

func (p *parser) binary(level int) (node, error) {
	if level == len(levels) {
		return p.unary()
	}
	a, err := p.binary(level + 1)
	for err == nil {
		t := p.peek()
		found := false
		for _, op := range levels[level] {
			if t.kind == 'o' && t.text == op || t.kind == 'i' && strings.EqualFold(t.text, op) {
				found = true
			}
		}
		if !found {
			return a, nil
		}
		p.next()
		var b node
		b, err = p.binary(level + 1)
		a = binary{strings.ToUpper(t.text), a, b}
	}
	return nil, err
}

func (p *parser) unary() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("column %d: nested too deeply", p.peek().pos)
	}
	defer func() { p.depth-- }()
	if t := p.peek(); t.kind == 'o' && (t.text == "-" || t.text == "+") {
		p.next()
		x, err := p.unary()
		return unary{t.text, x}, err
	}
	a, err := p.primary()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind == 'o' && t.text == "^" {
		p.next()
		b, err := p.unary() // right to left
		return binary{"^", a, b}, err
	}
	return a, nil
}

func (p *parser) primary() (node, error) {
	t := p.next()
	switch t.kind {
	case 'n':
		return constant(number(t.num)), nil
	case 't':
		return constant(Value{Kind: Text, Text: t.text}), nil
	case 'i':
		if o := p.peek(); o.kind == 'o' && o.text == "(" {
			return p.call(t)
		}
		if words[strings.ToUpper(t.text)] && t.text == strings.ToUpper(t.text) {
			return constant(Value{Kind: Word, Text: t.text}), nil
		}
		if !p.seen[t.text] {
			p.seen[t.text] = true
			p.expr.IDs = append(p.expr.IDs, t.text)
		}
		return variable(t.text), nil
	case 'o':
		switch t.text {
		case "(":
			x, err := p.binary(0)
			if err == nil {
				err = p.expect(")")
			}
			return x, err
		case "[":
			args, err := p.list("]")
			return array(args), err
		}
	}
	return nil, fmt.Errorf("column %d: unexpected %q", t.pos, t.text)
}

// words are constants of functions, not ids: those begin in lower case.
var words = map[string]bool{"REPEAT": true, "LINEAR": true, "ASC": true, "DESC": true, "AVG": true, "MIN": true, "MAX": true, "SUM": true, "STDDEV": true}

func (p *parser) call(t token) (node, error) {
	p.next()
	name := strings.ToUpper(t.text)
	fn, ok := functions[name]
	if !ok {
		return nil, fmt.Errorf("column %d: there is no function %s", t.pos, t.text)
	}
	p.expr.search = p.expr.search || name == "SEARCH"
	p.expr.all = p.expr.all || name == "METRICS"
	args, err := p.list(")")
	if err != nil {
		return nil, err
	}
	if len(args) < fn.least || len(args) > fn.most {
		return nil, fmt.Errorf("column %d: %s does not take %d arguments", t.pos, name, len(args))
	}
	if fn.call == nil {
		return p.band(t, args)
	}
	return call{name, fn, args}, nil
}

// band makes the node of ANOMALY_DETECTION_BAND. A model belongs to a metric
// or an expression of the request, so the first argument must name one.
func (p *parser) band(t token, args []node) (node, error) {
	id, ok := args[0].(variable)
	if !ok {
		return nil, fmt.Errorf("column %d: the first argument of ANOMALY_DETECTION_BAND must be the id of a metric or of an expression", t.pos)
	}
	p.expr.bands = append(p.expr.bands, string(id))
	b := band{id: string(id)}
	if len(args) > 1 {
		b.width = args[1]
	}
	return b, nil
}

// list reads expressions up to the closing bracket.
func (p *parser) list(end string) ([]node, error) {
	var out []node
	if t := p.peek(); t.kind == 'o' && t.text == end {
		p.next()
		return out, nil
	}
	for {
		x, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
		if t := p.peek(); t.kind == 'o' && t.text == "," {
			p.next()
			continue
		}
		return out, p.expect(end)
	}
}
