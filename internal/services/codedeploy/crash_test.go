package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/store"
)

// mortal is a store that dies at its n-th write: the write happens or not,
// but nobody hears of it, and nothing is written afterwards.
type mortal struct {
	store.Store
	mu      sync.Mutex
	left    int // writes until death; negative: immortal
	written bool
	dead    chan struct{}
}

var errDied = errors.New("the server was killed")

func (m *mortal) Update(ctx context.Context, fn func(store.Tx) error) error {
	m.mu.Lock()
	if m.left == 0 {
		m.mu.Unlock()
		return errDied
	}
	last := m.left == 1
	if m.left > 0 {
		m.left--
	}
	m.mu.Unlock()
	if !last {
		return m.Store.Update(ctx, fn)
	}
	defer close(m.dead)
	if m.written {
		if err := m.Store.Update(ctx, fn); err != nil {
			return err
		}
	}
	return errDied
}

// Killed at any of its writes, before or after it became durable, the
// service finishes the deployment and its rollback after a restart, and no
// event runs twice.
func TestKilledAtAnyWrite(t *testing.T) {
	for name, story := range map[string]func(*testing.T, int, bool) bool{"rollback": killedAt, "launch": killedAtLaunch} {
		for _, written := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/written=%v", name, written), func(t *testing.T) {
				step := 17 // every write with SLIPWAY_EXHAUSTIVE=1
				if os.Getenv("SLIPWAY_EXHAUSTIVE") != "" {
					step = 1
				}
				n := 1
				for ; story(t, n, written); n += step {
					if t.Failed() {
						t.Fatalf("killed at write %d", n)
					}
				}
				if n < 25 {
					t.Errorf("the story has only %d writes", n)
				}
			})
		}
	}
}

// killedAtLaunch is the story of an instance that joins while a deployment
// runs: it gets the old revision, enters service, and then gets the new one.
func killedAtLaunch(t *testing.T, n int, written bool) (killed bool) {
	w := newWorld(t)
	m := &mortal{Store: w.store, left: -1, written: written, dead: make(chan struct{})}
	w.via = m
	w.start()
	ids := w.fleet(2)
	w.setLifecycle(ids[0], "web", "InService")
	w.setHealth(ids[0], "healthy")
	w.setUp(scaled)
	w.wait(w.deploy("app.zip"))
	hold := make(chan struct{})
	w.locked(func() {
		w.behave = func(i, e, _ string) outcome {
			if i == ids[0] && e == "AfterInstall" {
				return outcome{hold: hold}
			}
			return outcome{}
		}
	})
	root := w.deploy("next.zip")
	w.until("AfterInstall runs", func() bool { return w.running(root, ids[0], "AfterInstall") })
	m.mu.Lock()
	m.left = n
	m.mu.Unlock()
	w.setLifecycle(ids[1], "web", pendingWait)
	dead := func() bool {
		select {
		case <-m.dead:
			return true
		default:
			return false
		}
	}
	follow := derivedID(root, "follow-on")
	released := false
	w.until("the story ends or the server is killed", func() bool {
		w.locked(func() {
			if !released && len(w.answers) > 0 {
				released = true
				close(hold)
			}
		})
		d, err := deployments.Find(context.Background(), w.store, testAccount, testRegion, follow)
		return dead() || err == nil && d.Doc.Terminal()
	})
	killed = dead()
	w.stop()
	w.via = nil
	w.start()
	w.answered(ids[1] + " CONTINUE")
	if !released {
		close(hold)
	}
	if info := w.wait(root); *info.Status != "Succeeded" {
		t.Errorf("%+v", info.ErrorInformation)
	}
	w.until("the newcomer has the new revision", func() bool {
		h, err := hosts.Select(context.Background(), w.store, store.Query{})
		if err != nil {
			t.Error(err)
		}
		fresh := 0
		for _, row := range h {
			if row.Doc.RevisionKey == contentKey(revision("next.zip"), "") {
				fresh++
			}
		}
		return fresh == 2
	})
	w.locked(func() {
		for what, times := range w.runs {
			if times != 1 {
				t.Errorf("%s ran %d times", what, times)
			}
		}
		if len(w.answers) != 1 {
			t.Errorf("answers %v", w.answers)
		}
	})
	return killed
}

// killedAt plays the story with a kill at the n-th write; it returns whether
// there was such a write.
func killedAt(t *testing.T, n int, written bool) (killed bool) {
	w := newWorld(t)
	m := &mortal{Store: w.store, left: -1, written: written, dead: make(chan struct{})}
	w.via = m
	w.start()
	ids := w.fleet(1)
	w.setLifecycle(ids[0], "web", "InService")
	w.setHealth(ids[0], "healthy")
	w.setUp(scaled)
	first := w.deploy("app.zip")
	w.wait(first)
	w.locked(func() { w.behave = w.failUnlessRollback("ValidateService", first) })
	id := w.deploy("next.zip")
	m.mu.Lock()
	m.left = n
	m.mu.Unlock()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		w.until("the story ends or the server is killed", func() bool {
			select {
			case <-m.dead:
				return true
			default:
			}
			d, err := deployments.Find(context.Background(), w.store, testAccount, testRegion, derivedID(id, "rollback"))
			return err == nil && d.Doc.Terminal()
		})
	}()
	<-finished
	select {
	case <-m.dead:
		killed = true
	default:
	}
	w.stop()
	w.via = nil
	w.start()
	info := w.wait(id)
	back := w.wait(*info.RollbackInfo.RollbackDeploymentId)
	if *info.Status != "Failed" || *back.Status != "Succeeded" || *back.Revision.S3Location.Key != "app.zip" {
		t.Errorf("%s, then %s: %+v", *info.Status, *back.Status, back.ErrorInformation)
	}
	want := "BeforeBlockTraffic:Succeeded BlockTraffic:Succeeded AfterBlockTraffic:Succeeded ApplicationStop:Succeeded DownloadBundle:Succeeded BeforeInstall:Succeeded Install:Succeeded AfterInstall:Succeeded ApplicationStart:Succeeded ValidateService:Failed BeforeAllowTraffic:Skipped AllowTraffic:Skipped AfterAllowTraffic:Skipped"
	if got := eventNames(w.target(id, ids[0])); got != want {
		t.Error(got)
	}
	w.locked(func() {
		for what, times := range w.runs {
			if times != 1 {
				t.Errorf("%s ran %d times", what, times)
			}
		}
		if w.health[ids[0]] != "healthy" {
			t.Errorf("it is %q at the load balancer", w.health[ids[0]])
		}
	})
	checkRows(t, w)
	return killed
}

// checkRows makes sure that the rows agree with each other.
func checkRows(t *testing.T, w *world) {
	t.Helper()
	g, err := groups.Find(t.Context(), w.store, testAccount, testRegion, "todo/web")
	if err != nil || g.Doc.Active != "" || g.Doc.Succeeded.Revision.S3Location.Key == nil || *g.Doc.Succeeded.Revision.S3Location.Key != "app.zip" {
		t.Errorf("group %+v %v", g.Doc, err)
	}
	rows, err := targets.Select(t.Context(), w.store, store.Query{})
	if err != nil {
		t.Error(err)
	}
	for _, row := range rows {
		if row.Doc.EndedAt.IsZero() || strings.HasPrefix(row.Doc.Status, api.TargetStatusInProgress) {
			t.Errorf("target %s is open", row.ID)
		}
	}
}
