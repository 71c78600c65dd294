package autoscaling

import (
	"slices"
	"time"
)

// The tails of the sentences about what made an instance unhealthy.
const (
	causeStopped           = "an instance was taken out of service in response to an EC2 health check that indicated it had been terminated or stopped."
	causeELB               = "an instance was taken out of service in response to an ELB system health check failure."
	causeUser              = "an instance was taken out of service in response to a user health-check."
	causeAge               = "an instance was taken out of service in response to maximum instance lifetime."
	causeLaunchReplacement = "an instance was launched in response to an unhealthy instance needing to be replaced."
	causeBalance           = "an instance was launched to aid in balancing the group's zones."
	causeProtected         = "Could not scale to desired capacity because all remaining instances are protected from scale-in."
)

// health marks instances that should be replaced.
func (p *planner) health() {
	if p.group.suspended("HealthCheck") {
		return
	}
	for _, i := range p.instances {
		if i.State != inService || p.busy[i.ID] {
			continue
		}
		seen, known := p.ec2[i.ID]
		if !known || seen.dead() {
			if !i.Now || i.Health != "Unhealthy" {
				p.add(act{verb: doUnhealthy, instance: i, cause: causeStopped, now: true})
			}
			continue
		}
		if i.Health == "Unhealthy" || !p.group.checksELB() {
			continue
		}
		for _, a := range p.group.Attachments {
			if a.State != "InService" || p.targets[a.ARN][i.ID] != "unhealthy" {
				continue
			}
			if end := p.group.graceEnd(i, a); end.After(p.now) {
				p.look(end)
				continue
			}
			p.add(act{verb: doUnhealthy, instance: i, cause: causeELB})
			break
		}
	}
}

// replace ends unhealthy instances: at once where EC2 or a user says so,
// else at most a tenth of the group at a time (User Guide, "Health checks
// for instances in an Auto Scaling group").
func (p *planner) replace() {
	g := p.group
	if g.suspended("Terminate") || g.suspended("ReplaceUnhealthy") {
		return
	}
	running, sick, changing := 0, 0, 0
	var slow []*Instance
	for _, i := range p.instances {
		switch {
		case i.State == inService && i.Health == "Unhealthy":
			running++
			sick++
			if p.busy[i.ID] {
				continue
			}
			if i.Now {
				p.add(act{verb: doTerminate, instance: i, cause: i.Unhealthy, replace: true})
			} else {
				slow = append(slow, i)
			}
		case i.State == inService:
			running++
			if p.settling(i) {
				changing++
			}
			if life := g.MaxLifetime; life != nil && *life > 0 && !p.busy[i.ID] {
				end := i.Launched.Add(time.Duration(*life) * time.Second)
				if end.After(p.now) {
					p.look(end)
				} else {
					slow = append(slow, i)
				}
			}
		case i.counts():
			changing++
		}
	}
	batch := max(1, int(g.Desired)/10)
	if sick == running {
		batch = 1 // all are sick: it is rather the load than the instances
	}
	missing := max(0, int(g.Desired)-running)
	for _, i := range slow {
		if max(changing, missing) >= batch {
			return
		}
		changing++
		cause := i.Unhealthy
		if i.Health != "Unhealthy" {
			cause = causeAge
		}
		p.add(act{verb: doTerminate, instance: i, cause: cause, replace: true})
	}
}

// settling says whether an instance in service has yet to prove itself to
// the load balancer, within its grace period.
func (p *planner) settling(i *Instance) bool {
	if !p.group.checksELB() {
		return false
	}
	end := i.InServiceAt.Add(time.Duration(p.group.Grace) * time.Second)
	if !end.After(p.now) {
		return false
	}
	for _, a := range p.group.Attachments {
		if a.State == "InService" && slices.Contains(i.TargetGroups, a.ARN) && p.targets[a.ARN][i.ID] != "healthy" {
			p.look(end)
			return true
		}
	}
	return false
}
