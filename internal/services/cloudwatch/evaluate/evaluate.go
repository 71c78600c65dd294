// Package evaluate decides an alarm's state from the data points of its
// evaluation range. It is pure: no clock, no store. The rules are those of the
// CloudWatch User Guide, "Configuring how CloudWatch alarms treat missing
// data" and "Evaluating an alarm"; its tables are this package's tests.
package evaluate

import "time"

// States of an alarm.
const (
	OK           = "OK"
	Alarm        = "ALARM"
	Insufficient = "INSUFFICIENT_DATA"
)

// Treatments of missing data; "" is Missing.
const (
	Missing      = "missing"
	Ignore       = "ignore"
	Breaching    = "breaching"
	NotBreaching = "notBreaching"
)

// Comparison operators, with AWS's names.
const (
	GreaterOrEqual = "GreaterThanOrEqualToThreshold"
	Greater        = "GreaterThanThreshold"
	Less           = "LessThanThreshold"
	LessOrEqual    = "LessThanOrEqualToThreshold"

	// Those of anomaly detection compare with the bounds of each point.
	OutsideBand = "LessThanLowerOrGreaterThanUpperThreshold"
	BelowBand   = "LessThanLowerThreshold"
	AboveBand   = "GreaterThanUpperThreshold"
)

// Point is the value of one period.
type Point struct {
	Start   time.Time
	Value   float64
	Samples float64 // 0: not known
	// Lower and Upper are the band at that time, for the operators that
	// compare with one.
	Lower, Upper float64
}

// Rule is the part of an alarm that decides.
type Rule struct {
	Periods    int // N, the evaluation periods
	ToAlarm    int // M, the data points to alarm
	Operator   string
	Threshold  float64
	Missing    string
	Percentile float64 // in percent; with HoldFewSamples
	// HoldFewSamples keeps the state where a percentile has too few samples
	// (EvaluateLowSampleCountPercentile is "ignore").
	HoldFewSamples bool
}

// Range is how many periods the evaluation looks at: more than N, so that
// late points change nothing. AWS does not document the number; its example
// for N = 3 shows 5.
func (r Rule) Range() int { return r.Periods + 2 }

// Banded says whether the rule compares with a band instead of Threshold.
func (r Rule) Banded() bool {
	return r.Operator == OutsideBand || r.Operator == BelowBand || r.Operator == AboveBand
}

// Breaches says whether a point is on the alarming side.
func (r Rule) Breaches(p Point) bool {
	v := p.Value
	switch r.Operator {
	case OutsideBand:
		return v < p.Lower || v > p.Upper
	case BelowBand:
		return v < p.Lower
	case AboveBand:
		return v > p.Upper
	case GreaterOrEqual:
		return v >= r.Threshold
	case Greater:
		return v > r.Threshold
	case Less:
		return v < r.Threshold
	case LessOrEqual:
		return v <= r.Threshold
	}
	return false
}

// Result is what an evaluation found.
type Result struct {
	State string
	// Held says that State is the one before, for lack of evidence.
	Held bool
	// Used are the points that counted, newest first; Fills is how many more
	// were missing and stood for Treated.
	Used    []Point
	Fills   int
	Treated string // Breaching or NotBreaching where fills counted, else ""
	// Breaching counts the points in Used that breach.
	Breaching int
}

// Evaluate decides from the evaluation range, oldest first, nil for a missing
// point. current is the state before.
func Evaluate(r Rule, window []*Point, current string) Result {
	var res Result
	oldest := 0 // age in periods of the oldest point used, 1 for the newest
	for i := len(window) - 1; i >= 0 && len(res.Used) < r.Periods; i-- {
		if window[i] == nil {
			continue
		}
		oldest = len(window) - i
		res.Used = append(res.Used, *window[i])
		if r.Breaches(*window[i]) {
			res.Breaching++
		}
	}
	if r.HoldFewSamples && r.tooFew(res.Used) {
		return res.hold(current)
	}
	res.Fills = r.Periods - len(res.Used)
	if res.Fills == 0 {
		return res.decide(res.Breaching >= r.ToAlarm)
	}
	switch r.Missing {
	case Breaching:
		res.Treated = Breaching
		return res.decide(res.Breaching+res.Fills >= r.ToAlarm)
	case NotBreaching:
		res.Treated = NotBreaching
		return res.decide(res.Breaching >= r.ToAlarm)
	}
	ignore := r.Missing == Ignore
	switch {
	case len(res.Used) == 0 && ignore:
		return res.hold(current)
	case len(res.Used) == 0:
		res.State = Insufficient
		return res
	case res.Breaching >= r.ToAlarm:
		return res.decide(true)
	case res.Breaching < len(res.Used):
		return res.decide(false)
	case oldest >= r.ToAlarm && !ignore:
		// Nothing but breaching points, the oldest of them old enough: AWS
		// does not wait for evidence that never comes.
		return res.decide(true)
	}
	return res.hold(current)
}

func (res Result) decide(alarm bool) Result {
	if res.State = OK; alarm {
		res.State = Alarm
	}
	return res
}

func (res Result) hold(current string) Result {
	res.State, res.Held = current, true
	return res
}

// tooFew applies the rule of "Percentile-based CloudWatch alarms and low data
// samples": 10/(1-p) samples are needed for p of .5 and more, 10/p below.
func (r Rule) tooFew(used []Point) bool {
	p := r.Percentile / 100
	need := 0.0
	if p >= 0.5 {
		need = 10 / (1 - p)
	} else {
		need = 10 / p
	}
	for _, u := range used {
		if u.Samples < need {
			return true
		}
	}
	return false
}
