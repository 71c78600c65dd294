package ec2

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/internal/machine"
	"slipway/internal/store"
)

// Labels of our machines: from them an exit event finds its row.
const (
	labelAccount = "slipway:account"
	labelRegion  = "slipway:region"
)

// consoles keeps the last console output of instances whose machine is gone;
// id: the instance.
var consoles = store.NewTable[consoleLog]("ec2:console", nil)

type consoleLog struct {
	Output []byte
	At     time.Time
}

// reconcile makes one instance's machine agree with its row. Each step may
// be repeated: the driver's calls are idempotent by id.
func (s *Service) reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := instances.Find(ctx, s.Store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	i := &row.Doc
	seen, err := s.Machines.Status(i.ID)
	exists := err == nil
	if err != nil && !errors.Is(err, machine.ErrNotFound) {
		return 0, err
	}
	err = nil
	step, after := plan(i, seen, exists, s.Clock.Now())
	if step == stepDied && !exists && s.Machines.Name() == "simulated" {
		step = stepBoot // simulated machines live in the server's memory: a restart makes them anew
	}
	switch step {
	case stepNone:
	case stepBoot:
		err = s.boot(ctx, row)
	case stepStart:
		err = s.start(ctx, row)
	case stepStop:
		err = s.stop(ctx, row)
	case stepReboot:
		err = s.reboot(ctx, row)
	case stepRecover:
		err = s.recover(ctx, row)
	case stepDied:
		cause := seen.ExitCause
		if told, ok := s.causes.Load(i.ID); ok && cause == "" {
			cause = told.(string)
		}
		err = s.died(ctx, row, cause)
	case stepDestroy:
		err = s.destroy(ctx, row)
	case stepForget:
		err = s.forget(ctx, row)
	}
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", step, i.ID, err)
	}
	if step != stepNone || i.State == stateTerminated {
		s.causes.Delete(i.ID)
	}
	return after, nil
}

// spec is the machine of an instance.
func (s *Service) spec(ctx context.Context, row *store.Row[Instance]) (machine.Spec, error) {
	i := &row.Doc
	var tags map[string]string
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		tags, err = tagsOf(r, row.Account, row.Region, i.ID)
		return err
	})
	if err != nil {
		return machine.Spec{}, err
	}
	mounts, err := volumeMounts(tags[volumeTag])
	if err != nil {
		return machine.Spec{}, err
	}
	userData, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(i.UserData), ""))
	if err != nil {
		return machine.Spec{}, fmt.Errorf("user data: %w", err)
	}
	t := typeOf(i.Type)
	return machine.Spec{
		ID: i.ID, Kind: machine.KindInstance, Zone: i.Zone, PrivateIP: i.PrivateIP, Image: i.MachineImage,
		VCPUs: float64(t.VCPUs), MemoryBytes: t.MemoryMiB << 20,
		Env: []string{
			"AWS_ENDPOINT_URL=" + s.Endpoint,
			"AWS_REGION=" + row.Region,
			"AWS_DEFAULT_REGION=" + row.Region,
		},
		UserData: userData, Agents: s.Agents, Mounts: mounts,
		Labels: map[string]string{labelAccount: row.Account, labelRegion: row.Region},
	}, nil
}

// boot creates the machine of a pending instance. What the driver cannot
// boot becomes terminated with the driver's words, as EC2 does with an
// instance that fails to launch.
func (s *Service) boot(ctx context.Context, row *store.Row[Instance]) error {
	spec, err := s.spec(ctx, row)
	if err == nil {
		_, err = s.Machines.Boot(ctx, spec)
	}
	return s.started(ctx, row, err)
}

// start boots a stopped instance's machine from its disk.
func (s *Service) start(ctx context.Context, row *store.Row[Instance]) error {
	_, err := s.Machines.Start(ctx, row.ID)
	return s.started(ctx, row, err)
}

func (s *Service) started(ctx context.Context, row *store.Row[Instance], failed error) error {
	if failed != nil {
		if ctx.Err() != nil {
			return ctx.Err() // the server stops: the next one tries again
		}
		s.Log.Warn("instance could not be started", "id", row.ID, "error", failed)
		_, err := s.change(ctx, row, "LaunchFailed", func(i *Instance) bool {
			if i.State != statePending {
				return false
			}
			i.terminate(s.Clock.Now(), reason{"Server.InternalError", "Server.InternalError: " + failed.Error()}, "Server.InternalError")
			return true
		})
		return err
	}
	_, err := s.change(ctx, row, "Running", func(i *Instance) bool {
		i.Booted = true
		if i.to(stateRunning) {
			i.BootedAt = s.Clock.Now()
		}
		return true
	})
	return err
}

// terminate marks the instance as gone; giving its machine back is the next step.
func (i *Instance) terminate(now time.Time, why reason, transition string) {
	if i.to(stateTerminated) {
		i.TerminatedAt, i.Reason, i.Transition = now, why, transition
	}
}

// change applies fn to the newest version of the row, in a transaction of
// its own; fn returns false to leave it as it is.
func (s *Service) change(ctx context.Context, row *store.Row[Instance], event string, fn func(*Instance) bool) (*store.Row[Instance], error) {
	return instances.Modify(ctx, s.Store, row.Account, row.Region, row.ID, event, func(i *Instance) error {
		if !fn(i) {
			return store.ErrUnchanged
		}
		return nil
	})
}

func (s *Service) stop(ctx context.Context, row *store.Row[Instance]) error {
	if err := s.Machines.Stop(ctx, row.ID); err != nil && !errors.Is(err, machine.ErrNotFound) && !errors.Is(err, machine.ErrNotRunning) {
		return err
	}
	_, err := s.change(ctx, row, "Stopped", func(i *Instance) bool { return i.to(stateStopped) })
	return err
}

func (s *Service) reboot(ctx context.Context, row *store.Row[Instance]) error {
	_, failed := s.Machines.Reboot(ctx, row.ID)
	if failed != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := s.change(ctx, row, "Rebooted", func(i *Instance) bool {
		i.Reboot = false
		if failed != nil {
			i.terminate(s.Clock.Now(), reason{"Server.InternalError", "Server.InternalError: reboot: " + failed.Error()}, "Server.InternalError")
		}
		return true
	})
	return err
}

// recover starts a machine again that was lost without anyone's wish, as
// after a restart of the host (EC2's simplified automatic recovery).
func (s *Service) recover(ctx context.Context, row *store.Row[Instance]) error {
	s.Log.Info("recovering a lost instance", "id", row.ID)
	if _, err := s.Machines.Start(ctx, row.ID); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return s.died(ctx, row, "lost, and could not be started again: "+err.Error())
	}
	_, err := s.change(ctx, row, "Recovered", func(i *Instance) bool {
		i.BootedAt = s.Clock.Now()
		return i.State == stateRunning
	})
	return err
}

// died writes down at once that the machine ended by itself, so that whoever
// watches can replace it; clean-up follows.
func (s *Service) died(ctx context.Context, row *store.Row[Instance], cause string) error {
	if err := s.keepConsole(ctx, row); err != nil {
		return err
	}
	clean := cause == "stopped" || cause == "exit status 0"
	_, err := s.change(ctx, row, "Died", func(i *Instance) bool {
		now := s.Clock.Now()
		switch {
		case i.State != stateRunning:
			return false
		case clean && i.OnShutdown == "stop":
			i.to(stateStopping)
			i.to(stateStopped)
			i.Reason, i.Transition = reasonInstance, "Instance initiated ("+now.Format("2006-01-02 15:04:05")+" GMT)"
		case clean:
			i.terminate(now, reasonInstance, "Instance initiated ("+now.Format("2006-01-02 15:04:05")+" GMT)")
		default:
			if cause == "" {
				cause = "no trace of it is left"
			}
			i.terminate(now, reason{"Server.InternalError", "Server.InternalError: The machine ended: " + cause}, "Server.InternalError")
		}
		return true
	})
	return err
}

// destroy gives the machine back, then the address, then writes so.
func (s *Service) destroy(ctx context.Context, row *store.Row[Instance]) error {
	if err := s.keepConsole(ctx, row); err != nil {
		return err
	}
	if err := s.Machines.Destroy(ctx, row.ID); err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		now, err := instances.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		i := &now.Doc
		if err := releaseAddress(tx, i.PrivateIP, i.ID); err != nil {
			return err
		}
		i.terminate(s.Clock.Now(), i.Reason, i.Transition)
		i.Gone = true
		return instances.Save(tx, now, "Terminated", nil)
	})
}

// keepConsole saves the console output before the machine goes: it is what
// explains a failed boot. Without a machine there is nothing to keep.
func (s *Service) keepConsole(ctx context.Context, row *store.Row[Instance]) error {
	out, err := s.Machines.ConsoleOutput(row.ID)
	if err != nil || len(out) == 0 {
		return nil
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		old, err := consoles.Get(tx, row.Account, row.Region, row.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			_, err = consoles.Insert(tx, row.Account, row.Region, row.ID, consoleLog{out, s.Clock.Now()}, "Kept", nil)
			return err
		case err != nil:
			return err
		}
		old.Doc = consoleLog{out, s.Clock.Now()}
		return consoles.Save(tx, old, "Kept", nil)
	})
}

// forget removes what is left of an instance an hour after its end.
func (s *Service) forget(ctx context.Context, row *store.Row[Instance]) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		now, err := instances.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		i := &now.Doc
		for _, id := range []string{i.ID, i.Volume, i.ENI} {
			if err := dropTags(tx, row.Account, row.Region, id); err != nil {
				return err
			}
		}
		if c, err := consoles.Get(tx, row.Account, row.Region, i.ID); err == nil {
			if err := consoles.Delete(tx, c, "Forgotten", nil); err != nil {
				return err
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if i.ClientToken != "" {
			t, err := tokens.Get(tx, row.Account, row.Region, "RunInstances/"+i.ClientToken)
			if err == nil {
				err = tokens.Delete(tx, t, "Forgotten", nil)
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return instances.Delete(tx, now, "Forgotten", nil)
	})
}
