package cloudwatch

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/cloudwatch/evaluate"
)

// regionNames are the long names that notifications carry.
var regionNames = map[string]string{
	"us-east-1": "US East (N. Virginia)", "us-east-2": "US East (Ohio)", "us-west-1": "US West (N. California)", "us-west-2": "US West (Oregon)",
	"ca-central-1": "Canada (Central)", "eu-west-1": "EU (Ireland)", "eu-west-2": "EU (London)", "eu-west-3": "EU (Paris)",
	"eu-central-1": "EU (Frankfurt)", "eu-central-2": "EU (Zurich)", "eu-north-1": "EU (Stockholm)", "eu-south-1": "EU (Milan)", "eu-south-2": "EU (Spain)",
	"ap-south-1": "Asia Pacific (Mumbai)", "ap-southeast-1": "Asia Pacific (Singapore)", "ap-southeast-2": "Asia Pacific (Sydney)",
	"ap-northeast-1": "Asia Pacific (Tokyo)", "ap-northeast-2": "Asia Pacific (Seoul)", "ap-northeast-3": "Asia Pacific (Osaka)", "ap-east-1": "Asia Pacific (Hong Kong)",
	"sa-east-1": "South America (Sao Paulo)", "me-south-1": "Middle East (Bahrain)", "af-south-1": "Africa (Cape Town)",
}

func regionName(region string) string {
	if n := regionNames[region]; n != "" {
		return n
	}
	return region
}

// notification is what is published: message is the JSON of MessageStructure
// "json", with a text of its own for mail.
type notification struct{ subject, message string }

// note is the JSON of an alarm notification; the order is AWS's.
type note struct {
	AlarmName                          string
	AlarmDescription                   *string
	AWSAccountId                       string
	AlarmConfigurationUpdatedTimestamp string
	AlarmRule                          *string `json:",omitempty"`
	NewStateValue                      string
	NewStateReason                     string
	StateChangeTime                    string
	Region                             string
	AlarmArn                           string
	OldStateValue                      string
	OKActions                          []string
	AlarmActions                       []string
	InsufficientDataActions            []string
	Trigger                            any `json:",omitempty"`
}

type noteDimension struct {
	Value string `json:"value"`
	Name  string `json:"name"`
}

// javaNumber is a number as AWS's JSON has it: 50.0.
type javaNumber float64

func (n javaNumber) MarshalJSON() ([]byte, error) {
	return []byte(evaluate.JavaDouble(float64(n))), nil
}

type noteTrigger struct {
	MetricName, Namespace, StatisticType, Statistic string
	Unit                                            *string
	Dimensions                                      []noteDimension
	Period, EvaluationPeriods                       int64
	DatapointsToAlarm                               *int64 `json:",omitempty"`
	ComparisonOperator                              string
	Threshold                                       javaNumber
	TreatMissingData                                string
	EvaluateLowSampleCountPercentile                string
}

type noteMathTrigger struct {
	Period, EvaluationPeriods        int64
	DatapointsToAlarm                *int64 `json:",omitempty"`
	ComparisonOperator               string
	Threshold                        *javaNumber `json:",omitempty"`
	ThresholdMetricId                *string     `json:",omitempty"`
	TreatMissingData                 string
	EvaluateLowSampleCountPercentile string
	Metrics                          []noteQuery
}

type noteQuery struct {
	Id         string
	Expression *string   `json:",omitempty"`
	MetricStat *noteStat `json:",omitempty"`
	Label      *string   `json:",omitempty"`
	ReturnData bool
}

type noteStat struct {
	Metric struct {
		Dimensions            []noteDimension
		MetricName, Namespace string
	}
	Period int64
	Stat   string
	Unit   *string `json:",omitempty"`
}

func notify(account, region string, act *action) notification {
	a := &act.Alarm
	ok, alarm, insufficient := a.actionLists()
	n := note{
		AlarmName: a.Name, AlarmDescription: a.description(), AWSAccountId: account, AlarmConfigurationUpdatedTimestamp: a.Configured.UTC().Format(awsTime),
		NewStateValue: act.New, NewStateReason: a.Reason, StateChangeTime: act.At.UTC().Format(awsTime), Region: regionName(region), AlarmArn: a.ARN,
		OldStateValue: act.Old, OKActions: list(ok), AlarmActions: list(alarm), InsufficientDataActions: list(insufficient),
	}
	if a.composite() {
		n.AlarmRule = a.Composite.AlarmRule
	} else {
		n.Trigger = trigger(a.Metric)
	}
	body, _ := json.Marshal(n) // plain data: cannot fail
	message, _ := json.Marshal(map[string]string{"default": string(body), "email": mail(account, region, act)})
	subject := fmt.Sprintf("%s: \"%s\" in %s", act.New, a.Name, regionName(region))
	return notification{subject: shortened(ascii(subject), 100), message: string(message)}
}

// ascii replaces what a subject may not hold.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}

func noteDimensions(dims []api.Dimension) []noteDimension {
	out := []noteDimension{}
	for _, d := range dims {
		out = append(out, noteDimension{ptr.Value(d.Value), ptr.Value(d.Name)})
	}
	return out
}

func trigger(c *api.PutMetricAlarmInput) any {
	if c.Metrics == nil {
		t := noteTrigger{
			MetricName: ptr.Value(c.MetricName), Namespace: ptr.Value(c.Namespace), StatisticType: "Statistic", Statistic: statisticName[ptr.Value(c.Statistic)], Unit: c.Unit,
			Dimensions: noteDimensions(c.Dimensions), Period: ptr.Value(c.Period), EvaluationPeriods: ptr.Value(c.EvaluationPeriods), DatapointsToAlarm: c.DatapointsToAlarm,
			ComparisonOperator: ptr.Value(c.ComparisonOperator), Threshold: javaNumber(ptr.Value(c.Threshold)),
			TreatMissingData: ptr.Value(c.TreatMissingData), EvaluateLowSampleCountPercentile: ptr.Value(c.EvaluateLowSampleCountPercentile),
		}
		if c.ExtendedStatistic != nil {
			t.StatisticType, t.Statistic = "ExtendedStatistic", *c.ExtendedStatistic
		}
		return t
	}
	t := noteMathTrigger{
		Period: mathPeriod(c.Metrics), EvaluationPeriods: ptr.Value(c.EvaluationPeriods), DatapointsToAlarm: c.DatapointsToAlarm, ComparisonOperator: ptr.Value(c.ComparisonOperator),
		ThresholdMetricId: c.ThresholdMetricId, TreatMissingData: ptr.Value(c.TreatMissingData), EvaluateLowSampleCountPercentile: ptr.Value(c.EvaluateLowSampleCountPercentile),
	}
	if c.Threshold != nil {
		t.Threshold = new(javaNumber(*c.Threshold))
	}
	for _, q := range c.Metrics {
		n := noteQuery{Id: ptr.Value(q.Id), Expression: q.Expression, Label: q.Label, ReturnData: q.ReturnData == nil || *q.ReturnData}
		if ms := q.MetricStat; ms != nil {
			n.MetricStat = &noteStat{Period: ptr.Value(ms.Period), Stat: ptr.Value(ms.Stat), Unit: ms.Unit}
			n.MetricStat.Metric.Dimensions = noteDimensions(ms.Metric.Dimensions)
			n.MetricStat.Metric.MetricName, n.MetricStat.Metric.Namespace = ptr.Value(ms.Metric.MetricName), ptr.Value(ms.Metric.Namespace)
		}
		t.Metrics = append(t.Metrics, n)
	}
	return t
}

var statisticName = map[string]string{
	api.StatisticAverage: "AVERAGE", api.StatisticSum: "SUM", api.StatisticMinimum: "MINIMUM", api.StatisticMaximum: "MAXIMUM", api.StatisticSampleCount: "SAMPLE_COUNT",
}

const mailTime = "Monday 02 January, 2006 15:04:05 MST"

// mail is the text of the e-mail that CloudWatch sends.
func mail(account, region string, act *action) string {
	a := &act.Alarm
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	at := act.At.UTC().Format(mailTime)
	entered := fmt.Sprintf("has entered the %s state, because \"%s\" at \"%s\".", act.New, a.Reason, at)
	if a.composite() {
		entered = fmt.Sprintf("has transitioned to %s state on \"%s\", because \"%s\".", act.New, at, a.Reason)
	}
	line("You are receiving this email because your Amazon CloudWatch Alarm \"%s\" in the %s region %s", a.Name, regionName(region), entered)
	line("")
	line("View this alarm in the AWS Management Console:")
	line("https://%s.console.aws.amazon.com/cloudwatch/deeplink.js?region=%s#alarmsV2:alarm/%s", region, region, url.PathEscape(a.Name))
	line("")
	line("Alarm Details:")
	detail := func(label, value string) { line("- %-27s %s", label+":", value) }
	detail("Name", a.Name)
	detail("Description", ptr.Value(a.description()))
	if old := act.Old; a.composite() && strings.Contains(a.Reason, " was created and its alarm rule ") {
		detail("State Change", "N/A -> "+act.New)
	} else {
		detail("State Change", old+" -> "+act.New)
	}
	detail("Reason for State Change", a.Reason)
	detail("Timestamp", at)
	detail("AWS Account", account)
	detail("Alarm Arn", a.ARN)
	line("")
	if !a.composite() {
		mailMetric(line, a.Metric)
		line("")
	}
	ok, alarm, insufficient := a.actionLists()
	line("")
	line("State Change Actions:")
	line("- OK: %s", mailActions(ok))
	line("- ALARM: %s", mailActions(alarm))
	line("- INSUFFICIENT_DATA: %s", mailActions(insufficient))
	return b.String()
}

func mailActions(l []string) string {
	if len(l) == 0 {
		return ""
	}
	return "[" + strings.Join(l, ", ") + "]"
}

func mailMetric(line func(string, ...any), c *api.PutMetricAlarmInput) {
	period, n := ptr.Value(c.Period), ptr.Value(c.EvaluationPeriods)
	if c.Metrics != nil {
		period = mathPeriod(c.Metrics)
	}
	m := n
	if c.DatapointsToAlarm != nil {
		m = *c.DatapointsToAlarm
	}
	than := ptr.Value(c.ThresholdMetricId)
	if c.Threshold != nil {
		than = evaluate.JavaDouble(*c.Threshold)
	}
	line("Threshold:")
	line("- The alarm is in the ALARM state when the metric is %s %s for at least %d of the last %d period(s) of %d seconds.",
		ptr.Value(c.ComparisonOperator), than, m, n, period)
	line("")
	treat := ptr.Value(c.TreatMissingData)
	if treat == "" {
		treat = evaluate.Missing
	}
	detail := func(label, value string) { line("- %-36s %s", label+":", value) }
	if c.Metrics != nil {
		line("Monitored Metrics:")
		for _, q := range c.Metrics {
			detail("Metric "+ptr.Value(q.Id), mailQuery(&q))
		}
		detail("TreatMissingData", treat)
		return
	}
	var dims []string
	for _, d := range c.Dimensions {
		dims = append(dims, ptr.Value(d.Name)+" = "+ptr.Value(d.Value))
	}
	unit := ptr.Value(c.Unit)
	if unit == "" {
		unit = "not specified"
	}
	line("Monitored Metric:")
	detail("MetricNamespace", ptr.Value(c.Namespace))
	detail("MetricName", ptr.Value(c.MetricName))
	detail("Dimensions", "["+strings.Join(dims, ", ")+"]")
	detail("Period", fmt.Sprintf("%d seconds", period))
	detail("Statistic", ptr.Value(c.Statistic)+ptr.Value(c.ExtendedStatistic))
	detail("Unit", unit)
	detail("TreatMissingData", treat)
}

func mailQuery(q *api.MetricDataQuery) string {
	if q.MetricStat == nil {
		return ptr.Value(q.Expression)
	}
	m := q.MetricStat
	return fmt.Sprintf("%s %s %s", ptr.Value(m.Metric.Namespace), ptr.Value(m.Metric.MetricName), ptr.Value(m.Stat))
}

// mathPeriod is the period that the metrics of an alarm share, in seconds.
func mathPeriod(qs []api.MetricDataQuery) int64 {
	for _, q := range qs {
		if q.MetricStat != nil {
			return *q.MetricStat.Period
		}
	}
	return int64(time.Minute / time.Second)
}
