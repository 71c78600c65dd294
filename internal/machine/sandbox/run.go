package sandbox

import (
	"context"
	"sync"
	"time"

	"slipway/internal/clock"
)

// Run implements machine.Driver: egress and the resolver, each restarted with
// back-off when it fails. Machines run on without them.
func (d *Driver) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { d.keep(ctx, "resolver", d.vpc.runDNS) })
	if !d.opts.NoEgress {
		wg.Go(func() {
			d.keep(ctx, "egress", func(ctx context.Context) error { return d.vpc.runEgress(ctx, d.opts.ReachHost) })
		})
	}
	wg.Wait()
	return ctx.Err()
}

// keep runs f again whenever it ends before ctx does.
func (d *Driver) keep(ctx context.Context, name string, f func(context.Context) error) {
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 30*time.Second) {
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("instances are without their "+name+" for now", "error", err, "retry", wait)
		if clock.Real.Sleep(ctx, wait) != nil {
			return
		}
	}
}
