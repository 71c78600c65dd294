package awsquery

import (
	"reflect"
	"strconv"
	"strings"
	"testing"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
)

func TestDecode(t *testing.T) {
	decode := func(body string) (*autoscaling.CreateAutoScalingGroupInput, error) {
		f, err := ParseForm(body)
		if err != nil {
			return nil, err
		}
		in := &autoscaling.CreateAutoScalingGroupInput{}
		return in, Decode(autoscaling.Service, autoscaling.OpCreateAutoScalingGroup.Input, f, in)
	}
	in, err := decode("AutoScalingGroupName=a%2Bb+c%3D&MinSize=2&AvailabilityZones.member.10=z10&AvailabilityZones.member.2=z2&AvailabilityZones.member.7=z7" +
		"&Tags.member.1.Key=k&Tags.member.1.PropagateAtLaunch=true&TargetGroupARNs=&LoadBalancerNames.1=lenient&MaxSize=&Unknown.member.1.X=1&&")
	if err != nil {
		t.Fatal(err)
	}
	if *in.AutoScalingGroupName != "a+b c=" || *in.MinSize != 2 || in.MaxSize != nil || !*in.Tags[0].PropagateAtLaunch ||
		!reflect.DeepEqual(in.AvailabilityZones, []string{"z2", "z7", "z10"}) || in.LoadBalancerNames[0] != "lenient" ||
		in.TargetGroupARNs == nil || len(in.TargetGroupARNs) != 0 {
		t.Errorf("got %+v", in)
	}
	for body, code := range map[string]string{
		"MinSize=two":                            "MalformedInput",
		"MinSize.x=1":                            "",
		"AutoScalingGroupName.x=1":               "MalformedInput",
		"AutoScalingGroupName=%zz":               "MalformedQueryString",
		"%zz=1":                                  "MalformedQueryString",
		strings.Repeat("a.", 1000):               "MalformedQueryString",
		strings.Repeat("a&", 60000):              "MalformedQueryString",
		"NewInstancesProtectedFromScaleIn=maybe": "MalformedInput",
	} {
		if _, err := decode(body); awserr.Code(err) != code {
			t.Errorf("%.40s: got %v, want %q", body, err, code)
		}
	}
}

func TestMaps(t *testing.T) {
	for _, body := range []string{
		"Attributes.entry.1.key=DisplayName&Attributes.entry.1.value=x&Attributes.entry.2.key=Policy&Attributes.entry.2.value=",
		"Attributes.1.key=DisplayName&Attributes.1.value=x&Attributes.2.key=Policy&Attributes.2.value=",
	} {
		f, err := ParseForm(body)
		if err != nil {
			t.Fatal(err)
		}
		in := &sns.CreateTopicInput{}
		if err := Decode(sns.Service, sns.OpCreateTopic.Input, f, in); err != nil || !reflect.DeepEqual(in.Attributes, map[string]string{"DisplayName": "x", "Policy": ""}) {
			t.Errorf("got %v, %v", in.Attributes, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("Namespace=n&MetricData.member.1.MetricName=m&MetricData.member.1.Values.member.1=1e3&MetricData.member.1.Dimensions.member.1.Name=x")
	f.Add("MetricData.member.1.Timestamp=2026-01-01T00:00:00Z&MetricData.member.-1=x&MetricData.99999999999999999999=y&.=&..=")
	f.Fuzz(func(t *testing.T, body string) {
		form, err := ParseForm(body)
		if err != nil {
			return
		}
		in := &cloudwatch.PutMetricDataInput{}
		if Decode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, form, in) == nil {
			if _, err := Encode(cloudwatch.Service, "X", "XResult", cloudwatch.OpPutMetricData.Input, in, "id"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var body strings.Builder
	body.WriteString("Action=PutMetricData&Version=2010-08-01&Namespace=n")
	for i := range 20 {
		p := "&MetricData.member." + strconv.Itoa(i+1)
		body.WriteString(p + ".MetricName=m" + p + ".Value=1.5" + p + ".Dimensions.member.1.Name=InstanceId" + p + ".Dimensions.member.1.Value=i-1")
	}
	s := body.String()
	b.SetBytes(int64(len(s)))
	b.ReportAllocs()
	for b.Loop() {
		f, err := ParseForm(s)
		if err != nil {
			b.Fatal(err)
		}
		if err := Decode(cloudwatch.Service, cloudwatch.OpPutMetricData.Input, f, &cloudwatch.PutMetricDataInput{}); err != nil {
			b.Fatal(err)
		}
	}
}
