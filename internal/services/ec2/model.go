package ec2

import (
	"slices"
	"time"

	api "slipway/internal/api/ec2"
)

// State of an instance, in AWS's words; see the package comment for how each
// is entered and left.
const (
	statePending      = api.InstanceStateNamePending
	stateRunning      = api.InstanceStateNameRunning
	stateStopping     = api.InstanceStateNameStopping
	stateStopped      = api.InstanceStateNameStopped
	stateShuttingDown = api.InstanceStateNameShuttingDown
	stateTerminated   = api.InstanceStateNameTerminated
)

// transitions is the table of allowed moves.
var transitions = map[string][]string{
	statePending:      {stateRunning, stateShuttingDown, stateTerminated, stateStopping},
	stateRunning:      {stateStopping, stateShuttingDown, stateTerminated},
	stateStopping:     {stateStopped, stateShuttingDown, stateTerminated},
	stateStopped:      {statePending, stateShuttingDown},
	stateShuttingDown: {stateTerminated},
	stateTerminated:   nil,
}

// stateCode is EC2's number of a state (API reference, InstanceState).
var stateCode = map[string]int64{
	statePending: 0, stateRunning: 16, stateShuttingDown: 32,
	stateTerminated: 48, stateStopping: 64, stateStopped: 80,
}

// terminatedVisible is how long a terminated instance stays in the
// describe calls (EC2 User Guide, "Terminate Amazon EC2 instances").
const terminatedVisible = time.Hour

// Instance is the document of an ec2:instance row.
type Instance struct {
	ID          string
	Reservation string
	LaunchIndex int64
	State       string
	// Type is the instance type; Image the AMI as the caller named it and
	// MachineImage what the driver boots for it.
	Type, Image, MachineImage string
	Zone, Subnet, VPC         string
	PrivateIP, MAC            string
	ENI, Attachment, Volume   string
	Groups                    []group
	KeyName                   string `json:",omitempty"`
	PublicKey                 string `json:",omitempty"`
	// UserData is base64, as it arrived.
	UserData    string `json:",omitempty"`
	ClientToken string `json:",omitempty"`
	// Profile is the IAM instance profile; the association's id and state
	// follow EC2's DescribeIamInstanceProfileAssociations.
	Profile *profile `json:",omitempty"`
	// LaunchTime is the last start, CreateTime the first.
	LaunchTime, CreateTime time.Time
	// BootedAt is when the machine answered after LaunchTime.
	BootedAt time.Time `json:",omitzero"`
	// TerminatedAt is when the instance became terminated.
	TerminatedAt time.Time `json:",omitzero"`
	Monitoring   bool      `json:",omitempty"`
	EbsOptimized bool      `json:",omitempty"`
	// NoTerminate and NoStop are DisableApiTermination and DisableApiStop.
	NoTerminate, NoStop bool   `json:",omitempty"`
	OnShutdown          string // "stop" or "terminate"
	NoSourceDestCheck   bool   `json:",omitempty"`
	Lifecycle           string `json:",omitempty"` // "spot" or ""
	Metadata            metadata
	// Reason is StateReason, Transition StateTransitionReason.
	Reason     reason `json:",omitzero"`
	Transition string `json:",omitempty"`
	// Booted says that the machine exists and has a disk: the next boot is a start.
	Booted bool `json:",omitempty"`
	// Reboot asks the controller for one reboot.
	Reboot bool `json:",omitempty"`
	// Gone says that a terminated instance's machine and address are given back.
	Gone bool `json:",omitempty"`
	// Warning is what the owner should know ("ami-... is not registered ...").
	Warning string `json:",omitempty"`
}

type group struct{ ID, Name string }

type profile struct {
	Arn, ID, Name string
	Association   string
	Since         time.Time
}

type reason struct{ Code, Message string }

// metadata are an instance's IMDS options.
type metadata struct {
	Tokens   string // "optional" or "required"
	HopLimit int64
	Endpoint string // "enabled" or "disabled"
	IPv6     string
	Tags     string
}

func (i *Instance) index() (parent, state string) { return i.Reservation, i.State }

// live says whether the instance still counts: neither terminated nor on its way there.
func (i *Instance) live() bool { return i.State != stateTerminated && i.State != stateShuttingDown }

// to moves the instance to another state and says whether it may.
func (i *Instance) to(state string) bool {
	if !slices.Contains(transitions[i.State], state) {
		return false
	}
	i.State = state
	return true
}

// Texts of StateReason and StateTransitionReason (EC2 User Guide,
// "Troubleshoot instance launch issues", and API reference StateReason).
var (
	reasonUser     = reason{"Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"}
	reasonInstance = reason{"Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown: Instance initiated shutdown"}
)

func userInitiated(now time.Time) string {
	return "User initiated (" + now.UTC().Format("2006-01-02 15:04:05") + " GMT)"
}
