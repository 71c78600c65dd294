// Package mathexpr is CloudWatch's metric math (User Guide, "Using math
// expressions with CloudWatch metrics"): expressions over scalars (S), time
// series (TS) and lists of time series (TS[]). It is pure: data comes from an
// Env.
//
// Points exist or they do not: an operator gives a point where all its
// operands have one, and none for a division by zero. Functions that reduce
// turn a TS into an S and a TS[] into a TS.
package mathexpr

// Point is a value at the start of a period, in epoch seconds.
type Point struct {
	At    int64
	Value float64
}

// Series is a time series, ascending.
type Series struct {
	ID, Label string
	Period    int64 // seconds
	Points    []Point
}

// Kind is the type of a Value.
type Kind int

// The types of expressions. Words and texts are arguments of functions only.
const (
	Scalar Kind = iota
	TimeSeries
	List
	Text
	Word
	Empty // a scalar without value: the average of nothing
)

// Value is the result of an expression.
type Value struct {
	Kind   Kind
	Number float64
	List   []Series // one for TimeSeries
	Text   string
}

func number(f float64) Value    { return Value{Kind: Scalar, Number: f} }
func series(s Series) Value     { return Value{Kind: TimeSeries, List: []Series{s}} }
func listOf(l []Series) Value   { return Value{Kind: List, List: l} }
func (v Value) isSeries() bool  { return v.Kind == TimeSeries || v.Kind == List }
func (v Value) isNumeric() bool { return v.Kind == Scalar || v.Kind == Empty || v.isSeries() }

// Env is where an expression is evaluated.
type Env struct {
	// Start, End and Period are the grid for functions that make points.
	Start, End, Period int64
	// Get returns the value of an id; false where there is none.
	Get func(id string) (Value, bool, error)
	// Metrics are the plain metrics of the request whose ids contain part.
	Metrics func(part string) ([]Series, error)
	// Search runs a SEARCH; nil: it is not allowed here.
	Search func(expression, stat string, period int64) ([]Series, error)
	// Band returns the lower and the upper bound of what is usual for an id,
	// width standard deviations from what is expected; nil: not allowed here.
	Band func(id string, width float64) ([]Series, error)
}
