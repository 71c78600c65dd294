package collect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"slipway/internal/machine"
	"slipway/internal/store"
)

// instance is what this package reads of an ec2:instance row.
type instance struct {
	ID, Type, Image string
	State           string
	owner           owner
	group           string // Auto Scaling group, or ""
}

// sample is what is known of a machine in the current minute.
type sample struct {
	last    machine.Stats
	have    bool
	elapsed time.Duration // real time measured
	sum     machine.Stats // of differences
	vcpus   float64
	failed  bool // the machine is gone although the instance should run
	seen    bool
}

// running lists the instances that should run.
func (c *Collector) running(ctx context.Context) ([]instance, error) {
	var out []instance
	err := c.Store.View(ctx, func(r store.Reader) error {
		recs, err := r.List(store.Query{Kind: "ec2:instance", State: "running"})
		if err != nil {
			return err
		}
		for _, rec := range recs {
			i := instance{owner: owner{rec.Account, rec.Region}}
			if err := json.Unmarshal(rec.Doc, &i); err != nil {
				return fmt.Errorf("row of instance %s: %w", rec.ID, err)
			}
			i.ID, i.State = rec.ID, rec.State
			group, err := r.Get(store.Key{Kind: "autoscaling:instance", Account: rec.Account, Region: rec.Region, ID: rec.ID})
			if err == nil {
				i.group = group.Parent
			} else if !errors.Is(err, store.ErrNotFound) {
				return err
			}
			out = append(out, i)
		}
		return nil
	})
	return out, err
}

func (c *Collector) sampleInstances(ctx context.Context) error {
	list, err := c.running(ctx)
	if err != nil {
		return err
	}
	for _, s := range c.machines {
		s.seen = false
	}
	for _, i := range list {
		s := c.machines[i.ID]
		if s == nil {
			s = &sample{}
			c.machines[i.ID] = s
		}
		s.seen = true
		st, err := c.Machines.Stats(i.ID)
		if err != nil {
			s.failed, s.have = true, false
			continue
		}
		if status, err := c.Machines.Status(i.ID); err == nil {
			s.vcpus = status.Spec.VCPUs
		}
		s.take(st, c.Clock.Real)
	}
	return nil
}

// take adds the difference to the reading before.
func (s *sample) take(now machine.Stats, realTime func(time.Duration) time.Duration) {
	then, had := s.last, s.have
	s.last, s.have = now, true
	if !had {
		return
	}
	if now.CPUNanos < then.CPUNanos { // it was started anew
		then = machine.Stats{At: then.At}
	}
	s.elapsed += realTime(now.At.Sub(then.At))
	d := &s.sum
	d.CPUNanos += now.CPUNanos - then.CPUNanos
	d.NetRxBytes += now.NetRxBytes - then.NetRxBytes
	d.NetRxPackets += now.NetRxPackets - then.NetRxPackets
	d.NetTxBytes += now.NetTxBytes - then.NetTxBytes
	d.NetTxPackets += now.NetTxPackets - then.NetTxPackets
	d.DiskReadBytes += now.DiskReadBytes - then.DiskReadBytes
	d.DiskReadOps += now.DiskReadOps - then.DiskReadOps
	d.DiskWriteBytes += now.DiskWriteBytes - then.DiskWriteBytes
	d.DiskWriteOps += now.DiskWriteOps - then.DiskWriteOps
}

// cpu is the used share of the instance's processors in percent. An instance
// cannot use more processors than the host has.
func (s *sample) cpu() float64 {
	n := float64(runtime.NumCPU())
	if s.vcpus > 0 {
		n = min(n, s.vcpus)
	}
	if s.elapsed <= 0 {
		return 0
	}
	return min(100, 100*float64(s.sum.CPUNanos)/(float64(s.elapsed)*n))
}

func (c *Collector) reportInstances(ctx context.Context, at time.Time) error {
	list, err := c.running(ctx)
	if err != nil {
		return err
	}
	out := batch{}
	for _, i := range list {
		s := c.machines[i.ID]
		if s == nil {
			continue
		}
		dims := i.dimensions()
		failed := 0.0
		if s.failed {
			failed = 1
		}
		for name, v := range map[string]float64{"StatusCheckFailed": failed, "StatusCheckFailed_Instance": failed, "StatusCheckFailed_System": 0} {
			out.add(i.owner, at, name, "Count", v, dims...)
		}
		if s.elapsed > 0 {
			out.add(i.owner, at, "CPUUtilization", "Percent", s.cpu(), dims...)
			for name, v := range map[string]int64{
				"NetworkIn": s.sum.NetRxBytes, "NetworkOut": s.sum.NetTxBytes, "DiskReadBytes": s.sum.DiskReadBytes, "DiskWriteBytes": s.sum.DiskWriteBytes,
			} {
				out.add(i.owner, at, name, "Bytes", float64(v), dims...)
			}
			for name, v := range map[string]int64{
				"NetworkPacketsIn": s.sum.NetRxPackets, "NetworkPacketsOut": s.sum.NetTxPackets, "DiskReadOps": s.sum.DiskReadOps, "DiskWriteOps": s.sum.DiskWriteOps,
			} {
				out.add(i.owner, at, name, "Count", float64(v), dims...)
			}
		}
	}
	for id, s := range c.machines {
		if !s.seen {
			delete(c.machines, id)
			continue
		}
		s.elapsed, s.sum, s.failed = 0, machine.Stats{}, false
	}
	return c.put(ctx, "AWS/EC2", out)
}

// dimensions are the sets under which EC2 reports an instance: its own, and
// those that add up over instances.
func (i *instance) dimensions() []map[string]string {
	out := []map[string]string{{"InstanceId": i.ID}, {"ImageId": i.Image}, {"InstanceType": i.Type}, {}}
	if i.group != "" {
		out = append(out, map[string]string{"AutoScalingGroupName": i.group})
	}
	return out
}
