package codedeploy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/codedeploy"
)

// deploymentLimit is the longest an in-place deployment may take (AWS:
// CodeDeploy quotas).
const deploymentLimit = 12 * time.Hour

// verdict is what a look at the fleet asks for. At most one of Halt and End
// is set.
type verdict struct {
	Start []*Target // pending targets to begin now
	Halt  *ErrorInfo
	End   *ending
	// Again is when to look anew though nothing happened; zero: never.
	Again time.Time
}

type ending struct {
	Status string
	Error  *ErrorInfo
}

// fleet counts the targets of a deployment by what they mean for the rule of
// minimum healthy hosts (AWS: "Instance health").
type fleet struct {
	total     int // without those that ceased to exist before their turn
	healthy   int // those under way count as they were when it began
	initially int
	succeeded int
	began     int
	pending   []*Target // healthy ones that wait
	sick      []*Target // unhealthy ones that wait
	out       int       // healthy ones under way: out of service for now
	sickOut   int       // unhealthy ones under way
}

func count(ts []*Target) fleet {
	var f fleet
	for _, t := range ts {
		if t.Left {
			continue
		}
		f.total++
		well := !t.WasUnhealthy
		if well {
			f.initially++
		}
		if !t.StartedAt.IsZero() {
			f.began++
		}
		switch t.Status {
		case api.TargetStatusPending:
			if well {
				f.pending = append(f.pending, t)
			} else {
				f.sick = append(f.sick, t)
			}
		case api.TargetStatusInProgress:
			if well {
				f.out++
			} else {
				f.sickOut++
			}
		case api.TargetStatusSucceeded:
			f.succeeded++
			well = true
		case api.TargetStatusFailed:
			well = false
		}
		if well {
			f.healthy++
		}
	}
	byRank := func(a, b *Target) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), strings.Compare(a.Instance, b.Instance))
	}
	slices.SortFunc(f.pending, byRank)
	slices.SortFunc(f.sick, byRank)
	return f
}

// hosts is the rule as a number of hosts out of total. Percentages round up.
// A fleet of one is let through under a percentage: that one must succeed.
func (m MinimumHealthy) hosts(total int) int {
	switch m.Type {
	case api.MinimumHealthyHostsTypeFleetPercent:
		if total == 1 {
			return 0
		}
		return (m.Value*total + 99) / 100
	case mostConcurrency:
		return max(0, total-m.Value)
	}
	return m.Value
}

// plan decides what a running deployment does next. It is pure: the same
// rows and time give the same verdict, so it may be asked again at any time.
func plan(d *Deployment, ts []*Target, now time.Time) verdict {
	f := count(ts)
	idle := f.out+f.sickOut == 0
	switch {
	case d.Stop != nil:
		if idle {
			return verdict{End: &ending{api.DeploymentStatusStopped, &d.Stop.Cause}}
		}
		return verdict{}
	case d.Halted != nil:
		if idle {
			return verdict{End: &ending{api.DeploymentStatusFailed, d.Halted}}
		}
		return verdict{}
	}
	limit := d.StartedAt.Add(deploymentLimit)
	if !now.Before(limit) {
		return verdict{Halt: &ErrorInfo{api.ErrorCodeTimeout, fmt.Sprintf("The deployment did not end within %s.", deploymentLimit)}}
	}
	if idle && len(f.pending)+len(f.sick) == 0 {
		return verdict{End: conclude(d, f, ts)}
	}
	v := advance(d, f, ts, now)
	if v.Again.IsZero() || limit.Before(v.Again) {
		v.Again = limit
	}
	return v
}

// advance starts what may start. Unhealthy instances go first and cost no
// health; then the healthy ones, never more at a time than there are above
// the minimum.
func advance(d *Deployment, f fleet, ts []*Target, now time.Time) verdict {
	minimum := d.Minimum.hosts(f.total)
	zone, scope := fleet{}, &f
	zoneMin := 0
	if d.Zonal != nil && d.RollbackOf == "" {
		name, wait := currentZone(d, ts, now)
		if !wait.IsZero() {
			return verdict{Again: wait}
		}
		zone = count(inZone(ts, name))
		scope = &zone
		if d.Zonal.Minimum != nil {
			zoneMin = d.Zonal.Minimum.hosts(zone.total)
		}
	}
	room := len(ts)
	if d.Minimum.Type == mostConcurrency {
		room = max(0, d.Minimum.Value-f.out-f.sickOut)
	}
	if len(scope.sick) > 0 || scope.sickOut > 0 {
		return verdict{Start: scope.sick[:min(room, len(scope.sick))]}
	}
	if len(scope.pending) == 0 {
		return verdict{}
	}
	if f.healthy <= minimum {
		return verdict{Halt: tooFew(d, f, ts, minimum, "")}
	}
	if scope == &zone && zone.healthy <= zoneMin {
		return verdict{Halt: tooFew(d, zone, inZone(ts, zone.pending[0].Zone), zoneMin, zone.pending[0].Zone)}
	}
	width := min(room, f.healthy-minimum-f.out)
	if scope == &zone {
		width = min(width, zone.healthy-zoneMin-zone.out)
	}
	width = min(max(width, 0), len(scope.pending))
	return verdict{Start: scope.pending[:width]}
}

// conclude judges a deployment of which every target has ended.
func conclude(d *Deployment, f fleet, ts []*Target) *ending {
	minimum := d.Minimum.hosts(f.total)
	// A group that began below the minimum must only not get worse.
	minimum = min(minimum, f.initially)
	switch {
	case f.succeeded == 0:
		return &ending{api.DeploymentStatusFailed, tooFew(d, f, ts, minimum, "")}
	case f.healthy < minimum:
		return &ending{api.DeploymentStatusFailed, tooFew(d, f, ts, minimum, "")}
	}
	return &ending{Status: api.DeploymentStatusSucceeded}
}

// currentZone is the zone to work in, or until when to wait between zones.
func currentZone(d *Deployment, ts []*Target, now time.Time) (string, time.Time) {
	var names []string
	for _, t := range ts {
		if !slices.Contains(names, t.Zone) {
			names = append(names, t.Zone)
		}
	}
	slices.Sort(names)
	var last time.Time // when the zones before this one were done
	for i, name := range names {
		open, ended := false, time.Time{}
		for _, t := range inZone(ts, name) {
			open = open || t.Status == api.TargetStatusPending || t.Status == api.TargetStatusInProgress
			if t.EndedAt.After(ended) {
				ended = t.EndedAt
			}
		}
		if open {
			wait := d.Zonal.MonitorSeconds
			if i == 1 {
				wait = d.Zonal.FirstMonitorSeconds
			}
			until := last.Add(time.Duration(wait) * time.Second)
			if i > 0 && now.Before(until) {
				return "", until
			}
			return name, time.Time{}
		}
		last = ended
	}
	return "", time.Time{}
}

func inZone(ts []*Target, zone string) []*Target {
	var in []*Target
	for _, t := range ts {
		if t.Zone == zone {
			in = append(in, t)
		}
	}
	return in
}

// tooFew explains a deployment that ends for its health rule, naming what
// failed first.
func tooFew(d *Deployment, f fleet, ts []*Target, minimum int, zone string) *ErrorInfo {
	where := ""
	if zone != "" {
		where = " in zone " + zone
	}
	failures := failed(ts)
	if f.total == 0 {
		return &ErrorInfo{api.ErrorCodeNoInstances, "Every instance of the deployment was terminated before its turn came."}
	}
	if len(failures) == 0 {
		code, verb := api.ErrorCodeHealthConstraintsInvalid, "start"
		if f.began > 0 {
			code, verb = api.ErrorCodeHealthConstraints, "go on"
		}
		return &ErrorInfo{code, fmt.Sprintf(
			"The deployment cannot %s: %s demands %d healthy instances%s at all times, and %d of %d are healthy, so that none can be taken out of service. Use a deployment configuration that demands fewer, or add instances.",
			verb, d.ConfigName, minimum, where, f.healthy, f.total)}
	}
	code := api.ErrorCodeHealthConstraints
	msg := fmt.Sprintf("The deployment failed on %d of %d instances%s. %d healthy are left, and with %s it goes on only while there are more than %d.",
		len(failures), f.total, where, f.healthy, d.ConfigName, minimum)
	if f.succeeded == 0 && f.began == f.total {
		msg = fmt.Sprintf("The deployment failed on all of its %d instances%s.", f.total, where)
		if f.total == 1 {
			msg = "The deployment failed on its only instance."
		}
	}
	if len(failures) > 0 {
		msg += " " + explain(failures[0])
	}
	return &ErrorInfo{code, msg}
}

// failed lists the failed targets, the first to fail first.
func failed(ts []*Target) []*Target {
	var out []*Target
	for _, t := range ts {
		if t.Status == api.TargetStatusFailed {
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b *Target) int { return a.EndedAt.Compare(b.EndedAt) })
	return out
}

// explainLines is how much of a script's output goes into a deployment's own
// error; the whole tail is in the event's diagnostics.
const explainLines = 5

// explain names the instance, the event, the script and its last words.
func explain(t *Target) string {
	msg := t.Message
	if !strings.HasSuffix(msg, ".") {
		msg += "."
	}
	for i := range t.Events {
		e := &t.Events[i]
		if e.Status != api.LifecycleEventStatusFailed || e.Diagnostics == nil || e.Diagnostics.LogTail == "" {
			continue
		}
		lines := strings.Split(strings.TrimRight(e.Diagnostics.LogTail, "\n"), "\n")
		if len(lines) > explainLines {
			lines = lines[len(lines)-explainLines:]
		}
		return strings.ToUpper(msg[:1]) + msg[1:] + " Its last output:\n" + strings.Join(lines, "\n")
	}
	return strings.ToUpper(msg[:min(1, len(msg))]) + msg[min(1, len(msg)):]
}
