package cloudwatch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"slipway/internal/agent/awscall"
	"slipway/internal/lean"
)

const (
	maxDatums  = 20_000 // values kept while the service does not answer; the oldest go first
	callDatums = 500    // values per PutMetricData call (its limit is 1000)
)

// datum is a MetricDatum.
type datum struct {
	MetricName        string      `json:"MetricName"`
	Dimensions        []dimension `json:"Dimensions,omitempty"`
	Timestamp         float64     `json:"Timestamp"`
	Value             float64     `json:"Value"`
	Unit              string      `json:"Unit,omitempty"`
	StorageResolution int         `json:"StorageResolution,omitempty"`
}

type dimension struct {
	Name  string `json:"Name"`
	Value string `json:"Value"`
}

// metricsAgent measures and publishes. It is one goroutine.
type metricsAgent struct {
	cfg     *metricsConfig
	meter   *meter
	api     api
	log     *slog.Logger
	resolve func(context.Context) (map[string]string, error) // values of the identity dimensions

	identity map[string]string // nil until known
	due      map[string]time.Time
	waiting  []datum
	sendAt   time.Time
	backoff  time.Duration
}

// Run measures until ctx ends and then sends what is there. It returns nil.
func (a *metricsAgent) Run(ctx context.Context) error {
	a.due = map[string]time.Time{}
	a.sendAt = time.Now().Add(a.cfg.Flush)
	for i := range a.cfg.Sections {
		s := &a.cfg.Sections[i]
		a.measure(s, time.Now(), true) // rates need a first reading
		a.due[s.Name] = time.Now().Truncate(s.Interval).Add(s.Interval)
	}
	for ctx.Err() == nil {
		next := a.sendAt
		for _, t := range a.due {
			if t.Before(next) {
				next = t
			}
		}
		pause(ctx, time.Until(next))
		now := time.Now()
		for i := range a.cfg.Sections {
			if s := &a.cfg.Sections[i]; !now.Before(a.due[s.Name]) {
				a.due[s.Name] = now.Truncate(s.Interval).Add(s.Interval)
				a.measure(s, now, false)
			}
		}
		if !now.Before(a.sendAt) && ctx.Err() == nil {
			a.flush(ctx)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	a.flush(last)
	return nil
}

// measure takes a section's values, with all their dimensions; the first reading is thrown away.
func (a *metricsAgent) measure(s *section, now time.Time, first bool) {
	samples, err := a.meter.read(s)
	if err != nil {
		a.log.Warn("cannot be measured", "section", s.Name, "error", err)
		return
	}
	if first {
		return
	}
	for _, v := range samples {
		for _, m := range s.Measures {
			if m.Name != v.name {
				continue
			}
			a.keep(s, m, v, now)
		}
	}
}

func (a *metricsAgent) keep(s *section, m measure, v sample, now time.Time) {
	d := datum{MetricName: orElse(m.Rename, m.Name), Timestamp: float64(now.UnixMilli()) / 1000, Value: v.v, Unit: orElse(m.Unit, catalogue[s.Name][m.Name])}
	if s.Interval < time.Minute {
		d.StorageResolution = 1
	}
	own := map[string]string{}
	maps.Copy(own, v.dims)
	maps.Copy(own, s.Extra)
	for _, k := range slices.Sorted(maps.Keys(own)) {
		if own[k] != "" {
			d.Dimensions = append(d.Dimensions, dimension{k, own[k]})
		}
	}
	a.waiting = append(a.waiting, d)
	if n := len(a.waiting) - maxDatums; n > 0 {
		a.waiting = slices.Delete(a.waiting, 0, n)
	}
}

// flush sends what has been measured; what is not acknowledged stays.
func (a *metricsAgent) flush(ctx context.Context) {
	defer lean.Worked()
	err := a.tryFlush(ctx)
	if err == nil {
		a.backoff = 0
		a.sendAt = time.Now().Add(a.cfg.Flush)
		return
	}
	a.backoff = min(max(2*a.backoff, time.Second), time.Minute)
	a.sendAt = time.Now().Add(a.backoff)
	if ctx.Err() == nil {
		a.log.Warn("metrics are not sent yet", "waiting", len(a.waiting), "again_in", a.backoff, "error", err)
	}
}

func (a *metricsAgent) tryFlush(ctx context.Context) error {
	if a.identity == nil {
		id, err := a.resolve(ctx)
		if err != nil {
			return err
		}
		a.identity = id
	}
	for len(a.waiting) > 0 {
		n := min(len(a.waiting), max(callDatums/(1+len(a.cfg.Aggregate)), 1))
		var data []datum
		for _, d := range a.waiting[:n] {
			data = append(data, a.withIdentity(d)...)
		}
		err := a.api.JSON(ctx, "monitoring", "GraniteServiceVersion20100801.PutMetricData", nil, map[string]any{"Namespace": a.cfg.Namespace, "MetricData": data}, nil)
		if err != nil && lasting(err) {
			a.log.Error("CloudWatch does not take values; they are given up", "values", n, "error", err)
			err = nil
		}
		if err != nil {
			return err
		}
		a.waiting = slices.Delete(a.waiting, 0, n)
	}
	return nil
}

// lasting reports whether the same call would be refused for ever.
func lasting(err error) bool {
	var e *awscall.Error
	return errors.As(err, &e) && !awscall.Temporary(err) && (strings.HasPrefix(e.Code, "Invalid") || strings.HasPrefix(e.Code, "Validation") || e.Code == "MissingParameter")
}

// withIdentity is the value with the identity dimensions, and once more for every aggregation that its dimensions allow.
func (a *metricsAgent) withIdentity(d datum) []datum {
	dims := slices.Clone(d.Dimensions)
	for _, k := range slices.Sorted(maps.Keys(a.identity)) {
		dims = append(dims, dimension{k, a.identity[k]})
	}
	full := d
	full.Dimensions = dims
	out := []datum{full}
	for _, names := range a.cfg.Aggregate {
		var some []dimension
		for _, x := range dims {
			if slices.Contains(names, x.Name) {
				some = append(some, x)
			}
		}
		if len(some) == len(names) && len(some) < len(dims) {
			rolled := d
			rolled.Dimensions = some
			out = append(out, rolled)
		}
	}
	return out
}
