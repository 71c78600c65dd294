package codepipeline

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/ptr"
)

// model is a pipeline whose executions a test drives at random.
type model struct {
	t   *rapid.T
	svc *Service
	row *pipelineRow
	all []*Execution
	now time.Time
}

func (m *model) active() []*Execution {
	var out []*Execution
	for _, e := range m.all {
		if e.Active() {
			out = append(out, e)
		}
	}
	return out
}

// plan runs the planner and checks what must hold after it.
func (m *model) plan() {
	m.t.Helper()
	over := map[string]string{}
	for _, e := range m.all {
		if !e.Active() {
			over[e.ID] = shape(e)
		}
	}
	newPlanner(&m.row.Doc, m.active(), m.now).run()
	before := shape(m.all)
	again := newPlanner(&m.row.Doc, m.active(), m.now)
	if again.run(); len(again.changed) > 0 || shape(m.all) != before {
		m.t.Fatalf("a second plan changes more")
	}
	inside, waiting := map[string]int{}, map[string]int{}
	for _, e := range m.all {
		if was, ok := over[e.ID]; ok && was != shape(e) {
			m.t.Fatalf("%s had ended and changed", e.ID)
		}
		if !e.Active() {
			for _, st := range e.Stages {
				for _, a := range st.Actions {
					if a.Status == api.ActionExecutionStatusInProgress {
						m.t.Fatalf("%s is %s with action %s under way", e.ID, e.Status, a.Name)
					}
				}
			}
			continue
		}
		if name := e.Stages[e.At].Name; e.Waiting {
			waiting[name]++
		} else {
			inside[name]++
		}
	}
	mode := mode(&m.row.Doc.Declaration)
	for _, st := range m.row.Doc.Declaration.Stages {
		name := ptr.Value(st.Name)
		_, closed := m.row.Doc.Closed[name]
		switch {
		case mode == api.ExecutionModeParallel:
			if waiting[name] > 0 && !closed {
				m.t.Fatalf("executions wait for the open stage %s", name)
			}
		case inside[name] > 1:
			m.t.Fatalf("%d executions are in %s", inside[name], name)
		case mode == api.ExecutionModeSuperseded && waiting[name] > 1:
			m.t.Fatalf("%d executions wait for %s", waiting[name], name)
		case waiting[name] > 0 && inside[name] == 0 && !closed:
			m.t.Fatalf("%s is free, and executions wait for it", name)
		}
	}
}

func shape(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// running calls fn for every action under way.
func (m *model) running(fn func(*Execution, *ActionRun)) {
	for _, e := range m.active() {
		if e.Waiting {
			continue
		}
		for i := range e.Stages[e.At].Actions {
			if a := &e.Stages[e.At].Actions[i]; a.Status == api.ActionExecutionStatusInProgress {
				fn(e, a)
			}
		}
	}
}

func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{t: rt, svc: New(Deps{}), now: time.Unix(1, 0), row: &pipelineRow{}}
		m.row.ID = "p"
		d := &m.row.Doc.Declaration
		d.Version = new(int64(1))
		d.ExecutionMode = new(rapid.SampledFrom([]string{api.ExecutionModeSuperseded, api.ExecutionModeQueued, api.ExecutionModeParallel}).Draw(rt, "mode"))
		for i := range rapid.IntRange(2, 4).Draw(rt, "stages") {
			st := api.StageDeclaration{Name: new(fmt.Sprint("s", i))}
			if rapid.Bool().Draw(rt, "retry") {
				st.OnFailure = &api.FailureConditions{Result: new("RETRY")}
			}
			for j := range rapid.IntRange(1, 3).Draw(rt, "actions") {
				st.Actions = append(st.Actions, api.ActionDeclaration{Name: new(fmt.Sprint("a", j)), RunOrder: new(int64(rapid.IntRange(1, 2).Draw(rt, "order")))})
			}
			d.Stages = append(d.Stages, st)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"start": func(*rapid.T) {
				e := m.svc.execution(m.row, start{})
				e.Waiting = true
				m.all = append(m.all, e)
			},
			"act": func(rt *rapid.T) {
				m.running(func(_ *Execution, a *ActionRun) {
					a.Status = rapid.SampledFrom([]string{api.ActionExecutionStatusInProgress, api.ActionExecutionStatusSucceeded, api.ActionExecutionStatusFailed}).Draw(rt, "status")
				})
			},
			"stop": func(rt *rapid.T) {
				if active := m.active(); len(active) > 0 {
					e := rapid.SampledFrom(active).Draw(rt, "execution")
					e.Status, e.Stop = api.PipelineExecutionStatusStopping, &Stop{Abandon: rapid.Bool().Draw(rt, "abandon")}
				}
			},
			"update": func(rt *rapid.T) { d.Version = new(*d.Version + 1) },
			"close": func(rt *rapid.T) {
				m.row.Doc.Closed = map[string]Closed{fmt.Sprint("s", rapid.IntRange(0, 3).Draw(rt, "closed")): {}}
			},
			"open": func(*rapid.T) { m.row.Doc.Closed = nil },
			"":     func(*rapid.T) { m.plan() },
		})
		// Whatever happened, all of it ends when actions do.
		m.row.Doc.Closed = nil
		for range 1000 {
			m.plan()
			if len(m.active()) == 0 {
				return
			}
			m.running(func(_ *Execution, a *ActionRun) { a.Status = api.ActionExecutionStatusSucceeded })
		}
		rt.Fatalf("%d executions never end", len(m.active()))
	})
}
