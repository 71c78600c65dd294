// Package collect measures what AWS's services report of themselves: EC2
// instances, load balancers, Auto Scaling groups and builds. Each minute of the
// service's clock becomes one data point per metric, written in the moment the
// minute is over with the minute's start as its time.
//
// Counters are read every few seconds, so that a machine's end loses little;
// what was counted before this process began to look is not counted.
package collect

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"slipway/internal/clock"
	"slipway/internal/lb"
	"slipway/internal/machine"
	"slipway/internal/services/cloudwatch/metricstore"
	"slipway/internal/store"
)

// Datum is a point of a service metric.
type Datum struct {
	Name       string
	Dimensions map[string]string
	Unit       string    // one of AWS's; "" is None
	At         time.Time // zero: now
	Resolution int64     // seconds: 1, or 60 (also when 0)
	// Set is the statistics; Value counts where it is empty.
	Set   metricstore.Set
	Value float64
}

// Machines measures machines; a machine.Driver does.
type Machines interface {
	Stats(id string) (machine.Stats, error)
	Status(id string) (machine.Status, error)
}

// Balancers reads the load balancers' counters; *elbv2.Service does.
type Balancers interface {
	Metrics(ctx context.Context) (lb.Metrics, error)
}

// Deps is what a Collector needs; what is nil is not measured.
type Deps struct {
	Store     store.Store
	Clock     clock.Clock
	Log       *slog.Logger
	Machines  Machines
	Balancers Balancers
	// Put keeps points durably.
	Put func(ctx context.Context, account, region, namespace string, data []Datum) error
}

// Collector measures until its Run ends.
type Collector struct {
	Deps
	machines map[string]*sample // by instance
	lb       *lbState
	fails    map[string]int // failures in a row
}

// New makes a collector.
func New(d Deps) *Collector {
	return &Collector{Deps: d, machines: map[string]*sample{}, fails: map[string]int{}}
}

const (
	minute = 60 // seconds
	// every is how many seconds pass between two readings of counters.
	every = 5
)

// Run measures until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { c.followBuilds(ctx) })
	defer wg.Wait()
	tick := c.Clock.NewTicker(time.Second)
	defer tick.Stop()
	now := c.Clock.Now().Unix()
	current, read := now-now%minute, int64(0)
	c.sample(ctx)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now := c.Clock.Now().Unix()
		if m := now - now%minute; m != current {
			c.sample(ctx)
			c.report(ctx, time.Unix(current, 0).UTC())
			current, read = m, now
		} else if now-read >= every {
			c.sample(ctx)
			read = now
		}
	}
}

// sample reads all counters.
func (c *Collector) sample(ctx context.Context) {
	if c.Machines != nil {
		c.check(ctx, "EC2", c.sampleInstances(ctx))
	}
	if c.Balancers != nil {
		c.check(ctx, "ApplicationELB", c.sampleBalancers(ctx))
	}
}

// report writes the points of the minute that began at.
func (c *Collector) report(ctx context.Context, at time.Time) {
	if c.Machines != nil {
		c.check(ctx, "EC2", c.reportInstances(ctx, at))
	}
	if c.Balancers != nil {
		c.check(ctx, "ApplicationELB", c.reportBalancers(ctx, at))
	}
	c.check(ctx, "AutoScaling", c.reportGroups(ctx, at))
}

// check logs failures that last, once: the load balancer process may start
// after the server, or be started anew.
func (c *Collector) check(ctx context.Context, what string, err error) {
	if err == nil {
		c.fails[what] = 0
		return
	}
	if c.fails[what]++; c.fails[what] == patience && ctx.Err() == nil {
		c.Log.Warn("service metrics are not measured for now", "service", what, "error", err)
	}
}

// patience is how many failures in a row are no news.
const patience = 4

// owner is the account and region of a resource.
type owner struct{ account, region string }

// batch collects the points of one namespace by owner.
type batch map[owner][]Datum

func (b batch) add(o owner, at time.Time, name, unit string, v float64, dims ...map[string]string) {
	for _, d := range dims {
		b[o] = append(b[o], Datum{Name: name, Unit: unit, At: at, Value: v, Dimensions: d})
	}
}

func (c *Collector) put(ctx context.Context, namespace string, b batch) error {
	for o := range maps.Keys(b) {
		if err := c.Put(ctx, o.account, o.region, namespace, b[o]); err != nil {
			return err
		}
	}
	return nil
}
