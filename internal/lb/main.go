package lb

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"slipway/internal/clock"
)

// Main is `slipway lb`. It runs until SIGTERM or SIGINT, then drains, and returns
// the exit status. Flags: --socket PATH and --state FILE (both needed),
// --host-netns-fd N (an inherited descriptor of the network namespace in which
// listeners are opened; without it the own one), --time-scale F (health-check
// intervals and deregistration delays pass F times as fast).
func Main(args []string) int {
	fs := flag.NewFlagSet("slipway lb", flag.ContinueOnError)
	socket := fs.String("socket", "", "unix socket of the control API")
	state := fs.String("state", "", "file that keeps the configuration")
	netns := fs.Int("host-netns-fd", -1, "descriptor of the network namespace to listen in")
	scale := fs.Float64("time-scale", 1, "how much faster than real time intervals pass")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if *socket == "" || *state == "" || fs.NArg() > 0 || *scale < 1 {
		fmt.Fprintln(os.Stderr, "slipway lb: --socket and --state are needed, --time-scale is at least 1, and there are no other arguments")
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	open := opener(listenHere)
	if *netns >= 0 {
		// Children that this process might start do not inherit it.
		syscall.CloseOnExec(*netns)
		open = listenIn(*netns)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, *socket, *state, open, clock.Scaled(*scale, time.Time{}), log); err != nil {
		fmt.Fprintln(os.Stderr, "slipway lb:", err)
		return 1
	}
	return 0
}

// serve runs a process and its control socket until ctx ends.
func serve(ctx context.Context, socket, state string, open opener, clk clock.Clock, log *slog.Logger) error {
	p, err := NewProcess(state, open, clk, log)
	if err != nil {
		return err
	}
	ln, err := listenControl(socket)
	if err != nil {
		return errors.Join(err, p.state.Close())
	}
	ctl, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- p.serveControl(ctl, ln) }()
	err = p.Run(ctx)
	cancel()
	return errors.Join(err, <-ready)
}
