package mathexpr

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
)

type function struct {
	least, most int
	call        func(env *Env, args []Value) (Value, error) // nil: a node of its own
}

var functions map[string]function

func init() { // a variable would refer to itself through the parser
	functions = map[string]function{
		"ABS": pointwise(math.Abs), "CEIL": pointwise(math.Ceil), "FLOOR": pointwise(math.Floor), "LOG": pointwise(math.Log), "LOG10": pointwise(math.Log10),
		"AVG": reducing(average), "MAX": reducing(slices.Max[[]float64]), "MIN": reducing(slices.Min[[]float64]), "SUM": reducing(sum), "STDDEV": reducing(deviation),
		"DATAPOINT_COUNT": {1, 1, datapointCount},
		"DIFF":            {1, 1, stepwise(func(p, q Point, _ int64) (float64, bool) { return q.Value - p.Value, true })},
		"DIFF_TIME":       {1, 1, stepwise(func(p, q Point, _ int64) (float64, bool) { return float64(q.At - p.At), true })},
		"RATE": {1, 1, stepwise(func(p, q Point, _ int64) (float64, bool) {
			return (q.Value - p.Value) / float64(q.At-p.At), q.At > p.At
		})},
		"RUNNING_SUM": {1, 1, runningSum}, "PERIOD": {1, 1, period}, "FILL": {2, 2, fill}, "IF": {2, 3, conditional},
		"METRICS": {0, 1, metrics}, "METRIC_COUNT": {1, 1, metricCount}, "FIRST": {1, 1, end(true)}, "LAST": {1, 1, end(false)},
		"SLICE": {2, 3, slice}, "SORT": {3, 4, sorted}, "REMOVE_EMPTY": {1, 1, removeEmpty}, "TIME_SERIES": {1, 1, timeSeries}, "SEARCH": {2, 3, search},
		"ANOMALY_DETECTION_BAND": {1, 2, nil},
		"MINUTE":                 timePart(func(t time.Time) int { return t.Minute() }), "HOUR": timePart(func(t time.Time) int { return t.Hour() }),
		"DAY":  timePart(func(t time.Time) int { return (int(t.Weekday())+6)%7 + 1 }), // Monday is 1
		"DATE": timePart(func(t time.Time) int { return t.Day() }), "MONTH": timePart(func(t time.Time) int { return int(t.Month()) }),
		"YEAR": timePart(func(t time.Time) int { return t.Year() }), "EPOCH": timePart(func(t time.Time) int { return int(t.Unix()) }),
	}
}

var (
	errSeries = errors.New("needs a time series")
	errList   = errors.New("needs an array of time series")
)

func pointwise(f func(float64) float64) function {
	return function{1, 1, func(_ *Env, a []Value) (Value, error) {
		return each(a[0], func(x float64) (float64, bool) { return f(x), true })
	}}
}

func sum(l []float64) float64 {
	t := 0.0
	for _, f := range l {
		t += f
	}
	return t
}

func average(l []float64) float64 { return sum(l) / float64(len(l)) }

// deviation is the standard deviation of the population.
func deviation(l []float64) float64 {
	m, t := average(l), 0.0
	for _, f := range l {
		t += (f - m) * (f - m)
	}
	return math.Sqrt(t / float64(len(l)))
}

// reducing makes a TS of a TS[], an S of a TS.
func reducing(f func([]float64) float64) function {
	return function{1, 1, func(_ *Env, a []Value) (Value, error) {
		switch a[0].Kind {
		case Scalar:
			return number(f([]float64{a[0].Number})), nil
		case Empty:
			return a[0], nil
		case TimeSeries:
			return reduce(a[0].List[0], f), nil
		case List:
			return series(across(a[0].List, f)), nil
		}
		return a[0], errSeries
	}}
}

func reduce(s Series, f func([]float64) float64) Value {
	if len(s.Points) == 0 {
		return Value{Kind: Empty}
	}
	l := make([]float64, len(s.Points))
	for i, p := range s.Points {
		l[i] = p.Value
	}
	return number(f(l))
}

// across reduces, at each time, the points that exist.
func across(list []Series, f func([]float64) float64) Series {
	at := map[int64][]float64{}
	out := Series{}
	for _, s := range list {
		out.Period = max(out.Period, s.Period)
		for _, p := range s.Points {
			at[p.At] = append(at[p.At], p.Value)
		}
	}
	for t, l := range at {
		out.Points = append(out.Points, Point{t, f(l)})
	}
	slices.SortFunc(out.Points, func(a, b Point) int { return cmp.Compare(a.At, b.At) })
	return out
}

func datapointCount(_ *Env, a []Value) (Value, error) {
	switch a[0].Kind {
	case TimeSeries:
		return number(float64(len(a[0].List[0].Points))), nil
	case List:
		return series(across(a[0].List, func(l []float64) float64 { return float64(len(l)) })), nil
	}
	return a[0], errSeries
}

// stepwise computes from each point and the one before it.
func stepwise(f func(p, q Point, period int64) (float64, bool)) func(*Env, []Value) (Value, error) {
	return func(_ *Env, a []Value) (Value, error) {
		return perSeries(a[0], func(s Series) []Point {
			var out []Point
			for i := 1; i < len(s.Points); i++ {
				if r, ok := f(s.Points[i-1], s.Points[i], s.Period); ok && finite(r) {
					out = append(out, Point{s.Points[i].At, r})
				}
			}
			return out
		})
	}
}

func perSeries(v Value, f func(Series) []Point) (Value, error) {
	if !v.isSeries() {
		return v, errSeries
	}
	out := Value{Kind: v.Kind}
	for _, s := range v.List {
		s.Points = f(s)
		out.List = append(out.List, s)
	}
	return out, nil
}

func runningSum(_ *Env, a []Value) (Value, error) {
	return perSeries(a[0], func(s Series) []Point {
		out, total := make([]Point, 0, len(s.Points)), 0.0
		for _, p := range s.Points {
			total += p.Value
			out = append(out, Point{p.At, total})
		}
		return out
	})
}

func period(_ *Env, a []Value) (Value, error) {
	if a[0].Kind != TimeSeries {
		return a[0], errSeries
	}
	return number(float64(a[0].List[0].Period)), nil
}

// fill gives every period of the grid a point.
func fill(env *Env, a []Value) (Value, error) {
	how := a[1]
	if how.Kind != Scalar && how.Kind != TimeSeries && (how.Kind != Word || how.Text != "REPEAT" && how.Text != "LINEAR") {
		return how, errors.New("the filling is a number, a time series, REPEAT or LINEAR")
	}
	return perSeries(a[0], func(s Series) []Point {
		have := index(s)
		var other map[int64]float64
		if how.Kind == TimeSeries {
			other = index(how.List[0])
		}
		grid := env.grid()
		var out []Point
		next := 0 // first point of s not before t
		for _, t := range grid {
			for next < len(s.Points) && s.Points[next].At < t {
				next++
			}
			v, ok := have[t]
			switch {
			case ok:
			case how.Kind == Scalar:
				v, ok = how.Number, true
			case how.Kind == TimeSeries:
				v, ok = other[t]
			case next > 0 && how.Text == "REPEAT":
				v, ok = s.Points[next-1].Value, true
			case next > 0 && next < len(s.Points):
				p, q := s.Points[next-1], s.Points[next]
				v, ok = p.Value+(q.Value-p.Value)*float64(t-p.At)/float64(q.At-p.At), true
			}
			if ok {
				out = append(out, Point{t, v})
			}
		}
		return out
	})
}

func index(s Series) map[int64]float64 {
	m := make(map[int64]float64, len(s.Points))
	for _, p := range s.Points {
		m[p.At] = p.Value
	}
	return m
}

// conditional is IF: a missing condition, or a missing point of the chosen
// branch, gives no point.
func conditional(_ *Env, a []Value) (Value, error) {
	cond, branches := a[0], a[1:]
	for _, v := range a {
		if v.Kind != Scalar && v.Kind != TimeSeries && v.Kind != Empty {
			return v, errors.New("takes numbers and time series")
		}
	}
	if cond.Kind == Empty {
		return cond, nil
	}
	if cond.Kind == Scalar {
		if cond.Number != 0 {
			return branches[0], nil
		}
		if len(branches) > 1 {
			return branches[1], nil
		}
		return Value{Kind: Empty}, nil
	}
	values := make([]map[int64]float64, len(branches))
	for i, b := range branches {
		if b.Kind == TimeSeries {
			values[i] = index(b.List[0])
		}
	}
	s := cond.List[0]
	out := Series{Period: s.Period}
	for _, p := range s.Points {
		i := 0
		if p.Value == 0 {
			i = 1
		}
		if i >= len(branches) {
			continue
		}
		v, ok := branches[i].Number, branches[i].Kind == Scalar
		if values[i] != nil {
			v, ok = values[i][p.At]
		}
		if ok {
			out.Points = append(out.Points, Point{p.At, v})
		}
	}
	return series(out), nil
}

func metrics(env *Env, a []Value) (Value, error) {
	part := ""
	if len(a) == 1 {
		if a[0].Kind != Text {
			return a[0], errors.New("takes a string")
		}
		part = a[0].Text
	}
	l, err := env.Metrics(part)
	return listOf(l), err
}

func metricCount(_ *Env, a []Value) (Value, error) {
	if a[0].Kind != List {
		return a[0], errList
	}
	return number(float64(len(a[0].List))), nil
}

// end is FIRST and LAST: of a TS[] a TS, of a TS an S.
func end(first bool) func(*Env, []Value) (Value, error) {
	return func(_ *Env, a []Value) (Value, error) {
		if !a[0].isSeries() {
			return a[0], errSeries
		}
		n := len(a[0].List)
		if a[0].Kind == List {
			if n == 0 {
				return series(Series{}), nil
			}
			if first {
				return series(a[0].List[0]), nil
			}
			return series(a[0].List[n-1]), nil
		}
		points := a[0].List[0].Points
		if len(points) == 0 {
			return Value{Kind: Empty}, nil
		}
		if first {
			return number(points[0].Value), nil
		}
		return number(points[len(points)-1].Value), nil
	}
}

func slice(_ *Env, a []Value) (Value, error) {
	if a[0].Kind != List || a[1].Kind != Scalar || len(a) == 3 && a[2].Kind != Scalar {
		return a[0], errors.New("needs an array of time series and one or two numbers")
	}
	l := a[0].List
	from := clamp(a[1].Number, len(l))
	if len(a) == 2 {
		if from >= len(l) {
			return series(Series{}), nil
		}
		return series(l[from]), nil
	}
	to := clamp(a[2].Number, len(l))
	return listOf(l[min(from, to):to]), nil
}

func clamp(f float64, n int) int {
	if !(f > 0) {
		return 0
	}
	return int(math.Min(f, float64(n)))
}

func sorted(_ *Env, a []Value) (Value, error) {
	if a[0].Kind != List || a[1].Kind != Word || a[2].Kind != Word || len(a) == 4 && a[3].Kind != Scalar {
		return a[0], errors.New("needs an array of time series, a function, ASC or DESC, and perhaps a number")
	}
	f, ok := map[string]func([]float64) float64{"AVG": average, "MIN": slices.Min[[]float64], "MAX": slices.Max[[]float64], "SUM": sum, "STDDEV": deviation}[a[1].Text]
	if !ok || a[2].Text != "ASC" && a[2].Text != "DESC" {
		return a[0], errors.New("sorts by AVG, MIN, MAX, SUM or STDDEV, ASC or DESC")
	}
	l := slices.Clone(a[0].List)
	slices.SortStableFunc(l, func(x, y Series) int {
		vx, vy := reduce(x, f), reduce(y, f)
		switch { // without points: last
		case vx.Kind != vy.Kind:
			return cmp.Compare(vx.Kind, vy.Kind)
		case a[2].Text == "DESC":
			return cmp.Compare(vy.Number, vx.Number)
		}
		return cmp.Compare(vx.Number, vy.Number)
	})
	if len(a) == 4 {
		l = l[:clamp(a[3].Number, len(l))]
	}
	return listOf(l), nil
}

func removeEmpty(_ *Env, a []Value) (Value, error) {
	if a[0].Kind != List {
		return a[0], errList
	}
	var out []Series
	for _, s := range a[0].List {
		if len(s.Points) > 0 {
			out = append(out, s)
		}
	}
	return listOf(out), nil
}

func timeSeries(env *Env, a []Value) (Value, error) {
	if a[0].Kind != Scalar {
		return a[0], errors.New("needs a number")
	}
	return series(constantSeries(env, a[0].Number)), nil
}

func timePart(f func(time.Time) int) function {
	return function{1, 1, func(_ *Env, a []Value) (Value, error) {
		return perSeries(a[0], func(s Series) []Point {
			out := make([]Point, len(s.Points))
			for i, p := range s.Points {
				out[i] = Point{p.At, float64(f(time.Unix(p.At, 0).UTC()))}
			}
			return out
		})
	}}
}

func search(env *Env, a []Value) (Value, error) {
	if a[0].Kind != Text || a[1].Kind != Text || len(a) == 3 && a[2].Kind != Scalar {
		return a[0], errors.New("takes two strings and a number")
	}
	if env.Search == nil {
		return a[0], errors.New("is not allowed here")
	}
	p := env.Period
	if len(a) == 3 {
		p = int64(a[2].Number)
	}
	l, err := env.Search(strings.TrimSpace(a[0].Text), a[1].Text, p)
	return listOf(l), err
}
