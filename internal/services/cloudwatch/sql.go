package cloudwatch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sqlQuery is a parsed Metrics Insights query (User Guide, "Metrics Insights
// query components and syntax"):
//
//	SELECT FUNCTION(metric) FROM namespace | SCHEMA(namespace, label, ...)
//	[WHERE label = 'value' AND label != 'value' ...]
//	[GROUP BY label, ...] [ORDER BY FUNCTION() [ASC|DESC]] [LIMIT n]
type sqlQuery struct {
	function, metric, namespace string
	schema                      []string // the exact labels, ascending; with exact
	exact                       bool
	where                       []sqlCondition
	group                       []string
	order                       string // a function, or "" for none
	descending                  bool
	limit                       int
}

type sqlCondition struct {
	label, value string
	not          bool
}

const maxSQLSeries = 500

var sqlFunctions = []string{"AVG", "COUNT", "MAX", "MIN", "SUM"}

// isSQL says whether an expression is a query instead of metric math.
func isSQL(expression string) bool {
	words := strings.Fields(expression)
	return len(words) > 1 && strings.EqualFold(words[0], "SELECT")
}

type sqlToken struct {
	kind byte // 'w'ord, '"' quoted name, '\'' text, 'o'ther, 0 at the end
	text string
	pos  int // column, from 1
}

type sqlParser struct {
	toks []sqlToken
	at   int
}

func scanSQL(s string) ([]sqlToken, error) {
	var out []sqlToken
	letter := func(c byte) bool {
		return c == '_' || c == '.' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '"' || c == '\'':
			var text strings.Builder
			j := i + 1
			for ; ; j++ {
				if j >= len(s) {
					return nil, fmt.Errorf("column %d: the quotation does not end", i+1)
				}
				if s[j] == c {
					if j+1 < len(s) && s[j+1] == c { // doubled: one of the text
						j++
					} else {
						break
					}
				}
				text.WriteByte(s[j])
			}
			out = append(out, sqlToken{c, text.String(), i + 1})
			i = j + 1
		case letter(c):
			j := i
			for j < len(s) && letter(s[j]) {
				j++
			}
			out = append(out, sqlToken{'w', s[i:j], i + 1})
			i = j
		case c == '!' && i+1 < len(s) && s[i+1] == '=':
			out = append(out, sqlToken{'o', "!=", i + 1})
			i += 2
		case strings.IndexByte("(),=", c) >= 0:
			out = append(out, sqlToken{'o', s[i : i+1], i + 1})
			i++
		default:
			return nil, fmt.Errorf("column %d: unexpected %q", i+1, c)
		}
	}
	return append(out, sqlToken{0, "end of the query", len(s) + 1}), nil
}

// parseSQL reads a query. Errors name the column.
func parseSQL(text string) (*sqlQuery, error) {
	toks, err := scanSQL(text)
	if err != nil {
		return nil, err
	}
	p := &sqlParser{toks: toks}
	q := &sqlQuery{limit: maxSQLSeries}
	for _, part := range []func(*sqlQuery) error{p.selects, p.from, p.where, p.groups, p.orders, p.limit} {
		if err := part(q); err != nil {
			return nil, err
		}
	}
	if t := p.peek(); t.kind != 0 {
		return nil, p.unexpected(t)
	}
	return q, nil
}

func (p *sqlParser) peek() sqlToken { return p.toks[p.at] }

func (p *sqlParser) next() sqlToken {
	t := p.toks[p.at]
	if t.kind != 0 {
		p.at++
	}
	return t
}

func (p *sqlParser) unexpected(t sqlToken) error {
	return fmt.Errorf("column %d: unexpected %q", t.pos, t.text)
}

// word takes a keyword if it is next.
func (p *sqlParser) word(w string) bool {
	t := p.peek()
	if t.kind != 'w' || !strings.EqualFold(t.text, w) {
		return false
	}
	p.next()
	return true
}

func (p *sqlParser) need(what string) error {
	t := p.peek()
	if t.kind == 'o' && t.text == what || t.kind == 'w' && strings.EqualFold(t.text, what) {
		p.next()
		return nil
	}
	return fmt.Errorf("column %d: expected %s instead of %q", t.pos, what, t.text)
}

// name is a metric, a namespace or a label, bare or in double quotes.
func (p *sqlParser) name() (string, error) {
	t := p.next()
	if t.kind != 'w' && t.kind != '"' || t.text == "" {
		return "", fmt.Errorf("column %d: expected a name instead of %q", t.pos, t.text)
	}
	if t.kind == 'w' && strings.HasPrefix(t.text, "tag.") {
		return "", fmt.Errorf("column %d: Slipway does not implement queries by the tags of resources", t.pos)
	}
	return t.text, nil
}

func (p *sqlParser) function() (string, error) {
	t := p.next()
	if name := strings.ToUpper(t.text); t.kind == 'w' && slices.Contains(sqlFunctions, name) {
		return name, p.need("(")
	}
	return "", fmt.Errorf("column %d: %q is not one of %s", t.pos, t.text, strings.Join(sqlFunctions, ", "))
}

func (p *sqlParser) selects(q *sqlQuery) (err error) {
	if err = p.need("SELECT"); err == nil {
		q.function, err = p.function()
	}
	if err == nil {
		q.metric, err = p.name()
	}
	if err == nil {
		err = p.need(")")
	}
	return err
}

func (p *sqlParser) from(q *sqlQuery) (err error) {
	if err := p.need("FROM"); err != nil {
		return err
	}
	if p.peek().kind == 'w' && strings.EqualFold(p.peek().text, "SCHEMA") {
		p.next()
		if err := p.need("("); err != nil {
			return err
		}
		list, err := p.names()
		if err != nil {
			return err
		}
		q.namespace, q.schema, q.exact = list[0], list[1:], true
		slices.Sort(q.schema)
		return p.need(")")
	}
	q.namespace, err = p.name()
	return err
}

// names are names between commas, at least one.
func (p *sqlParser) names() ([]string, error) {
	var out []string
	for {
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		out = append(out, n)
		if t := p.peek(); t.kind != 'o' || t.text != "," {
			return out, nil
		}
		p.next()
	}
}

func (p *sqlParser) where(q *sqlQuery) error {
	if !p.word("WHERE") {
		return nil
	}
	for {
		label, err := p.name()
		if err != nil {
			return err
		}
		op := p.next()
		if op.kind != 'o' || op.text != "=" && op.text != "!=" {
			return fmt.Errorf("column %d: expected = or != instead of %q", op.pos, op.text)
		}
		v := p.next()
		if v.kind != '\'' {
			return fmt.Errorf("column %d: expected a value in single quotes instead of %q", v.pos, v.text)
		}
		q.where = append(q.where, sqlCondition{label, v.text, op.text == "!="})
		if !p.word("AND") {
			return nil
		}
	}
}

func (p *sqlParser) groups(q *sqlQuery) (err error) {
	if !p.word("GROUP") {
		return nil
	}
	if err := p.need("BY"); err != nil {
		return err
	}
	q.group, err = p.names()
	return err
}

func (p *sqlParser) orders(q *sqlQuery) (err error) {
	if !p.word("ORDER") {
		return nil
	}
	if err = p.need("BY"); err == nil {
		q.order, err = p.function()
	}
	if err == nil {
		err = p.need(")")
	}
	if err == nil && !p.word("ASC") {
		q.descending = p.word("DESC")
	}
	return err
}

func (p *sqlParser) limit(q *sqlQuery) error {
	if !p.word("LIMIT") {
		return nil
	}
	t := p.next()
	n, err := strconv.Atoi(t.text)
	if t.kind != 'w' || err != nil || n < 1 || n > maxSQLSeries {
		return fmt.Errorf("column %d: LIMIT is from 1 to %d", t.pos, maxSQLSeries)
	}
	q.limit = n
	return nil
}
