package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/lean"
	"slipway/internal/machine/sandbox/wire"
)

// Init is PID 1 of a machine.
type Init struct {
	boot    *wire.Boot
	reaper  *reaper
	console *console
	super   *supervisor

	mu       sync.Mutex
	userData string // wire.Pong.UserData
	ending   bool
}

// InitMain is `slipway init`; args are those after "init".
func InitMain(args []string) int {
	if len(args) == 2 && args[0] == "--stage2" {
		if err := stage2(args[1]); err != nil {
			report(wire.Stage{Error: err.Error()})
			return 1
		}
		return 0
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "slipway init is PID 1 of a machine; the server starts it")
		return 2
	}
	return Stage1()
}

func marshalBoot(b *wire.Boot) ([]byte, error) { return json.Marshal(b) }

func loadBoot(arg string) (*wire.Boot, error) {
	fd, err := strconv.Atoi(arg)
	if err != nil {
		return nil, fmt.Errorf("configuration file number %q: %w", arg, err)
	}
	f := os.NewFile(uintptr(fd), "boot")
	defer f.Close()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var b wire.Boot
	if err := json.NewDecoder(f).Decode(&b); err != nil {
		return nil, fmt.Errorf("boot configuration: %w", err)
	}
	return &b, nil
}

func stage2(arg string) error {
	for _, fd := range []int{FDReady, FDListen, FDState} {
		unix.CloseOnExec(fd)
	}
	b, err := loadBoot(arg)
	if err != nil {
		return err
	}
	lf := os.NewFile(FDListen, "listen")
	ln, err := net.FileListener(lf)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	lf.Close()
	in := &Init{boot: b, reaper: newReaper(), userData: "none"}
	in.console = newConsole(os.NewFile(FDState, "console"))
	in.super = newSupervisor(in)
	go in.reaper.run()
	if err := in.listenInside(); err != nil {
		return err
	}
	if err := errors.Join(in.serveConsole(), in.serveSyslog()); err != nil {
		return fmt.Errorf("console and log: %w", err)
	}
	go in.handleSignals()
	report(wire.Stage{Ready: true})
	unix.Close(FDReady)
	go in.startUp()
	debug.SetGCPercent(30) // it mostly waits: trade CPU for a small heap, as the agents do
	go func() {
		if err := lean.Keep(context.Background()); err != nil {
			in.console.printf("slipway: unused memory is not given back: %v", err)
		}
	}()
	in.serve(ln)
	return nil
}

// startUp does what a boot does once the machine answers: boot commands,
// services, agents, user data.
func (in *Init) startUp() {
	in.console.printf("slipway: %s is up as %s", in.boot.Spec.ID, in.boot.Hostname)
	in.super.startAgents(in.boot.Spec.Agents)
	in.super.startEnabled()
	in.runUserData()
}

// handleSignals lets `kill 1`, poweroff and the like mean what they mean to init.
func (in *Init) handleSignals() {
	sig := make(chan os.Signal, 4)
	signal.Notify(sig, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPWR)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	for range sig {
		go in.shutdown(10 * time.Second)
	}
}

// shutdown stops services, then everything else, and ends PID 1; the kernel
// kills whatever is left with it.
func (in *Init) shutdown(grace time.Duration) {
	in.mu.Lock()
	again := in.ending
	in.ending = true
	in.mu.Unlock()
	if again {
		return
	}
	deadline := time.Now().Add(grace)
	in.super.stopAll(deadline)
	in.console.printf("slipway: %s is going down", in.boot.Spec.ID)
	_ = syscall.Kill(-1, syscall.SIGTERM)
	for wait := time.Millisecond; time.Now().Before(deadline) && in.othersAlive(); wait = min(wait*2, 50*time.Millisecond) {
		time.Sleep(wait)
	}
	os.Exit(0)
}

// othersAlive says whether a process besides PID 1 exists in this machine.
func (in *Init) othersAlive() bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 1 {
			return true
		}
	}
	return false
}

func (in *Init) setUserData(s string) {
	in.mu.Lock()
	in.userData = s
	in.mu.Unlock()
}

func (in *Init) pong() wire.Pong {
	in.mu.Lock()
	defer in.mu.Unlock()
	return wire.Pong{ID: in.boot.Spec.ID, UserData: in.userData}
}
