package simulated

import (
	"errors"
	"testing"

	"slipway/internal/machine"
	"slipway/internal/machine/machinetest"
)

func TestConformance(t *testing.T) {
	machinetest.Run(t, machinetest.Harness{Open: func(*testing.T) machine.Driver { return New(Options{}) }})
}

func TestFaults(t *testing.T) {
	d := New(Options{})
	boom := errors.New("no capacity")
	d.FailBoots(func(machine.Spec) error { return boom })
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-1"}); !errors.Is(err, boom) {
		t.Error(err)
	}
	d.FailBoots(nil)
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-1"}); err != nil {
		t.Fatal(err)
	}
	events, cancel := d.Events()
	defer cancel()
	if err := d.Die("i-1", "signal: killed"); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Cause != "signal: killed" || e.Type != machine.EventExited {
		t.Errorf("%+v", e)
	}
}
