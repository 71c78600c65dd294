package gosdk

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/schemas"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"github.com/aws/smithy-go/transport/http/protocol/awsquery"
	"github.com/aws/smithy-go/transport/http/protocol/rpcv2"
)

// seen remembers what went over the wire, lest a test of one protocol be
// another test of the default one.
type seen struct {
	http.RoundTripper
	mu               sync.Mutex
	requests         map[string]bool // their content types
	answers          map[string]bool
	zipped, unzipped int
}

func (s *seen) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := s.RoundTripper.RoundTrip(req)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[req.Header.Get("Content-Type")] = true
	if req.Header.Get("Content-Encoding") == "gzip" {
		s.zipped++
	} else {
		s.unzipped++
	}
	if err == nil {
		s.answers[res.Header.Get("Content-Type")] = true
	}
	return res, err
}

// TestCloudWatch does the same by each of the three protocols that the service
// speaks.
func TestCloudWatch(t *testing.T) {
	for _, tc := range []struct {
		name, request, answer string
		protocol              smithyhttp.ClientProtocol
	}{
		{"cbor", "application/cbor", "application/cbor", rpcv2.NewCBOR(schemas.GraniteServiceVersion20100801)},
		{"json", "application/x-amz-json-1.0", "application/x-amz-json-1.0", awsjson.New10(schemas.GraniteServiceVersion20100801)},
		{"query", "application/x-www-form-urlencoded", "text/xml", awsquery.New(schemas.GraniteServiceVersion20100801)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := start(t)
			wire := &seen{RoundTripper: http.DefaultTransport, requests: map[string]bool{}, answers: map[string]bool{}}
			cfg.HTTPClient = &http.Client{Transport: wire}
			c := cloudwatch.NewFromConfig(cfg, func(o *cloudwatch.Options) { o.Protocol = tc.protocol })
			t.Run("metrics", func(t *testing.T) { metrics(t, c) })
			t.Run("alarms", func(t *testing.T) { alarms(t, c, tc.name == "query") })
			if len(wire.requests) != 1 || !wire.requests[tc.request] {
				t.Errorf("requests were %v, want %s only", wire.requests, tc.request)
			}
			if len(wire.answers) != 1 || !wire.answers[tc.answer] {
				t.Errorf("answers were %v, want %s only", wire.answers, tc.answer)
			}
			if wire.zipped == 0 || wire.unzipped == 0 {
				t.Errorf("%d requests were compressed, %d were not: want some of both", wire.zipped, wire.unzipped)
			}
		})
	}
}

func metrics(t *testing.T, c *cloudwatch.Client) {
	ctx := t.Context()
	now := time.Now().UTC().Truncate(time.Minute)
	at := func(minutes int) *time.Time { return aws.Time(now.Add(-time.Duration(minutes) * time.Minute)) }
	dims := []types.Dimension{{Name: aws.String("Host"), Value: aws.String("a b&c=+%")}}
	put := func(data ...types.MetricDatum) error {
		_, err := c.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: aws.String("Go SDK"), MetricData: data})
		return err
	}
	ok(t, nil, put(
		types.MetricDatum{MetricName: aws.String("Load"), Dimensions: dims, Timestamp: at(5), Value: aws.Float64(0.1), Unit: types.StandardUnitCount},
		types.MetricDatum{MetricName: aws.String("Load"), Dimensions: dims, Timestamp: at(4), Values: []float64{1, 2.5, -3}, Counts: []float64{2, 4, 1}, Unit: types.StandardUnitCount},
		types.MetricDatum{MetricName: aws.String("Load"), Dimensions: dims, Timestamp: at(3), Unit: types.StandardUnitCount,
			StatisticValues: &types.StatisticSet{SampleCount: aws.Float64(10), Sum: aws.Float64(100), Minimum: aws.Float64(5), Maximum: aws.Float64(15)}},
		types.MetricDatum{MetricName: aws.String("Fine"), Timestamp: aws.Time(now.Add(-90 * time.Second)), Value: aws.Float64(7), StorageResolution: aws.Int32(1)},
		types.MetricDatum{MetricName: aws.String("Fine"), Timestamp: aws.Time(now.Add(-85 * time.Second)), Value: aws.Float64(9), StorageResolution: aws.Int32(1)},
	))
	points := must[*cloudwatch.GetMetricStatisticsOutput](t)(c.GetMetricStatistics(ctx, &cloudwatch.GetMetricStatisticsInput{Namespace: aws.String("Go SDK"), MetricName: aws.String("Load"),
		Dimensions: dims, StartTime: at(10), EndTime: aws.Time(now), Period: aws.Int32(60),
		Statistics: []types.Statistic{types.StatisticSum, types.StatisticSampleCount, types.StatisticMinimum, types.StatisticMaximum, types.StatisticAverage}})).Datapoints
	slices.SortFunc(points, func(a, b types.Datapoint) int { return a.Timestamp.Compare(*b.Timestamp) })
	want := []string{"0.1 1 0.1 0.1 0.1", "9 7 -3 2.5 1.2857142857142858", "100 10 5 15 10"}
	if len(points) != len(want) {
		t.Fatalf("%d points, want %d", len(points), len(want))
	}
	for i, p := range points {
		got := fmt.Sprint(*p.Sum, *p.SampleCount, *p.Minimum, *p.Maximum, *p.Average)
		if got != want[i] || p.Unit != types.StandardUnitCount || !p.Timestamp.Equal(*at(5 - i)) {
			t.Errorf("point %d: %s %s %s, want %s", i, p.Timestamp, got, p.Unit, want[i])
		}
	}
	percentile := must[*cloudwatch.GetMetricStatisticsOutput](t)(c.GetMetricStatistics(ctx, &cloudwatch.GetMetricStatisticsInput{Namespace: aws.String("Go SDK"), MetricName: aws.String("Fine"),
		StartTime: at(10), EndTime: aws.Time(now), Period: aws.Int32(5), ExtendedStatistics: []string{"p50", "tm99"}})).Datapoints
	if len(percentile) != 2 || len(percentile[0].ExtendedStatistics) != 2 {
		t.Errorf("extended statistics every 5 s: %+v", percentile)
	}
	stat := func(name string, d []types.Dimension, period int32) *types.MetricStat {
		return &types.MetricStat{Metric: &types.Metric{Namespace: aws.String("Go SDK"), MetricName: aws.String(name), Dimensions: d}, Period: aws.Int32(period), Stat: aws.String("Sum")}
	}
	var ids []string
	var values []float64
	pages(t, cloudwatch.NewGetMetricDataPaginator(c, &cloudwatch.GetMetricDataInput{StartTime: at(10), EndTime: aws.Time(now), ScanBy: types.ScanByTimestampAscending, MetricDataQueries: []types.MetricDataQuery{
		{Id: aws.String("m"), MetricStat: stat("Load", dims, 60), ReturnData: aws.Bool(false)},
		{Id: aws.String("e"), Expression: aws.String("m*2+1"), Label: aws.String("double")},
	}}), func(p *cloudwatch.GetMetricDataOutput) {
		for _, r := range p.MetricDataResults {
			ids = append(ids, *r.Id+" "+*r.Label+" "+string(r.StatusCode))
			values = append(values, r.Values...)
		}
	})
	if !slices.Equal(ids, []string{"e double Complete"}) || !slices.Equal(values, []float64{1.2, 19, 201}) {
		t.Errorf("math: %v %v", ids, values)
	}
	// A body above 10 KB: the SDK compresses it.
	var many []types.MetricDatum
	for i := range 600 {
		many = append(many, types.MetricDatum{MetricName: aws.String(fmt.Sprintf("Many%03d", i)), Value: aws.Float64(rand.Float64()), Unit: types.StandardUnitBytesSecond})
	}
	ok(t, nil, put(many...))
	names := map[string]bool{}
	n := pages(t, cloudwatch.NewListMetricsPaginator(c, &cloudwatch.ListMetricsInput{Namespace: aws.String("Go SDK")}), func(p *cloudwatch.ListMetricsOutput) {
		for _, m := range p.Metrics {
			names[*m.MetricName] = true
		}
	})
	if len(names) != 602 || n < 2 {
		t.Errorf("%d metrics on %d pages, want 602 on 2", len(names), n)
	}
	refused[*types.InvalidParameterCombinationException](t, "too many points", nil, func() error {
		_, err := c.GetMetricStatistics(ctx, &cloudwatch.GetMetricStatisticsInput{Namespace: aws.String("x"), MetricName: aws.String("x"), StartTime: at(0), EndTime: aws.Time(now.Add(100 * 24 * time.Hour)), Period: aws.Int32(60), Statistics: []types.Statistic{types.StatisticSum}})
		return err
	}())
	refused[*types.InvalidParameterValueException](t, "a stamp of long ago", nil, put(types.MetricDatum{MetricName: aws.String("Old"), Timestamp: aws.Time(now.AddDate(0, -2, 0)), Value: aws.Float64(1)}))
}

func alarms(t *testing.T, c *cloudwatch.Client, query bool) {
	ctx := t.Context()
	in := &cloudwatch.PutMetricAlarmInput{AlarmName: aws.String("hot"), Namespace: aws.String("Go SDK"), MetricName: aws.String("Heat"), Statistic: types.StatisticMaximum,
		Period: aws.Int32(10), EvaluationPeriods: aws.Int32(1), Threshold: aws.Float64(5), ComparisonOperator: types.ComparisonOperatorGreaterThanThreshold,
		TreatMissingData: aws.String("ignore"), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("a")}}}
	out, err := c.PutMetricAlarm(ctx, in)
	ok(t, out, err)
	names := &cloudwatch.DescribeAlarmsInput{AlarmNames: []string{"hot"}}
	ok(t, nil, cloudwatch.NewAlarmExistsWaiter(c).Wait(ctx, names, soon))
	put, err := c.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: aws.String("Go SDK"), MetricData: []types.MetricDatum{{MetricName: aws.String("Heat"), Value: aws.Float64(9), StorageResolution: aws.Int32(1)}}})
	ok(t, put, err)
	eventually(t, "the alarm", func() bool {
		a := must[*cloudwatch.DescribeAlarmsOutput](t)(c.DescribeAlarms(ctx, names)).MetricAlarms
		return len(a) == 1 && a[0].StateValue == types.StateValueAlarm && *a[0].Threshold == 5 && a[0].StateUpdatedTimestamp != nil
	})
	var history []types.HistoryItemType
	pages(t, cloudwatch.NewDescribeAlarmHistoryPaginator(c, &cloudwatch.DescribeAlarmHistoryInput{AlarmName: aws.String("hot"), MaxRecords: aws.Int32(1)}), func(p *cloudwatch.DescribeAlarmHistoryOutput) {
		for _, h := range p.AlarmHistoryItems {
			history = append(history, h.HistoryItemType)
		}
	})
	if !slices.Contains(history, types.HistoryItemTypeConfigurationUpdate) || !slices.Contains(history, types.HistoryItemTypeStateUpdate) {
		t.Errorf("history: %v", history)
	}
	set := func(name string) (any, error) {
		return c.SetAlarmState(ctx, &cloudwatch.SetAlarmStateInput{AlarmName: aws.String(name), StateValue: types.StateValueOk, StateReason: aws.String("by hand")})
	}
	none, err := set("none")
	refused[*types.ResourceNotFound](t, "an alarm that is not there", none, err)
	composite, err := c.PutCompositeAlarm(ctx, &cloudwatch.PutCompositeAlarmInput{AlarmName: aws.String("all"), AlarmRule: aws.String(`ALARM("hot")`)})
	ok(t, composite, err)
	in.Period = aws.Int32(7)
	bad, err := c.PutMetricAlarm(ctx, in)
	if query { // the SDK knows which type has this code on the wire
		coded(t, "ValidationException", bad, err)
	} else {
		coded(t, "ValidationError", bad, err)
	}
	for _, name := range []string{"all", "hot"} {
		gone, err := c.DeleteAlarms(ctx, &cloudwatch.DeleteAlarmsInput{AlarmNames: []string{name}})
		ok(t, gone, err)
	}
	if a := must[*cloudwatch.DescribeAlarmsOutput](t)(c.DescribeAlarms(ctx, &cloudwatch.DescribeAlarmsInput{})); len(a.MetricAlarms)+len(a.CompositeAlarms) != 0 {
		t.Errorf("left: %+v", a)
	}
	dashboard, err := c.PutDashboard(ctx, &cloudwatch.PutDashboardInput{DashboardName: aws.String("d"), DashboardBody: aws.String(`{"widgets":[]}`)})
	ok(t, dashboard, err)
	missing, err := c.GetDashboard(ctx, &cloudwatch.GetDashboardInput{DashboardName: aws.String("none")})
	if query { // where two types have the code ResourceNotFound, and the SDK takes the other
		refused[*types.ResourceNotFound](t, "a dashboard that is not there", missing, err)
	} else {
		refused[*types.DashboardNotFoundError](t, "a dashboard that is not there", missing, err)
	}
}
