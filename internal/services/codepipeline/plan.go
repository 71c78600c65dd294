package codepipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/ptr"
)

// planner moves the executions of one pipeline as far as they go without
// anything happening outside. It is pure but for the rows it is given.
type planner struct {
	p   *Pipeline
	all []*Execution // the active ones, by number
	now time.Time
	// rollbacks are stages that failed and want to go back to what worked.
	rollbacks []rollback
	changed   map[*Execution]bool
	entered   bool // p.Latest changed
}

type rollback struct {
	failed *Execution
	stage  string
}

// newPlanner plans over executions in the order of their numbers.
func newPlanner(p *Pipeline, active []*Execution, now time.Time) *planner {
	slices.SortFunc(active, func(a, b *Execution) int { return cmp.Compare(a.Number, b.Number) })
	return &planner{p: p, all: active, now: now, changed: map[*Execution]bool{}}
}

func (pl *planner) run() {
	for again := true; again; {
		again = false
		for _, e := range pl.all {
			if e.Active() && pl.step(e) {
				again, pl.changed[e] = true, true
			}
		}
		if pl.admit() {
			again = true
		}
	}
	for e := range pl.changed {
		e.Updated = pl.now
	}
}

// outdated: the structure was changed after the execution started. It ends
// when the actions under way have ended; PARALLEL executions keep theirs.
func (pl *planner) outdated(e *Execution) bool {
	return ptr.Value(e.Declaration.Version) != ptr.Value(pl.p.Declaration.Version) && mode(&e.Declaration) != api.ExecutionModeParallel
}

// step moves one execution inside its stage, or ends it.
func (pl *planner) step(e *Execution) bool {
	ending := ""
	switch {
	case e.Stop != nil:
		ending = api.PipelineExecutionStatusStopped
	case pl.outdated(e):
		ending = api.PipelineExecutionStatusCancelled
	}
	if e.Waiting {
		if ending == "" {
			return false
		}
		e.Status = ending
		return true
	}
	st, decl := &e.Stages[e.At], &e.Declaration.Stages[e.At]
	if e.Stop != nil && e.Stop.Abandon {
		for i := range st.Actions {
			if a := &st.Actions[i]; a.Status == api.ActionExecutionStatusInProgress {
				a.Status, a.Changed = api.ActionExecutionStatusAbandoned, pl.now
			}
		}
	}
	order, found := nextOrder(st, decl)
	if !found {
		return pl.succeed(e, st)
	}
	running, failed, fresh := false, false, []*ActionRun(nil)
	for i := range st.Actions {
		a := &st.Actions[i]
		if runOrder(&decl.Actions[i]) != order {
			continue
		}
		switch a.Status {
		case api.ActionExecutionStatusInProgress:
			running = true
		case api.ActionExecutionStatusFailed, api.ActionExecutionStatusAbandoned:
			failed = true
		case "":
			fresh = append(fresh, a)
		}
	}
	switch {
	case ending != "" && !running:
		st.Status, e.Status = ending, ending
		return true
	case ending != "":
		return false
	case failed && !running:
		return pl.fail(e, st, decl)
	case failed || len(fresh) == 0:
		return false
	}
	for _, a := range fresh {
		a.Attempt++
		a.ID = derived("action", e.Pipeline, e.ID, st.Name, a.Name, strconv.Itoa(a.Attempt))
		a.Status, a.Started, a.Changed = api.ActionExecutionStatusInProgress, pl.now, pl.now
	}
	return true
}

func runOrder(a *api.ActionDeclaration) int64 {
	if a.RunOrder == nil {
		return 1
	}
	return *a.RunOrder
}

// nextOrder is the lowest run order of which not every action has succeeded.
func nextOrder(st *StageRun, decl *api.StageDeclaration) (int64, bool) {
	lowest, found := int64(0), false
	for i := range st.Actions {
		if o := runOrder(&decl.Actions[i]); st.Actions[i].Status != api.ActionExecutionStatusSucceeded && (!found || o < lowest) {
			lowest, found = o, true
		}
	}
	return lowest, found
}

func (pl *planner) succeed(e *Execution, st *StageRun) bool {
	st.Status = api.StageExecutionStatusSucceeded
	switch {
	case e.At == len(e.Stages)-1, e.Type == typeRollback:
		e.Status = api.PipelineExecutionStatusSucceeded
	default:
		e.At, e.Waiting = e.At+1, true
	}
	return true
}

// fail ends the stage, unless it is to be tried once more.
func (pl *planner) fail(e *Execution, st *StageRun, decl *api.StageDeclaration) bool {
	f := decl.OnFailure
	if f != nil && ptr.Value(f.Result) == "RETRY" && st.AutoRetries == 0 {
		mode := api.StageRetryModeFailedActions
		if f.RetryConfiguration != nil && f.RetryConfiguration.RetryMode != nil {
			mode = *f.RetryConfiguration.RetryMode
		}
		st.AutoRetries++
		st.LastRetry = api.RetryTriggerAutomatedStageRetry
		st.reset(mode)
		return true
	}
	st.Status, e.Status = api.StageExecutionStatusFailed, api.PipelineExecutionStatusFailed
	if f != nil && ptr.Value(f.Result) == "ROLLBACK" && e.Type == typeStandard && e.At > 0 {
		pl.rollbacks = append(pl.rollbacks, rollback{e, st.Name})
	}
	return true
}

// reset makes the actions of a stage run again: those that did not succeed,
// or all of them.
func (st *StageRun) reset(mode string) {
	for i := range st.Actions {
		a := &st.Actions[i]
		if a.ID == "" || a.Status == api.ActionExecutionStatusSucceeded && mode != api.StageRetryModeAllActions {
			continue
		}
		st.Past = append(st.Past, *a)
		*a = ActionRun{Name: a.Name, Attempt: a.Attempt}
	}
	st.Status = api.StageExecutionStatusInProgress
}

// admit lets waiting executions into stages, from the last stage to the
// first, so that those in front make room.
func (pl *planner) admit() bool {
	any := false
	for i := len(pl.p.Declaration.Stages) - 1; i >= 0; i-- {
		name := ptr.Value(pl.p.Declaration.Stages[i].Name)
		var waiting []*Execution
		occupied := false
		for _, e := range pl.all {
			switch {
			case !e.Active() || e.Stages[e.At].Name != name:
			case e.Waiting:
				waiting = append(waiting, e)
			default:
				occupied = true
			}
		}
		if len(waiting) == 0 {
			continue
		}
		_, closed := pl.p.Closed[name]
		switch mode(&pl.p.Declaration) {
		case api.ExecutionModeParallel:
			if !closed {
				for _, e := range waiting {
					pl.enter(e, name)
				}
				any = true
			}
			continue
		case api.ExecutionModeQueued:
			waiting = waiting[:1]
		default:
			newest := waiting[len(waiting)-1]
			for _, e := range waiting[:len(waiting)-1] {
				e.Status, e.StatusSummary = api.PipelineExecutionStatusSuperseded, fmt.Sprintf("Superseded by execution %s", newest.ID)
				pl.changed[e], any = true, true
			}
			waiting = []*Execution{newest}
		}
		if !occupied && !closed {
			pl.enter(waiting[0], name)
			any = true
		}
	}
	return any
}

func (pl *planner) enter(e *Execution, stage string) {
	e.Waiting = false
	e.Stages[e.At].Status = api.StageExecutionStatusInProgress
	if pl.p.Latest == nil {
		pl.p.Latest = map[string]string{}
	}
	pl.p.Latest[stage] = e.ID
	pl.changed[e], pl.entered = true, true
}
