package cloudwatch

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/services/cloudwatch/anomaly"
	"slipway/internal/services/cloudwatch/evaluate"
	"slipway/internal/services/cloudwatch/metricstore"
	"slipway/internal/store"
)

// history puts a point each step seconds from start to end.
func (w *world) history(name string, start, end time.Time, step int64, value func(at int64) float64) []anomaly.Point {
	w.Helper()
	var points []metricstore.Point
	var out []anomaly.Point
	for at := start.Unix(); at < end.Unix(); at += step {
		v := value(at)
		points = append(points, metricstore.Point{Metric: metricstore.NewMetric(account, region, "App", name), Unit: "None", At: time.Unix(at, 0), Resolution: 60, Set: metricstore.Of(v, 1)})
		out = append(out, anomaly.Point{At: at, Value: v})
	}
	if err := w.svc.put(w.ctx, points); err != nil {
		w.Fatal(err)
	}
	return out
}

func daily(at int64) float64 {
	return 100 + 50*math.Sin(float64(at)/86400*2*math.Pi) + float64(at/300%7)
}

func statQuery(id, metric, stat string, period int64) api.MetricDataQuery {
	return api.MetricDataQuery{Id: &id, MetricStat: &api.MetricStat{Metric: &api.Metric{Namespace: new("App"), MetricName: &metric}, Period: &period, Stat: &stat}}
}

func expression(id, text string) api.MetricDataQuery {
	return api.MetricDataQuery{Id: &id, Expression: &text}
}

func (w *world) data(start, end time.Time, queries ...api.MetricDataQuery) []api.MetricDataResult {
	w.Helper()
	return call(w, api.OpGetMetricData, &api.GetMetricDataInput{StartTime: &start, EndTime: &end, ScanBy: new(api.ScanByTimestampAscending), MetricDataQueries: queries}).MetricDataResults
}

func loadDetector() *api.SingleMetricAnomalyDetector {
	return &api.SingleMetricAnomalyDetector{Namespace: new("App"), MetricName: new("Load"), Stat: new("Average")}
}

func (w *world) detectors(in *api.DescribeAnomalyDetectorsInput) []api.AnomalyDetector {
	w.Helper()
	return call(w, api.OpDescribeAnomalyDetectors, in).AnomalyDetectors
}

func TestBandOfAMetric(t *testing.T) {
	w := newWorld(t, 1)
	now := w.clock.Now().Truncate(time.Hour) // noon: the models are of then, for an hour
	points := w.history("Load", now.Add(-14*24*time.Hour), now, 300, daily)
	start, end := now.Add(-6*time.Hour), now.Add(time.Hour)
	band := func() []api.MetricDataResult {
		return w.data(start, end, statQuery("m1", "Load", "Average", 300), expression("ad1", "ANOMALY_DETECTION_BAND(m1, 3)"))
	}
	if r := band(); len(r) != 3 || len(r[0].Values) == 0 || len(r[1].Values)+len(r[2].Values) != 0 {
		t.Fatalf("without a detector: %d results, %d and %d points", len(r), len(r[1].Values), len(r[2].Values))
	}
	put := call(w, api.OpPutAnomalyDetector, &api.PutAnomalyDetectorInput{SingleMetricAnomalyDetector: loadDetector()})
	check := func(what string, excluded []anomaly.Span, zone *time.Location) {
		t.Helper()
		m := anomaly.Train(points, anomaly.Options{MinPoints: 10, MinSpan: 3 * 3600, Excluded: excluded, Zone: zone})
		r := band()
		if len(r) != 3 || *r[1].Id != "ad1" || *r[2].Id != "ad1" || *r[1].Label == *r[2].Label || len(r[1].Values) != 84 || len(r[2].Values) != 84 {
			t.Fatalf("%s: %d results, %d and %d points", what, len(r), len(r[1].Values), len(r[2].Values))
		}
		for i, at := range r[1].Timestamps {
			lower, upper, _ := m.Band(at.Unix(), 3)
			if r[1].Values[i] != lower || r[2].Values[i] != upper || !r[2].Timestamps[i].Equal(at) {
				t.Fatalf("%s: at %s [%v %v], want [%v %v]", what, at, r[1].Values[i], r[2].Values[i], lower, upper)
			}
		}
	}
	check("plain", nil, nil)
	w.until("it is trained", func() bool {
		d := w.detectors(&api.DescribeAnomalyDetectorsInput{})
		return len(d) == 1 && *d[0].StateValue == api.AnomalyDetectorStateValueTrained && *d[0].AnomalyDetectorId == *put.AnomalyDetectorId && *d[0].MetricName == "Load"
	})
	w.stop()
	w.open()
	check("after a restart", nil, nil)

	berlin, _ := time.LoadLocation("Europe/Berlin")
	out := api.Range{StartTime: new(now.Add(-9 * 24 * time.Hour)), EndTime: new(now.Add(-5 * 24 * time.Hour))}
	again := call(w, api.OpPutAnomalyDetector, &api.PutAnomalyDetectorInput{Namespace: new("App"), MetricName: new("Load"), Stat: new("Average"), // the older members
		Configuration:         &api.AnomalyDetectorConfiguration{ExcludedTimeRanges: []api.Range{out}, MetricTimezone: new("Europe/Berlin")},
		MetricCharacteristics: &api.MetricCharacteristics{PeriodicSpikes: new(true)}})
	if *again.AnomalyDetectorId != *put.AnomalyDetectorId {
		t.Error("the same metric has two detectors")
	}
	check("configured", []anomaly.Span{{Start: out.StartTime.Unix(), End: out.EndTime.Unix()}}, berlin)
	if d := w.detectors(&api.DescribeAnomalyDetectorsInput{}); len(d) != 1 || *d[0].Configuration.MetricTimezone != "Europe/Berlin" || !d[0].Configuration.ExcludedTimeRanges[0].StartTime.Equal(*out.StartTime) || !*d[0].MetricCharacteristics.PeriodicSpikes {
		t.Errorf("described as %+v", d)
	}

	r := w.data(start, now, statQuery("m1", "Load", "Average", 300), expression("low", "FIRST(ANOMALY_DETECTION_BAND(m1))"), expression("high", "LAST(ANOMALY_DETECTION_BAND(m1))"), expression("over", "IF(m1 > high, 1, 0)"))
	if len(r) != 4 || len(r[1].Values) != 72 || r[1].Values[0] >= r[2].Values[0] || len(r[3].Values) != 72 {
		t.Errorf("ends of the band: %d results", len(r))
	}
	call(w, api.OpDeleteAnomalyDetector, &api.DeleteAnomalyDetectorInput{SingleMetricAnomalyDetector: loadDetector()})
	if r := band(); len(r[1].Values) != 0 {
		t.Error("the band outlives its detector")
	}
	if _, err := dispatch.Call(w.ctx, w.mux, api.OpDeleteAnomalyDetector, &api.DeleteAnomalyDetectorInput{AnomalyDetectorId: put.AnomalyDetectorId}); !awserr.Is(err, api.ErrCodeResourceNotFoundException) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestModelsComeAsTimeGoesOn(t *testing.T) {
	w := newWorld(t, 600)
	now := w.clock.Now()
	w.history("Load", now.Add(-time.Hour), now, 60, daily)
	call(w, api.OpPutAnomalyDetector, &api.PutAnomalyDetectorInput{SingleMetricAnomalyDetector: loadDetector()})
	state := func() string { return *w.detectors(&api.DescribeAnomalyDetectorsInput{})[0].StateValue }
	w.until("there is too little", func() bool { return state() == api.AnomalyDetectorStateValueTrainedInsufficientData })
	if r := w.data(now.Add(-time.Hour), now, statQuery("m1", "Load", "Average", 60), expression("ad1", "ANOMALY_DETECTION_BAND(m1)")); len(r[1].Values) != 0 {
		t.Error("a band of one hour's data")
	}
	w.history("Load", now.Add(-4*time.Hour), now.Add(-time.Hour), 60, daily)
	w.until("the next look finds enough", func() bool { return state() == api.AnomalyDetectorStateValueTrained })
}

func TestMathDetector(t *testing.T) {
	w := newWorld(t, 1)
	now := w.clock.Now().Truncate(time.Hour)
	errors := w.history("Errors", now.Add(-2*24*time.Hour), now, 300, func(at int64) float64 { return float64(at / 300 % 5) })
	w.history("Requests", now.Add(-2*24*time.Hour), now, 300, func(int64) float64 { return 50 })
	hidden := func(q api.MetricDataQuery) api.MetricDataQuery { q.ReturnData = new(false); return q }
	queries := []api.MetricDataQuery{expression("e1", "100 * m1 / m2"), hidden(statQuery("m1", "Errors", "Sum", 300)), hidden(statQuery("m2", "Requests", "Sum", 300))}
	call(w, api.OpPutAnomalyDetector, &api.PutAnomalyDetectorInput{MetricMathAnomalyDetector: &api.MetricMathAnomalyDetector{MetricDataQueries: queries}})
	for i := range errors {
		errors[i].Value *= 2
	}
	m := anomaly.Train(errors, anomaly.Options{})
	r := w.data(now.Add(-time.Hour), now, append([]api.MetricDataQuery{expression("band", "ANOMALY_DETECTION_BAND(e1, 2)")}, queries...)...)
	lower, upper, _ := m.Band(now.Add(-time.Hour).Unix(), 2)
	if len(r) != 3 || len(r[0].Values) != 12 || math.Abs(r[0].Values[0]-lower) > 1e-9 || math.Abs(r[1].Values[0]-upper) > 1e-9 {
		t.Fatalf("%+v, want [%v %v]", r[0], lower, upper)
	}
	if d := w.detectors(&api.DescribeAnomalyDetectorsInput{}); len(d) != 0 {
		t.Error("metric math is shown unasked")
	}
	d := w.detectors(&api.DescribeAnomalyDetectorsInput{AnomalyDetectorTypes: []string{api.AnomalyDetectorTypeMetricMath}})
	if len(d) != 1 || len(d[0].MetricMathAnomalyDetector.MetricDataQueries) != 3 || d[0].MetricName != nil {
		t.Errorf("described as %+v", d)
	}
	call(w, api.OpDeleteAnomalyDetector, &api.DeleteAnomalyDetectorInput{MetricMathAnomalyDetector: &api.MetricMathAnomalyDetector{MetricDataQueries: queries}})
}

func bandAlarm(name, operator string) *api.PutMetricAlarmInput {
	return &api.PutMetricAlarmInput{AlarmName: &name, ComparisonOperator: &operator, EvaluationPeriods: new(int64(1)), ThresholdMetricId: new("ad1"), AlarmActions: []string{topic},
		Metrics: []api.MetricDataQuery{statQuery("m1", "Load", "Average", 60), expression("ad1", "ANOMALY_DETECTION_BAND(m1, 4)")}}
}

func TestBandAlarm(t *testing.T) {
	w := newWorld(t, 60)
	now := w.clock.Now()
	w.history("Load", now.Add(-2*24*time.Hour), now, 60, func(at int64) float64 { return 100 + float64(at/60%3) })
	for _, op := range []string{evaluate.OutsideBand, evaluate.BelowBand, evaluate.AboveBand} {
		call(w, api.OpPutMetricAlarm, bandAlarm(op, op))
	}
	if d := w.detectors(&api.DescribeAnomalyDetectorsInput{Namespace: new("App"), MetricName: new("Load"), Dimensions: []api.Dimension{}}); len(d) != 1 || *d[0].Stat != "Average" {
		t.Fatalf("the alarms made %d detectors", len(d))
	}
	w.put("Load", w.clock.Now(), 500)
	w.inState(evaluate.OutsideBand, api.StateValueAlarm)
	w.inState(evaluate.AboveBand, api.StateValueAlarm)
	w.inState(evaluate.BelowBand, api.StateValueOk)
	a := w.alarm(evaluate.AboveBand)
	if *a.ThresholdMetricId != "ad1" || a.Threshold != nil {
		t.Errorf("described with %v and %v", *a.ThresholdMetricId, a.Threshold)
	}
	if !strings.HasPrefix(*a.StateReason, "Thresholds Crossed: 1 out of the last 1 datapoints [500.0 (01/03/26 ") || !strings.Contains(*a.StateReason, " was greater than the upper thresholds [10") {
		t.Errorf("reason %s", *a.StateReason)
	}
	var data struct {
		RecentDatapoints, RecentLowerThresholds, RecentUpperThresholds []float64
		Threshold                                                      *float64
		EvaluatedDatapoints                                            []struct{ Value, Threshold *float64 }
	}
	if err := json.Unmarshal([]byte(*a.StateReasonData), &data); err != nil {
		t.Fatal(err)
	}
	if data.Threshold != nil || len(data.RecentUpperThresholds) != 1 || data.RecentLowerThresholds != nil || data.RecentDatapoints[0] != 500 || *data.EvaluatedDatapoints[0].Threshold != data.RecentUpperThresholds[0] {
		t.Errorf("reason data %s", *a.StateReasonData)
	}
	w.until("the topic hears of both", func() bool { return w.count(func() int { return len(w.published) }) >= 2 })
	w.mu.Lock()
	m := *w.published[0].Message
	w.mu.Unlock()
	if !strings.Contains(m, `\"ThresholdMetricId\":\"ad1\"`) || strings.Contains(m, `\"Threshold\":`) {
		t.Errorf("message %s", m)
	}
	w.put("Load", w.clock.Now(), 0)
	w.inState(evaluate.BelowBand, api.StateValueAlarm)
}

func TestBandAlarmWithoutHistory(t *testing.T) {
	w := newWorld(t, 60)
	w.put("Load", w.clock.Now(), 1)
	call(w, api.OpPutMetricAlarm, bandAlarm("new", evaluate.OutsideBand))
	w.put("Load", w.clock.Now().Add(time.Minute), 1000)
	w.until("the detector was looked at", func() bool {
		d := w.detectors(&api.DescribeAnomalyDetectorsInput{})
		return len(d) == 1 && *d[0].StateValue == api.AnomalyDetectorStateValueTrainedInsufficientData
	})
	begun := w.clock.Now()
	w.until("some minutes have been evaluated", func() bool { return w.clock.Since(begun) > 4*time.Minute })
	if s := *w.alarm("new").StateValue; s != api.StateValueInsufficientData {
		t.Errorf("%s without a band", s)
	}
}

func TestRefusedBandAlarms(t *testing.T) {
	w := newWorld(t, 1)
	for _, c := range []struct {
		change func(*api.PutMetricAlarmInput)
		want   string
	}{
		{func(in *api.PutMetricAlarmInput) { in.ThresholdMetricId = nil }, "ComparisonOperators for ranges require ThresholdMetricId to be set"},
		{func(in *api.PutMetricAlarmInput) { in.Threshold = new(1.0) }, "Threshold and ThresholdMetricId cannot both be set"},
		{func(in *api.PutMetricAlarmInput) { in.ComparisonOperator = new(evaluate.Greater) }, "requires a ComparisonOperator for ranges"},
		{func(in *api.PutMetricAlarmInput) { in.ThresholdMetricId = new("m1") }, "does not match an expression"},
		{func(in *api.PutMetricAlarmInput) { in.ThresholdMetricId = new("ad2") }, "does not match an expression"},
		{func(in *api.PutMetricAlarmInput) { in.Metrics[1].Expression = new("m1 * 2") }, "must be an expression that is an ANOMALY_DETECTION_BAND"},
		{func(in *api.PutMetricAlarmInput) { in.Metrics[0].ReturnData = new(false) }, "Exactly two elements of the metrics list should return data."},
		{func(in *api.PutMetricAlarmInput) {
			in.Metrics[0].ReturnData = new(false)
			in.Metrics = append(in.Metrics, statQuery("m2", "x", "Sum", 60))
		}, "m2 must not return data"},
		{func(in *api.PutMetricAlarmInput) { in.AlarmActions = []string{policy} }, "do not take Auto Scaling and EC2 actions"},
		{func(in *api.PutMetricAlarmInput) { in.OKActions = []string{"arn:aws:automate:us-east-1:ec2:stop"} }, "do not take Auto Scaling and EC2 actions"},
		{func(in *api.PutMetricAlarmInput) { in.Metrics[1].Expression = new("ANOMALY_DETECTION_BAND(m1 * 2)") }, "must be the id of"},
		{func(in *api.PutMetricAlarmInput) { in.Metrics[1].Expression = new("ANOMALY_DETECTION_BAND(m7)") }, "there is no query with the Id 'm7'"},
		{func(in *api.PutMetricAlarmInput) {
			in.ThresholdMetricId, in.Threshold, in.ComparisonOperator = nil, new(1.0), new(evaluate.Greater)
			in.Metrics[0].ReturnData = new(false)
		}, "ad1 is a band"},
		{func(in *api.PutMetricAlarmInput) {
			in.Metrics, in.MetricName, in.Namespace = nil, new("Load"), new("App")
		}, "ThresholdMetricId requires Metrics"},
	} {
		in := bandAlarm("x", evaluate.AboveBand)
		c.change(in)
		if _, err := dispatch.Call(w.ctx, w.mux, api.OpPutMetricAlarm, in); !awserr.Is(err, "ValidationError") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if d := w.detectors(&api.DescribeAnomalyDetectorsInput{}); len(d) != 0 {
		t.Error("a refused alarm left a detector")
	}
	for _, text := range []string{"ANOMALY_DETECTION_BAND(m1, 0)", "ANOMALY_DETECTION_BAND(m1, m1)"} {
		at := w.clock.Now()
		_, err := dispatch.Call(w.ctx, w.mux, api.OpGetMetricData, &api.GetMetricDataInput{StartTime: new(at.Add(-time.Hour)), EndTime: &at,
			MetricDataQueries: []api.MetricDataQuery{statQuery("m1", "Load", "Sum", 60), expression("ad1", text)}})
		if !awserr.Is(err, "ValidationError") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRefusedDetectors(t *testing.T) {
	w := newWorld(t, 1)
	at := w.clock.Now()
	math := func(change func(*api.MetricMathAnomalyDetector)) *api.MetricMathAnomalyDetector {
		m := &api.MetricMathAnomalyDetector{MetricDataQueries: []api.MetricDataQuery{statQuery("m1", "Load", "Sum", 60), expression("e1", "m1 * 2")}}
		m.MetricDataQueries[0].ReturnData = new(false)
		change(m)
		return m
	}
	config := func(c api.AnomalyDetectorConfiguration) *api.PutAnomalyDetectorInput {
		return &api.PutAnomalyDetectorInput{SingleMetricAnomalyDetector: loadDetector(), Configuration: &c}
	}
	range1 := api.Range{StartTime: &at, EndTime: new(at.Add(time.Hour))}
	for what, c := range map[string]struct {
		in   *api.PutAnomalyDetectorInput
		code string
	}{
		"nothing":     {&api.PutAnomalyDetectorInput{}, api.ErrCodeMissingRequiredParameterException},
		"no stat":     {&api.PutAnomalyDetectorInput{Namespace: new("App"), MetricName: new("x")}, api.ErrCodeMissingRequiredParameterException},
		"both forms":  {&api.PutAnomalyDetectorInput{Namespace: new("App"), SingleMetricAnomalyDetector: loadDetector()}, api.ErrCodeInvalidParameterCombinationException},
		"both kinds":  {&api.PutAnomalyDetectorInput{SingleMetricAnomalyDetector: loadDetector(), MetricMathAnomalyDetector: math(func(*api.MetricMathAnomalyDetector) {})}, api.ErrCodeInvalidParameterCombinationException},
		"zone":        {config(api.AnomalyDetectorConfiguration{MetricTimezone: new("Europe/Atlantis")}), api.ErrCodeInvalidParameterValueException},
		"range":       {config(api.AnomalyDetectorConfiguration{ExcludedTimeRanges: []api.Range{{StartTime: &at, EndTime: &at}}}), api.ErrCodeInvalidParameterValueException},
		"many ranges": {config(api.AnomalyDetectorConfiguration{ExcludedTimeRanges: make11(range1)}), api.ErrCodeInvalidParameterValueException},
		"speed":       {config(api.AnomalyDetectorConfiguration{AdaptationSpeed: new("x")}), "NotImplemented"},
		"two watched": {&api.PutAnomalyDetectorInput{MetricMathAnomalyDetector: math(func(m *api.MetricMathAnomalyDetector) { m.MetricDataQueries[0].ReturnData = nil })}, "ValidationError"},
		"band": {&api.PutAnomalyDetectorInput{MetricMathAnomalyDetector: math(func(m *api.MetricMathAnomalyDetector) {
			m.MetricDataQueries[1].Expression = new("LAST(ANOMALY_DETECTION_BAND(m1))")
		})}, "ValidationError"},
		"search": {&api.PutAnomalyDetectorInput{MetricMathAnomalyDetector: math(func(m *api.MetricMathAnomalyDetector) {
			m.MetricDataQueries[1].Expression = new("SUM(SEARCH('x', 'Sum')) + m1")
		})}, "ValidationError"},
		"no metric": {&api.PutAnomalyDetectorInput{MetricMathAnomalyDetector: math(func(m *api.MetricMathAnomalyDetector) { m.MetricDataQueries = m.MetricDataQueries[1:] })}, "ValidationError"},
	} {
		if _, err := dispatch.Call(w.ctx, w.mux, api.OpPutAnomalyDetector, c.in); !awserr.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", what, err, c.code)
		}
	}
}

func make11(r api.Range) []api.Range {
	var out []api.Range
	for range 11 {
		out = append(out, r)
	}
	return out
}

func TestDetectorsComeInPages(t *testing.T) {
	w := newWorld(t, 1)
	want := map[string]bool{}
	for i := range 5 {
		d := loadDetector()
		d.MetricName = new(fmt.Sprint("m", i))
		d.Dimensions = []api.Dimension{{Name: new("b"), Value: new("2")}, {Name: new("a"), Value: new("1")}}
		want[*call(w, api.OpPutAnomalyDetector, &api.PutAnomalyDetectorInput{SingleMetricAnomalyDetector: d}).AnomalyDetectorId] = true
	}
	in := &api.DescribeAnomalyDetectorsInput{MaxResults: new(int64(2)), Dimensions: []api.Dimension{{Name: new("a"), Value: new("1")}, {Name: new("b"), Value: new("2")}}}
	pages := 0
	for {
		out := call(w, api.OpDescribeAnomalyDetectors, in)
		pages++
		for _, d := range out.AnomalyDetectors {
			if !want[*d.AnomalyDetectorId] {
				t.Errorf("%s comes twice or is unknown", *d.AnomalyDetectorId)
			}
			delete(want, *d.AnomalyDetectorId)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if pages != 3 || len(want) != 0 {
		t.Errorf("%d pages, %d missing", pages, len(want))
	}
	in.Dimensions = in.Dimensions[:1]
	if d := w.detectors(in); len(d) != 0 {
		t.Error("some of the dimensions are enough")
	}
}

// BenchmarkTraining computes a model of two weeks of minutes.
func BenchmarkTraining(b *testing.B) {
	w := newWorld(b, 1)
	now := w.clock.Now().Truncate(time.Hour)
	w.history("Load", now.Add(-14*24*time.Hour), now, 60, daily)
	sub := singleSubject(new("App"), new("Load"), nil, new("Average"))
	row := &store.Row[detector]{Key: detectors.Key(account, region, sub.id()), Doc: sub.detector(now)}
	for b.Loop() {
		if m, err := w.svc.models.train(w.ctx, row, sub, 60, "", now.Unix()); err != nil || !m.Trained() {
			b.Fatal(err)
		}
	}
}
