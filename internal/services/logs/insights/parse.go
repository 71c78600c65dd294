package insights

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxLimit is the most rows that a query gives; DefaultLimit holds without a
// limit command.
const (
	MaxLimit     = 10_000
	DefaultLimit = 1000
	maxDepth     = 100
)

// Query is a parsed query. It is safe for concurrent use.
type Query struct {
	stages  []stage
	columns []string // to show, in order
	limit   int
}

// stage is one command of a query.
type stage struct {
	filter expr
	set    []column
	parse  *parseCmd
	stats  *statsCmd
	// pattern is what patterns are looked for in.
	pattern expr
	sort    []sortKey
	dedup   []column
	limit   int // 0: none
}

// column is a value with its name.
type column struct {
	name string
	e    expr
}

type sortKey struct {
	e    expr
	desc bool
}

type parseCmd struct {
	from expr
	re   *regexp.Regexp
	into []string // by group; "" for one without a name
}

type parser struct {
	q     string
	toks  []token
	i     int
	depth int
}

func (p *parser) tok() *token { return &p.toks[p.i] }

func (p *parser) fail(format string, args ...any) error {
	return failAt(p.q, p.tok().at, format, args...)
}

// sym consumes a symbol if it is next.
func (p *parser) sym(s string) bool {
	if t := p.tok(); t.kind == symbol && t.s == s {
		p.i++
		return true
	}
	return false
}

// word consumes a keyword if it is next.
func (p *parser) word(w string) bool {
	if t := p.tok(); t.kind == ident && t.unit == "" && strings.EqualFold(t.s, w) {
		p.i++
		return true
	}
	return false
}

// since is the source of what has been read from a token on.
func (p *parser) since(i int) string {
	return strings.TrimSpace(p.q[p.toks[i].at:p.toks[p.i-1].to])
}

// Parse reads a query. The empty one shows the newest twenty events.
func Parse(q string) (*Query, error) {
	if !utf8.ValidString(q) {
		return nil, failAt(q, 0, "the query is no UTF-8")
	}
	toks, err := lex(q)
	if err != nil {
		return nil, err
	}
	if toks[0].kind == end {
		return Parse("fields @timestamp, @message | sort @timestamp desc | limit 20")
	}
	p := &parser{q: q, toks: toks}
	out := &Query{limit: DefaultLimit}
	p.sym("|")
	for {
		if err := p.command(out); err != nil {
			return nil, err
		}
		if p.tok().kind == end {
			break
		}
		if !p.sym("|") {
			return nil, p.fail("a | or the end of the query must stand here")
		}
	}
	if out.columns == nil {
		out.columns = []string{"@timestamp", "@message"}
	}
	return out, nil
}

func (p *parser) command(q *Query) error {
	t := p.tok()
	if t.kind != ident {
		return p.fail("a command must stand here")
	}
	p.i++
	switch strings.ToLower(t.s) {
	case "fields":
		return p.fields(q)
	case "display":
		q.columns = []string{}
		return p.fields(q)
	case "filter", "filterindex":
		e, err := p.expr()
		q.stages = append(q.stages, stage{filter: e})
		return err
	case "parse":
		return p.parse(q)
	case "stats":
		return p.stats(q)
	case "sort":
		return p.sort(q)
	case "dedup":
		cols, err := p.columns()
		q.stages = append(q.stages, stage{dedup: cols})
		return err
	case "limit", "head":
		n := p.tok()
		if n.kind != number || n.n < 1 || n.n != float64(int(n.n)) || n.unit != "" {
			return p.fail("limit needs a whole number above 0")
		}
		if n.n > MaxLimit {
			return p.fail("limit is %d at most", MaxLimit)
		}
		p.i++
		q.limit = int(n.n)
		q.stages = append(q.stages, stage{limit: q.limit})
		return nil
	case "pattern":
		e, err := p.expr()
		q.stages = append(q.stages, stage{pattern: e})
		q.columns = slices.Clone(patternColumns)
		return err
	case "diff", "anomaly", "join", "lookup", "source", "unmask", "unnest", "addtotals", "expand":
		return &NotBuilt{t.s}
	}
	p.i--
	return p.fail("there is no command %s", t.s)
}

// columns reads expressions with names, separated by commas.
func (p *parser) columns() ([]column, error) {
	var out []column
	for {
		from := p.i
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		c := column{name: p.since(from), e: e}
		if f, ok := e.(field); ok {
			c.name = string(f)
		}
		if p.word("as") {
			if p.tok().kind != ident {
				return nil, p.fail("a name must follow as")
			}
			c.name = p.tok().s
			p.i++
		}
		out = append(out, c)
		if !p.sym(",") {
			return out, nil
		}
	}
}

func (p *parser) fields(q *Query) error {
	cols, err := p.columns()
	if err != nil {
		return err
	}
	var st stage
	for _, c := range cols {
		if !slices.Contains(q.columns, c.name) {
			q.columns = append(q.columns, c.name)
		}
		if f, ok := c.e.(field); !ok || string(f) != c.name {
			st.set = append(st.set, c)
		}
	}
	if st.set != nil {
		q.stages = append(q.stages, st)
	}
	return nil
}

func (p *parser) parse(q *Query) error {
	c := &parseCmd{from: field("@message")}
	if p.tok().kind == ident {
		e, err := p.primary()
		if err != nil {
			return err
		}
		c.from = e
	}
	t := p.tok()
	switch t.kind {
	case regex:
		p.i++
		c.re, c.into = t.re, t.re.SubexpNames()[1:]
		if p.word("as") {
			names, err := p.names()
			if err != nil {
				return err
			}
			if len(names) != len(c.into) {
				return p.fail("%d names follow as, but the expression has %d groups", len(names), len(c.into))
			}
			c.into = names
		}
		if !slices.ContainsFunc(c.into, func(s string) bool { return s != "" }) {
			return p.fail("the regular expression needs a named group, (?<name>...)")
		}
	case text:
		p.i++
		parts := strings.Split(t.s, "*")
		if !p.word("as") {
			return p.fail("as and the names of the parts must follow")
		}
		names, err := p.names()
		if err != nil {
			return err
		}
		if len(names) != len(parts)-1 {
			return p.fail("%d names follow as, but the pattern has %d stars", len(names), len(parts)-1)
		}
		c.into, c.re = names, globRegexp(parts)
	default:
		return p.fail("a pattern in quotes or a regular expression must stand here")
	}
	q.stages = append(q.stages, stage{parse: c})
	return nil
}

// globRegexp takes as little as possible for each star, all that is left for a last one.
func globRegexp(parts []string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("(?s)")
	for i, s := range parts {
		if i > 0 {
			if i == len(parts)-1 && s == "" {
				b.WriteString("(.*)")
			} else {
				b.WriteString("(.*?)")
			}
		}
		b.WriteString(regexp.QuoteMeta(s))
	}
	return regexp.MustCompile(b.String())
}

func (p *parser) names() ([]string, error) {
	var out []string
	for {
		if p.tok().kind != ident {
			return nil, p.fail("a name must stand here")
		}
		out = append(out, p.tok().s)
		p.i++
		if !p.sym(",") {
			return out, nil
		}
	}
}

func (p *parser) sort(q *Query) error {
	var st stage
	p.word("by")
	for {
		e, err := p.expr()
		if err != nil {
			return err
		}
		k := sortKey{e: e}
		if !p.word("asc") {
			k.desc = p.word("desc")
		}
		st.sort = append(st.sort, k)
		if !p.sym(",") {
			break
		}
	}
	q.stages = append(q.stages, st)
	return nil
}
