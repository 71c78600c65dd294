package insights

import (
	"math"
	"regexp"
	"strings"
)

// expr is an expression over a record.
type expr interface {
	eval(r *record) value
}

type (
	field   string
	literal struct{ v value }
	unary   struct {
		op string // - not
		x  expr
	}
	binary struct {
		op   string
		x, y expr
	}
	match struct { // like, =~
		x   expr
		re  *regexp.Regexp
		sub expr // text that must be part
		not bool
	}
	within struct { // in
		x    expr
		list []expr
		not  bool
	}
	call struct {
		fn   func(args []value) value
		args []expr
	}
	// rest is an expression under the name that a stats command may have given it.
	named struct {
		name string
		expr
	}
)

func (f field) eval(r *record) value { return r.get(string(f)) }
func (l literal) eval(*record) value { return l.v }
func (n named) eval(r *record) value {
	if v, ok := r.fields[n.name]; ok {
		return v
	}
	return n.expr.eval(r)
}

func (u unary) eval(r *record) value {
	v := u.x.eval(r)
	if u.op == "not" {
		return !truth(v)
	}
	if n, ok := num(v); ok {
		return -n
	}
	return nil
}

func (b binary) eval(r *record) value {
	switch b.op {
	case "and":
		return truth(b.x.eval(r)) && truth(b.y.eval(r))
	case "or":
		return truth(b.x.eval(r)) || truth(b.y.eval(r))
	}
	x, y := b.x.eval(r), b.y.eval(r)
	switch b.op {
	case "=", "!=", "<", ">", "<=", ">=":
		if x == nil || y == nil {
			return b.op == "!=" && (x == nil) != (y == nil) // what is missing equals nothing
		}
		c := compare(x, y)
		return map[string]bool{"=": c == 0, "!=": c != 0, "<": c < 0, ">": c > 0, "<=": c <= 0, ">=": c >= 0}[b.op]
	}
	m, ok1 := num(x)
	n, ok2 := num(y)
	if !ok1 || !ok2 {
		return nil
	}
	return arithmetic(b.op, m, n)
}

func arithmetic(op string, m, n float64) value {
	var v float64
	switch op {
	case "+":
		v = m + n
	case "-":
		v = m - n
	case "*":
		v = m * n
	case "/":
		v = m / n
	case "%":
		v = math.Mod(m, n)
	case "^":
		v = math.Pow(m, n)
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return v
}

func (m match) eval(r *record) value {
	v := m.x.eval(r)
	if v == nil {
		return m.not
	}
	s := show(v)
	if m.re != nil {
		return m.re.MatchString(s) != m.not
	}
	return strings.Contains(s, show(m.sub.eval(r))) != m.not
}

func (w within) eval(r *record) value {
	v := w.x.eval(r)
	for _, e := range w.list {
		if y := e.eval(r); v != nil && y != nil && compare(v, y) == 0 {
			return !w.not
		}
	}
	return w.not
}

func (c call) eval(r *record) value {
	args := make([]value, len(c.args))
	for i, a := range c.args {
		args[i] = a.eval(r)
	}
	return c.fn(args)
}

// expr reads: or, and, not, comparison, sum, product, power, sign.
func (p *parser) expr() (expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("the expression is nested too deeply")
	}
	defer func() { p.depth-- }()
	x, err := p.and()
	for err == nil && p.word("or") {
		var y expr
		y, err = p.and()
		x = binary{"or", x, y}
	}
	return x, err
}

func (p *parser) and() (expr, error) {
	x, err := p.not()
	for err == nil && p.word("and") {
		var y expr
		y, err = p.not()
		x = binary{"and", x, y}
	}
	return x, err
}

func (p *parser) not() (expr, error) {
	n := 0
	for p.word("not") {
		n++
	}
	x, err := p.comparison()
	if n%2 == 1 {
		x = unary{"not", x}
	}
	return x, err
}

func (p *parser) comparison() (expr, error) {
	x, err := p.sum()
	if err != nil {
		return nil, err
	}
	for _, op := range []string{"=~", "!=", "<=", ">=", "==", "=", "<", ">"} {
		if !p.sym(op) {
			continue
		}
		if p.tok().kind == regex || op == "=~" {
			return p.match(x, op == "!=")
		}
		y, err := p.sum()
		if op == "==" {
			op = "="
		}
		return binary{op, x, y}, err
	}
	at := p.i
	not := p.word("not")
	switch {
	case p.word("like"):
		return p.match(x, not)
	case p.word("in"):
		return p.in(x, not)
	}
	p.i = at
	return x, nil
}

func (p *parser) match(x expr, not bool) (expr, error) {
	if t := p.tok(); t.kind == regex {
		p.i++
		return match{x: x, re: t.re, not: not}, nil
	}
	if p.toks[max(p.i-1, 0)].s == "=~" && p.tok().kind == text {
		re, err := regexp.Compile(p.tok().s)
		if err != nil {
			return nil, p.fail("the regular expression is not valid: %s", err)
		}
		p.i++
		return match{x: x, re: re, not: not}, nil
	}
	sub, err := p.sum()
	return match{x: x, sub: sub, not: not}, err
}

func (p *parser) in(x expr, not bool) (expr, error) {
	closing := "]"
	if !p.sym("[") {
		if closing = ")"; !p.sym("(") {
			return nil, p.fail("a list in [ ] must follow in")
		}
	}
	w := within{x: x, not: not}
	for {
		e, err := p.sum()
		if err != nil {
			return nil, err
		}
		w.list = append(w.list, e)
		if p.sym(closing) {
			return w, nil
		}
		if !p.sym(",") {
			return nil, p.fail("a comma or %s must stand here", closing)
		}
	}
}

// chain reads operands of one rank of operators.
func (p *parser) chain(operand func() (expr, error), ops ...string) (expr, error) {
	x, err := operand()
	for err == nil {
		op := ""
		for _, o := range ops {
			if p.sym(o) {
				op = o
				break
			}
		}
		if op == "" {
			break
		}
		var y expr
		y, err = operand()
		x = binary{op, x, y}
	}
	return x, err
}

func (p *parser) sum() (expr, error) { return p.chain(p.product, "+", "-") }

func (p *parser) product() (expr, error) { return p.chain(p.power, "*", "/", "%") }

func (p *parser) power() (expr, error) { return p.chain(p.sign, "^") }

func (p *parser) sign() (expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("the expression is nested too deeply")
	}
	defer func() { p.depth-- }()
	if p.sym("-") {
		x, err := p.sign()
		return unary{"-", x}, err
	}
	return p.primary()
}

func (p *parser) primary() (expr, error) {
	t := p.tok()
	p.i++
	switch {
	case t.kind == number && t.unit == "":
		return literal{t.n}, nil
	case t.kind == number:
		ms, ok := span(t.n, t.unit)
		if !ok {
			p.i--
			return nil, p.fail("%s is no unit of time", t.unit)
		}
		return literal{ms}, nil
	case t.kind == text:
		return literal{t.s}, nil
	case t.kind == symbol && t.s == "(":
		e, err := p.expr()
		if err == nil && !p.sym(")") {
			err = p.fail("a parenthesis is not closed")
		}
		return e, err
	case t.kind == ident && t.unit == "" && p.tok().kind == symbol && p.tok().s == "(":
		return p.call(t)
	case t.kind == ident:
		if t.unit == "" && strings.EqualFold(t.s, "true") || strings.EqualFold(t.s, "false") && t.unit == "" {
			return literal{strings.EqualFold(t.s, "true")}, nil
		}
		return field(t.s), nil
	}
	p.i--
	return nil, p.fail("a value must stand here")
}

// call reads a function's arguments. A call of an aggregation names a column
// that a stats command made.
func (p *parser) call(t *token) (expr, error) {
	from := p.i - 1
	name := strings.ToLower(t.s)
	if isAggregation(name) {
		depth := 0
		for {
			switch {
			case p.sym("("):
				depth++
			case p.sym(")"):
				if depth--; depth == 0 {
					return field(p.since(from)), nil
				}
			case p.tok().kind == end:
				return nil, p.fail("a parenthesis is not closed")
			default:
				p.i++
			}
		}
	}
	fn, ok := functions[name]
	if !ok {
		p.i = from
		return nil, p.fail("there is no function %s", t.s)
	}
	p.sym("(")
	c := call{fn: fn.fn}
	if name == "bin" {
		c.args = append(c.args, field("@timestamp"))
	}
	for !p.sym(")") {
		if len(c.args) > 0 && !(name == "bin" && len(c.args) == 1) && !p.sym(",") {
			return nil, p.fail("a comma or ) must stand here")
		}
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, e)
	}
	if n := len(c.args); n < fn.least || n > fn.most {
		p.i = from
		return nil, p.fail("%s does not take %d arguments", t.s, n)
	}
	return named{p.since(from), c}, nil
}

// span is a length of time in milliseconds.
func span(n float64, unit string) (float64, bool) {
	ms, ok := map[string]float64{"ms": 1, "s": 1e3, "sec": 1e3, "second": 1e3, "seconds": 1e3, "m": 60e3, "min": 60e3, "minute": 60e3, "minutes": 60e3,
		"h": 3600e3, "hr": 3600e3, "hour": 3600e3, "hours": 3600e3, "d": 86400e3, "day": 86400e3, "days": 86400e3, "w": 7 * 86400e3, "week": 7 * 86400e3, "weeks": 7 * 86400e3}[unit]
	return n * ms, ok && n > 0
}
