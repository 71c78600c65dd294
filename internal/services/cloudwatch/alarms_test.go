package cloudwatch

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/services/cloudwatch/metricstore"
)

func TestRefusedData(t *testing.T) {
	w := newWorld(t, 1)
	now := w.clock.Now()
	many := make([]float64, 151)
	dims := []api.Dimension{{Name: new("a"), Value: new("1")}, {Name: new("a"), Value: new("2")}}
	for what, c := range map[string]struct {
		d    api.MetricDatum
		code string
	}{
		"NaN":              {api.MetricDatum{Value: new(math.NaN())}, api.ErrCodeInvalidParameterValueException},
		"infinity":         {api.MetricDatum{Value: new(math.Inf(-1))}, api.ErrCodeInvalidParameterValueException},
		"too big":          {api.MetricDatum{Value: new(1e200)}, api.ErrCodeInvalidParameterValueException},
		"nothing":          {api.MetricDatum{}, api.ErrCodeMissingRequiredParameterException},
		"two kinds":        {api.MetricDatum{Value: new(1.0), Values: []float64{1}}, api.ErrCodeInvalidParameterCombinationException},
		"too many values":  {api.MetricDatum{Values: many}, api.ErrCodeInvalidParameterValueException},
		"counts differ":    {api.MetricDatum{Values: []float64{1, 2}, Counts: []float64{1}}, api.ErrCodeInvalidParameterValueException},
		"negative count":   {api.MetricDatum{Values: []float64{1}, Counts: []float64{-1}}, api.ErrCodeInvalidParameterValueException},
		"counts alone":     {api.MetricDatum{Value: new(1.0), Counts: []float64{1}}, api.ErrCodeInvalidParameterCombinationException},
		"resolution":       {api.MetricDatum{Value: new(1.0), StorageResolution: new(int64(2))}, api.ErrCodeInvalidParameterValueException},
		"too old":          {api.MetricDatum{Value: new(1.0), Timestamp: new(now.Add(-15 * 24 * time.Hour))}, api.ErrCodeInvalidParameterValueException},
		"too new":          {api.MetricDatum{Value: new(1.0), Timestamp: new(now.Add(3 * time.Hour))}, api.ErrCodeInvalidParameterValueException},
		"same dimension":   {api.MetricDatum{Value: new(1.0), Dimensions: dims}, api.ErrCodeInvalidParameterValueException},
		"colon dimension":  {api.MetricDatum{Value: new(1.0), Dimensions: []api.Dimension{{Name: new(":a"), Value: new("1")}}}, api.ErrCodeInvalidParameterValueException},
		"blank dimension":  {api.MetricDatum{Value: new(1.0), Dimensions: []api.Dimension{{Name: new("a"), Value: new("  ")}}}, api.ErrCodeInvalidParameterValueException},
		"min above max":    {api.MetricDatum{StatisticValues: &api.StatisticSet{SampleCount: new(2.0), Sum: new(3.0), Minimum: new(2.0), Maximum: new(1.0)}}, api.ErrCodeInvalidParameterValueException},
		"empty statistics": {api.MetricDatum{StatisticValues: &api.StatisticSet{SampleCount: new(0.0), Sum: new(3.0), Minimum: new(2.0), Maximum: new(3.0)}}, api.ErrCodeInvalidParameterValueException},
	} {
		c.d.MetricName = new("x")
		_, err := dispatch.Call(w.ctx, w.mux, api.OpPutMetricData, &api.PutMetricDataInput{Namespace: new("App"), MetricData: []api.MetricDatum{c.d}})
		if !awserr.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", what, err, c.code)
		}
	}
	_, err := dispatch.Call(w.ctx, w.mux, api.OpPutMetricData, &api.PutMetricDataInput{Namespace: new("App"), MetricData: make([]api.MetricDatum, 1001)})
	if err == nil {
		t.Error("1001 data are taken")
	}
	if l := w.svc.metrics.List(account, region, nil); len(l) != 0 {
		t.Errorf("refused data left %v", l)
	}
}

func TestRefusedAlarms(t *testing.T) {
	w := newWorld(t, 1)
	for what, change := range map[string]func(*api.PutMetricAlarmInput){
		"no operator":     func(in *api.PutMetricAlarmInput) { in.ComparisonOperator = nil },
		"no threshold":    func(in *api.PutMetricAlarmInput) { in.Threshold = nil },
		"no statistic":    func(in *api.PutMetricAlarmInput) { in.Statistic = nil },
		"bad extended":    func(in *api.PutMetricAlarmInput) { in.Statistic, in.ExtendedStatistic = nil, new("p200") },
		"odd period":      func(in *api.PutMetricAlarmInput) { in.Period = new(int64(45)) },
		"more than a day": func(in *api.PutMetricAlarmInput) { in.EvaluationPeriods = new(int64(1441)) },
		"M above N":       func(in *api.PutMetricAlarmInput) { in.DatapointsToAlarm = new(int64(2)) },
		"treatment":       func(in *api.PutMetricAlarmInput) { in.TreatMissingData = new("Breaching") },
		"action":          func(in *api.PutMetricAlarmInput) { in.AlarmActions = []string{"nobody"} },
		"no metric":       func(in *api.PutMetricAlarmInput) { in.MetricName = nil },
		"search": func(in *api.PutMetricAlarmInput) {
			*in = api.PutMetricAlarmInput{AlarmName: in.AlarmName, Threshold: in.Threshold, ComparisonOperator: in.ComparisonOperator, EvaluationPeriods: in.EvaluationPeriods,
				Metrics: []api.MetricDataQuery{{Id: new("e"), Expression: new("SEARCH('{App} x', 'Sum', 60)")}}}
		},
		"two watched": func(in *api.PutMetricAlarmInput) {
			*in = *mathAlarm("x")
			in.Metrics[0].ReturnData = nil
		},
	} {
		in := cpuAlarm("x")
		change(in)
		if _, err := dispatch.Call(w.ctx, w.mux, api.OpPutMetricAlarm, in); awserr.As(err) == nil || awserr.As(err).Status >= 500 {
			t.Errorf("%s: %v", what, err)
		}
	}
	in := cpuAlarm("x")
	in.EvaluationInterval = new(int64(60))
	if _, err := dispatch.Call(w.ctx, w.mux, api.OpPutMetricAlarm, in); awserr.As(err) == nil || awserr.As(err).Status != 501 {
		t.Errorf("what is not built: %v", err)
	}
}

func mathAlarm(name string) *api.PutMetricAlarmInput {
	stat := func(id, metric string) api.MetricDataQuery {
		return api.MetricDataQuery{Id: &id, ReturnData: new(false), MetricStat: &api.MetricStat{
			Metric: &api.Metric{Namespace: new("App"), MetricName: &metric}, Period: new(int64(60)), Stat: new("Sum")}}
	}
	return &api.PutMetricAlarmInput{
		AlarmName: &name, EvaluationPeriods: new(int64(1)), Threshold: new(5.0), ComparisonOperator: new(api.ComparisonOperatorGreaterThanThreshold), AlarmActions: []string{topic},
		Metrics: []api.MetricDataQuery{stat("errors", "Errors"), stat("requests", "Requests"), {Id: new("rate"), Expression: new("100 * errors / requests"), Label: new("error rate")}},
	}
}

func TestMathAlarm(t *testing.T) {
	w := newWorld(t, 60)
	call(w, api.OpPutMetricAlarm, mathAlarm("errors"))
	at := w.clock.Now() // both in one minute
	w.put("Requests", at, 100)
	w.put("Errors", at, 7)
	w.inState("errors", api.StateValueAlarm)
	if r := *w.alarm("errors").StateReason; !strings.Contains(r, "[7.0 (") {
		t.Errorf("reason %s", r)
	}
	w.until("the topic hears of it", func() bool { return len(w.subjects()) == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := *w.published[0].Message; !strings.Contains(m, `\"Expression\":\"100 * errors / requests\"`) {
		t.Errorf("message %s", m)
	}
}

func TestWrongExpression(t *testing.T) {
	w := newWorld(t, 60)
	in := mathAlarm("several")
	in.Metrics[2].Expression = new("METRICS() * 2")
	call(w, api.OpPutMetricAlarm, in)
	w.until("it says so", func() bool {
		a := w.alarm("several")
		return a.EvaluationState != nil && *a.EvaluationState == api.EvaluationStateEvaluationError && *a.StateValue == api.StateValueInsufficientData
	})
	call(w, api.OpPutMetricAlarm, mathAlarm("several"))
	w.until("it is well again", func() bool { return w.alarm("several").EvaluationState == nil })
}

// TestAlarmIsInTime measures from the end of the breaching period to the
// action, in real seconds. A busy machine makes it later, nothing makes it
// earlier: the best of a few counts.
func TestAlarmIsInTime(t *testing.T) {
	var late time.Duration
	for range 5 {
		w := newWorld(t, 20)
		in := cpuAlarm("fast")
		in.Period = new(int64(10))
		call(w, api.OpPutMetricAlarm, in)
		at := w.clock.Now()
		call(w, api.OpPutMetricData, &api.PutMetricDataInput{Namespace: new("App"), MetricData: []api.MetricDatum{{MetricName: new("Load"), Timestamp: &at, Value: new(99.0), StorageResolution: new(int64(1))}}})
		w.until("the topic hears of it", func() bool { return len(w.subjects()) == 1 })
		late = w.clock.Real(w.clock.Since(at.Truncate(10 * time.Second).Add(10 * time.Second)))
		w.stop()
		if late <= time.Second {
			return
		}
	}
	t.Errorf("told %v after the period's end", late)
}

func TestActionsSurviveRestart(t *testing.T) {
	w := newWorld(t, 60)
	w.mu.Lock()
	w.publish = func() error { return errors.New("the topic service is away") }
	w.mu.Unlock()
	call(w, api.OpPutMetricAlarm, cpuAlarm("high"))
	w.set("high", api.StateValueAlarm)
	w.stop()
	w.mu.Lock()
	w.publish, w.published = nil, nil
	w.mu.Unlock()
	w.open()
	w.until("the topic hears of it after all", func() bool {
		for _, s := range w.subjects() {
			if s == `ALARM: "high"` {
				return true
			}
		}
		return false
	})
}

func TestFailedActionsAreInTheHistory(t *testing.T) {
	w := newWorld(t, 1)
	w.mu.Lock()
	w.publish = func() error { return awserr.New("NotFound", "Topic does not exist").WithStatus(404) }
	w.mu.Unlock()
	in := cpuAlarm("high")
	in.AlarmActions = []string{topic, "arn:aws:lambda:us-east-1:123456789012:function:f", "arn:aws:automate:us-east-1:ec2:stop"}
	call(w, api.OpPutMetricAlarm, in)
	w.set("high", api.StateValueAlarm)
	w.until("all are told of", func() bool {
		out := call(w, api.OpDescribeAlarmHistory, &api.DescribeAlarmHistoryInput{AlarmName: new("high"), HistoryItemType: new(api.HistoryItemTypeAction)})
		n := 0
		for _, h := range out.AlarmHistoryItems {
			if strings.HasPrefix(*h.HistorySummary, "Failed to execute action ") {
				n++
			}
		}
		return n == 3
	})
}

func TestMutedAlarmsTellNobody(t *testing.T) {
	w := newWorld(t, 1)
	call(w, api.OpPutMetricAlarm, cpuAlarm("high"))
	call(w, api.OpDisableAlarmActions, &api.DisableAlarmActionsInput{AlarmNames: []string{"high"}})
	if *w.alarm("high").ActionsEnabled {
		t.Error("the actions are enabled")
	}
	w.set("high", api.StateValueAlarm)
	out := call(w, api.OpDescribeAlarmHistory, &api.DescribeAlarmHistoryInput{AlarmName: new("high"), HistoryItemType: new(api.HistoryItemTypeAction)})
	if len(out.AlarmHistoryItems) != 2 || !strings.HasPrefix(*out.AlarmHistoryItems[0].HistorySummary, "Action execution is disabled") {
		t.Errorf("history %v", out.AlarmHistoryItems)
	}
	call(w, api.OpEnableAlarmActions, &api.EnableAlarmActionsInput{AlarmNames: []string{"high"}})
	w.set("high", api.StateValueOk)
	w.until("the topic hears of the end", func() bool { return len(w.subjects()) == 1 })
}

func TestOldHistoryGoes(t *testing.T) {
	w := newWorld(t, 1)
	call(w, api.OpPutMetricAlarm, cpuAlarm("high"))
	w.set("high", api.StateValueOk)
	all := func() int {
		return len(call(w, api.OpDescribeAlarmHistory, &api.DescribeAlarmHistoryInput{AlarmName: new("high")}).AlarmHistoryItems)
	}
	before, removed := all(), 0
	if n, err := w.svc.sweepOnce(w.ctx, w.clock.Now().Add(-time.Minute)); n != 0 || err != nil || all() < before {
		t.Errorf("%d removed that are not old: %v", n, err)
	}
	w.until("all is removed", func() bool {
		n, err := w.svc.sweepOnce(w.ctx, w.clock.Now().Add(time.Minute))
		removed += n
		return err == nil && n == 0 && all() == 0
	})
	if removed < before {
		t.Errorf("%d removed of %d", removed, before)
	}
}

func TestPagesAndTags(t *testing.T) {
	w := newWorld(t, 1)
	for _, n := range []string{"a", "b", "c"} {
		in := cpuAlarm(n)
		in.Tags = []api.Tag{{Key: new("team"), Value: new("x")}}
		call(w, api.OpPutMetricAlarm, in)
	}
	var got []string
	in := &api.DescribeAlarmsInput{MaxRecords: new(int64(2))}
	for {
		out := call(w, api.OpDescribeAlarms, in)
		for _, a := range out.MetricAlarms {
			got = append(got, *a.AlarmName)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if strings.Join(got, "") != "abc" {
		t.Errorf("pages %v", got)
	}
	arn := *w.alarm("a").AlarmArn
	call(w, api.OpTagResource, &api.TagResourceInput{ResourceARN: &arn, Tags: []api.Tag{{Key: new("more"), Value: new("y")}}})
	call(w, api.OpUntagResource, &api.UntagResourceInput{ResourceARN: &arn, TagKeys: []string{"team"}})
	if tags := call(w, api.OpListTagsForResource, &api.ListTagsForResourceInput{ResourceARN: &arn}).Tags; len(tags) != 1 || *tags[0].Key != "more" {
		t.Errorf("tags %v", tags)
	}
	if _, err := dispatch.Call(w.ctx, w.mux, api.OpListTagsForResource, &api.ListTagsForResourceInput{ResourceARN: new(arn + "x")}); !awserr.Is(err, api.ErrCodeResourceNotFoundException) {
		t.Errorf("unknown: %v", err)
	}
	call(w, api.OpDeleteAlarms, &api.DeleteAlarmsInput{AlarmNames: []string{"a", "nobody", "b"}})
	if out := call(w, api.OpDescribeAlarms, &api.DescribeAlarmsInput{}); len(out.MetricAlarms) != 1 {
		t.Errorf("%d alarms are left", len(out.MetricAlarms))
	}
}

func TestUnknownMetricHint(t *testing.T) {
	w := newWorld(t, 60)
	w.put("Load", w.clock.Now(), 1, api.Dimension{Name: new("Host"), Value: new("a")})
	call(w, api.OpPutMetricAlarm, cpuAlarm("high"))
	w.until("the reason says so", func() bool { return strings.Contains(*w.alarm("high").StateReason, "There is App Load with Host=a.") })
	if r := *w.alarm("high").StateReason; !strings.HasPrefix(r, uncheckedReason) {
		t.Errorf("reason %s", r)
	}
}

func TestGetMetricDataPages(t *testing.T) {
	w := newWorld(t, 1)
	at := w.clock.Now().Truncate(time.Minute).Add(-20 * time.Minute)
	var points []metricstore.Point
	for i := range 10 {
		points = append(points, metricstore.Point{Metric: metricstore.NewMetric(account, region, "App", "Load"), Unit: "None", At: at.Add(time.Duration(i) * time.Minute), Resolution: 60, Set: metricstore.Of(float64(i), 1)})
	}
	if err := w.svc.put(w.ctx, points); err != nil {
		t.Fatal(err)
	}
	query := func(id, stat string) api.MetricDataQuery {
		return api.MetricDataQuery{Id: &id, MetricStat: &api.MetricStat{Metric: &api.Metric{Namespace: new("App"), MetricName: new("Load")}, Period: new(int64(60)), Stat: &stat}}
	}
	in := &api.GetMetricDataInput{
		StartTime: new(at), EndTime: new(at.Add(time.Hour)), ScanBy: new(api.ScanByTimestampAscending), MaxDatapoints: new(int64(7)),
		MetricDataQueries: []api.MetricDataQuery{query("a", "Sum"), query("b", "Maximum"), {Id: new("none"), Expression: new("FILL(a, 0) - a > 5"), ReturnData: new(false)}},
	}
	got := map[string][]float64{}
	pages := 0
	for {
		out := call(w, api.OpGetMetricData, in)
		n := 0
		for _, r := range out.MetricDataResults {
			got[*r.Id] = append(got[*r.Id], r.Values...)
			n += len(r.Values)
		}
		if n > 7 {
			t.Errorf("%d points on a page", n)
		}
		pages++
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if pages != 3 || len(got["a"]) != 10 || len(got["b"]) != 10 || got["a"][9] != 9 || got["b"][0] != 0 || got["none"] != nil {
		t.Errorf("%d pages: %v", pages, got)
	}
	for what, q := range map[string]api.MetricDataQuery{
		"scalar": {Id: new("e"), Expression: new("1 + 1")}, "unknown": {Id: new("e"), Expression: new("m9")}, "circle": {Id: new("e"), Expression: new("e + 1")},
		"bad id": {Id: new("E"), Expression: new("1")}, "both": {Id: new("e")}, "syntax": {Id: new("e"), Expression: new("1 +")},
	} {
		_, err := dispatch.Call(w.ctx, w.mux, api.OpGetMetricData, &api.GetMetricDataInput{StartTime: &at, EndTime: new(at.Add(time.Hour)), MetricDataQueries: []api.MetricDataQuery{q}})
		if !awserr.Is(err, "ValidationError") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSearchTerms(t *testing.T) {
	m := metricstore.NewMetric(account, region, "AWS/EC2", "CPUUtilization", metricstore.Dimension{Name: "InstanceId", Value: "i-123"})
	for search, want := range map[string]bool{
		`{AWS/EC2,InstanceId} MetricName="CPUUtilization"`: true, `{AWS/EC2} cpu`: false, `{AWS/EC2,InstanceId,Zone} cpu`: false, "cpuutilization": true, "Utilization": true, "CPU": true, "Util": false,
		`MetricName="cpuutilization"`: false, "NOT NetworkIn": true, "NetworkIn OR Utilization": true, "Utilization i-123": true, "Utilization AND i-999": false,
		`InstanceId=("i-123" OR "i-4")`: true, `InstanceId=i-123`: true, "(NetworkIn OR Utilization) NOT i-123": false, "": true, `"i-123"`: true, `"i-12"`: false,
	} {
		f, err := parseSearch(search)
		if err != nil {
			t.Errorf("%s: %v", search, err)
		} else if f(&m) != want {
			t.Errorf("%s: %v", search, !want)
		}
	}
	for _, search := range []string{"{AWS/EC2", `"x`, "(a", "a =", "x=(a", "NOT", "{} x"} {
		if _, err := parseSearch(search); err == nil {
			t.Errorf("%s is taken", search)
		}
	}
}

func TestDashboards(t *testing.T) {
	w := newWorld(t, 1)
	body := `{"widgets":[{"type":"text","properties":{"markdown":"hi"}}]}`
	call(w, api.OpPutDashboard, &api.PutDashboardInput{DashboardName: new("d"), DashboardBody: &body})
	if got := call(w, api.OpGetDashboard, &api.GetDashboardInput{DashboardName: new("d")}); *got.DashboardBody != body {
		t.Errorf("body %s", *got.DashboardBody)
	}
	for _, bad := range []string{"", "x", "{}", `{"widgets":[{}]}`, `{"widgets":[{"type":"cake"}]}`} {
		if _, err := dispatch.Call(w.ctx, w.mux, api.OpPutDashboard, &api.PutDashboardInput{DashboardName: new("d"), DashboardBody: &bad}); !awserr.Is(err, api.ErrCodeDashboardInvalidInputError) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := dispatch.Call(w.ctx, w.mux, api.OpDeleteDashboards, &api.DeleteDashboardsInput{DashboardNames: []string{"d", "nobody"}}); !awserr.Is(err, api.ErrCodeDashboardNotFoundError) {
		t.Errorf("unknown: %v", err)
	}
	if n := len(call(w, api.OpListDashboards, &api.ListDashboardsInput{}).DashboardEntries); n != 1 {
		t.Errorf("%d dashboards", n)
	}
	call(w, api.OpDeleteDashboards, &api.DeleteDashboardsInput{DashboardNames: []string{"d"}})
}
