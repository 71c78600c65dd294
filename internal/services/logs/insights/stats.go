package insights

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// Bounds of one stats command's memory.
const (
	maxGroups   = 100_000
	maxDistinct = 200_000 // of a count_distinct, per group
	maxKept     = 100_000 // values kept for percentiles, per group; a random sample of more
)

// statsCmd groups records and aggregates each group.
type statsCmd struct {
	columns []column // over the aggregates
	aggs    []agg
	by      []column
}

// agg is one aggregation.
type agg struct {
	name string // its source
	fn   string
	of   expr // nil for count(*)
	p    float64
}

func isAggregation(name string) bool {
	switch name {
	case "count", "count_distinct", "sum", "avg", "min", "max", "pct", "percentile", "median", "stddev", "earliest", "latest", "sortsfirst", "sortslast":
		return true
	}
	return false
}

func (p *parser) stats(q *Query) error {
	cmd := &statsCmd{}
	for {
		from := p.i
		e, err := p.aggregate(cmd)
		if err != nil {
			return err
		}
		c := column{name: p.since(from), e: e}
		if p.word("as") {
			if p.tok().kind != ident {
				return p.fail("a name must follow as")
			}
			c.name = p.tok().s
			p.i++
		}
		cmd.columns = append(cmd.columns, c)
		if !p.sym(",") {
			break
		}
	}
	if p.word("by") {
		by, err := p.columns()
		if err != nil {
			return err
		}
		cmd.by = by
	}
	q.columns = nil
	for _, c := range append(cmd.by[:len(cmd.by):len(cmd.by)], cmd.columns...) {
		q.columns = append(q.columns, c.name)
	}
	q.stages = append(q.stages, stage{stats: cmd})
	return nil
}

// aggregate reads aggregations and arithmetic over them.
func (p *parser) aggregate(cmd *statsCmd) (expr, error) {
	return p.chain(func() (expr, error) {
		return p.chain(func() (expr, error) { return p.aggregation(cmd) }, "*", "/", "%")
	}, "+", "-")
}

func (p *parser) aggregation(cmd *statsCmd) (expr, error) {
	t, from := p.tok(), p.i
	if t.kind == number && t.unit == "" {
		p.i++
		return literal{t.n}, nil
	}
	if p.sym("(") {
		if p.depth++; p.depth > maxDepth {
			return nil, p.fail("the expression is nested too deeply")
		}
		e, err := p.aggregate(cmd)
		p.depth--
		if err == nil && !p.sym(")") {
			err = p.fail("a parenthesis is not closed")
		}
		return e, err
	}
	a := agg{fn: strings.ToLower(t.s)}
	if t.kind != ident || !isAggregation(a.fn) {
		return nil, p.fail("an aggregation such as count(*) or avg(field) must stand here")
	}
	p.i++
	if !p.sym("(") {
		return nil, p.fail("( must follow %s", t.s)
	}
	switch {
	case a.fn == "count" && (p.sym("*") || p.tok().s == ")" && p.tok().kind == symbol):
	default:
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		a.of = e
	}
	if a.fn == "pct" || a.fn == "percentile" {
		if !p.sym(",") || p.tok().kind != number || p.tok().n > 100 {
			return nil, p.fail("%s needs a percentile from 0 to 100", t.s)
		}
		a.p = p.tok().n
		p.i++
	}
	if a.fn == "median" {
		a.p = 50
	}
	if !p.sym(")") {
		return nil, p.fail("a parenthesis is not closed")
	}
	a.name = p.since(from)
	cmd.aggs = append(cmd.aggs, a)
	return field(a.name), nil
}

// group collects the records with the same values of the by clause.
type group struct {
	by   []value
	accs []acc
}

// acc is the state of one aggregation over one group.
type acc struct {
	n        float64
	sum, sq  float64 // of squares of the distance to the mean
	mean     float64
	best     value
	bestTime float64
	seen     map[string]bool
	kept     []float64
}

// statsRun is a stats command at work.
type statsRun struct {
	cmd    *statsCmd
	groups map[string]*group
	order  []*group // as they appeared
	rng    *rand.Rand
	lost   int // records of groups beyond the bound
}

func newStatsRun(cmd *statsCmd) *statsRun {
	return &statsRun{cmd: cmd, groups: map[string]*group{}, rng: rand.New(rand.NewPCG(1, 2))}
}

func (s *statsRun) add(r *record) {
	by := make([]value, len(s.cmd.by))
	var key strings.Builder
	for i, c := range s.cmd.by {
		by[i] = c.e.eval(r)
		key.WriteString(show(by[i]))
		key.WriteByte(0)
	}
	g := s.groups[key.String()]
	if g == nil {
		if len(s.order) >= maxGroups {
			s.lost++
			return
		}
		g = &group{by: by, accs: make([]acc, len(s.cmd.aggs))}
		s.groups[key.String()] = g
		s.order = append(s.order, g)
	}
	for i := range s.cmd.aggs {
		g.accs[i].add(&s.cmd.aggs[i], r, s.rng)
	}
}

func (a *acc) add(c *agg, r *record, rng *rand.Rand) {
	if c.of == nil {
		a.n++
		return
	}
	v := c.of.eval(r)
	if v == nil {
		return
	}
	switch c.fn {
	case "count":
		a.n++
		return
	case "count_distinct":
		if a.seen == nil {
			a.seen = map[string]bool{}
		}
		if len(a.seen) < maxDistinct {
			a.seen[show(v)] = true
		}
		return
	case "sortsfirst", "sortslast":
		d := strings.Compare(show(v), show(a.best))
		if a.best == nil || d < 0 && c.fn == "sortsfirst" || d > 0 && c.fn == "sortslast" {
			a.best = v
		}
		return
	case "earliest", "latest":
		a.atTime(c.fn == "latest", v, r)
		return
	case "min":
		if a.best == nil || compare(v, a.best) < 0 {
			a.best = v
		}
		return
	case "max":
		if a.best == nil || compare(v, a.best) > 0 {
			a.best = v
		}
		return
	}
	n, ok := num(v)
	if !ok {
		return
	}
	a.n++
	a.sum += n
	d := n - a.mean // Welford's way: sums of squares lose digits
	a.mean += d / a.n
	a.sq += d * (n - a.mean)
	switch c.fn {
	case "pct", "percentile", "median":
		if len(a.kept) < maxKept {
			a.kept = append(a.kept, n)
		} else if i := rng.IntN(int(a.n)); i < maxKept {
			a.kept[i] = n
		}
	}
}

func (a *acc) atTime(latest bool, v value, r *record) {
	at, ok := num(r.get("@timestamp"))
	if !ok {
		return
	}
	if a.best == nil || latest && at > a.bestTime || !latest && at < a.bestTime {
		a.best, a.bestTime = v, at
	}
}

func (a *acc) result(c *agg) value {
	switch c.fn {
	case "count":
		return a.n
	case "count_distinct":
		return float64(len(a.seen))
	case "min", "max", "earliest", "latest", "sortsfirst", "sortslast":
		return a.best
	}
	if a.n == 0 {
		return nil
	}
	switch c.fn {
	case "sum":
		return a.sum
	case "avg":
		return a.sum / a.n
	case "stddev":
		return math.Sqrt(a.sq / a.n)
	}
	slices.Sort(a.kept)
	at := c.p / 100 * float64(len(a.kept)-1)
	low := int(at)
	if low+1 >= len(a.kept) {
		return a.kept[len(a.kept)-1]
	}
	return a.kept[low] + (at-float64(low))*(a.kept[low+1]-a.kept[low])
}

// rows are the groups as records.
func (s *statsRun) rows() []*record {
	order := s.order
	if len(order) == 0 && len(s.cmd.by) == 0 { // count(*) of nothing is 0
		order = []*group{{accs: make([]acc, len(s.cmd.aggs))}}
	}
	out := make([]*record, 0, len(order))
	for _, g := range order {
		r := &record{}
		for i, c := range s.cmd.by {
			r.set(c.name, g.by[i])
		}
		for i := range s.cmd.aggs {
			r.set(s.cmd.aggs[i].name, g.accs[i].result(&s.cmd.aggs[i]))
		}
		for _, c := range s.cmd.columns {
			r.set(c.name, c.e.eval(r))
		}
		out = append(out, r)
	}
	return out
}
