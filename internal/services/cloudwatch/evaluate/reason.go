package evaluate

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// JavaDouble writes a number as AWS's messages do, like Java's
// Double.toString: 50.0, 0.001, 1.0E-4, 1.0E7.
func JavaDouble(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f == 0:
		return "0.0"
	}
	if a := math.Abs(f); a >= 1e-3 && a < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	mantissa, exp, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	n, _ := strconv.Atoi(exp) // FormatFloat wrote it
	return mantissa + "E" + strconv.Itoa(n)
}

var phrases = map[string]string{
	GreaterOrEqual: "greater than or equal to", Greater: "greater than",
	Less: "less than", LessOrEqual: "less than or equal to",
}

// Reason is the StateReason of a result that changed the state.
func (r Rule) Reason(res Result) string {
	if res.State == Insufficient {
		return "Insufficient Data: " + count(r.Periods, "datapoint") + was(r.Periods) + "unknown."
	}
	treated := ""
	if res.Treated != "" && res.Fills > 0 {
		as := "NonBreaching"
		if res.Treated == Breaching {
			as = "Breaching"
		}
		treated = count(res.Fills, "missing datapoint") + was(res.Fills) + "treated as [" + as + "]"
	}
	crossed := "Threshold Crossed"
	if r.Banded() {
		crossed = "Thresholds Crossed"
	}
	if len(res.Used) == 0 {
		return fmt.Sprintf("%s: no datapoints were received for %s and %s.", crossed, count(r.Periods, "period"), treated)
	}
	alarm := res.State == Alarm
	var shown []string
	var points []Point
	for _, p := range res.Used {
		if r.Breaches(p) == alarm {
			points = append(points, p)
			shown = append(shown, fmt.Sprintf("%s (%s)", JavaDouble(p.Value), p.Start.UTC().Format("02/01/06 15:04:05")))
		}
	}
	if len(shown) == 0 { // the fills alone decided
		return fmt.Sprintf("%s: %s.", crossed, treated)
	}
	not, minimum, transition := "", r.ToAlarm, "OK -> ALARM"
	if !alarm {
		not, minimum, transition = "not ", r.Periods-r.ToAlarm+1, "ALARM -> OK"
	}
	if treated != "" {
		treated = " and " + treated
	}
	return fmt.Sprintf("%s: %d out of the last %d datapoints [%s]%s%s%s (minimum %s for %s transition).",
		crossed, len(shown), r.Periods, strings.Join(shown, ", "), was(len(shown)), r.comparison(not, points), treated, count(minimum, "datapoint"), transition)
}

// comparison says what the points were compared with; not is "not " or "".
func (r Rule) comparison(not string, points []Point) string {
	if !r.Banded() {
		return fmt.Sprintf("%s%s the threshold (%s)", not, phrases[r.Operator], JavaDouble(r.Threshold))
	}
	var lower, upper []string
	for _, p := range points {
		lower, upper = append(lower, JavaDouble(p.Lower)), append(upper, JavaDouble(p.Upper))
	}
	below := fmt.Sprintf("%sless than the lower thresholds [%s]", not, strings.Join(lower, ", "))
	above := fmt.Sprintf("%sgreater than the upper thresholds [%s]", not, strings.Join(upper, ", "))
	switch r.Operator {
	case BelowBand:
		return below
	case AboveBand:
		return above
	}
	return below + " or " + above
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func was(n int) string {
	if n == 1 {
		return " was "
	}
	return " were "
}
