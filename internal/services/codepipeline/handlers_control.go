package codepipeline

import (
	"context"
	"errors"
	"slices"
	"time"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) startPipelineExecution(ctx context.Context, in *api.StartPipelineExecutionInput) (*api.StartPipelineExecutionOutput, error) {
	id := caller.From(ctx)
	st := start{trigger: api.TriggerTypeStartPipelineExecution, detail: id.PrincipalARN, variables: map[string]string{}, overrides: map[string]string{}}
	for _, v := range in.Variables {
		st.variables[ptr.Value(v.Name)] = ptr.Value(v.Value)
	}
	for _, r := range in.SourceRevisions {
		st.overrides[ptr.Value(r.ActionName)] = ptr.Value(r.RevisionValue)
	}
	var execution string
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := pipeline(tx, id, in.Name)
		if err != nil {
			return err
		}
		if t := ptr.Value(in.ClientRequestToken); t != "" {
			old, err := startings.Get(tx, id.Account, id.Region, row.ID+"/"+t)
			if err == nil {
				execution = old.Doc.Execution
				return nil
			}
			if !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		if err := checkStart(&row.Doc.Declaration, st); err != nil {
			return err
		}
		e, err := s.start(tx, row, st)
		if err != nil {
			return err
		}
		execution = e.ID
		if t := ptr.Value(in.ClientRequestToken); t != "" {
			_, err = startings.Insert(tx, id.Account, id.Region, row.ID+"/"+t, Token{execution}, "Created", nil)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.StartPipelineExecutionOutput{PipelineExecutionId: &execution}, nil
}

// checkStart refuses variables and revisions that the pipeline does not have.
func checkStart(d *api.PipelineDeclaration, st start) error {
	declared := names{}
	for _, v := range d.Variables {
		declared[ptr.Value(v.Name)] = true
		if _, given := st.variables[ptr.Value(v.Name)]; !given && v.DefaultValue == nil {
			return awserr.New(api.ErrCodeValidationException, "The pipeline variable %s has no default value, and none was given", ptr.Value(v.Name))
		}
	}
	for k := range st.variables {
		if !declared[k] {
			return awserr.New(api.ErrCodeValidationException, "The pipeline declares no variable %s", k)
		}
	}
	for k := range st.overrides {
		if !slices.ContainsFunc(d.Stages[0].Actions, func(a api.ActionDeclaration) bool { return ptr.Value(a.Name) == k }) {
			return awserr.New(api.ErrCodeValidationException, "The pipeline has no source action %s", k)
		}
	}
	return nil
}

func (s *Service) stopPipelineExecution(ctx context.Context, in *api.StopPipelineExecutionInput) (*api.StopPipelineExecutionOutput, error) {
	id := caller.From(ctx)
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		p, err := pipeline(tx, id, in.PipelineName)
		if err != nil {
			return err
		}
		row, err := execution(tx, p, in.PipelineExecutionId)
		if err != nil {
			return err
		}
		e := &row.Doc
		switch {
		case !e.Active():
			return awserr.New(api.ErrCodePipelineExecutionNotStoppableException, "Pipeline execution %s is %s and cannot be stopped", e.ID, e.Status)
		case e.Stop != nil && (e.Stop.Abandon || !ptr.Value(in.Abandon)):
			return awserr.New(api.ErrCodeDuplicatedStopRequestException, "Pipeline execution %s is being stopped already", e.ID)
		}
		now := s.deps.Clock.Now()
		e.Status, e.Updated, e.Stop = api.PipelineExecutionStatusStopping, now, &Stop{At: now, Reason: ptr.Value(in.Reason), Abandon: ptr.Value(in.Abandon)}
		return saveExecution(tx, row, "StopRequested", executionDetail{})
	})
	if err != nil {
		return nil, err
	}
	return &api.StopPipelineExecutionOutput{PipelineExecutionId: in.PipelineExecutionId}, nil
}

func noStage(p *pipelineRow, name *string) error {
	return awserr.New(api.ErrCodeStageNotFoundException, "Stage '%s' does not exist in pipeline '%s'", ptr.Value(name), p.ID)
}

func (s *Service) retryStageExecution(ctx context.Context, in *api.RetryStageExecutionInput) (*api.RetryStageExecutionOutput, error) {
	id := caller.From(ctx)
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		p, err := pipeline(tx, id, in.PipelineName)
		if err != nil {
			return err
		}
		row, err := execution(tx, p, in.PipelineExecutionId)
		if err != nil {
			return err
		}
		e := &row.Doc
		i := e.stage(ptr.Value(in.StageName))
		if i < 0 {
			return noStage(p, in.StageName)
		}
		st := &e.Stages[i]
		refused := func(why string) error {
			return awserr.New(api.ErrCodeStageNotRetryableException, "Stage %s of execution %s cannot be retried: %s", st.Name, e.ID, why)
		}
		switch {
		case p.Doc.Latest[st.Name] != e.ID && mode(&e.Declaration) != api.ExecutionModeParallel:
			return awserr.New(api.ErrCodeNotLatestPipelineExecutionException, "Execution %s is not the latest one in stage %s", e.ID, st.Name)
		case ptr.Value(e.Declaration.Version) != ptr.Value(p.Doc.Declaration.Version):
			return refused("the pipeline was changed since")
		case e.Active():
			return refused("the execution is " + e.Status)
		case st.Status == api.StageExecutionStatusSucceeded && ptr.Value(in.RetryMode) != api.StageRetryModeAllActions, st.Status == "":
			return refused("no action in it has failed")
		case st.Status == api.StageExecutionStatusSucceeded && e.At != i:
			return refused("the execution has left it")
		}
		st.reset(ptr.Value(in.RetryMode))
		st.ManualRetries++
		st.LastRetry = api.RetryTriggerManualStageRetry
		e.Status, e.Stop, e.At, e.Waiting, e.Updated = api.PipelineExecutionStatusInProgress, nil, i, false, s.deps.Clock.Now()
		return saveExecution(tx, row, "Retried", executionDetail{})
	})
	if err != nil {
		return nil, err
	}
	return &api.RetryStageExecutionOutput{PipelineExecutionId: in.PipelineExecutionId}, nil
}

func (s *Service) rollbackStage(ctx context.Context, in *api.RollbackStageInput) (*api.RollbackStageOutput, error) {
	id := caller.From(ctx)
	var e *Execution
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		p, err := pipeline(tx, id, in.PipelineName)
		if err != nil {
			return err
		}
		target, err := execution(tx, p, in.TargetPipelineExecutionId)
		if err != nil {
			return err
		}
		if target.Doc.stage(ptr.Value(in.StageName)) < 0 {
			return noStage(p, in.StageName)
		}
		why := eligible(&target.Doc, &p.Doc, ptr.Value(in.StageName))
		if mode(&p.Doc.Declaration) == api.ExecutionModeParallel {
			why = errors.New("pipelines in mode PARALLEL cannot be rolled back")
		}
		if why != nil {
			return awserr.New(api.ErrCodeUnableToRollbackStageException, "Unable to roll back stage %s: %v", ptr.Value(in.StageName), why)
		}
		e = s.rollbackOf(p, &target.Doc, ptr.Value(in.StageName), start{trigger: api.TriggerTypeManualRollback, detail: id.PrincipalARN})
		return s.add(tx, p, e)
	})
	if err != nil {
		return nil, err
	}
	return &api.RollbackStageOutput{PipelineExecutionId: &e.ID}, nil
}

func (s *Service) putApprovalResult(ctx context.Context, in *api.PutApprovalResultInput) (*api.PutApprovalResultOutput, error) {
	id := caller.From(ctx)
	var at time.Time
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		p, err := pipeline(tx, id, in.PipelineName)
		if err != nil {
			return err
		}
		rows, err := executions.List(tx, store.Query{Account: id.Account, Region: id.Region, Parent: p.ID})
		if err != nil {
			return err
		}
		for _, row := range rows {
			e := &row.Doc
			i := e.stage(ptr.Value(in.StageName))
			if i < 0 {
				continue
			}
			for j := range e.Stages[i].Actions {
				a := &e.Stages[i].Actions[j]
				if a.Name != ptr.Value(in.ActionName) || a.Token == "" || a.Token != ptr.Value(in.Token) {
					continue
				}
				if a.Status != api.ActionExecutionStatusInProgress {
					return awserr.New(api.ErrCodeApprovalAlreadyCompletedException, "The approval action has already been approved or rejected")
				}
				at = s.deps.Clock.Now()
				a.Changed, a.By, a.Summary = at, id.PrincipalARN, ptr.Value(in.Result.Summary)
				a.Status = api.ActionExecutionStatusSucceeded
				if ptr.Value(in.Result.Status) == api.ApprovalStatusRejected {
					a.Status, a.ErrorCode, a.Error = api.ActionExecutionStatusFailed, jobFailed, "Rejected by "+id.PrincipalARN
				}
				return saveExecution(tx, row, "Approval"+ptr.Value(in.Result.Status), executionDetail{Stage: e.Stages[i].Name, Action: a.Name})
			}
		}
		return awserr.New(api.ErrCodeInvalidApprovalTokenException, "No approval with this token waits in action %s of stage %s", ptr.Value(in.ActionName), ptr.Value(in.StageName))
	})
	if err != nil {
		return nil, err
	}
	return &api.PutApprovalResultOutput{ApprovedAt: &at}, nil
}

// transition finds the stage whose inbound transition is meant.
func transition(p *pipelineRow, stage, kind *string) (string, error) {
	stages := p.Doc.Declaration.Stages
	i := slices.IndexFunc(stages, func(st api.StageDeclaration) bool { return ptr.Value(st.Name) == ptr.Value(stage) })
	if i < 0 {
		return "", noStage(p, stage)
	}
	if ptr.Value(kind) == api.StageTransitionTypeOutbound {
		if i++; i == len(stages) {
			return "", awserr.New(api.ErrCodeValidationException, "Stage %s is the last one: it has no outbound transition", ptr.Value(stage))
		}
	}
	return ptr.Value(stages[i].Name), nil
}

func (s *Service) disableStageTransition(ctx context.Context, in *api.DisableStageTransitionInput) (*api.DisableStageTransitionOutput, error) {
	id := caller.From(ctx)
	return nil, s.deps.Store.Update(ctx, func(tx store.Tx) error {
		p, err := pipeline(tx, id, in.PipelineName)
		if err != nil {
			return err
		}
		stage, err := transition(p, in.StageName, in.TransitionType)
		if err != nil {
			return err
		}
		if p.Doc.Closed == nil {
			p.Doc.Closed = map[string]Closed{}
		}
		p.Doc.Closed[stage] = Closed{Reason: ptr.Value(in.Reason), By: id.PrincipalARN, At: s.deps.Clock.Now()}
		return pipelines.Save(tx, p, "TransitionDisabled", nil)
	})
}

func (s *Service) enableStageTransition(ctx context.Context, in *api.EnableStageTransitionInput) (*api.EnableStageTransitionOutput, error) {
	id := caller.From(ctx)
	return nil, s.deps.Store.Update(ctx, func(tx store.Tx) error {
		p, err := pipeline(tx, id, in.PipelineName)
		if err != nil {
			return err
		}
		stage, err := transition(p, in.StageName, in.TransitionType)
		if err != nil {
			return err
		}
		delete(p.Doc.Closed, stage)
		return pipelines.Save(tx, p, "TransitionEnabled", nil)
	})
}
