package cloudwatch

import (
	"fmt"
	"testing"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/dispatch"
)

// BenchmarkPutMetricData is the operation with 100 values each, from many
// clients at once, acknowledged when they are on disk.
func BenchmarkPutMetricData(b *testing.B) {
	w := newWorld(b, 1)
	in := &api.PutMetricDataInput{Namespace: new("App")}
	for i := range 100 {
		in.MetricData = append(in.MetricData, api.MetricDatum{MetricName: new(fmt.Sprintf("Metric%d", i)), Value: new(float64(i)), Unit: new("Count")})
	}
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := dispatch.Call(w.ctx, w.mux, api.OpPutMetricData, in); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N*len(in.MetricData))/b.Elapsed().Seconds(), "points/s")
}
