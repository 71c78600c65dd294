package cli

import (
	"testing"

	"slipway/internal/api/cloudwatch"
)

func TestMissingMetric(t *testing.T) {
	dims := func(nv ...string) (out []cloudwatch.Dimension) {
		for i := 0; i < len(nv); i += 2 {
			out = append(out, cloudwatch.Dimension{Name: &nv[i], Value: &nv[i+1]})
		}
		return out
	}
	a := &cloudwatch.MetricAlarm{Namespace: new("App"), MetricName: new("Errors"), Dimensions: dims("Zone", "a", "Host", "h")}
	for _, tc := range []struct {
		have []cloudwatch.Metric
		want string
	}{
		{nil, "nothing has sent App Errors with Host=h Zone=a so far"},
		{[]cloudwatch.Metric{{Dimensions: dims("Host", "h", "Zone", "a")}}, ""},
		{[]cloudwatch.Metric{{Dimensions: dims("Host", "h")}, {}}, "nothing has sent App Errors with Host=h Zone=a so far; it is there with Host=h, or with no dimensions"},
	} {
		if got := missingMetric(a, tc.have); got != tc.want {
			t.Errorf("%q, not %q", got, tc.want)
		}
	}
}
