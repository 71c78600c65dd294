package mathexpr

import (
	"errors"
	"fmt"
	"math"
)

// Eval evaluates the expression. Its errors are the user's.
func (e *Expr) Eval(env *Env) (Value, error) {
	v, err := e.root.eval(env)
	if err == nil && !v.isNumeric() {
		err = errors.New("the expression is a string, not a number or time series")
	}
	return v, err
}

func (c constant) eval(*Env) (Value, error) { return Value(c), nil }

func (v variable) eval(env *Env) (Value, error) {
	out, ok, err := env.Get(string(v))
	if err == nil && !ok {
		err = fmt.Errorf("there is no metric or expression with the id %s", string(v))
	}
	return out, err
}

func (u unary) eval(env *Env) (Value, error) {
	x, err := u.x.eval(env)
	if err != nil || u.op == "+" {
		return x, err
	}
	return each(x, func(f float64) (float64, bool) { return -f, true })
}

func (a array) eval(env *Env) (Value, error) {
	out := Value{Kind: List}
	for _, n := range a {
		v, err := n.eval(env)
		if err != nil {
			return v, err
		}
		switch {
		case v.isSeries():
			out.List = append(out.List, v.List...)
		case v.Kind == Scalar:
			out.List = append(out.List, constantSeries(env, v.Number))
		default:
			return v, errors.New("an array holds time series and numbers only")
		}
	}
	return out, nil
}

// constantSeries has the number at every period of the grid.
func constantSeries(env *Env, f float64) Series {
	s := Series{Period: env.Period}
	for _, t := range env.grid() {
		s.Points = append(s.Points, Point{t, f})
	}
	return s
}

// maxGrid bounds what functions that make points may make.
const maxGrid = 100_800

func (env *Env) grid() []int64 {
	var out []int64
	if env.Period <= 0 {
		return nil
	}
	for t := env.Start; t < env.End && len(out) < maxGrid; t += env.Period {
		out = append(out, t)
	}
	return out
}

// each applies f to every value; it drops points for which f gives none.
func each(v Value, f func(float64) (float64, bool)) (Value, error) {
	switch v.Kind {
	case Empty:
		return v, nil
	case Scalar:
		r, ok := f(v.Number)
		if !finite(r) || !ok {
			return Value{Kind: Empty}, nil
		}
		return number(r), nil
	case TimeSeries, List:
		out := Value{Kind: v.Kind}
		for _, s := range v.List {
			n := Series{ID: s.ID, Label: s.Label, Period: s.Period}
			for _, p := range s.Points {
				if r, ok := f(p.Value); ok && finite(r) {
					n.Points = append(n.Points, Point{p.At, r})
				}
			}
			out.List = append(out.List, n)
		}
		return out, nil
	}
	return v, errors.New("a string cannot be calculated with")
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func (b binary) eval(env *Env) (Value, error) {
	x, err := b.a.eval(env)
	if err != nil {
		return x, err
	}
	y, err := b.b.eval(env)
	if err != nil {
		return y, err
	}
	return combine(x, y, operators[b.op])
}

type operator func(a, b float64) (float64, bool)

func truth(b bool) (float64, bool) {
	if b {
		return 1, true
	}
	return 0, true
}

var operators = map[string]operator{
	"+":   func(a, b float64) (float64, bool) { return a + b, true },
	"-":   func(a, b float64) (float64, bool) { return a - b, true },
	"*":   func(a, b float64) (float64, bool) { return a * b, true },
	"/":   func(a, b float64) (float64, bool) { return a / b, b != 0 },
	"^":   func(a, b float64) (float64, bool) { return math.Pow(a, b), true },
	"==":  func(a, b float64) (float64, bool) { return truth(a == b) },
	"!=":  func(a, b float64) (float64, bool) { return truth(a != b) },
	"<":   func(a, b float64) (float64, bool) { return truth(a < b) },
	"<=":  func(a, b float64) (float64, bool) { return truth(a <= b) },
	">":   func(a, b float64) (float64, bool) { return truth(a > b) },
	">=":  func(a, b float64) (float64, bool) { return truth(a >= b) },
	"AND": func(a, b float64) (float64, bool) { return truth(a != 0 && b != 0) },
	"&&":  func(a, b float64) (float64, bool) { return truth(a != 0 && b != 0) },
	"OR":  func(a, b float64) (float64, bool) { return truth(a != 0 || b != 0) },
	"||":  func(a, b float64) (float64, bool) { return truth(a != 0 || b != 0) },
}

// combine applies an operator: S and S, each point of a TS and an S, two TS
// where both have a point, each member of a TS[] and the other side.
func combine(a, b Value, op operator) (Value, error) {
	switch {
	case !a.isNumeric() || !b.isNumeric():
		return a, errors.New("a string cannot be calculated with")
	case a.Kind == Empty || b.Kind == Empty:
		return Value{Kind: Empty}, nil
	case b.Kind == Scalar:
		return each(a, func(f float64) (float64, bool) { return op(f, b.Number) })
	case a.Kind == Scalar:
		return each(b, func(f float64) (float64, bool) { return op(a.Number, f) })
	}
	if a.Kind == List && b.Kind == List && len(a.List) != len(b.List) {
		return a, errors.New("two lists of time series of different lengths cannot be combined")
	}
	out := Value{Kind: TimeSeries}
	n := 1
	if a.Kind == List || b.Kind == List {
		out.Kind = List
		if n = len(b.List); a.Kind == List {
			n = len(a.List)
		}
	}
	for i := range n {
		x, y := pick(a, i), pick(b, i)
		s := zip(x, y, op)
		if s.Label = x.Label; a.Kind != List {
			s.Label = y.Label
		}
		out.List = append(out.List, s)
	}
	return out, nil
}

func pick(v Value, i int) *Series {
	if v.Kind == TimeSeries {
		i = 0
	}
	return &v.List[i]
}

func zip(a, b *Series, op operator) Series {
	out := Series{Period: max(a.Period, b.Period)}
	i, j := 0, 0
	for i < len(a.Points) && j < len(b.Points) {
		p, q := a.Points[i], b.Points[j]
		switch {
		case p.At < q.At:
			i++
		case p.At > q.At:
			j++
		default:
			if r, ok := op(p.Value, q.Value); ok && finite(r) {
				out.Points = append(out.Points, Point{p.At, r})
			}
			i, j = i+1, j+1
		}
	}
	return out
}

func (c call) eval(env *Env) (Value, error) {
	args := make([]Value, len(c.args))
	for i, n := range c.args {
		v, err := n.eval(env)
		if err != nil {
			return v, err
		}
		args[i] = v
	}
	v, err := c.fn.call(env, args)
	if err != nil {
		err = fmt.Errorf("%s: %w", c.name, err)
	}
	return v, err
}

// defaultWidth is the number of standard deviations where none is given (User
// Guide, "Metric math functions").
const defaultWidth = 2

func (b band) eval(env *Env) (Value, error) {
	const name = "ANOMALY_DETECTION_BAND"
	if env.Band == nil {
		return Value{}, errors.New(name + " is not allowed here")
	}
	width := float64(defaultWidth)
	if b.width != nil {
		v, err := b.width.eval(env)
		if err != nil {
			return v, err
		}
		if v.Kind != Scalar || !(v.Number > 0) {
			return v, errors.New(name + ": the second argument must be a number greater than 0")
		}
		width = v.Number
	}
	l, err := env.Band(b.id, width)
	if err != nil {
		return Value{}, fmt.Errorf("%s: %w", name, err)
	}
	return listOf(l), nil
}
