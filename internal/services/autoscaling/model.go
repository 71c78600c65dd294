package autoscaling

import (
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/autoscaling"
	ec2 "slipway/internal/api/ec2"
)

// Lifecycle states, see the package comment for how each is entered and left.
const (
	pending            = api.LifecycleStatePending
	pendingWait        = api.LifecycleStatePendingWait
	pendingProceed     = api.LifecycleStatePendingProceed
	inService          = api.LifecycleStateInService
	terminating        = api.LifecycleStateTerminating
	terminatingWait    = api.LifecycleStateTerminatingWait
	terminatingProceed = api.LifecycleStateTerminatingProceed
	terminated         = api.LifecycleStateTerminated
	enteringStandby    = api.LifecycleStateEnteringStandby
	standby            = api.LifecycleStateStandby
	detaching          = api.LifecycleStateDetaching
)

// transitions is the table of allowed moves; a row is deleted from the last states.
var transitions = map[string][]string{
	pending:            {pendingWait, pendingProceed, inService, terminating, terminatingProceed},
	pendingWait:        {pendingProceed, terminating, terminatingProceed},
	pendingProceed:     {inService, terminating, terminatingProceed, standby},
	inService:          {terminating, enteringStandby, detaching},
	enteringStandby:    {standby, terminating, detaching},
	standby:            {pending, pendingProceed, terminating, detaching},
	detaching:          {},
	terminating:        {terminatingWait, terminatingProceed},
	terminatingWait:    {terminatingProceed},
	terminatingProceed: {terminated},
}

const (
	launching       = "autoscaling:EC2_INSTANCE_LAUNCHING"
	terminatingHook = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// Group is the document of an autoscaling:group row.
type Group struct {
	Name, ARN         string
	Created           time.Time
	Min, Max, Desired int64
	// Template is the launch source; Mixed keeps a mixed instances policy,
	// whose template is then also Template and whose first override gives the type.
	Template *templateRef
	Mixed    *api.MixedInstancesPolicy `json:",omitempty"`
	// Places are where instances may go; GivenSubnets is VPCZoneIdentifier as
	// it was given.
	Places       []place
	GivenSubnets string `json:",omitempty"`
	// Seconds.
	Cooldown, Grace     int64
	MaxLifetime, Warmup *int64   `json:",omitempty"`
	HealthTypes         string   // "EC2,ELB"
	Policies            []string // termination policies, in order
	ProtectNew          bool     `json:",omitempty"`
	Tags                []groupTag
	Attachments         []attachment `json:",omitempty"`
	Suspended           []suspension `json:",omitempty"`
	Metrics             []string     `json:",omitempty"`
	Maintenance         *api.InstanceMaintenancePolicy
	Kept                kept
	// Notifications by topic ARN.
	Notifications map[string]notification `json:",omitempty"`

	// Causes say why the desired capacity changed last; the next activities
	// carry them.
	Causes []string `json:",omitempty"`
	// Alarms are those that made the last change, for the activities' details.
	Alarms []InvokingAlarm `json:",omitempty"`
	// Replacements is how many launches are owed to unhealthy instances.
	Replacements int64 `json:",omitempty"`
	// Fails counts launches that failed in a row; RetryAt is when the next may be tried.
	Fails   int       `json:",omitempty"`
	RetryAt time.Time `json:",omitzero"`
	// CoolUntil is the end of the default cooldown after the last change of capacity.
	CoolUntil time.Time `json:",omitzero"`
	// AllProtected says that the activity about protection was written.
	AllProtected bool `json:",omitempty"`
	// Deleting is set by DeleteAutoScalingGroup with ForceDelete.
	Deleting bool `json:",omitempty"`
}

// kept are settings that are given back as they came and change nothing here.
type kept struct {
	PlacementGroup, ServiceLinkedRoleARN, Context, DesiredCapacityType *string `json:",omitempty"`
	DeletionProtection                                                 *string `json:",omitempty"`
	CapacityRebalance                                                  *bool   `json:",omitempty"`
	Distribution                                                       *api.AvailabilityZoneDistribution
	Impairment                                                         *api.AvailabilityZoneImpairmentPolicy
	Reservation                                                        *api.CapacityReservationSpecification
	Lifecycle                                                          *api.InstanceLifecyclePolicy
}

type place struct{ Subnet, Zone, ZoneID string }

// templateRef names a launch template; Version is "$Latest", "$Default" or a number.
type templateRef struct{ ID, Name, Version string }

type groupTag struct {
	Key, Value string
	Propagate  bool
}

// attachment of a target group. States: Adding (not every instance is
// registered), Added, InService (at least one target was healthy), Removing.
type attachment struct {
	ARN   string
	State string
	// Traffic says that it was attached by AttachTrafficSources.
	Traffic bool `json:",omitempty"`
	// Since is when it came to be InService.
	Since time.Time `json:",omitzero"`
}

// graceEnd is when an instance's grace period for a target group is over. It
// counts from the later of two moments: the instance came into service, or
// the group's first target became healthy. Without the second, the rest of a
// group would be replaced in the middle of its first deployment, as soon as
// the first instance was deployed to.
func (g *Group) graceEnd(i *Instance, a attachment) time.Time {
	from := i.InServiceAt
	if a.Since.After(from) {
		from = a.Since
	}
	return from.Add(time.Duration(g.Grace) * time.Second)
}

type suspension struct{ Process, Reason string }

// InvokingAlarm is named in the details of activities that an alarm caused.
type InvokingAlarm struct {
	AlarmARN, AlarmName        string
	Region, OldState, NewState string
	StateChangeTime            int64 // milliseconds
}

func (g *Group) suspended(process string) bool {
	return slices.ContainsFunc(g.Suspended, func(s suspension) bool { return s.Process == process })
}

// checksELB says whether target health counts.
func (g *Group) checksELB() bool {
	return slices.Contains(strings.Split(g.HealthTypes, ","), "ELB")
}

func (g *Group) zones() (out []string) {
	for _, p := range g.Places {
		if !slices.Contains(out, p.Zone) {
			out = append(out, p.Zone)
		}
	}
	return out
}

// Instance is the document of an autoscaling:instance row.
type Instance struct {
	ID, Group    string
	Type, Image  string
	Zone, ZoneID string
	Subnet       string
	Template     *templateRef // Version is the concrete number
	State        string
	Health       string // "Healthy" or "Unhealthy"
	Unhealthy    string `json:",omitempty"` // the cause sentence's tail of an unhealthy instance
	Now          bool   `json:",omitempty"` // unhealthy in a way that is replaced without throttling
	Protected    bool   `json:",omitempty"`
	Launched     time.Time
	InServiceAt  time.Time `json:",omitzero"`
	Activity     string    `json:",omitempty"` // id of the activity in progress
	Actions      []action  `json:",omitempty"`
	// TargetGroups are those that it is registered with.
	TargetGroups []string `json:",omitempty"`
	// NoRegister: launched while AddToLoadBalancer was suspended; never registered later.
	NoRegister bool `json:",omitempty"`
	// Deregistered: DeregisterTargets was called on the way out.
	Deregistered bool `json:",omitempty"`
	NoHooks      bool `json:",omitempty"`
	// Rebalance: launched ahead of a termination, to balance the zones or to
	// refresh; it does not count before it is in service (and warm, when refreshing).
	Rebalance bool `json:",omitempty"`
	// Abandoned is why a launch did not get into service.
	Abandoned string `json:",omitempty"`
}

func (i *Instance) index() (parent, state string) { return i.Group, i.State }

// counts says whether the instance is part of the group's actual capacity.
func (i *Instance) counts() bool {
	switch i.State {
	case pending, pendingWait, pendingProceed, inService:
		return !i.Rebalance
	}
	return false
}

// arriving and leaving group the states.
func (i *Instance) arriving() bool { return strings.HasPrefix(i.State, pending) }
func (i *Instance) leaving() bool  { return strings.HasPrefix(i.State, terminating) }

// to moves the instance and says whether it may.
func (i *Instance) to(state string) bool {
	if !slices.Contains(transitions[i.State], state) {
		return false
	}
	i.State = state
	return true
}

// action is one lifecycle hook that an instance waits for.
type action struct {
	Hook, Token string
	// Heartbeat is when the hook times out unless it is heard of; Limit is
	// the end of all patience (100 heartbeats, at most 48 h).
	Heartbeat, Limit time.Time
	Timeout          int64  // seconds of a heartbeat
	Default          string // CONTINUE or ABANDON
	Result           string `json:",omitempty"` // "" while it waits
	TimedOut         bool   `json:",omitempty"`
	Metadata         string `json:",omitempty"`
	// Target is the topic that is told, Notified that it was.
	Target   string `json:",omitempty"`
	Notified bool   `json:",omitempty"`
}

func (a *action) deadline() time.Time {
	if a.Limit.Before(a.Heartbeat) {
		return a.Limit
	}
	return a.Heartbeat
}

// hook is a lifecycle hook of a group.
type hook struct {
	Name, Group, Transition, Default string
	Target, Role, Metadata           string
	Timeout                          int64 // seconds
}

// intent is a launch that was decided. Its id is the client token, so that a
// crash between deciding and remembering launches nothing twice.
type intent struct {
	ID, Group, Activity string
	Place               place
	Template            *templateRef
	Type, Image         string
	Protected           bool
	NoRegister          bool
	Rebalance           bool
	At                  time.Time
	Input               ec2.RunInstancesInput
}

// activity is one line of a group's history.
type activity struct {
	ID, Group, GroupARN      string
	Description, Cause       string
	Status, Message, Details string
	Start                    time.Time
	End                      time.Time `json:",omitzero"`
	Progress                 int64
	Instance                 string `json:",omitempty"`
	Kind                     string // "launch", "terminate", "" else; chooses the notification
	Notified                 bool   `json:",omitempty"` // the topics were told
}
