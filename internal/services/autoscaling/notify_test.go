package autoscaling_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	api "slipway/internal/api/autoscaling"
	sns "slipway/internal/api/sns"
	"slipway/internal/aws/dispatch"
	"slipway/internal/services/autoscaling"
)

// inbox stands for SNS: it keeps what is published.
type inbox struct {
	mu       sync.Mutex
	subjects []string
	messages []map[string]any
}

func (x *inbox) publish(_ context.Context, in *sns.PublishInput) (*sns.PublishOutput, error) {
	var both map[string]string
	if err := json.Unmarshal([]byte(*in.Message), &both); err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(both["default"]), &m); err != nil {
		return nil, err
	}
	m["email"] = both["email"]
	x.mu.Lock()
	defer x.mu.Unlock()
	x.subjects, x.messages = append(x.subjects, *in.Subject), append(x.messages, m)
	return &sns.PublishOutput{MessageId: new("1")}, nil
}

// events lists the kinds of message that arrived, sorted.
func (x *inbox) events() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for _, m := range x.messages {
		kind, _ := m["Event"].(string)
		if kind == "" {
			kind, _ = m["LifecycleTransition"].(string)
			kind = "hook " + kind
		}
		out = append(out, kind)
	}
	slices.Sort(out)
	return out
}

func TestNotifications(t *testing.T) {
	b := newBench(t)
	box := &inbox{}
	dispatch.Register(b.mux, sns.OpPublish, box.publish)
	b.create(func(in *api.CreateAutoScalingGroupInput) { in.DesiredCapacity = new(int64(1)) })
	b.steady(1) // before anybody asked: never told
	topic := "arn:aws:sns:us-east-1:123456789012:ops"
	must(b, "PutNotificationConfiguration", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpPutNotificationConfiguration, &api.PutNotificationConfigurationInput{AutoScalingGroupName: new("web"), TopicARN: &topic,
			NotificationTypes: []string{"autoscaling:EC2_INSTANCE_LAUNCH", "autoscaling:EC2_INSTANCE_TERMINATE"}})
		return err
	})
	must(b, "PutLifecycleHook", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpPutLifecycleHook, &api.PutLifecycleHookInput{AutoScalingGroupName: new("web"), LifecycleHookName: new("look"), LifecycleTransition: new("autoscaling:EC2_INSTANCE_LAUNCHING"),
			NotificationTargetARN: &topic, RoleARN: new("arn:aws:iam::123456789012:role/notify"), NotificationMetadata: new("extra")})
		return err
	})
	b.desired(2)
	b.until("the hook's message", func() bool { return slices.Contains(box.events(), "hook autoscaling:EC2_INSTANCE_LAUNCHING") })
	b.until("Pending:Wait", func() bool { return len(b.inState("Pending:Wait")) == 1 })
	must(b, "CompleteLifecycleAction", func() error { return b.complete("look", b.inState("Pending:Wait")[0], "CONTINUE") })
	b.steady(2)
	b.desired(1)
	b.steady(1)
	want := []string{"autoscaling:EC2_INSTANCE_LAUNCH", "autoscaling:EC2_INSTANCE_TERMINATE", "autoscaling:TEST_NOTIFICATION", "hook autoscaling:EC2_INSTANCE_LAUNCHING"}
	b.until("all messages", func() bool { return slices.Equal(box.events(), want) })
	b.stop() // whatever a new server would send again shows before the next launch
	b.service = autoscaling.New(autoscaling.Deps{Store: b.store, Mux: b.mux, Log: slog.New(slog.DiscardHandler)})
	b.start()
	b.desired(2)
	b.until("the next hook", func() bool { return len(b.inState("Pending:Wait")) == 1 && len(box.events()) >= 5 })
	if got := box.events(); len(got) != 5 {
		t.Errorf("after a restart: %v", got)
	}
	box.mu.Lock()
	defer box.mu.Unlock()
	n := slices.Index(box.subjects, `Auto Scaling: launch for group "web"`)
	if n < 0 {
		t.Fatalf("subjects %v", box.subjects)
	}
	m := box.messages[n]
	if m["Service"] != "AWS Auto Scaling" || m["AutoScalingGroupName"] != "web" || m["Origin"] != "EC2" || !strings.HasPrefix(m["EC2InstanceId"].(string), "i-") ||
		m["Details"].(map[string]any)["Availability Zone"] == nil || !strings.Contains(m["email"].(string), "\nEvent: autoscaling:EC2_INSTANCE_LAUNCH\n") {
		t.Errorf("message %v", m)
	}
}
