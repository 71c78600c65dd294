package evaluate

import (
	"testing"
	"time"
)

// retain stands for "the state stays as it is" in the documented tables.
const retain = "retain"

func window(s string) []*Point {
	var out []*Point
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for i, c := range s {
		var p *Point
		if c != '-' {
			p = &Point{Start: at.Add(time.Duration(i) * time.Minute)}
			if c == 'X' {
				p.Value = 1
			}
		}
		out = append(out, p)
	}
	return out
}

// The two tables of "How alarm state is evaluated when data is missing".
func TestDocumentedTables(t *testing.T) {
	treatments := []string{Missing, Ignore, Breaching, NotBreaching}
	for _, c := range []struct {
		m, n   int
		points string
		want   [4]string
	}{
		{3, 3, "0-X-X", [4]string{OK, OK, OK, OK}},
		{3, 3, "0----", [4]string{OK, OK, OK, OK}},
		{3, 3, "-----", [4]string{Insufficient, retain, Alarm, OK}},
		{3, 3, "0XX-X", [4]string{Alarm, Alarm, Alarm, Alarm}},
		{3, 3, "--X--", [4]string{Alarm, retain, Alarm, OK}},
		{2, 3, "0-X-X", [4]string{Alarm, Alarm, Alarm, Alarm}},
		{2, 3, "00X0X", [4]string{Alarm, Alarm, Alarm, Alarm}},
		{2, 3, "0-X--", [4]string{OK, OK, Alarm, OK}},
		{2, 3, "----0", [4]string{OK, OK, Alarm, OK}},
		{2, 3, "---X-", [4]string{Alarm, retain, Alarm, OK}},
	} {
		for i, missing := range treatments {
			r := Rule{Periods: c.n, ToAlarm: c.m, Operator: Greater, Threshold: 0, Missing: missing}
			if len(c.points) != r.Range() {
				t.Fatalf("range %d", r.Range())
			}
			for _, before := range []string{OK, Alarm, Insufficient} {
				want := c.want[i]
				if want == retain {
					want = before
				}
				if got := Evaluate(r, window(c.points), before); got.State != want {
					t.Errorf("%d of %d, %s, %s, was %s: %s, want %s", c.m, c.n, c.points, missing, before, got.State, want)
				}
			}
		}
	}
}

func TestNotYetPremature(t *testing.T) {
	for _, points := range []string{"----X", "---X-"} {
		r := Rule{Periods: 3, ToAlarm: 3, Operator: Greater}
		for _, before := range []string{OK, Insufficient} {
			if got := Evaluate(r, window(points), before); got.State != before {
				t.Errorf("%s: %s", points, got.State)
			}
		}
	}
}

func TestOperators(t *testing.T) {
	for _, c := range []struct {
		op   string
		want [3]bool // below, at, above the threshold
	}{
		{GreaterOrEqual, [3]bool{false, true, true}}, {Greater, [3]bool{false, false, true}},
		{Less, [3]bool{true, false, false}}, {LessOrEqual, [3]bool{true, true, false}},
	} {
		for i, v := range []float64{4, 5, 6} {
			if (Rule{Operator: c.op, Threshold: 5}).Breaches(Point{Value: v}) != c.want[i] {
				t.Errorf("%v %s 5", v, c.op)
			}
		}
	}
}

func TestBandOperators(t *testing.T) {
	for _, c := range []struct {
		op   string
		want [5]bool // below, at the lower bound, within, at the upper bound, above
	}{
		{OutsideBand, [5]bool{true, false, false, false, true}},
		{BelowBand, [5]bool{true, false, false, false, false}},
		{AboveBand, [5]bool{false, false, false, false, true}},
	} {
		for i, v := range []float64{1, 2, 3, 4, 5} {
			if (Rule{Operator: c.op}).Breaches(Point{Value: v, Lower: 2, Upper: 4}) != c.want[i] {
				t.Errorf("%v %s [2, 4]", v, c.op)
			}
		}
	}
}

func TestFewSamples(t *testing.T) {
	r := Rule{Periods: 1, ToAlarm: 1, Operator: Greater, Percentile: 99, HoldFewSamples: true}
	for samples, want := range map[float64]string{999: Insufficient, 1001: Alarm} {
		got := Evaluate(r, []*Point{nil, nil, {Value: 1, Samples: samples}}, Insufficient)
		if got.State != want {
			t.Errorf("%v samples: %s", samples, got.State)
		}
	}
}

func TestReasons(t *testing.T) {
	at := time.Date(2019, 10, 2, 16, 59, 0, 0, time.UTC)
	one := Rule{Periods: 1, ToAlarm: 1, Operator: Greater, Threshold: 50}
	for _, c := range []struct {
		rule   Rule
		points []*Point
		want   string
	}{
		{one, []*Point{nil, nil, {Start: at, Value: 99.50160229693434}},
			"Threshold Crossed: 1 out of the last 1 datapoints [99.50160229693434 (02/10/19 16:59:00)] was greater than the threshold (50.0) (minimum 1 datapoint for OK -> ALARM transition)."},
		{one, []*Point{nil, nil, {Start: at, Value: 1e-4}},
			"Threshold Crossed: 1 out of the last 1 datapoints [1.0E-4 (02/10/19 16:59:00)] was not greater than the threshold (50.0) (minimum 1 datapoint for ALARM -> OK transition)."},
		{one, []*Point{nil, nil, nil}, "Insufficient Data: 1 datapoint was unknown."},
		{Rule{Periods: 2, ToAlarm: 2, Missing: Breaching}, make([]*Point, 4),
			"Threshold Crossed: no datapoints were received for 2 periods and 2 missing datapoints were treated as [Breaching]."},
		{Rule{Periods: 1, ToAlarm: 1, Missing: NotBreaching}, make([]*Point, 3),
			"Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as [NonBreaching]."},
		{Rule{Periods: 3, ToAlarm: 2, Operator: LessOrEqual, Threshold: 2}, []*Point{nil, nil, {Start: at, Value: 1}, {Start: at, Value: 9}, {Start: at.Add(time.Minute), Value: 2}},
			"Threshold Crossed: 2 out of the last 3 datapoints [2.0 (02/10/19 17:00:00), 1.0 (02/10/19 16:59:00)] were less than or equal to the threshold (2.0) (minimum 2 datapoints for OK -> ALARM transition)."},
		// The two examples of the user guide ("Alarm events and EventBridge"),
		{Rule{Periods: 1, ToAlarm: 1, Operator: OutsideBand}, []*Point{nil, nil, {Start: at, Value: 0, Lower: 0.020599444741798756, Upper: 0.3006915352732461}},
			"Thresholds Crossed: 1 out of the last 1 datapoints [0.0 (02/10/19 16:59:00)] was less than the lower thresholds [0.020599444741798756] or greater than the upper thresholds [0.3006915352732461] (minimum 1 datapoint for OK -> ALARM transition)."},
		{Rule{Periods: 1, ToAlarm: 1, Operator: OutsideBand}, []*Point{nil, nil, {Start: at, Value: 0.166666666664241, Lower: 0.0206719426210418, Upper: 0.30076870222143803}},
			"Thresholds Crossed: 1 out of the last 1 datapoints [0.166666666664241 (02/10/19 16:59:00)] was not less than the lower thresholds [0.0206719426210418] or not greater than the upper thresholds [0.30076870222143803] (minimum 1 datapoint for ALARM -> OK transition)."},
		// and one-sided ones.
		{Rule{Periods: 3, ToAlarm: 2, Operator: AboveBand}, []*Point{nil, nil, {Start: at, Value: 9, Upper: 3}, {Start: at, Value: 1, Upper: 4}, {Start: at.Add(time.Minute), Value: 8, Upper: 5.5}},
			"Thresholds Crossed: 2 out of the last 3 datapoints [8.0 (02/10/19 17:00:00), 9.0 (02/10/19 16:59:00)] were greater than the upper thresholds [5.5, 3.0] (minimum 2 datapoints for OK -> ALARM transition)."},
		{Rule{Periods: 1, ToAlarm: 1, Operator: BelowBand}, []*Point{nil, nil, {Start: at, Value: 9, Lower: 3}},
			"Thresholds Crossed: 1 out of the last 1 datapoints [9.0 (02/10/19 16:59:00)] was not less than the lower thresholds [3.0] (minimum 1 datapoint for ALARM -> OK transition)."},
	} {
		if got := c.rule.Reason(Evaluate(c.rule, c.points, OK)); got != c.want {
			t.Errorf("\n%s\n%s", got, c.want)
		}
	}
}
