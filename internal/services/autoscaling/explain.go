package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/internal/aws/caller"
)

// Explanation says why an instance, or the group itself, is as it is: what
// AWS leaves to guesswork.
type Explanation struct {
	Instance string // "" for the group
	Text     string
}

// Explain tells what a group waits for, and why an unhealthy instance is not
// replaced (yet). It reads only.
func (s *Service) Explain(ctx context.Context, account, region, name string) ([]Explanation, error) {
	ctx = caller.ForService(ctx, "autoscaling", account, region)
	_, w, unsure, err := s.observe(ctx, groups.Key(account, region, name))
	if err != nil {
		return nil, err
	}
	out := explain(w)
	if unsure {
		out = append(out, Explanation{Text: "The health of some targets could not be read; it is asked for again in a few seconds."})
	}
	return out, nil
}

func explain(w *world) []Explanation {
	var out []Explanation
	g := w.group
	say := func(i *Instance, format string, args ...any) {
		id := ""
		if i != nil {
			id = i.ID
		}
		out = append(out, Explanation{id, fmt.Sprintf(format, args...)})
	}
	actual := int64(0)
	for _, i := range w.instances {
		if i.counts() {
			actual++
		}
		explainInstance(w, i, func(format string, args ...any) { say(i, format, args...) })
	}
	for _, p := range g.Suspended {
		say(nil, "The process %s is suspended: %s.", p.Process, p.Reason)
	}
	switch {
	case g.RetryAt.After(w.now):
		say(nil, "%d launches in a row failed; the next is tried at %s. The newest failed activity says why.", g.Fails, stamp(g.RetryAt))
	case actual < g.Desired && g.suspended("Launch"):
		say(nil, "%d of %d instances are there, but the process Launch is suspended.", actual, g.Desired)
	case actual > g.Desired && g.AllProtected:
		say(nil, "%d instances are there for %d, but all that could go are protected from scale-in.", actual, g.Desired)
	}
	if g.checksELB() && len(g.Attachments) == 0 {
		say(nil, "Health checks of the type ELB have no effect: no target group is attached.")
	}
	for _, a := range g.Attachments {
		if g.checksELB() && (a.State == "Adding" || a.State == "Added") {
			say(nil, "Target health does not count yet: no target of %s was ever healthy.", a.ARN)
		}
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format("15:04:05Z") }

func explainInstance(w *world, i *Instance, say func(string, ...any)) {
	g := w.group
	switch {
	case i.State == pending:
		say("It boots: EC2 says %s.", w.ec2[i.ID].State)
	case strings.HasSuffix(i.State, ":Wait"):
		for _, a := range i.Actions {
			if a.Result == "" {
				say("It waits for the lifecycle hook %s until %s, then %s.", a.Hook, stamp(a.deadline()), a.Default)
			}
		}
	case i.State == terminating || i.State == enteringStandby || i.State == detaching:
		for _, arn := range i.TargetGroups {
			if state := w.targets[arn][i.ID]; state != "" && state != "unused" {
				say("Its target in %s is %s: requests in flight may finish.", arn, state)
			}
		}
	case i.State == inService && i.Health == "Unhealthy":
		var off []string
		for _, p := range []string{"ReplaceUnhealthy", "Terminate"} {
			if g.suspended(p) {
				off = append(off, p)
			}
		}
		if len(off) > 0 {
			say("It is unhealthy and stays: suspended are %s.", strings.Join(off, " and "))
		} else if !i.Now {
			say("It is unhealthy and waits its turn: at most a tenth of the group is replaced at a time.")
		}
	case i.State == inService:
		explainTargets(w, i, say)
	}
}

// explainTargets tells why bad target health has no consequence.
func explainTargets(w *world, i *Instance, say func(string, ...any)) {
	g := w.group
	for _, a := range g.Attachments {
		state := w.targets[a.ARN][i.ID]
		end := g.graceEnd(i, a)
		switch {
		case !slices.Contains(i.TargetGroups, a.ARN) && i.NoRegister:
			say("It is not a target of %s: it was launched while AddToLoadBalancer was suspended.", a.ARN)
		case state != "unhealthy":
		case !g.checksELB():
			say("Its target in %s is unhealthy, but the group's health check type is %s.", a.ARN, g.HealthTypes)
		case g.suspended("HealthCheck"):
			say("Its target in %s is unhealthy, but the process HealthCheck is suspended.", a.ARN)
		case end.After(w.now):
			say("Its target in %s is unhealthy, but its grace period of %d s lasts until %s.", a.ARN, g.Grace, stamp(end))
		}
	}
}
