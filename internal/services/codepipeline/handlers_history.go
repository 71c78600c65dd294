package codepipeline

import (
	"cmp"
	"context"
	"slices"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// getPipelineState shows each stage with the execution that entered it last,
// and what waits in front of it.
func (s *Service) getPipelineState(ctx context.Context, in *api.GetPipelineStateInput) (*api.GetPipelineStateOutput, error) {
	id := caller.From(ctx)
	var out *api.GetPipelineStateOutput
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		row, err := pipeline(r, id, in.Name)
		if err != nil {
			return err
		}
		active, err := activeExecutions(r, row)
		if err != nil {
			return err
		}
		d := &row.Doc.Declaration
		out = &api.GetPipelineStateOutput{PipelineName: d.Name, PipelineVersion: d.Version, Created: &row.Created, Updated: &row.Doc.Updated}
		for i := range d.Stages {
			var latest *Execution
			if e := row.Doc.Latest[ptr.Value(d.Stages[i].Name)]; e != "" && mode(d) != api.ExecutionModeParallel {
				er, err := execution(r, row, &e)
				if err != nil {
					return err
				}
				latest = &er.Doc
			}
			out.StageStates = append(out.StageStates, stageState(&row.Doc, &d.Stages[i], latest, active))
		}
		return nil
	})
	return out, err
}

func stageState(p *Pipeline, decl *api.StageDeclaration, latest *Execution, active []*executionRow) api.StageState {
	name := ptr.Value(decl.Name)
	st := api.StageState{StageName: &name, InboundTransitionState: &api.TransitionState{Enabled: new(true)}}
	if c, ok := p.Closed[name]; ok {
		st.InboundTransitionState = &api.TransitionState{Enabled: new(false), DisabledReason: &c.Reason, LastChangedBy: ptr.NonZero(c.By), LastChangedAt: &c.At}
	}
	slices.SortFunc(active, func(a, b *executionRow) int { return cmp.Compare(a.Doc.Number, b.Doc.Number) })
	for _, row := range active {
		if e := &row.Doc; e.Waiting && e.Stages[e.At].Name == name && mode(&p.Declaration) != api.ExecutionModeParallel {
			st.InboundExecutions = append(st.InboundExecutions, api.StageExecution{PipelineExecutionId: &e.ID, Status: &e.Status, Type: &e.Type})
		}
	}
	if n := len(st.InboundExecutions); n > 0 {
		st.InboundExecution = &st.InboundExecutions[n-1]
	}
	var run *StageRun
	if latest != nil {
		if i := latest.stage(name); i >= 0 {
			run = &latest.Stages[i]
			status := run.Status
			if status == api.StageExecutionStatusInProgress && latest.Status == api.PipelineExecutionStatusStopping {
				status = api.StageExecutionStatusStopping
			}
			st.LatestExecution = &api.StageExecution{PipelineExecutionId: &latest.ID, Status: &status, Type: &latest.Type}
			if run.LastRetry != "" {
				st.RetryStageMetadata = &api.RetryStageMetadata{AutoStageRetryAttempt: &run.AutoRetries, ManualStageRetryAttempt: &run.ManualRetries, LatestRetryTrigger: &run.LastRetry}
			}
		}
	}
	for i := range decl.Actions {
		as := api.ActionState{ActionName: decl.Actions[i].Name}
		if run != nil {
			for j := range run.Actions {
				if a := &run.Actions[j]; a.Name == ptr.Value(as.ActionName) && a.ID != "" {
					as.LatestExecution = actionExecution(a)
				}
			}
			for _, rev := range latest.Revisions {
				if rev.Action == ptr.Value(as.ActionName) && ptr.Value(decl.Actions[i].ActionTypeId.Category) == api.ActionCategorySource {
					as.CurrentRevision = &api.ActionRevision{RevisionId: &rev.ID, RevisionChangeId: &rev.ID, Created: optTime(rev.Created)}
				}
			}
		}
		st.ActionStates = append(st.ActionStates, as)
	}
	return st
}

func actionExecution(a *ActionRun) *api.ActionExecution {
	out := &api.ActionExecution{ActionExecutionId: &a.ID, Status: &a.Status, Summary: ptr.NonZero(a.Summary), LastStatusChange: optTime(a.Changed),
		LastUpdatedBy: ptr.NonZero(a.By), ExternalExecutionId: ptr.NonZero(a.External), ExternalExecutionUrl: ptr.NonZero(a.URL), ErrorDetails: errorDetails(a)}
	if a.Status == api.ActionExecutionStatusInProgress {
		out.Token = ptr.NonZero(a.Token)
	}
	return out
}

func errorDetails(a *ActionRun) *api.ErrorDetails {
	if a.Error == "" {
		return nil
	}
	return &api.ErrorDetails{Code: &a.ErrorCode, Message: &a.Error}
}

func (s *Service) getPipelineExecution(ctx context.Context, in *api.GetPipelineExecutionInput) (*api.GetPipelineExecutionOutput, error) {
	id := caller.From(ctx)
	var e *Execution
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		p, err := pipeline(r, id, in.PipelineName)
		if err != nil {
			return err
		}
		row, err := execution(r, p, in.PipelineExecutionId)
		if err == nil {
			e = &row.Doc
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &api.PipelineExecution{PipelineName: &e.Pipeline, PipelineVersion: e.Declaration.Version, PipelineExecutionId: &e.ID, Status: &e.Status, StatusSummary: ptr.NonZero(e.StatusSummary),
		Trigger: trigger(e), ExecutionMode: new(mode(&e.Declaration)), ExecutionType: &e.Type, RollbackMetadata: rollbackMetadata(e)}
	for _, rev := range e.Revisions {
		out.ArtifactRevisions = append(out.ArtifactRevisions, api.ArtifactRevision{Name: &rev.Artifact, RevisionId: &rev.ID, RevisionSummary: ptr.NonZero(rev.Summary), Created: optTime(rev.Created), RevisionUrl: ptr.NonZero(rev.URL)})
	}
	for _, k := range slices.Sorted(mapKeys(e.Variables)) {
		out.Variables = append(out.Variables, api.ResolvedPipelineVariable{Name: new(k), ResolvedValue: new(e.Variables[k])})
	}
	return &api.GetPipelineExecutionOutput{PipelineExecution: out}, nil
}

func trigger(e *Execution) *api.ExecutionTrigger {
	return &api.ExecutionTrigger{TriggerType: &e.TriggerType, TriggerDetail: ptr.NonZero(e.TriggerDetail)}
}

func rollbackMetadata(e *Execution) *api.PipelineRollbackMetadata {
	if e.RollbackOf == "" {
		return nil
	}
	return &api.PipelineRollbackMetadata{RollbackTargetPipelineExecutionId: &e.RollbackOf}
}

// history lists the executions of a pipeline, the newest first.
func (s *Service) history(ctx context.Context, name *string) ([]*executionRow, error) {
	id := caller.From(ctx)
	var rows []*executionRow
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		p, err := pipeline(r, id, name)
		if err != nil {
			return err
		}
		rows, err = executions.List(r, store.Query{Account: id.Account, Region: id.Region, Parent: p.ID})
		return err
	})
	slices.SortFunc(rows, func(a, b *executionRow) int { return cmp.Compare(b.Doc.Number, a.Doc.Number) })
	return rows, err
}

func (s *Service) listPipelineExecutions(ctx context.Context, in *api.ListPipelineExecutionsInput) (*api.ListPipelineExecutionsOutput, error) {
	rows, err := s.history(ctx, in.PipelineName)
	if err != nil {
		return nil, err
	}
	if f := in.Filter; f != nil && f.SucceededInStage != nil {
		rows = slices.DeleteFunc(rows, func(r *executionRow) bool {
			i := r.Doc.stage(ptr.Value(f.SucceededInStage.StageName))
			return i < 0 || r.Doc.Stages[i].Status != api.StageExecutionStatusSucceeded
		})
	}
	rows, next, err := page(rows, in.NextToken, in.MaxResults, func(r *executionRow) string { return r.ID })
	if err != nil {
		return nil, err
	}
	out := &api.ListPipelineExecutionsOutput{PipelineExecutionSummaries: []api.PipelineExecutionSummary{}, NextToken: next}
	for _, row := range rows {
		e := &row.Doc
		sum := api.PipelineExecutionSummary{PipelineExecutionId: &e.ID, Status: &e.Status, StatusSummary: ptr.NonZero(e.StatusSummary), StartTime: &e.Started, LastUpdateTime: &e.Updated,
			Trigger: trigger(e), ExecutionMode: new(mode(&e.Declaration)), ExecutionType: &e.Type, RollbackMetadata: rollbackMetadata(e)}
		for _, rev := range e.Revisions {
			sum.SourceRevisions = append(sum.SourceRevisions, api.SourceRevision{ActionName: &rev.Action, RevisionId: &rev.ID, RevisionSummary: ptr.NonZero(rev.Summary), RevisionUrl: ptr.NonZero(rev.URL)})
		}
		if e.Stop != nil {
			sum.StopTrigger = &api.StopExecutionTrigger{Reason: ptr.NonZero(e.Stop.Reason)}
		}
		out.PipelineExecutionSummaries = append(out.PipelineExecutionSummaries, sum)
	}
	return out, nil
}

func (s *Service) listActionExecutions(ctx context.Context, in *api.ListActionExecutionsInput) (*api.ListActionExecutionsOutput, error) {
	rows, err := s.history(ctx, in.PipelineName)
	if err != nil {
		return nil, err
	}
	only := ""
	if f := in.Filter; f != nil {
		only = ptr.Value(f.PipelineExecutionId)
		if l := f.LatestInPipelineExecution; l != nil {
			only = ptr.Value(l.PipelineExecutionId)
		}
	}
	var all []api.ActionExecutionDetail
	for _, row := range rows {
		e := &row.Doc
		if only != "" && e.ID != only {
			continue
		}
		first := 0
		if e.Type == typeRollback { // what is before is the target's
			first = e.At
		}
		for i := len(e.Stages) - 1; i >= first; i-- {
			runs := slices.Concat(e.Stages[i].Past, e.Stages[i].Actions)
			for j := len(runs) - 1; j >= 0; j-- {
				if runs[j].ID != "" {
					all = append(all, actionDetail(row, i, &runs[j]))
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b api.ActionExecutionDetail) int { return b.StartTime.Compare(*a.StartTime) })
	all, next, err := page(all, in.NextToken, in.MaxResults, func(d api.ActionExecutionDetail) string { return *d.ActionExecutionId })
	if err != nil {
		return nil, err
	}
	return &api.ListActionExecutionsOutput{ActionExecutionDetails: all, NextToken: next}, nil
}

func actionDetail(row *executionRow, stage int, a *ActionRun) api.ActionExecutionDetail {
	e := &row.Doc
	in := &api.ActionExecutionInput{ResolvedConfiguration: a.Resolved, Region: &row.Region}
	for i := range e.Declaration.Stages[stage].Actions {
		if d := &e.Declaration.Stages[stage].Actions[i]; ptr.Value(d.Name) == a.Name {
			in.ActionTypeId, in.Configuration, in.RoleArn, in.Namespace = d.ActionTypeId, d.Configuration, d.RoleArn, d.Namespace
		}
	}
	in.InputArtifacts = artifactDetails(a.Inputs)
	return api.ActionExecutionDetail{
		PipelineExecutionId: &e.ID, ActionExecutionId: &a.ID, PipelineVersion: e.Declaration.Version, StageName: &e.Stages[stage].Name, ActionName: &a.Name,
		StartTime: &a.Started, LastUpdateTime: &a.Changed, UpdatedBy: ptr.NonZero(a.By), Status: &a.Status, Input: in,
		Output: &api.ActionExecutionOutput{OutputArtifacts: artifactDetails(a.Outputs), OutputVariables: a.Variables, ExecutionResult: &api.ActionExecutionResult{
			ExternalExecutionId: ptr.NonZero(a.External), ExternalExecutionSummary: ptr.NonZero(a.Summary), ExternalExecutionUrl: ptr.NonZero(a.URL), ErrorDetails: errorDetails(a)}},
	}
}

func artifactDetails(m map[string]Artifact) []api.ArtifactDetail {
	var out []api.ArtifactDetail
	for _, name := range slices.Sorted(mapKeys(m)) {
		a := m[name]
		out = append(out, api.ArtifactDetail{Name: &name, S3location: &api.S3Location{Bucket: &a.Bucket, Key: &a.Key}})
	}
	return out
}
