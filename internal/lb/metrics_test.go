package lb

import (
	"context"
	"maps"
	"testing"
)

// counts are the requests of the targets with an id, by serial number.
func (r *rig) counts(id string) map[int64]float64 {
	r.t.Helper()
	m, err := r.client.Metrics(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[int64]float64{}
	for _, t := range m.Targets {
		if t.ID == id {
			out[t.Serial] = t.Counters["RequestCount"]
		}
	}
	return out
}

func TestLastCountsOfATargetAreRead(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	r.apply()
	r.healthy(1)
	c := newClient(t)
	for range 3 {
		get(t, c, r.url())
	}
	registered := r.snap.TargetGroups[0].Targets
	r.snap.TargetGroups[0].Targets = nil
	r.apply()
	seen := map[int64]float64{} // it is remembered for a while only
	sum := func() float64 {
		maps.Copy(seen, r.counts("i-1"))
		total := 0.0
		for _, n := range seen {
			total += n
		}
		return total
	}
	r.until("its three requests are there", func() bool { return sum() == 3 })
	r.snap.TargetGroups[0].Targets = registered
	r.apply()
	r.healthy(1)
	get(t, c, r.url())
	r.until("the new target counts for itself", func() bool { return sum() == 4 && len(seen) == 2 })
	r.until("the former one is forgotten", func() bool { return len(r.counts("i-1")) == 1 })
}

func TestConnectionsToTargetsCount(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	r.apply()
	r.healthy(1)
	c := newClient(t)
	for range 3 {
		get(t, c, r.url()) // one connection from the client, one to the target
	}
	m, err := r.client.Metrics(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	b := m.LoadBalancers[0]
	if b.Counters["NewConnectionCount"] != 2 || b.ActiveConnections != 2 {
		t.Errorf("%v new connections, %v at once", b.Counters["NewConnectionCount"], b.ActiveConnections)
	}
	c.CloseIdleConnections()
	r.until("the client's is closed", func() bool {
		m, err := r.client.Metrics(context.Background())
		return err == nil && m.LoadBalancers[0].ActiveConnections == 1
	})
}
