package cloudwatch

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/services/cloudwatch/evaluate"
	"slipway/internal/services/cloudwatch/metricstore"
	"slipway/internal/store"
)

// engine evaluates alarms: at each new point of a period that is over, and
// whenever the window of an alarm moves on, which the tick notices.
type engine struct {
	s *Service

	mu sync.Mutex
	// byMetric leads from a metric's key to the alarms on it.
	byMetric map[string]map[store.Key]*watched
	dirty    map[store.Key]bool
	wake     chan struct{} // capacity 1

	// Of the goroutine of Run:
	alarms map[store.Key]*watched
	// parents leads from an alarm to the composite alarms that depend on it.
	parents map[store.Key]map[store.Key]bool
}

// watched is an alarm as the engine knows it.
type watched struct {
	row    *store.Row[Alarm]
	rule   evaluate.Rule
	source source
	step   int64 // seconds by which the window moves
	end    int64 // of the last evaluated window, exclusive: epoch seconds; guarded by engine.mu
	keys   []string
	// value is the newest data point of the last evaluation.
	value *float64
	// fired is when the Auto Scaling actions ran last.
	fired time.Time
	deps  []store.Key // of a composite alarm
	expr  ruleExpr
	// leftAlarm says that the state before this one was ALARM.
	leftAlarm bool
}

func newEngine(s *Service) *engine {
	return &engine{
		s: s, byMetric: map[string]map[store.Key]*watched{}, dirty: map[store.Key]bool{}, wake: make(chan struct{}, 1),
		alarms: map[store.Key]*watched{}, parents: map[store.Key]map[store.Key]bool{},
	}
}

// arrived tells of new points; from any goroutine.
func (e *engine) arrived(points []metricstore.Point) {
	now := e.s.clock.Now().Unix()
	woken := false
	e.mu.Lock()
	if len(e.byMetric) > 0 {
		for i := range points {
			for key, w := range e.byMetric[points[i].Metric.Key()] {
				// The current period waits for its end: the tick sees that.
				if points[i].At.Unix() < floor(now, w.step) {
					e.dirty[key], woken = true, true
				}
			}
		}
	}
	e.mu.Unlock()
	if woken {
		e.signal()
	}
}

func (e *engine) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func floor(t, period int64) int64 {
	r := t % period
	if r < 0 {
		r += period
	}
	return t - r
}

// Run evaluates until ctx ends.
func (e *engine) Run(ctx context.Context) error {
	sub := e.s.store.Subscribe(alarms.Kind)
	defer sub.Close()
	if err := e.load(ctx); err != nil {
		return err
	}
	events := make(chan store.Event)
	lagged := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { listen(ctx, sub, events, lagged) })
	tick := e.s.clock.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case ev := <-events:
			e.changed(ctx, ev)
		case <-lagged:
			if err := e.load(ctx); err != nil {
				return err
			}
		case <-e.wake:
			e.evaluateDirty(ctx)
		case <-tick.C:
			e.tick(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func listen(ctx context.Context, sub *store.Subscription, events chan<- store.Event, lagged chan<- struct{}) {
	for {
		ev, err := sub.Next(ctx)
		switch {
		case errors.Is(err, store.ErrLagged):
			select {
			case lagged <- struct{}{}:
			default:
			}
		case err != nil:
			return
		default:
			select {
			case events <- ev:
			case <-ctx.Done():
				return
			}
		}
	}
}

// load reads all alarms and asks for each to be evaluated.
func (e *engine) load(ctx context.Context) error {
	rows, err := alarms.Select(ctx, e.s.store, store.Query{})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	stale := map[store.Key]bool{}
	for key := range e.alarms {
		stale[key] = true
	}
	for _, row := range rows {
		delete(stale, row.Key)
		e.set(row, true)
	}
	for key := range stale {
		e.forget(key)
	}
	e.signal()
	return nil
}

// changed follows one alarm's row.
func (e *engine) changed(ctx context.Context, ev store.Event) {
	if ev.Deleted {
		e.forget(ev.Key)
		e.touchParents(ev.Key)
		return
	}
	if w := e.alarms[ev.Key]; w == nil || w.row.Version < ev.Version {
		row, err := alarms.Find(ctx, e.s.store, ev.Key.Account, ev.Key.Region, ev.Key.ID)
		if errors.Is(err, store.ErrNotFound) {
			return // its deletion is on the way
		}
		if err != nil {
			if ctx.Err() == nil {
				e.s.log.Error("alarm cannot be read", "alarm", ev.Key.ID, "error", err)
			}
			return
		}
		e.set(row, ev.Type == eventPut)
	}
	e.touchParents(ev.Key)
}

// touchParents asks for the composite alarms that depend on key.
func (e *engine) touchParents(key store.Key) {
	e.mu.Lock()
	for parent := range e.parents[key] {
		e.dirty[parent] = true
	}
	e.mu.Unlock()
	e.signal()
}

// set takes over an alarm's row.
func (e *engine) set(row *store.Row[Alarm], evaluateNow bool) {
	old := e.alarms[row.Key]
	w, err := newWatched(row)
	if err != nil {
		e.s.log.Error("alarm cannot be evaluated", "alarm", row.ID, "error", err)
		return
	}
	if old != nil {
		w.value, w.fired, w.end, w.leftAlarm = old.value, old.fired, old.end, old.leftAlarm
		if old.row.Doc.State != row.Doc.State {
			w.fired = row.Doc.Transitioned // the outbox has the first one
			w.leftAlarm = old.row.Doc.State == evaluate.Alarm
		}
	}
	e.forget(row.Key)
	e.alarms[row.Key] = w
	for _, dep := range w.deps {
		if e.parents[dep] == nil {
			e.parents[dep] = map[store.Key]bool{}
		}
		e.parents[dep][row.Key] = true
	}
	e.mu.Lock()
	for _, k := range w.keys {
		if e.byMetric[k] == nil {
			e.byMetric[k] = map[store.Key]*watched{}
		}
		e.byMetric[k][row.Key] = w
	}
	if evaluateNow {
		e.dirty[row.Key] = true
	}
	e.mu.Unlock()
	if evaluateNow {
		e.signal()
	}
}

func (e *engine) forget(key store.Key) {
	w := e.alarms[key]
	if w == nil {
		return
	}
	delete(e.alarms, key)
	for _, dep := range w.deps {
		if delete(e.parents[dep], key); len(e.parents[dep]) == 0 {
			delete(e.parents, dep)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range w.keys {
		if delete(e.byMetric[k], key); len(e.byMetric[k]) == 0 {
			delete(e.byMetric, k)
		}
	}
}

// tick evaluates the alarms whose window moved, ends what composite alarms
// wait for, and repeats Auto Scaling actions.
func (e *engine) tick(ctx context.Context) {
	now := e.s.clock.Now()
	for key, w := range e.alarms {
		due := false
		if w.row.Doc.composite() {
			due = w.row.Doc.Held != nil && !w.row.Doc.Held.Until.IsZero() && !now.Before(w.row.Doc.Held.Until)
		} else {
			due = floor(now.Unix(), w.step) != w.end
		}
		if due {
			e.evaluate(ctx, key)
		}
		e.repeat(ctx, key, now)
	}
}

func (e *engine) evaluateDirty(ctx context.Context) {
	e.mu.Lock()
	dirty := e.dirty
	e.dirty = map[store.Key]bool{}
	e.mu.Unlock()
	for key := range dirty {
		if ctx.Err() != nil {
			return
		}
		e.evaluate(ctx, key)
	}
}

func (e *engine) evaluate(ctx context.Context, key store.Key) {
	w := e.alarms[key]
	if w == nil {
		return
	}
	var err error
	if w.row.Doc.composite() {
		err = e.evaluateComposite(ctx, w)
	} else {
		err = e.evaluateMetric(ctx, w)
	}
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		// The row moved on: its event is on the way and asks again.
		e.mu.Lock()
		e.dirty[key] = true
		e.mu.Unlock()
	default:
		e.s.log.Error("alarm was not evaluated", "alarm", key.ID, "error", err)
	}
}

// evaluateMetric decides a metric alarm's state from the window that ends at
// the last full step.
func (e *engine) evaluateMetric(ctx context.Context, w *watched) error {
	now := e.s.clock.Now()
	end := floor(now.Unix(), w.step)
	e.mu.Lock()
	w.end = end
	e.mu.Unlock()
	win, err := w.source.window(ctx, e.s, w.row.Key, end, w.rule.Range())
	var wrong *expressionError
	if err != nil && !errors.As(err, &wrong) {
		return err
	}
	a := &w.row.Doc
	evaluation := ""
	if wrong != nil { // evaluated as if no data had come
		evaluation = api.EvaluationStateEvaluationError
		win.points = make([]*evaluate.Point, w.rule.Range())
	}
	res := evaluate.Evaluate(w.rule, win.points, a.State)
	w.value = nil
	if len(res.Used) > 0 {
		w.value = &res.Used[0].Value
	}
	if res.State == a.State && evaluation == a.EvaluationState {
		return e.hint(ctx, w)
	}
	c := change{state: res.State, reason: shortened(w.rule.Reason(res), 1023), value: w.value, data: reasonData(w, win, res, now)}
	return e.s.store.Update(ctx, func(tx store.Tx) error {
		row := *w.row
		row.Doc.EvaluationState = evaluation
		if res.State == a.State {
			row.Doc.Updated = now
			return alarms.Save(tx, &row, eventOther, nil)
		}
		return e.s.transition(tx, &row, c)
	})
}

// repeatEvery is how often Auto Scaling actions run while a state lasts
// (CloudWatch User Guide, "Alarm actions").
const repeatEvery = time.Minute

func isScaling(target string) bool { return strings.Contains(target, ":autoscaling:") }

// repeat runs the Auto Scaling actions of a lasting state again.
func (e *engine) repeat(ctx context.Context, key store.Key, now time.Time) {
	w := e.alarms[key]
	if w == nil || w.row.Doc.Muted || w.row.Doc.composite() || now.Sub(w.row.Doc.Transitioned) < repeatEvery || now.Sub(w.fired) < repeatEvery {
		return
	}
	a := &w.row.Doc
	var due []action
	for _, target := range a.actionsFor(a.State) {
		if isScaling(target) {
			due = append(due, action{Target: target, Old: a.State, New: a.State, At: now, Alarm: *a, Value: w.value, Repeat: true})
		}
	}
	if len(due) == 0 {
		return
	}
	w.fired = now
	err := e.s.store.Update(ctx, func(tx store.Tx) error {
		for _, act := range due {
			if err := e.s.insertAction(tx, key.Account, key.Region, act); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		e.s.log.Error("scaling action was not repeated", "alarm", key.ID, "error", err)
	}
}
