package rpccbor

import (
	"testing"

	"slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
)

func TestRefused(t *testing.T) {
	for name, body := range map[string]string{
		"not a map":          "\x80",
		"cut off":            "\xa1iNamespace",
		"number for string":  "\xa1iNamespace\x01",
		"string for list":    "\xa1jMetricDataax",
		"fraction":           "\xa1jMetricData\x81\xa1qStorageResolution\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00",
		"a time of infinity": "\xa1jMetricData\x81\xa1iTimestamp\xc1\xf9\x7c\x00",
		"a huge array":       "\xa1jMetricData\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
		"bad UTF-8":          "\xa1iNamespacea\xff",
		"deep":               "\xa1ax" + string(make([]byte, 0)) + deep(100),
		"two documents":      "\xa0\xa0",
	} {
		if err := Decode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, []byte(body), &cloudwatch.PutMetricDataInput{}); !awserr.Is(err, "SerializationException") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func deep(n int) string {
	b := make([]byte, n+1)
	for i := range n {
		b[i] = 0x81
	}
	return string(b)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xa2iNamespaceanjMetricData\x81\xa2jMetricNameameValue\xf9\x3c\x00"))
	f.Add([]byte("\xbfjMetricData\x9f\xbfiTimestamp\xc1\x1a\x65\x00\x00\x00\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		in := &cloudwatch.PutMetricDataInput{}
		if Decode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, body, in) != nil {
			return
		}
		b, err := Encode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, in)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, b, &cloudwatch.PutMetricDataInput{}); err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v", err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	in := &cloudwatch.PutMetricDataInput{Namespace: new(string)}
	name, value := "CPUUtilization", 1.5
	for range 100 {
		in.MetricData = append(in.MetricData, cloudwatch.MetricDatum{MetricName: &name, Value: &value, Dimensions: []cloudwatch.Dimension{{Name: &name, Value: &name}}})
	}
	body, err := Encode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, in)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, body, &cloudwatch.PutMetricDataInput{}); err != nil {
			b.Fatal(err)
		}
	}
}
