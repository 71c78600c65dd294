package cloudwatch

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/services/cloudwatch/metricstore"
)

func TestParseSQL(t *testing.T) {
	for text, want := range map[string]string{
		`SELECT AVG(CPUUtilization) FROM "AWS/EC2"`: `{AVG CPUUtilization AWS/EC2 [] false [] []  false 500}`,
		`select max("My Metric") from SCHEMA("AWS/EC2", InstanceId, "Zone") where Zone != 'a''b' and InstanceId='i' group by Zone order by sum() desc limit 7`: `{MAX My Metric AWS/EC2 [InstanceId Zone] true [{Zone a'b true} {InstanceId i false}] [Zone] SUM true 7}`,
		"SELECT\n\tCOUNT(x)\nFROM SCHEMA(App) ORDER BY MIN() ASC": `{COUNT x App [] true [] [] MIN false 500}`,
	} {
		q, err := parseSQL(text)
		if err != nil || fmt.Sprint(*q) != want {
			t.Errorf("%s: %v %v, want %s", text, q, err, want)
		}
	}
	for text, want := range map[string]string{
		`SELECT x FROM a`: "column 8", `SELECT AVG(x)`: "expected FROM", `SELECT AVG(x) FROM`: "expected a name", `SELECT P99(x) FROM a`: "is not one of",
		`SELECT AVG(x) FROM a WHERE b = c`: "single quotes", `SELECT AVG(x) FROM a WHERE b > '1'`: "column 30", `SELECT AVG(x) FROM a LIMIT 501`: "from 1 to 500",
		`SELECT AVG(x) FROM a LIMIT 0`: "from 1 to 500", `SELECT AVG(x) FROM a ORDER BY AVG`: "expected (", `SELECT AVG(x) FROM a GROUP BY`: "expected a name",
		`SELECT AVG(x) FROM "a`: "does not end", `SELECT AVG(x) FROM a; DROP`: `unexpected ';'`, `SELECT AVG(x) FROM a x`: `unexpected "x"`, `SELECT AVG(x) FROM a GROUP BY tag.env`: "tags",
	} {
		if _, err := parseSQL(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// sample is a value that a test put.
type sample struct {
	labels map[string]string
	at     int64
	value  float64
}

func aggregate(function string, values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	switch function {
	case "AVG":
		return sum / float64(len(values))
	case "COUNT":
		return float64(len(values))
	case "MAX":
		return slices.Max(values)
	case "MIN":
		return slices.Min(values)
	}
	return sum
}

// TestSQLAgainstReference compares random queries with a plain look at all
// samples.
func TestSQLAgainstReference(t *testing.T) {
	w := newWorld(t, 1)
	rnd := rand.New(rand.NewPCG(7, 7))
	start := w.clock.Now().Truncate(time.Hour).Add(-2 * time.Hour)
	var samples []sample
	var points []metricstore.Point
	for range 3000 {
		s := sample{labels: map[string]string{}, at: start.Unix() + rnd.Int64N(7200), value: float64(rnd.IntN(1000)) / 8}
		for _, l := range []string{"A", "B", "C"} {
			if rnd.IntN(3) > 0 {
				s.labels[l] = fmt.Sprint(l, rnd.IntN(3))
			}
		}
		var dims []metricstore.Dimension
		for k, v := range s.labels {
			dims = append(dims, metricstore.Dimension{Name: k, Value: v})
		}
		samples = append(samples, s)
		for _, name := range []string{"x", "y"} { // y must not be mixed in
			points = append(points, metricstore.Point{Metric: metricstore.NewMetric(account, region, "App", name, dims...), Unit: []string{"None", "Count"}[rnd.IntN(2)], At: time.Unix(s.at, 0), Resolution: 60, Set: metricstore.Of(s.value, 1)})
			s.value = -1
		}
	}
	if err := w.svc.put(w.ctx, points); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		text, period := "SELECT ", int64(60*(1+rnd.IntN(20)))
		function := sqlFunctions[rnd.IntN(5)]
		text += function + "(x) FROM "
		var schema []string
		exact := rnd.IntN(2) == 0
		for _, l := range []string{"A", "B", "C"} {
			if rnd.IntN(2) == 0 {
				schema = append(schema, l)
			}
		}
		if exact {
			text += "SCHEMA(" + strings.Join(append([]string{`"App"`}, schema...), ", ") + ")"
		} else {
			text += "App"
		}
		type cond struct {
			label, value string
			not          bool
		}
		var conds []cond
		for i := range rnd.IntN(3) {
			c := cond{string(rune('A' + rnd.IntN(3))), "", rnd.IntN(2) == 0}
			c.value = fmt.Sprint(c.label, rnd.IntN(3))
			conds = append(conds, c)
			text += []string{" WHERE ", " AND "}[i] + c.label + map[bool]string{true: " != ", false: " = "}[c.not] + "'" + c.value + "'"
		}
		var group []string
		if rnd.IntN(3) > 0 {
			group = []string{"A", "B", "C"}[:1+rnd.IntN(2)]
			text += " GROUP BY " + strings.Join(group, ", ")
		}
		order := ""
		if rnd.IntN(2) == 0 {
			order = sqlFunctions[rnd.IntN(5)]
			text += " ORDER BY " + order + "()"
		}
		descending := order != "" && rnd.IntN(2) == 0
		if descending {
			text += " DESC"
		}
		limit := 1 + rnd.IntN(6)
		text += fmt.Sprint(" LIMIT ", limit)

		want := map[string]map[int64][]float64{}
		all := map[string][]float64{}
	next:
		for _, s := range samples {
			if exact && !slices.Equal(slices.Sorted(maps.Keys(s.labels)), schema) {
				continue
			}
			for _, c := range conds {
				if v, ok := s.labels[c.label]; !ok || (v == c.value) == c.not {
					continue next
				}
			}
			var names []string
			for _, l := range group {
				if s.labels[l] == "" {
					continue next
				}
				names = append(names, s.labels[l])
			}
			name := strings.Join(names, " ")
			if group == nil {
				name = "x"
			}
			if want[name] == nil {
				want[name] = map[int64][]float64{}
			}
			at := start.Unix() + (s.at-start.Unix())/period*period
			want[name][at] = append(want[name][at], s.value)
			all[name] = append(all[name], s.value)
		}
		q := expression("q", text)
		q.Period = &period
		got := w.data(start, start.Add(2*time.Hour), q)
		if group == nil && len(want) == 0 {
			if len(got) != 1 || len(got[0].Values) != 0 {
				t.Fatalf("%s: %d results of nothing", text, len(got))
			}
			continue
		}
		if len(got) != min(limit, len(want)) {
			t.Fatalf("%s: %d series, want %d of %d", text, len(got), limit, len(want))
		}
		last := math.Inf(-1)
		lowest := map[bool]float64{true: math.Inf(1), false: math.Inf(-1)}[descending]
		for _, r := range got {
			ref := want[*r.Label]
			if ref == nil || len(ref) != len(r.Values) {
				t.Fatalf("%s: %s has %d points, want %d", text, *r.Label, len(r.Values), len(ref))
			}
			for i, at := range r.Timestamps {
				if v := aggregate(function, ref[at.Unix()]); math.Abs(v-r.Values[i]) > 1e-9*(1+math.Abs(v)) {
					t.Fatalf("%s: %s at %s: %v, want %v", text, *r.Label, at, r.Values[i], v)
				}
			}
			if order == "" {
				continue
			}
			rank := aggregate(order, all[*r.Label])
			lowest = rank
			if descending {
				rank = -rank
			}
			if rank < last-1e-9 {
				t.Fatalf("%s: %s is out of order", text, *r.Label)
			}
			last = rank
		}
		if order != "" { // what the limit left out comes behind
			for name := range want {
				if slices.ContainsFunc(got, func(r api.MetricDataResult) bool { return *r.Label == name }) {
					continue
				}
				if rank := aggregate(order, all[name]); descending && rank > lowest+1e-9 || !descending && rank < lowest-1e-9 {
					t.Fatalf("%s: %s with %v is left out", text, name, rank)
				}
			}
		}
	}
}

func TestSQLInRequests(t *testing.T) {
	w := newWorld(t, 1)
	now := w.clock.Now().Truncate(time.Hour)
	for _, host := range []string{"a", "b"} {
		w.put("Load", now.Add(-time.Minute), 4, api.Dimension{Name: new("Host"), Value: &host})
	}
	q := expression("q", "SELECT SUM(Load) FROM SCHEMA(App, Host) GROUP BY Host")
	q.Period = new(int64(60))
	total := expression("total", "SUM(q) * 10")
	r := w.data(now.Add(-time.Hour), now, q, total)
	if len(r) != 3 || *r[0].Label != "a" || *r[1].Label != "b" || *r[0].Id != "q" || r[2].Values[0] != 80 {
		t.Errorf("%d results", len(r))
	}
	refused := func(what, code string, status int, err error) {
		t.Helper()
		if e := awserr.As(err); e == nil || e.Code != code || status != 0 && e.Status != status {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := dispatch.Call(w.ctx, w.mux, api.OpGetMetricData, &api.GetMetricDataInput{StartTime: new(now.Add(-time.Hour)), EndTime: &now,
		MetricDataQueries: []api.MetricDataQuery{expression("a", "SELECT SUM(x) FROM y"), expression("b", "SELECT SUM(x) FROM y")}})
	refused("two queries", "ValidationError", 0, err)
	_, err = dispatch.Call(w.ctx, w.mux, api.OpGetMetricData, &api.GetMetricDataInput{StartTime: new(now.Add(-time.Hour)), EndTime: &now, MetricDataQueries: []api.MetricDataQuery{expression("a", "SELECT x")}})
	refused("syntax", "ValidationError", 0, err)
	in := mathAlarm("x")
	in.Metrics = []api.MetricDataQuery{q}
	_, err = dispatch.Call(w.ctx, w.mux, api.OpPutMetricAlarm, in)
	refused("alarm", "NotImplemented", 501, err)
	_, err = dispatch.Call(w.ctx, w.mux, api.OpPutAnomalyDetector, &api.PutAnomalyDetectorInput{MetricMathAnomalyDetector: &api.MetricMathAnomalyDetector{MetricDataQueries: []api.MetricDataQuery{q}}})
	refused("detector", "ValidationError", 0, err)
	_, err = dispatch.Call(w.ctx, w.mux, api.OpGetMetricData, &api.GetMetricDataInput{StartTime: new(now.Add(-time.Hour)), EndTime: &now, MetricDataQueries: []api.MetricDataQuery{q, expression("b", "ANOMALY_DETECTION_BAND(q)")}})
	refused("band", "ValidationError", 0, err)
}
