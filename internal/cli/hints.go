package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

// why asks what a group waits for, and why its instances are as they are:
// group-wide reasons under "", the others by instance. It is a help only; that
// it cannot be had is no error of status.
func (s *session) why(ctx context.Context, group string) map[string][]string {
	var list []struct{ Instance, Text string }
	out := map[string][]string{}
	if s.admin(ctx, "GET", "autoscaling/"+url.PathEscape(group)+"/why?region="+url.QueryEscape(s.region), nil, &list) == nil {
		for _, e := range list {
			out[e.Instance] = append(out[e.Instance], e.Text)
		}
	}
	return out
}

// hinter finds what is wrong with alarms that AWS leaves to guesswork: metrics
// that do not exist, and actions that reach nobody.
type hinter struct {
	s      *session
	topics map[string]string // what is wrong with a topic; "" is nothing
}

func (h *hinter) of(ctx context.Context, a *cloudwatch.MetricAlarm) (hints []string) {
	if ptr.Value(a.StateValue) == cloudwatch.StateValueInsufficientData && a.MetricName != nil {
		in := &cloudwatch.ListMetricsInput{Namespace: a.Namespace, MetricName: a.MetricName}
		if out, err := call(ctx, h.s, cloudwatch.OpListMetrics, in); err == nil {
			if m := missingMetric(a, out.Metrics); m != "" {
				hints = append(hints, m)
			}
		}
	}
	return append(hints, h.actions(ctx, ptr.Value(a.ActionsEnabled), a.AlarmActions)...)
}

// actions tells which actions of an alarm have no effect.
func (h *hinter) actions(ctx context.Context, enabled bool, arns []string) (hints []string) {
	if len(arns) > 0 && !enabled {
		return []string{"its actions are disabled: aws cloudwatch enable-alarm-actions"}
	}
	for _, arn := range arns {
		if !strings.HasPrefix(arn, "arn:aws:sns:") {
			continue
		}
		wrong, known := h.topics[arn]
		if !known {
			wrong = h.topic(ctx, arn)
			h.topics[arn] = wrong
		}
		if wrong != "" {
			hints = append(hints, wrong)
		}
	}
	return hints
}

func (h *hinter) topic(ctx context.Context, arn string) string {
	out, err := call(ctx, h.s, sns.OpListSubscriptionsByTopic, &sns.ListSubscriptionsByTopicInput{TopicArn: &arn})
	if awserr.Is(err, "NotFound") {
		return "its topic " + arn + " does not exist: nobody is told"
	}
	if err != nil {
		return ""
	}
	pending := 0
	for _, sub := range out.Subscriptions {
		if ptr.Value(sub.SubscriptionArn) != "PendingConfirmation" {
			return ""
		}
		pending++
	}
	if pending > 0 {
		return fmt.Sprintf("its topic %s has %d subscriptions that nobody has confirmed yet: nobody is told", arn, pending)
	}
	return "its topic " + arn + " has no subscription: nobody is told"
}

// missingMetric says that an alarm's metric does not exist, and which ones of its
// name do; "" if it does.
func missingMetric(a *cloudwatch.MetricAlarm, have []cloudwatch.Metric) string {
	want := dimensions(a.Dimensions)
	var others []string
	for _, m := range have {
		d := dimensions(m.Dimensions)
		if d == want {
			return ""
		}
		if !slices.Contains(others, d) {
			others = append(others, d)
		}
	}
	text := fmt.Sprintf("nothing has sent %s %s with %s so far", ptr.Value(a.Namespace), ptr.Value(a.MetricName), want)
	if len(others) > 0 {
		slices.Sort(others)
		text += "; it is there with " + strings.Join(others[:min(3, len(others))], ", or with ")
	}
	return text
}

// dimensions writes a set of dimensions in one order.
func dimensions(ds []cloudwatch.Dimension) string {
	if len(ds) == 0 {
		return "no dimensions"
	}
	var out []string
	for _, d := range ds {
		out = append(out, ptr.Value(d.Name)+"="+ptr.Value(d.Value))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
