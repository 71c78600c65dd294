package insights

import (
	"slices"
	"strings"
)

// Field is one value of a result row.
type Field struct{ Name, Value string }

// Run is a query at work. It belongs to one goroutine.
type Run struct {
	q       *Query
	limit   int
	stages  []*stageRun
	rows    []*record // what came through all stages
	full    bool
	Matched float64 // records that came through the filters
}

// stageRun is a stage with its state.
type stageRun struct {
	*stage
	stats *statsRun
	found *patternRun
	kept  []*record // to be sorted
	most  int       // rows of kept that can matter
	seen  map[string]bool
	n     int // rows that a limit let through
}

// Start begins a run. limit above 0 bounds the rows where the query has no
// limit command of its own that is lower.
func (q *Query) Start(limit int) *Run {
	r := &Run{q: q, limit: MaxLimit}
	hasLimit := slices.ContainsFunc(q.stages, func(s stage) bool { return s.limit > 0 })
	switch {
	case limit > 0:
		r.limit = min(limit, MaxLimit)
	case !hasLimit:
		r.limit = DefaultLimit
	}
	for i := range q.stages {
		st := &q.stages[i]
		sr := &stageRun{stage: st, most: r.limit}
		if st.stats != nil {
			sr.stats = newStatsRun(st.stats)
		}
		if st.pattern != nil {
			sr.found = newPatternRun(st.pattern)
		}
		if st.dedup != nil {
			sr.seen = map[string]bool{}
		}
		// What follows a sort decides how many of the sorted rows can matter.
		for _, next := range q.stages[i+1:] {
			if next.limit > 0 {
				sr.most = min(sr.most, next.limit)
				break
			}
			if next.filter != nil || next.stats != nil || next.pattern != nil || next.dedup != nil || next.sort != nil {
				sr.most = maxGroups
				break
			}
		}
		r.stages = append(r.stages, sr)
	}
	return r
}

// Add gives an event to the query. Events come newest first. It returns false
// when no further event can change the result.
func (r *Run) Add(ev *Event) bool {
	r.push(0, &record{ev: ev}, true)
	return !r.full
}

// push sends a record through the stages from i on, up to one that collects.
func (r *Run) push(i int, rec *record, fresh bool) {
	for ; i < len(r.stages); i++ {
		st := r.stages[i]
		switch {
		case st.filter != nil:
			if !truth(st.filter.eval(rec)) {
				return
			}
		case st.set != nil:
			for _, c := range st.set {
				rec.set(c.name, c.e.eval(rec))
			}
		case st.parse != nil:
			st.parse.apply(rec)
		case st.stage.stats != nil:
			r.count(fresh)
			st.stats.add(rec)
			return
		case st.pattern != nil:
			r.count(fresh)
			st.found.add(rec)
			return
		case st.sort != nil:
			r.count(fresh)
			st.keep(rec)
			return
		case st.dedup != nil:
			if !st.first(rec) {
				return
			}
		case st.limit > 0:
			if st.n++; st.n > st.limit {
				r.full = r.full || fresh
				return
			}
		}
	}
	r.count(fresh)
	if len(r.rows) < r.limit {
		r.rows = append(r.rows, rec)
	}
	// Those that come later are older: with the rows full they are not shown.
	r.full = r.full || fresh && len(r.rows) >= r.limit
}

func (r *Run) count(fresh bool) {
	if fresh {
		r.Matched++
	}
}

func (c *parseCmd) apply(rec *record) {
	v := c.from.eval(rec)
	if v == nil {
		return
	}
	m := c.re.FindStringSubmatch(show(v))
	if m == nil {
		return
	}
	for i, name := range c.into {
		if name != "" {
			rec.set(name, m[i+1])
		}
	}
}

// keep adds a row to be sorted and cuts the rows to those that can matter.
func (st *stageRun) keep(rec *record) {
	st.kept = append(st.kept, rec)
	if len(st.kept) > 2*st.most+1000 {
		st.cut()
	}
}

func (st *stageRun) cut() {
	slices.SortStableFunc(st.kept, func(a, b *record) int {
		for _, k := range st.sort {
			c := compare(k.e.eval(a), k.e.eval(b))
			if c != 0 {
				if k.desc {
					return -c
				}
				return c
			}
		}
		return 0
	})
	if len(st.kept) > st.most {
		clear(st.kept[st.most:])
		st.kept = st.kept[:st.most]
	}
}

// first reports whether a record is the first with its values.
func (st *stageRun) first(rec *record) bool {
	var key strings.Builder
	for _, c := range st.dedup {
		key.WriteString(show(c.e.eval(rec)))
		key.WriteByte(0)
	}
	if st.seen[key.String()] || len(st.seen) >= maxGroups {
		return false
	}
	st.seen[key.String()] = true
	return true
}

// Results ends the run and returns the rows.
func (r *Run) Results() [][]Field {
	for i, st := range r.stages {
		var rows []*record
		switch {
		case st.stats != nil:
			rows = st.stats.rows()
		case st.found != nil:
			rows = st.found.rows()
		case st.sort != nil:
			st.cut()
			rows, st.kept = st.kept, nil
		}
		for _, rec := range rows {
			r.push(i+1, rec, false)
		}
	}
	out := make([][]Field, 0, len(r.rows))
	for _, rec := range r.rows {
		var row []Field
		for _, name := range r.q.columns {
			if v := rec.get(name); v != nil {
				row = append(row, Field{name, show(v)})
			}
		}
		if rec.ev != nil {
			row = append(row, Field{"@ptr", rec.ev.Ptr})
		}
		out = append(out, row)
	}
	return out
}

// Literal is a text that every event holds that the query can want, "" where
// none is known.
func (q *Query) Literal() string {
	for _, st := range q.stages {
		if st.filter != nil {
			return literalOf(st.filter)
		}
		if st.set == nil && st.parse == nil || assigns(st, "@message") {
			return "" // what comes later is of rows, or of another message
		}
	}
	return ""
}

func assigns(st stage, name string) bool {
	return slices.ContainsFunc(st.set, func(c column) bool { return c.name == name }) || st.parse != nil && slices.Contains(st.parse.into, name)
}

func literalOf(e expr) string {
	switch e := e.(type) {
	case binary:
		if e.op == "and" {
			if x := literalOf(e.x); x != "" {
				return x
			}
			return literalOf(e.y)
		}
	case match:
		sub, ok := e.sub.(literal)
		if s, isText := sub.v.(string); ok && isText && e.x == expr(field("@message")) && !e.not {
			return s
		}
	}
	return ""
}
