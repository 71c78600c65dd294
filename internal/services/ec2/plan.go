package ec2

import (
	"time"

	"slipway/internal/machine"
)

// step is what the controller does next for one instance.
type step string

const (
	stepNone    step = "nothing"
	stepBoot    step = "boot"
	stepStart   step = "start"
	stepStop    step = "stop"
	stepReboot  step = "reboot"
	stepRecover step = "recover"
	stepDied    step = "died"
	stepDestroy step = "destroy"
	stepForget  step = "forget"
)

// causeLost is the driver's word for a machine that vanished together with
// its host, or while nobody watched.
const causeLost = "lost"

// plan decides, from the row and what the driver knows of the machine, the
// next step, or after how long to look again.
func plan(i *Instance, seen machine.Status, exists bool, now time.Time) (step, time.Duration) {
	switch i.State {
	case statePending:
		if i.Booted {
			return stepStart, 0
		}
		return stepBoot, 0
	case stateRunning:
		switch {
		case !exists:
			return stepDied, 0
		case seen.State == machine.StateStopped && i.Reboot:
			return stepReboot, 0 // a crash between the two halves of a reboot
		case seen.State == machine.StateStopped && seen.ExitCause == causeLost:
			return stepRecover, 0
		case seen.State == machine.StateStopped:
			return stepDied, 0
		case seen.State != machine.StateRunning:
			return stepNone, time.Second // in the middle of something
		case i.Reboot:
			return stepReboot, 0
		}
	case stateStopping:
		return stepStop, 0
	case stateShuttingDown:
		return stepDestroy, 0
	case stateTerminated:
		if !i.Gone {
			return stepDestroy, 0
		}
		if rest := i.TerminatedAt.Add(terminatedVisible).Sub(now); rest > 0 {
			return stepNone, rest
		}
		return stepForget, 0
	}
	return stepNone, 0
}

// typeOf is the limits of a type; an unknown one (a custom image's, or a type
// that an earlier release knew) counts as EC2's historical default.
func typeOf(name string) instanceType {
	if t, ok := typeTable[name]; ok {
		return t
	}
	return instanceType{Name: name, VCPUs: 1, MemoryMiB: 1740, Arch: "x86_64"}
}
