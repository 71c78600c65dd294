package clients

import "testing"

// TestAnomalyDetectorsByCommandLine makes, shows and deletes detectors with
// the aws command line, the older form of the parameters included.
func TestAnomalyDetectorsByCommandLine(t *testing.T) {
	t.Parallel()
	needProgram(t, "aws")
	s := start(t)
	s.aws("cloudwatch", "put-anomaly-detector", "--namespace", "App", "--metric-name", "Load", "--stat", "Sum", "--dimensions", "Name=Host,Value=a",
		"--configuration", "ExcludedTimeRanges=[{StartTime=2026-01-01T00:00:00Z,EndTime=2026-01-02T00:00:00Z}],MetricTimezone=UTC", "--metric-characteristics", "PeriodicSpikes=true")
	list := s.aws("cloudwatch", "describe-anomaly-detectors", "--namespace", "App")
	if stat := text(t, list, "AnomalyDetectors", 0, "SingleMetricAnomalyDetector", "Stat"); stat != "Sum" {
		t.Errorf("the detector is for %s", stat)
	}
	if n := len(at(t, list, "AnomalyDetectors", 0, "Configuration", "ExcludedTimeRanges").([]any)); n != 1 {
		t.Errorf("%d ranges are excluded", n)
	}
	s.aws("cloudwatch", "put-metric-alarm", "--alarm-name", "odd", "--comparison-operator", "LessThanLowerOrGreaterThanUpperThreshold", "--evaluation-periods", "2", "--threshold-metric-id", "ad1",
		"--metrics", `[{"Id":"m1","MetricStat":{"Metric":{"Namespace":"App","MetricName":"Visits"},"Period":300,"Stat":"Sum"}},{"Id":"ad1","Expression":"ANOMALY_DETECTION_BAND(m1, 2)"}]`)
	list = s.aws("cloudwatch", "describe-anomaly-detectors", "--metric-name", "Visits")
	if n := len(at(t, list, "AnomalyDetectors").([]any)); n != 1 {
		t.Errorf("the alarm made %d detectors", n)
	}
	s.aws("cloudwatch", "delete-alarms", "--alarm-names", "odd")
	s.aws("cloudwatch", "delete-anomaly-detector", "--single-metric-anomaly-detector", "Namespace=App,MetricName=Visits,Stat=Sum")
	s.aws("cloudwatch", "delete-anomaly-detector", "--single-metric-anomaly-detector", "Namespace=App,MetricName=Load,Stat=Sum,Dimensions=[{Name=Host,Value=a}]")
	if n := len(at(t, s.aws("cloudwatch", "describe-anomaly-detectors"), "AnomalyDetectors").([]any)); n != 0 {
		t.Errorf("%d detectors are left", n)
	}
}
