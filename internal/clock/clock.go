// Package clock is the only source of time in Slipway. A scaled clock runs
// faster than the machine's, so that an hour of alarms, cooldowns and bake
// times can be rehearsed in a minute: whatever only waits, waits less.
//
// Times that other programs check against their own clock (the skew of a
// signature, the expiry of credentials, I/O deadlines) use real time.
package clock

import (
	"context"
	"time"
)

// Clock tells time and waits. All methods are safe for concurrent use.
type Clock interface {
	Now() time.Time
	Since(t time.Time) time.Duration
	// Until is how long it is until t on this clock.
	Until(t time.Time) time.Duration
	// Sleep waits for d of this clock's time, or until ctx ends, whose error
	// it then returns.
	Sleep(ctx context.Context, d time.Duration) error
	// After is time.After in this clock's time.
	After(d time.Duration) <-chan time.Time
	// NewTimer sends on its channel after d of this clock's time.
	NewTimer(d time.Duration) *Timer
	// NewTicker ticks every d of this clock's time; d must be positive.
	NewTicker(d time.Duration) *Ticker
	// Real converts a duration of this clock into the machine's, at least
	// one microsecond for a positive d, for deadlines outside this package.
	Real(d time.Duration) time.Duration
}

// Timer is a time.Timer in its clock's time.
type Timer struct {
	C     <-chan time.Time
	timer *time.Timer
	scale func(time.Duration) time.Duration
}

// Stop is time.Timer.Stop.
func (t *Timer) Stop() bool { return t.timer.Stop() }

// Reset is time.Timer.Reset, with d in the clock's time.
func (t *Timer) Reset(d time.Duration) bool { return t.timer.Reset(t.scale(d)) }

// Ticker is a time.Ticker in its clock's time.
type Ticker struct {
	C      <-chan time.Time
	ticker *time.Ticker
}

// Stop is time.Ticker.Stop.
func (t *Ticker) Stop() { t.ticker.Stop() }

// Real is the machine's clock.
var Real Clock = &scaled{rate: 1}

// Scaled is a clock that runs rate times as fast as the machine's and shows
// start now. A rate below 1 is taken as 1. With rate 1 and a zero start it is
// Real.
func Scaled(rate float64, start time.Time) Clock {
	if rate < 1 {
		rate = 1
	}
	if rate == 1 && start.IsZero() {
		return Real
	}
	now := time.Now()
	if start.IsZero() {
		start = now
	}
	return &scaled{rate: rate, realStart: now, start: start}
}

type scaled struct {
	rate      float64
	realStart time.Time // zero: the offset is nought
	start     time.Time
}

func (s *scaled) Now() time.Time {
	now := time.Now()
	if s.realStart.IsZero() {
		return now.UTC()
	}
	return s.start.Add(time.Duration(float64(now.Sub(s.realStart)) * s.rate)).UTC().Round(0)
}

func (s *scaled) Since(t time.Time) time.Duration { return s.Now().Sub(t) }
func (s *scaled) Until(t time.Time) time.Duration { return t.Sub(s.Now()) }

func (s *scaled) Real(d time.Duration) time.Duration {
	if s.rate == 1 || d <= 0 {
		return d
	}
	return max(time.Duration(float64(d)/s.rate), time.Microsecond)
}

func (s *scaled) Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(s.Real(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *scaled) After(d time.Duration) <-chan time.Time { return time.After(s.Real(d)) }

func (s *scaled) NewTimer(d time.Duration) *Timer {
	t := time.NewTimer(s.Real(d))
	return &Timer{C: t.C, timer: t, scale: s.Real}
}

func (s *scaled) NewTicker(d time.Duration) *Ticker {
	t := time.NewTicker(s.Real(d))
	return &Ticker{C: t.C, ticker: t}
}
