package codepipeline

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// actionPoll is how often a provider is asked when no event says to.
const actionPoll = 2 * time.Second

// reconcile moves a pipeline as far as it goes now.
func (s *Service) reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	if err := s.look(ctx, key); err != nil {
		return 0, err
	}
	for {
		active, err := s.plan(ctx, key)
		if err != nil {
			return 0, err
		}
		moved, running, err := s.work(ctx, key, active)
		if err != nil {
			return 0, err
		}
		switch {
		case moved:
		case running:
			return actionPoll, nil
		default:
			return 0, nil
		}
	}
}

// plan runs the planner over the pipeline and returns its active executions.
func (s *Service) plan(ctx context.Context, key store.Key) ([]*executionRow, error) {
	var active []*executionRow
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := pipelines.Get(tx, key.Account, key.Region, key.ID)
		if err != nil {
			return err
		}
		if active, err = activeExecutions(tx, row); err != nil || len(active) == 0 {
			return err
		}
		docs, rows := make([]*Execution, len(active)), map[*Execution]*executionRow{}
		for i, r := range active {
			docs[i], rows[&r.Doc] = &r.Doc, r
		}
		pl := newPlanner(&row.Doc, docs, s.deps.Clock.Now())
		pl.run()
		for e := range pl.changed {
			if err := saveExecution(tx, rows[e], e.Status, executionDetail{}); err != nil {
				return err
			}
		}
		for _, rb := range pl.rollbacks {
			made, err := s.rollBack(tx, row, rb)
			if err != nil {
				return err
			}
			pl.entered = pl.entered || made
		}
		if pl.entered {
			return pipelines.Save(tx, row, "Moved", nil)
		}
		return nil
	})
	return slices.DeleteFunc(active, func(r *executionRow) bool { return !r.Doc.Active() }), err
}

func activeExecutions(r store.Reader, row *pipelineRow) ([]*executionRow, error) {
	var all []*executionRow
	for _, state := range []string{api.PipelineExecutionStatusInProgress, api.PipelineExecutionStatusStopping} {
		rows, err := executions.List(r, store.Query{Account: row.Account, Region: row.Region, Parent: row.ID, State: state})
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// work takes every action under way one step further.
func (s *Service) work(ctx context.Context, key store.Key, active []*executionRow) (moved, running bool, err error) {
	for _, row := range active {
		e := &row.Doc
		if e.Waiting {
			continue
		}
		for i := range e.Stages[e.At].Actions {
			run := e.Stages[e.At].Actions[i]
			if run.Status != api.ActionExecutionStatusInProgress {
				continue
			}
			out, err := s.act(ctx, &action{key: key, exec: e, decl: &e.Declaration.Stages[e.At].Actions[i], run: run})
			if err != nil {
				return false, false, err
			}
			changed, err := s.record(ctx, row, i, out)
			if err != nil {
				return false, false, err
			}
			over := out.run.Status != api.ActionExecutionStatusInProgress
			s.own(out.run.External, key, over)
			moved, running = moved || changed && over, running || !over
		}
	}
	return moved, running, nil
}

// record saves what a step did to an action, if it is still that action.
func (s *Service) record(ctx context.Context, row *executionRow, i int, out *outcome) (changed bool, err error) {
	stage := row.Doc.At
	before := row.Doc.Stages[stage].Actions[i]
	if sameRun(before, out.run) {
		return false, nil
	}
	err = s.deps.Store.Update(ctx, func(tx store.Tx) error {
		fresh, err := executions.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		a := &fresh.Doc.Stages[stage].Actions[i]
		if a.ID != before.ID || a.Status != api.ActionExecutionStatusInProgress {
			return nil // stopped, abandoned or approved in between
		}
		now := s.deps.Clock.Now()
		changed = true
		*a = out.run
		a.Changed, fresh.Doc.Updated = now, now
		if a.Status == api.ActionExecutionStatusSucceeded {
			if fresh.Doc.Artifacts == nil {
				fresh.Doc.Artifacts = map[string]Artifact{}
			}
			maps.Copy(fresh.Doc.Artifacts, a.Outputs)
			if out.revision != nil {
				fresh.Doc.Revisions = append(slices.DeleteFunc(fresh.Doc.Revisions, func(r Revision) bool { return r.Action == a.Name }), *out.revision)
			}
		}
		return saveExecution(tx, fresh, "Action"+a.Status, executionDetail{Stage: fresh.Doc.Stages[stage].Name, Action: a.Name})
	})
	return changed, err
}

func sameRun(a, b ActionRun) bool {
	return a.Status == b.Status && a.External == b.External && a.Summary == b.Summary && a.Token == b.Token && a.Error == b.Error
}

// look starts an execution where a source has moved since the last look.
func (s *Service) look(ctx context.Context, key store.Key) error {
	row, err := pipelines.Find(ctx, s.deps.Store, key.Account, key.Region, key.ID)
	if err != nil {
		return err
	}
	s.watch(key, &row.Doc.Declaration)
	s.mu.Lock()
	done := s.looked[key]
	s.looked[key] = true // before we ask: what moves meanwhile is asked for again
	s.mu.Unlock()
	if done {
		return nil
	}
	for i := range row.Doc.Declaration.Stages[0].Actions {
		decl := &row.Doc.Declaration.Stages[0].Actions[i]
		head, err := s.head(ctx, key, decl)
		if awserr.As(err) != nil || err == nil && head == "" {
			continue // no such repository, branch or object yet
		}
		if err != nil {
			s.forget(key)
			return err
		}
		if err := s.moved(ctx, key, decl, head); err != nil {
			s.forget(key)
			return err
		}
	}
	return nil
}

// moved starts an execution for a revision, once.
func (s *Service) moved(ctx context.Context, key store.Key, decl *api.ActionDeclaration, head string) error {
	name := ptr.Value(decl.Name)
	return s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := pipelines.Get(tx, key.Account, key.Region, key.ID)
		if err != nil || row.Doc.Heads[name] == head {
			return err
		}
		if row.Doc.Heads == nil {
			row.Doc.Heads = map[string]string{}
		}
		row.Doc.Heads[name] = head
		trigger := api.TriggerTypePollForSourceChanges
		if decl.Configuration["PollForSourceChanges"] == "false" {
			trigger = api.TriggerTypeCloudWatchEvent
		}
		_, err = s.start(tx, row, start{trigger: trigger, detail: sourceName(decl)})
		return err
	})
}

// start is what a new execution begins with.
type start struct {
	trigger, detail string
	variables       map[string]string
	overrides       map[string]string
	id              string // "": a new one
}

// start adds an execution in front of the first stage and saves the pipeline.
func (s *Service) start(tx store.Tx, row *pipelineRow, st start) (*Execution, error) {
	e := s.execution(row, st)
	e.Waiting = true
	return e, s.add(tx, row, e)
}

func (s *Service) add(tx store.Tx, row *pipelineRow, e *Execution) error {
	id := executionID(row.ID, e.ID)
	detail := executionDetail{}
	detail.Changes = changes(&executionRow{Key: executions.Key(row.Account, row.Region, id), Doc: *e}, nil)
	if _, err := executions.Insert(tx, row.Account, row.Region, id, *e, "Started", detail); err != nil {
		return err
	}
	return pipelines.Save(tx, row, "ExecutionStarted", nil)
}

// execution makes the next execution of a pipeline.
func (s *Service) execution(row *pipelineRow, st start) *Execution {
	now := s.deps.Clock.Now()
	row.Doc.Number++
	if st.id == "" {
		st.id = newUUID()
	}
	e := &Execution{ID: st.id, Pipeline: row.ID, Number: row.Doc.Number, Declaration: row.Doc.Declaration, Status: api.PipelineExecutionStatusInProgress,
		Type: typeStandard, TriggerType: st.trigger, TriggerDetail: st.detail, Variables: map[string]string{}, Overrides: st.overrides, Started: now, Updated: now}
	for _, v := range row.Doc.Declaration.Variables {
		if v.DefaultValue != nil {
			e.Variables[ptr.Value(v.Name)] = *v.DefaultValue
		}
	}
	maps.Copy(e.Variables, st.variables)
	for _, stage := range row.Doc.Declaration.Stages {
		run := StageRun{Name: ptr.Value(stage.Name)}
		for _, a := range stage.Actions {
			run.Actions = append(run.Actions, ActionRun{Name: ptr.Value(a.Name)})
		}
		e.Stages = append(e.Stages, run)
	}
	return e
}

// rollBack starts the execution that brings back the last success of a stage,
// if there is one in this version of the pipeline.
func (s *Service) rollBack(tx store.Tx, row *pipelineRow, rb rollback) (bool, error) {
	rows, err := executions.List(tx, store.Query{Account: row.Account, Region: row.Region, Parent: row.ID})
	if err != nil {
		return false, err
	}
	var target *Execution
	for _, r := range rows {
		if eligible(&r.Doc, &row.Doc, rb.stage) == nil && r.Doc.ID != rb.failed.ID && (target == nil || r.Doc.Number > target.Number) {
			target = &r.Doc
		}
	}
	if target == nil {
		return false, nil
	}
	e := s.rollbackOf(row, target, rb.stage, start{trigger: api.TriggerTypeAutomatedRollback, detail: rb.failed.ID, id: derived("rollback", rb.failed.ID, rb.stage)})
	return true, s.add(tx, row, e)
}

func (s *Service) rollbackOf(row *pipelineRow, target *Execution, stage string, st start) *Execution {
	e := s.execution(row, st)
	e.Type, e.RollbackOf, e.At, e.Waiting = typeRollback, target.ID, e.stage(stage), true
	e.Variables, e.Artifacts, e.Revisions = target.Variables, target.Artifacts, target.Revisions
	for i := range e.Stages[:e.At] { // their variables can be referred to
		e.Stages[i] = target.Stages[i]
	}
	return e
}

// eligible says why an execution cannot be gone back to, or nil.
func eligible(e *Execution, p *Pipeline, stage string) error {
	i := e.stage(stage)
	switch {
	case i <= 0:
		return errors.New("the source stage cannot be rolled back")
	case e.Type == typeRollback:
		return errors.New("the target execution is itself a rollback")
	case ptr.Value(e.Declaration.Version) != ptr.Value(p.Declaration.Version):
		return errors.New("the target execution ran another version of the pipeline")
	case e.Stages[i].Status != api.StageExecutionStatusSucceeded:
		return errors.New("the target execution has not succeeded in the stage")
	}
	return nil
}
