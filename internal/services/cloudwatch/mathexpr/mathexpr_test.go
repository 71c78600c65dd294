package mathexpr

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func ts(points ...float64) Value {
	s := Series{Period: 60, Label: "x"}
	for i, v := range points {
		if !math.IsNaN(v) {
			s.Points = append(s.Points, Point{int64(i) * 60, v})
		}
	}
	return series(s)
}

var none = math.NaN()

func environment() *Env {
	vars := map[string]Value{
		"m1": ts(1, 2, none, 4, 5), "m2": ts(10, none, 30, 40, 0), "neg": ts(-1, -2.5), "void": ts(),
		"c": ts(1, 0, 1, 0, none),
	}
	return &Env{
		Start: 0, End: 300, Period: 60,
		Get: func(id string) (Value, bool, error) { v, ok := vars[id]; return v, ok, nil },
		Metrics: func(part string) ([]Series, error) {
			var out []Series
			for _, id := range []string{"m1", "m2"} {
				if strings.Contains(id, part) {
					out = append(out, vars[id].List[0])
				}
			}
			return out, nil
		},
		Search: func(string, string, int64) ([]Series, error) { return vars["m1"].List, nil },
	}
}

// show writes a value: "3", "[0:1 60:2]", "{[...] [...]}".
func show(v Value) string {
	var l []string
	for _, s := range v.List {
		var p []string
		for _, x := range s.Points {
			p = append(p, fmt.Sprintf("%d:%.4g", x.At, x.Value))
		}
		l = append(l, "["+strings.Join(p, " ")+"]")
	}
	switch v.Kind {
	case Scalar:
		return fmt.Sprintf("%.4g", v.Number)
	case Empty:
		return "nothing"
	case TimeSeries:
		return l[0]
	}
	return "{" + strings.Join(l, " ") + "}"
}

func TestExpressions(t *testing.T) {
	for text, want := range map[string]string{
		"1 + 2 * 3": "7", "(1 + 2) * 3": "9", "2 ^ 3 ^ 2": "512", "-2 ^ 2": "-4", "7 / 2": "3.5", "1 / 0": "nothing", "1 < 2": "1", "2 == 3": "0",
		"1 < 2 AND 3 < 2": "0", "1 < 2 || 3 < 2": "1", "1e3 + .5": "1000", "--1": "1", "3 - -1": "4",
		"m1 + 1": "[0:2 60:3 180:5 240:6]", "m1 + m2": "[0:11 180:44 240:5]", "m1 / m2": "[0:0.1 180:0.1]", "m1 > 2": "[0:0 60:0 180:1 240:1]",
		"METRICS() * 2": "{[0:2 60:4 180:8 240:10] [0:20 120:60 180:80 240:0]}",
		"ABS(neg)":      "[0:1 60:2.5]", "CEIL(neg)": "[0:-1 60:-2]", "FLOOR(neg)": "[0:-1 60:-3]", "LOG(neg)": "[]", "LOG10(100)": "2",
		"AVG(m1)": "3", "SUM(m1)": "12", "MAX(m1)": "5", "MIN(m1)": "1", "STDDEV(m1)": "1.581", "AVG(void)": "nothing",
		"SUM(METRICS())": "[0:11 60:2 120:30 180:44 240:5]", "MAX([m1, m2, 3])": "[0:10 60:3 120:30 180:40 240:5]", `AVG(METRICS("m2"))`: "[0:10 120:30 180:40 240:0]",
		"DATAPOINT_COUNT(m1)": "4", "DIFF(m1)": "[60:1 180:2 240:1]", "DIFF_TIME(m1)": "[60:60 180:120 240:60]", "RATE(m1)": "[60:0.01667 180:0.01667 240:0.01667]",
		"RUNNING_SUM(m1)": "[0:1 60:3 180:7 240:12]", "PERIOD(m1)": "60", "m1 / PERIOD(m1)": "[0:0.01667 60:0.03333 180:0.06667 240:0.08333]",
		"FILL(m1, 0)": "[0:1 60:2 120:0 180:4 240:5]", "FILL(m1, REPEAT)": "[0:1 60:2 120:2 180:4 240:5]", "FILL(m1, LINEAR)": "[0:1 60:2 120:3 180:4 240:5]",
		"FILL(m1, m2)": "[0:1 60:2 120:30 180:4 240:5]", "FILL(void, 0)": "[0:0 60:0 120:0 180:0 240:0]", "FILL(METRICS(), 0)": "{[0:1 60:2 120:0 180:4 240:5] [0:10 60:0 120:30 180:40 240:0]}",
		"IF(c, m1, m2)": "[0:1 180:40]", "IF(c, m1)": "[0:1]", "IF(m1 > 3, 1, 0)": "[0:0 60:0 180:1 240:1]", "IF(1, m1, m2)": "[0:1 60:2 180:4 240:5]", "IF(c, 7, m1)": "[0:7 60:2 120:7 180:4]",
		"METRIC_COUNT(METRICS())": "2", "FIRST(METRICS())": "[0:1 60:2 180:4 240:5]", "LAST(m1)": "5", "FIRST(m1)": "1", "LAST(void)": "nothing",
		"SLICE(METRICS(), 1)": "[0:10 120:30 180:40 240:0]", "METRIC_COUNT(SLICE(METRICS(), 0, 1))": "1", "METRIC_COUNT(SLICE(METRICS(), 5, 1))": "0",
		"FIRST(SORT(METRICS(), MAX, DESC))": "[0:10 120:30 180:40 240:0]", "METRIC_COUNT(SORT(METRICS(), SUM, ASC, 1))": "1",
		"METRIC_COUNT(REMOVE_EMPTY([m1, void]))": "1", "TIME_SERIES(4)": "[0:4 60:4 120:4 180:4 240:4]",
		"MINUTE(m1)": "[0:0 60:1 180:3 240:4]", "YEAR(m1)": "[0:1970 60:1970 180:1970 240:1970]", "DAY(FIRST(METRICS()))": "[0:4 60:4 180:4 240:4]", "EPOCH(c)": "[0:0 60:60 120:120 180:180]",
		"SUM(SEARCH('{a,b} x', 'Average', 60))": "[0:1 60:2 180:4 240:5]", "abs(neg)": "[0:1 60:2.5]",
	} {
		e, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		v, err := e.Eval(environment())
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := show(v); got != want {
			t.Errorf("%s = %s, want %s", text, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{"", "1 +", "(1", "1 2", "FOO(1)", "ABS()", "ABS(1, 2)", "\"x", "m1 = 2", "1 & 2", "m1..2", "#", "1,2", "[1", "IF(1)", strings.Repeat("(", 3000), strings.Repeat("-", 3000) + "1"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%.30q is taken", text)
		}
	}
	for _, text := range []string{"m9", "ABS(\"x\")", "\"x\"", "FILL(m1, \"x\")", "SORT(m1, MAX, ASC)", "SORT(METRICS(), ASC, MAX)", "DIFF(1)", "RATE(3)", "IF(METRICS(), 1, 2)", "PERIOD(1)", "SLICE(m1, 1)", "TIME_SERIES(m1)", "METRICS(1)", "METRICS() + [m1]", "SEARCH(m1, 1)", "1 + REPEAT"} {
		e, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if v, err := e.Eval(environment()); err == nil {
			t.Errorf("%s = %s", text, show(v))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("IF(m1 > 3, FILL(m1, REPEAT), [m1, 2] ^ 3)")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 2048 {
			return
		}
		if e, err := Parse(text); err == nil {
			e.Eval(environment())
		}
	})
}
