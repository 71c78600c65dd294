// Package machine is the boundary between Slipway's services and the things
// that really run: EC2 instances and build environments. A Driver boots, stops,
// measures and snapshots them; package sandbox does it with Linux namespaces,
// package simulated with nothing at all, and package machinetest is the
// conformance suite that both must pass.
//
// # Call order
//
// Open a driver (each implementation's own constructor), which adopts whatever
// survived the last process; read List to learn what that is; subscribe with
// Events; then Boot, Exec, Stop, Start and Destroy as needed. Call Run in a
// goroutine for the parts that need one (egress, DNS): it returns when its
// context ends and leaves machines running. Close gives back what belongs to
// this process and leaves machines running too. PurgeAll ends everything.
//
// # Concurrency
//
// Every method may be called from any goroutine. Calls that change one machine
// are serialised by its ID: a Destroy waits for the Boot before it. Calls for
// different machines run in parallel.
package machine

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"time"
)

// Errors that callers tell apart with errors.Is. Drivers wrap them with the
// machine's ID and the step that failed.
var (
	// ErrNotFound: no machine, image or volume of that name is known.
	ErrNotFound = errors.New("not found")
	// ErrNotRunning: the call needs a running machine (Exec, Stats of a stopped one).
	ErrNotRunning = errors.New("not running")
	// ErrExists: another machine with other properties has that ID or address.
	ErrExists = errors.New("already exists")
	// ErrInUse: the image or volume cannot be removed while a machine uses it.
	ErrInUse = errors.New("in use")
	// ErrInvalid: the Spec or ExecSpec is wrong; the message names the field.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: this host cannot run machines; the message says why and
	// what to do about it.
	ErrUnsupported = errors.New("unsupported")
	// ErrTimeout: ExecSpec.Timeout passed; the processes were killed.
	ErrTimeout = errors.New("timed out")
)

// Kind says what a machine is for. It decides defaults only.
type Kind string

const (
	// KindInstance is a long-lived EC2 instance.
	KindInstance Kind = "instance"
	// KindBuild is a short-lived environment for one build.
	KindBuild Kind = "build"
)

// DefaultImage names the image every driver knows without registration: for the
// sandbox, the host's own operating system with its secrets masked.
const DefaultImage = "default"

// Spec describes one machine. It is immutable once booted; Start and Reboot
// use the Spec of the first Boot.
type Spec struct {
	// ID is the caller's name for the machine, "i-0123456789abcdef0" or a build
	// name: 1 to 63 of [a-z0-9-], starting with a letter.
	ID   string
	Kind Kind
	// Hostname inside; "" means ip-172-31-x-y, as EC2 names instances by address.
	Hostname string
	// Zone is the availability zone, "us-east-1a"; told to the machine, not acted upon.
	Zone string
	// PrivateIP is chosen by the caller, inside 172.31.0.0/16, and must not be
	// used by another machine of this installation. "" means no network at all.
	PrivateIP string
	// Image is an Image.ID; "" means DefaultImage.
	Image string
	// VCPUs and MemoryBytes are hard limits; 0 means no limit.
	VCPUs       float64
	MemoryBytes int64
	// PidsLimit bounds processes and threads; 0 means 1024.
	PidsLimit int64
	// Env is the environment of user data, agents, services and execs, KEY=VALUE.
	Env []string
	// UserData runs once per machine ID: a "#!" script or "#cloud-config".
	UserData []byte
	// Agents are started after user data's boot commands and restarted with back-off.
	Agents []AgentCommand
	// Mounts are bound into the file system, in order.
	Mounts []Mount
	// Labels are kept and returned; the driver does not read them.
	Labels map[string]string
}

// AgentCommand is a program that PID 1 keeps running: restarted after it exits,
// at once the first time and then with back-off up to 30 s.
type AgentCommand struct {
	Name string // unique in the machine, [a-z0-9-]
	Args []string
	Env  []string
}

// SlipwayBinary is where every image shows the slipway executable itself.
const SlipwayBinary = "/opt/slipway/bin/slipway"

// Mount binds a directory or file of the host into a machine.
type Mount struct {
	// Source is an absolute host path, or the bare name of a volume: a
	// directory that the driver creates on first use and keeps until RemoveVolume.
	Source   string
	Target   string // absolute path inside
	ReadOnly bool
}

// State of a machine as the driver sees it.
type State string

const (
	StateBooting  State = "booting"  // Boot or Start is under way
	StateRunning  State = "running"  // init has said that it is ready
	StateStopping State = "stopping" // Stop is under way
	StateStopped  State = "stopped"  // Stop finished, or it died; the disk is kept
)

// Status is what is known of a machine.
type Status struct {
	ID    string
	State State
	Spec  Spec
	// PID on the host of the machine's PID 1; 0 when not running or simulated.
	PID       int
	BootedAt  time.Time // of the last successful Boot or Start
	ExitedAt  time.Time // zero while running
	ExitCause string    // "stopped", "killed", "signal: killed", "exit status 1", "lost", ...
}

// ExecSpec is one program to run inside a machine.
type ExecSpec struct {
	Args []string // Args[0] is looked up in the machine's PATH
	Env  []string // added to Spec.Env and PATH, HOME, USER
	Dir  string   // "" means the user's home, or /
	User string   // "" means root; a name or uid[:gid] known inside
	// Stdin may be nil. Reading it stops when the program exits; a reader that
	// never returns costs a goroutine until it does.
	Stdin  io.Reader
	Stdout io.Writer // nil discards
	Stderr io.Writer // nil discards; unused with TTY
	// TTY gives the program a terminal; Resize (optional) carries its size.
	TTY    bool
	Resize <-chan WinSize
	// Signals (optional) are forwarded to the program's process group, by number.
	Signals <-chan int
	// Timeout kills the process group after that long in the machine's real
	// time, and Exec returns ErrTimeout; 0 means none.
	Timeout time.Duration
}

// WinSize is a terminal's size in characters.
type WinSize struct{ Rows, Cols uint16 }

// Stats are cumulative counters since the machine's last start, except where noted.
type Stats struct {
	At             time.Time
	CPUNanos       int64
	MemoryBytes    int64 // now, without reclaimable page cache
	MemoryLimit    int64 // 0 when unlimited
	Processes      int64 // now
	NetRxBytes     int64
	NetRxPackets   int64
	NetTxBytes     int64
	NetTxPackets   int64
	DiskReadBytes  int64
	DiskReadOps    int64
	DiskWriteBytes int64
	DiskWriteOps   int64
}

// Image is an ordered stack of read-only layers.
type Image struct {
	// ID is DefaultImage or "sha256:..." of its content: the same content has the same ID.
	ID     string
	Name   string   // the name it was registered under
	Parent string   // image below; "" for DefaultImage
	Layers []string // content names, top first
	Bytes  int64    // of the top layer
	Labels map[string]string
	At     time.Time
}

// BakeSpec describes a custom image: a script run once on top of a base.
type BakeSpec struct {
	Name  string
	Base  string // image ID; "" means DefaultImage
	Files []File // written before the script runs
	// Script is a "#!" script, run as root with egress to the outside world.
	Script []byte
	Env    []string
	// PrivateIP is a free address for the time of the bake; "" means no network.
	PrivateIP string
	Output    io.Writer // receives the script's output; nil discards
}

// File is a file to place in a machine or an image.
type File struct {
	Path string // absolute
	Mode uint32 // permission bits; 0 means 0644
	Data []byte
}

// EventType is what happened to a machine.
type EventType string

const (
	EventReady  EventType = "ready"  // PID 1 is up and answers
	EventExited EventType = "exited" // PID 1 is gone, whoever ended it
)

// Event is sent as it happens; see Driver.Events.
type Event struct {
	Type  EventType
	ID    string
	PID   int
	Cause string // of an exit, as Status.ExitCause
	At    time.Time
}

// Driver runs machines. See the package comment for call order and concurrency.
type Driver interface {
	// Name is "sandbox" or "simulated".
	Name() string

	// Boot creates and starts a machine and returns when its init is ready.
	// It is idempotent by Spec.ID: a running machine is returned as it is, a
	// stopped one is started. When it fails, nothing of the machine is left.
	Boot(ctx context.Context, spec Spec) (Status, error)
	// Stop ends a machine gracefully (SIGTERM to services, 10 s, then SIGKILL) and keeps its disk.
	Stop(ctx context.Context, id string) error
	// Start boots a stopped machine from its disk. Idempotent.
	Start(ctx context.Context, id string) (Status, error)
	// Reboot is Stop and Start; memory is lost, disk and address stay.
	Reboot(ctx context.Context, id string) (Status, error)
	// Kill pulls the plug: SIGKILL, the disk is kept, an exited event follows.
	Kill(ctx context.Context, id string) error
	// Destroy ends the machine and gives everything back, its disk included.
	// Idempotent: destroying an unknown machine is a success.
	Destroy(ctx context.Context, id string) error

	// Exec runs a program and returns its exit code (killed by signal n:
	// 128+n). The error says that it could not be run or watched to its end.
	// When ctx ends, the program's whole process group is killed; so it is when
	// this process dies. What the program itself left in the background goes on.
	Exec(ctx context.Context, id string, spec ExecSpec) (int, error)

	// List returns every machine known, stopped ones included, by ID.
	List() []Status
	// Status of one machine, or ErrNotFound.
	Status(id string) (Status, error)
	// Stats of a running machine, else ErrNotRunning. Cheap: microseconds.
	Stats(id string) (Stats, error)
	// ConsoleOutput is what PID 1, user data and the agents wrote: the last 64 KiB.
	ConsoleOutput(id string) ([]byte, error)
	// WriteFile places a file inside a running machine, whole or not at all;
	// directories on the way are made.
	WriteFile(ctx context.Context, id string, f File) error

	// Snapshot makes an image from a machine's disk. A running machine is
	// snapshotted as it is, like EC2's --no-reboot.
	Snapshot(ctx context.Context, id, name string, labels map[string]string) (Image, error)
	// Bake makes an image from a base and a script. The result is cached: the
	// same BakeSpec on the same base returns at once.
	Bake(ctx context.Context, spec BakeSpec) (Image, error)
	// Images lists what is registered; DefaultImage comes first.
	Images() []Image
	// RemoveImage forgets an image; ErrInUse while a machine or image needs it.
	RemoveImage(ctx context.Context, id string) error
	// RemoveVolume deletes a named volume; ErrInUse while mounted, nil if unknown.
	RemoveVolume(ctx context.Context, name string) error

	// Events returns a channel of what happens from now on, and a function that
	// ends the subscription and closes it. A subscriber that falls 1024 events
	// behind loses the oldest: after a gap, List is the truth.
	Events() (<-chan Event, func())

	// ListenVPC listens inside the machines' network: TCP on "172.31.0.2:4566",
	// "169.254.169.254:80" or "169.254.170.2:80", as machines see them. The
	// simulated driver listens on 127.0.0.1:0.
	ListenVPC(ctx context.Context, network, addr string) (net.Listener, error)
	// DialVPC connects from the VPC to a machine.
	DialVPC(ctx context.Context, network, addr string) (net.Conn, error)
	// StartInVPC starts cmd inside the VPC's network namespace; it replaces
	// cmd.Start, and Wait is the caller's. An open file of the host's network
	// namespace is appended to cmd.ExtraFiles for the child; prepare (may be
	// nil) is told its number in the child before the start, so that it can go
	// into cmd.Args: -1 when there is no such namespace (simulated).
	StartInVPC(cmd *exec.Cmd, prepare func(hostFD int)) error

	// Run serves what machines need from this process (egress, DNS, watching)
	// until ctx ends. Machines outlive it.
	Run(ctx context.Context) error
	// Close gives back this process's handles; machines keep running.
	Close() error
	// PurgeAll gives back everything that runs: processes, network, control
	// groups. With all it deletes disks, images and volumes too; without, the
	// machines that ran are "lost" to the next driver, as after a restart of the
	// host, and start again from their disks. The driver is unusable afterwards.
	PurgeAll(ctx context.Context, all bool) error
	// Leftovers lists kernel objects and directories that exist on behalf of
	// this installation beyond its running machines; empty after PurgeAll.
	Leftovers() []string
}
