package codedeploy

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/ptr"
)

// Application is a named set of deployment groups and revisions.
type Application struct {
	ID              string
	Name            string
	ComputePlatform string
	CreatedAt       time.Time
	Tags            map[string]string `json:",omitempty"`
}

// Group is a deployment group. Settings is what the user asked for; the rest
// is what became of it.
type Group struct {
	ID          string
	Application string
	Name        string
	CreatedAt   time.Time
	Settings    Settings
	// Scaling are the attached Auto Scaling groups with the hooks that this
	// group keeps in them.
	Scaling []ScalingGroup    `json:",omitempty"`
	Tags    map[string]string `json:",omitempty"`
	// Succeeded is the last deployment to the whole group that succeeded:
	// what a rollback and a new instance get.
	Succeeded *Past `json:",omitempty"`
	Attempted *Past `json:",omitempty"`
	// Active is the running deployment to the whole group, or "".
	Active string `json:",omitempty"`
}

// Settings of a deployment group, in AWS's own shapes.
type Settings struct {
	ConfigName        string
	EC2TagFilters     []api.EC2TagFilter             `json:",omitempty"`
	EC2TagSet         [][]api.EC2TagFilter           `json:",omitempty"`
	OnPremisesFilters []api.TagFilter                `json:",omitempty"`
	OnPremisesTagSet  [][]api.TagFilter              `json:",omitempty"`
	ServiceRoleARN    string                         `json:",omitempty"`
	Triggers          []api.TriggerConfig            `json:",omitempty"`
	Alarms            *api.AlarmConfiguration        `json:",omitempty"`
	AutoRollback      *api.AutoRollbackConfiguration `json:",omitempty"`
	Style             *api.DeploymentStyle           `json:",omitempty"`
	LoadBalancer      *api.LoadBalancerInfo          `json:",omitempty"`
	OutdatedStrategy  string                         `json:",omitempty"`
	TerminationHook   bool                           `json:",omitempty"`
}

// ScalingGroup is an attached Auto Scaling group.
type ScalingGroup struct {
	Name string
	// Hook and TerminationHook are the names of our lifecycle hooks; the
	// names are chosen before the hooks are made, so a repeat finds them.
	Hook            string
	HookID          string
	Installed       bool
	TerminationHook string `json:",omitempty"`
	TerminationID   string `json:",omitempty"`
	TerminationDone bool   `json:",omitempty"`
}

// Past is a deployment as its group remembers it.
type Past struct {
	ID          string
	Status      string
	CreatedAt   time.Time
	EndedAt     time.Time `json:",omitzero"`
	Revision    *api.RevisionLocation
	Version     string `json:",omitempty"` // the S3 version it pinned
	FileExists  string `json:",omitempty"`
	RevisionKey string
}

// MinimumHealthy is the rule of a deployment configuration.
type MinimumHealthy struct {
	Type  string // HOST_COUNT, FLEET_PERCENT, or MOST_CONCURRENCY
	Value int
}

// mostConcurrency is the type that AWS shows for CodeDeployDefault.OneAtATime
// and that no one else may use: at most Value instances at a time.
const mostConcurrency = "MOST_CONCURRENCY"

// Zonal makes a deployment go through one availability zone after another.
type Zonal struct {
	MonitorSeconds      int
	FirstMonitorSeconds int
	Minimum             *MinimumHealthy `json:",omitempty"` // per zone; nil: 0 %
}

// Config is a deployment configuration.
type Config struct {
	ID        string
	Name      string
	Platform  string
	Minimum   MinimumHealthy
	Zonal     *Zonal `json:",omitempty"`
	CreatedAt time.Time
}

// Revision is a registered application revision.
type Revision struct {
	Application  string
	Location     api.RevisionLocation
	Description  string
	RegisteredAt time.Time
	FirstUsedAt  time.Time `json:",omitzero"`
	LastUsedAt   time.Time `json:",omitzero"`
}

// ErrorInfo says why a deployment ended as it did; Code is AWS's.
type ErrorInfo struct {
	Code    string
	Message string
}

// Stop asks a deployment to end. The first request wins.
type Stop struct {
	At    time.Time
	Cause ErrorInfo
	// Rollback: the last good revision is deployed once all is quiet.
	Rollback bool
	// Trigger is the rollback event this stop stands for.
	Trigger string
}

// Launch ties a deployment to a lifecycle action of an Auto Scaling group.
type Launch struct {
	ScalingGroup string
	Hook         string
	Terminating  bool      `json:",omitempty"`
	HeartbeatAt  time.Time `json:",omitzero"`
	AnsweredAt   time.Time `json:",omitzero"`
}

// TargetGroup is a target group that traffic events work on.
type TargetGroup struct {
	Name string
	ARN  string
}

// Deployment is one run. What it needs from its group and configuration is
// copied at creation: later changes to them do not reach it.
type Deployment struct {
	ID          string
	Application string
	Group       string
	GroupID     string
	Status      string
	Creator     string
	Description string `json:",omitempty"`

	Revision         *api.RevisionLocation
	RevisionKey      string
	Version          string                `json:",omitempty"`
	PreviousRevision *api.RevisionLocation `json:",omitempty"`

	ConfigName string
	Minimum    MinimumHealthy
	Zonal      *Zonal `json:",omitempty"`

	CreatedAt   time.Time
	StartedAt   time.Time  `json:",omitzero"`
	CompletedAt time.Time  `json:",omitzero"`
	Error       *ErrorInfo `json:",omitempty"`

	IgnoreStopFailures bool                           `json:",omitempty"`
	OutdatedOnly       bool                           `json:",omitempty"`
	FileExists         string                         `json:",omitempty"`
	AutoRollback       *api.AutoRollbackConfiguration `json:",omitempty"`
	Alarms             *api.AlarmConfiguration        `json:",omitempty"`
	OverrideAlarms     *api.AlarmConfiguration        `json:",omitempty"`
	Style              *api.DeploymentStyle           `json:",omitempty"`
	LoadBalancer       *api.LoadBalancerInfo          `json:",omitempty"`
	Triggers           []api.TriggerConfig            `json:",omitempty"`
	TargetGroups       []TargetGroup                  `json:",omitempty"`

	// Only limits the targets to these instances (launches, follow-ons).
	Only   []string `json:",omitempty"`
	Launch *Launch  `json:",omitempty"`
	Stop   *Stop    `json:",omitempty"`
	// Halted: no further target starts; the deployment ends with this error
	// once the targets under way have ended.
	Halted *ErrorInfo `json:",omitempty"`

	RollbackOf      string   `json:",omitempty"` // the deployment that this one undoes
	RollbackID      string   `json:",omitempty"` // the deployment that undoes this one
	RollbackMessage string   `json:",omitempty"`
	Root            string   `json:",omitempty"` // of a follow-on
	FollowOns       []string `json:",omitempty"`
	// FollowedUp: newcomers with an older revision were looked for.
	FollowedUp bool `json:",omitempty"`
}

// WholeGroup says that the deployment is to the group, not to a single
// instance for Auto Scaling: there is one such at a time.
func (d *Deployment) WholeGroup() bool { return d.Launch == nil }

// Terminal says that the deployment has ended.
func (d *Deployment) Terminal() bool { return terminal(d.Status) }

func terminal(status string) bool {
	switch status {
	case api.DeploymentStatusSucceeded, api.DeploymentStatusFailed, api.DeploymentStatusStopped:
		return true
	}
	return false
}

func (d *Deployment) parent() string { return groupRowID(d.Application, d.Group) }

// WithTraffic says that targets leave and enter the target groups.
func (d *Deployment) WithTraffic() bool {
	return d.Style != nil && ptr.Value(d.Style.DeploymentOption) == api.DeploymentOptionWithTrafficControl &&
		d.LoadBalancer != nil && len(d.LoadBalancer.TargetGroupInfoList) > 0
}

// Host is what is known of an instance within a deployment group.
type Host struct {
	GroupID     string
	Instance    string
	RevisionKey string // "" while no deployment succeeded
	Unhealthy   bool   // the last deployment to it did not succeed
	Deployment  string
	At          time.Time
}

// OnPremises is a registered on-premises instance.
type OnPremises struct {
	Name           string
	ARN            string
	IAMUserARN     string `json:",omitempty"`
	IAMSessionARN  string `json:",omitempty"`
	RegisteredAt   time.Time
	DeregisteredAt time.Time         `json:",omitzero"`
	Tags           map[string]string `json:",omitempty"`
}

// revisionKey names a revision's content, as far as its location tells.
func revisionKey(r *api.RevisionLocation) string {
	if r == nil {
		return ""
	}
	var parts []string
	switch {
	case r.S3Location != nil:
		l := r.S3Location
		parts = []string{"S3", ptr.Value(l.Bucket), ptr.Value(l.Key), strings.ToLower(ptr.Value(l.BundleType)), ptr.Value(l.Version), strings.Trim(ptr.Value(l.ETag), `"`)}
	case r.GitHubLocation != nil:
		parts = []string{"GitHub", ptr.Value(r.GitHubLocation.Repository), ptr.Value(r.GitHubLocation.CommitId)}
	}
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// contentKey is revisionKey with the S3 version that the deployment pinned.
func contentKey(r *api.RevisionLocation, version string) string {
	key := revisionKey(r)
	if version != "" && r.S3Location != nil && ptr.Value(r.S3Location.Version) == "" {
		return key + "@" + version
	}
	return key
}

const idAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// derivedID makes a deployment id from what the deployment is for, so that
// making it again after a crash finds the first one.
func derivedID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	id := make([]byte, 9)
	for i := range id {
		id[i] = idAlphabet[int(sum[i])%len(idAlphabet)]
	}
	return "d-" + string(id)
}

func optTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
