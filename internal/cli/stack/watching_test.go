package stack

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	apiautoscaling "slipway/internal/api/autoscaling"
	apicloudwatch "slipway/internal/api/cloudwatch"
	apiec2 "slipway/internal/api/ec2"
	apilogs "slipway/internal/api/logs"
	apisns "slipway/internal/api/sns"
	"slipway/internal/aws/client"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/machine/simulated"
	"slipway/internal/mail"
	"slipway/internal/services/autoscaling"
	"slipway/internal/services/cloudwatch"
	"slipway/internal/services/ec2"
	"slipway/internal/services/logs"
	"slipway/internal/services/sns"
	"slipway/internal/store"
)

// door is an API with the services that watching needs; nothing runs but what
// answers.
func door(t *testing.T, watched bool) *client.Client {
	t.Helper()
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	mux := dispatch.New()
	mux.Declare(apisns.Service, apicloudwatch.Service, apilogs.Service)
	ec2.New(ec2.Deps{Store: st, Mux: mux, Machines: simulated.New(simulated.Options{}), Log: quiet}).Register(mux)
	scaling := autoscaling.New(autoscaling.Deps{Store: st, Mux: mux, Log: quiet})
	scaling.Register(mux)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	if watched {
		box, err := mail.Open(mail.Deps{Store: st, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		topics, err := sns.New(sns.Deps{Store: st, Dir: dir, Mail: box, Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		topics.Register(mux)
		cw, err := cloudwatch.New(cloudwatch.Deps{Store: st, Mux: mux, Log: quiet, Dir: filepath.Join(dir, "metrics"), Ephemeral: true, Policies: scaling})
		if err != nil {
			t.Fatal(err)
		}
		cw.Register(mux)
		lg := logs.New(logs.Deps{Store: st, Dir: filepath.Join(dir, "logs"), Log: quiet})
		lg.Register(mux)
		wg.Go(func() { _ = lg.Run(ctx) })
		t.Cleanup(func() {
			if err := cw.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	srv := httptest.NewServer(mux.Handler(dispatch.Config{AuthAny: true, Now: clock.Real.Now, Log: quiet}))
	t.Cleanup(func() { srv.Close(); cancel(); wg.Wait(); st.Close() })
	c, err := client.New(client.Config{Endpoint: srv.URL, AccessKeyID: "AKIATEST", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func stackOn(t *testing.T, c *client.Client, said *[]string) *Stack {
	t.Helper()
	s := New(c, Config{Name: "shop", Account: "123456789012", Region: "us-east-1", Step: func(what string, _ bool) { *said = append(*said, what) }})
	s.LoadBalancerARN = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/shop/0123456789abcdef"
	s.TargetGroupARN = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/shop/fedcba9876543210"
	return s
}

func TestWatching(t *testing.T) {
	c := door(t, true)
	var said []string
	s := stackOn(t, c, &said)
	ctx := t.Context()
	if _, err := call(ctx, s, apiec2.OpCreateLaunchTemplate, &apiec2.CreateLaunchTemplateInput{LaunchTemplateName: new("shop"),
		LaunchTemplateData: &apiec2.RequestLaunchTemplateData{ImageId: new("ami-0123456789abcdef0"), InstanceType: new("t3.micro")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := call(ctx, s, apiautoscaling.OpCreateAutoScalingGroup, &apiautoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: new("shop"), MinSize: new(int64(2)), MaxSize: new(int64(3)),
		LaunchTemplate: &apiautoscaling.LaunchTemplateSpecification{LaunchTemplateName: new("shop")}, AvailabilityZones: []string{"us-east-1a", "us-east-1b"}}); err != nil {
		t.Fatal(err)
	}
	made, err := s.watching(ctx)
	if err != nil || !made {
		t.Fatalf("made %v: %v", made, err)
	}
	found, err := call(ctx, s, apicloudwatch.OpDescribeAlarms, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range found.MetricAlarms {
		name := *a.AlarmName
		if strings.HasPrefix(name, "TargetTracking-shop-") {
			name = name[:len("TargetTracking-shop-AlarmLow")]
		} else if !slices.Equal(a.AlarmActions, []string{s.TopicARN}) {
			t.Errorf("%s tells %v", name, a.AlarmActions)
		}
		names = append(names, name)
	}
	if want := []string{"TargetTracking-shop-AlarmHig", "TargetTracking-shop-AlarmLow", "shop-cpu-high", "shop-nginx-errors", "shop-unhealthy-hosts"}; !slices.Equal(names, want) {
		t.Errorf("alarms: %q, want %q", names, want)
	}
	subs, err := call(ctx, s, apisns.OpListSubscriptionsByTopic, &apisns.ListSubscriptionsByTopicInput{TopicArn: &s.TopicARN})
	if err != nil || len(subs.Subscriptions) != 1 || *subs.Subscriptions[0].Endpoint != defaultAlertEmail || !strings.HasPrefix(*subs.Subscriptions[0].SubscriptionArn, s.TopicARN) {
		t.Errorf("subscriptions: %+v %v", subs, err)
	}
	again := stackOn(t, c, &said)
	if made, err := again.watching(ctx); err != nil || made || again.TopicARN != s.TopicARN {
		t.Errorf("the second time made %v: %v", made, err)
	}
	again.cfg.AlertEmail = "ann@example.com"
	if made, err := again.watching(ctx); err != nil || !made {
		t.Errorf("another address made %v: %v", made, err)
	}
	if len(said) != 0 {
		t.Errorf("left out: %q", said)
	}
}

func TestWatchingLeavesOutWhatIsNotBuilt(t *testing.T) {
	var said []string
	s := stackOn(t, door(t, false), &said)
	s.cfg.Name = "nowhere"
	made, err := s.watching(t.Context())
	// The group does not exist, so the policy fails for a reason of its own.
	if made || err == nil || !strings.Contains(err.Error(), "scaling policy") && !strings.Contains(err.Error(), "not found") {
		t.Errorf("made %v: %v", made, err)
	}
	if len(said) != 5 || !strings.Contains(said[0], "left out: Slipway does not implement SNS GetTopicAttributes yet.") {
		t.Errorf("said: %q", said)
	}
}

func TestErrorLogGroup(t *testing.T) {
	if got := ErrorLogGroup("../../../examples/todo"); got != "/todo/nginx/error" {
		t.Errorf("examples/todo: %q", got)
	}
	dir := t.TempDir()
	if got := ErrorLogGroup(dir); got != "" {
		t.Errorf("an empty directory: %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "amazon-cloudwatch-agent.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ErrorLogGroup(dir); got != "" {
		t.Errorf("half a file: %q", got)
	}
}
