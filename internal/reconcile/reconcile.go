// Package reconcile runs level-triggered controllers over the store. A
// controller is told only which row to look at; it loads the row, decides,
// acts, and saves with a version check. It may run twice, late, or again
// after a crash, so each of its steps must be safe to repeat.
package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"slipway/internal/clock"
	"slipway/internal/store"
)

// Func looks at one row. It returns after how long it wants to be called
// again (0: not by itself), in the clock's time. After an error it is called
// again with a growing delay; ErrConflict and ErrNotFound of the store are no
// errors here: the row is looked at anew, or forgotten.
type Func func(ctx context.Context, key store.Key) (requeueAfter time.Duration, err error)

// Controller calls Reconcile for keys: those of the rows of Kind at start,
// those whose events arrive, and those given to Enqueue. The same key is
// never reconciled twice at once.
type Controller struct {
	Name  string
	Store store.Store
	Clock clock.Clock // nil: clock.Real
	// Kind is the kind of row that is reconciled.
	Kind string
	// Watch maps events of other kinds to keys to look at. Resync all keys
	// of Kind where the subscription lagged.
	Watch map[string]func(store.Event) []store.Key
	// Workers is how many keys are looked at side by side; 0 means 4.
	Workers   int
	Reconcile Func
	Log       *slog.Logger // nil: slog.Default

	once sync.Once
	mu   sync.Mutex
	// items holds every key that waits, runs, or has a timer.
	items map[store.Key]*item
	ready []store.Key
	wake  chan struct{}
	ended bool
}

type item struct {
	queued  bool // in ready
	running bool
	again   bool // asked for while running
	fails   int
	timer   *clock.Timer
	stop    chan struct{}
}

const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = 30 * time.Second
)

func (c *Controller) init() {
	c.once.Do(func() {
		if c.Clock == nil {
			c.Clock = clock.Real
		}
		if c.Log == nil {
			c.Log = slog.Default()
		}
		if c.Workers <= 0 {
			c.Workers = 4
		}
		c.items = map[store.Key]*item{}
		c.wake = make(chan struct{}, 1)
	})
}

// Enqueue asks for key to be looked at soon. It may be called at any time,
// also before Run, from any goroutine.
func (c *Controller) Enqueue(key store.Key) {
	c.init()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enqueueLocked(key)
}

func (c *Controller) enqueueLocked(key store.Key) {
	if c.ended {
		return
	}
	it := c.items[key]
	if it == nil {
		it = &item{}
		c.items[key] = it
	}
	it.cancelTimer()
	switch {
	case it.running:
		it.again = true
	case !it.queued:
		it.queued = true
		c.ready = append(c.ready, key)
		c.signal()
	}
}

func (it *item) cancelTimer() {
	if it.timer != nil {
		it.timer.Stop()
		close(it.stop)
		it.timer = nil
	}
}

func (c *Controller) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run reconciles until ctx ends, and returns when the last call has ended.
func (c *Controller) Run(ctx context.Context) error {
	c.init()
	kinds := []string{c.Kind}
	for k := range c.Watch {
		if k != c.Kind {
			kinds = append(kinds, k)
		}
	}
	sub := c.Store.Subscribe(kinds...)
	defer sub.Close()
	if err := c.resync(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for range c.Workers {
		wg.Go(func() { c.work(ctx) })
	}
	err := c.listen(ctx, sub)
	c.mu.Lock()
	c.ended = true
	for _, it := range c.items {
		it.cancelTimer()
	}
	c.mu.Unlock()
	wg.Wait()
	return err
}

func (c *Controller) listen(ctx context.Context, sub *store.Subscription) error {
	for {
		ev, err := sub.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrLagged):
			if err := c.resync(ctx); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if watch := c.Watch[ev.Key.Kind]; watch != nil {
			for _, key := range watch(ev) {
				c.Enqueue(key)
			}
		} else {
			c.Enqueue(ev.Key)
		}
	}
}

// resync asks for every row of the controller's kind.
func (c *Controller) resync(ctx context.Context) error {
	err := c.Store.View(ctx, func(r store.Reader) error {
		recs, err := r.List(store.Query{Kind: c.Kind})
		for _, rec := range recs {
			c.Enqueue(rec.Key)
		}
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Controller) work(ctx context.Context) {
	for {
		key, ok := c.take()
		if !ok {
			select {
			case <-c.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		after, err := c.call(ctx, key)
		if ctx.Err() != nil {
			return
		}
		c.finish(key, after, err)
	}
}

func (c *Controller) take() (store.Key, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ready) == 0 {
		return store.Key{}, false
	}
	key := c.ready[0]
	c.ready = c.ready[1:]
	if len(c.ready) > 0 {
		c.signal() // another worker may take the next one
	}
	it := c.items[key]
	it.queued, it.running, it.again = false, true, false
	return key, true
}

func (c *Controller) call(ctx context.Context, key store.Key) (after time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.Log.Error("controller panicked", "controller", c.Name, "id", key.ID, "panic", p, "stack", string(debug.Stack()))
			err = errors.New("panic")
		}
	}()
	return c.Reconcile(ctx, key)
}

func (c *Controller) finish(key store.Key, after time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.items[key]
	it.running = false
	switch {
	case errors.Is(err, store.ErrConflict):
		it.again = true
	case errors.Is(err, store.ErrNotFound):
		err, after = nil, 0
	}
	if it.again {
		it.queued = true
		c.ready = append(c.ready, key)
		c.signal()
		return
	}
	if err != nil {
		after = min(minBackoff<<min(it.fails, 16), maxBackoff)
		it.fails++
		level := slog.LevelWarn
		if it.fails > 3 && it.fails%10 != 0 {
			level = slog.LevelDebug
		}
		c.Log.Log(context.Background(), level, "controller will try again", "controller", c.Name, "id", key.ID, "in", after, "error", err)
	} else {
		it.fails = 0
	}
	if after <= 0 {
		delete(c.items, key)
		return
	}
	if c.ended {
		return
	}
	c.later(key, it, after, err != nil)
}

// later looks at key again after d. Back-off after an error is real time: it
// protects the machine, it is not part of what is simulated.
func (c *Controller) later(key store.Key, it *item, d time.Duration, realTime bool) {
	clk := c.Clock
	if realTime {
		clk = clock.Real
	}
	it.timer, it.stop = clk.NewTimer(d), make(chan struct{})
	timer, stop := it.timer, it.stop
	go func() {
		select {
		case <-timer.C:
			c.mu.Lock()
			defer c.mu.Unlock()
			if it.timer == timer {
				it.timer = nil
				c.enqueueLocked(key)
			}
		case <-stop:
		}
	}()
}
