package codepipeline

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// Register serves the operations that are built.
func (s *Service) Register(m *dispatch.Mux) {
	dispatch.Register(m, api.OpCreatePipeline, s.createPipeline)
	dispatch.Register(m, api.OpUpdatePipeline, s.updatePipeline)
	dispatch.Register(m, api.OpDeletePipeline, s.deletePipeline)
	dispatch.Register(m, api.OpGetPipeline, s.getPipeline)
	dispatch.Register(m, api.OpListPipelines, s.listPipelines)
	dispatch.Register(m, api.OpTagResource, s.tagResource)
	dispatch.Register(m, api.OpUntagResource, s.untagResource)
	dispatch.Register(m, api.OpListTagsForResource, s.listTags)
	dispatch.Register(m, api.OpGetPipelineState, s.getPipelineState)
	dispatch.Register(m, api.OpGetPipelineExecution, s.getPipelineExecution)
	dispatch.Register(m, api.OpListPipelineExecutions, s.listPipelineExecutions)
	dispatch.Register(m, api.OpListActionExecutions, s.listActionExecutions)
	dispatch.Register(m, api.OpStartPipelineExecution, s.startPipelineExecution)
	dispatch.Register(m, api.OpStopPipelineExecution, s.stopPipelineExecution)
	dispatch.Register(m, api.OpRetryStageExecution, s.retryStageExecution)
	dispatch.Register(m, api.OpRollbackStage, s.rollbackStage)
	dispatch.Register(m, api.OpPutApprovalResult, s.putApprovalResult)
	dispatch.Register(m, api.OpDisableStageTransition, s.disableStageTransition)
	dispatch.Register(m, api.OpEnableStageTransition, s.enableStageTransition)
}

func pipelineARN(id caller.Identity, name string) string {
	return "arn:aws:codepipeline:" + id.Region + ":" + id.Account + ":" + name
}

func noPipeline(id caller.Identity, name string) error {
	return awserr.New(api.ErrCodePipelineNotFoundException, "Account '%s' does not have a pipeline with name '%s'", id.Account, name)
}

// pipeline loads a pipeline by its name.
func pipeline(r store.Reader, id caller.Identity, name *string) (*pipelineRow, error) {
	row, err := pipelines.Get(r, id.Account, id.Region, ptr.Value(name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noPipeline(id, ptr.Value(name))
	}
	return row, err
}

// execution loads an execution of a pipeline.
func execution(r store.Reader, p *pipelineRow, id *string) (*executionRow, error) {
	row, err := executions.Get(r, p.Account, p.Region, executionID(p.ID, ptr.Value(id)))
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New(api.ErrCodePipelineExecutionNotFoundException, "Pipeline Execution with id '%s' does not exist in pipeline '%s'", ptr.Value(id), p.ID)
	}
	return row, err
}

func (s *Service) createPipeline(ctx context.Context, in *api.CreatePipelineInput) (*api.CreatePipelineOutput, error) {
	if err := validate(in.Pipeline); err != nil {
		return nil, err
	}
	id, d := caller.From(ctx), *in.Pipeline
	d.Version = new(int64(1))
	if d.PipelineType == nil {
		d.PipelineType = new("V1")
	}
	d.ExecutionMode = new(mode(&d))
	doc := Pipeline{Declaration: d, Updated: s.deps.Clock.Now(), Tags: map[string]string{}, Heads: map[string]string{}}
	for _, t := range in.Tags {
		doc.Tags[ptr.Value(t.Key)] = ptr.Value(t.Value)
	}
	key := pipelines.Key(id.Account, id.Region, *d.Name)
	for i := range d.Stages[0].Actions { // the first execution is for what is there now
		a := &d.Stages[0].Actions[i]
		if head, err := s.head(ctx, key, a); err == nil && head != "" {
			doc.Heads[ptr.Value(a.Name)] = head
		} else if err != nil && awserr.As(err) == nil {
			return nil, err
		}
	}
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := pipelines.Insert(tx, id.Account, id.Region, *d.Name, doc, "Created", nil)
		if errors.Is(err, store.ErrExists) {
			return awserr.New(api.ErrCodePipelineNameInUseException, "A pipeline with the name '%s' already exists in account '%s'", *d.Name, id.Account)
		}
		if err != nil {
			return err
		}
		if err := keepStructure(tx, row); err != nil {
			return err
		}
		_, err = s.start(tx, row, start{trigger: api.TriggerTypeCreatePipeline, detail: id.PrincipalARN, variables: map[string]string{}})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.CreatePipelineOutput{Pipeline: &d, Tags: in.Tags}, nil
}

func keepStructure(tx store.Tx, row *pipelineRow) error {
	_, err := structures.Insert(tx, row.Account, row.Region, structureID(&row.Doc.Declaration), Structure{row.Doc.Declaration}, "Created", nil)
	return err
}

// updatePipeline makes the next version. Executions of the old one end when
// their actions under way have ended.
func (s *Service) updatePipeline(ctx context.Context, in *api.UpdatePipelineInput) (*api.UpdatePipelineOutput, error) {
	if err := validate(in.Pipeline); err != nil {
		return nil, err
	}
	id, d := caller.From(ctx), *in.Pipeline
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := pipeline(tx, id, d.Name)
		if err != nil {
			return err
		}
		old := &row.Doc.Declaration
		d.Version = new(ptr.Value(old.Version) + 1)
		if d.PipelineType == nil {
			d.PipelineType = old.PipelineType
		}
		d.ExecutionMode = new(mode(&d))
		row.Doc.Declaration, row.Doc.Updated = d, s.deps.Clock.Now()
		if err := keepStructure(tx, row); err != nil {
			return err
		}
		return pipelines.Save(tx, row, "Updated", nil)
	})
	if err != nil {
		return nil, err
	}
	s.forget(pipelines.Key(id.Account, id.Region, *d.Name))
	return &api.UpdatePipelineOutput{Pipeline: &d}, nil
}

// deletePipeline also removes its history; deleting what is not there succeeds.
func (s *Service) deletePipeline(ctx context.Context, in *api.DeletePipelineInput) (*api.DeletePipelineOutput, error) {
	id := caller.From(ctx)
	s.forget(pipelines.Key(id.Account, id.Region, ptr.Value(in.Name)))
	return nil, s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := pipelines.Get(tx, id.Account, id.Region, ptr.Value(in.Name))
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		past, err := executions.List(tx, store.Query{Account: id.Account, Region: id.Region, Parent: row.ID})
		if err != nil {
			return err
		}
		for _, e := range past {
			if err := executions.Delete(tx, e, "Deleted", nil); err != nil {
				return err
			}
		}
		old, err := structures.List(tx, store.Query{Account: id.Account, Region: id.Region, Parent: row.ID})
		if err != nil {
			return err
		}
		for _, d := range old {
			if err := structures.Delete(tx, d, "Deleted", nil); err != nil {
				return err
			}
		}
		used, err := startings.List(tx, store.Query{Account: id.Account, Region: id.Region, Prefix: row.ID + "/"})
		if err != nil {
			return err
		}
		for _, t := range used {
			if err := startings.Delete(tx, t, "Deleted", nil); err != nil {
				return err
			}
		}
		return pipelines.Delete(tx, row, "Deleted", nil)
	})
}

func (s *Service) getPipeline(ctx context.Context, in *api.GetPipelineInput) (*api.GetPipelineOutput, error) {
	id := caller.From(ctx)
	var out *api.GetPipelineOutput
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		row, err := pipeline(r, id, in.Name)
		if err != nil {
			return err
		}
		d := row.Doc.Declaration
		if in.Version != nil && *in.Version != ptr.Value(d.Version) {
			d.Version = in.Version
			old, err := structures.Get(r, id.Account, id.Region, structureID(&d))
			if errors.Is(err, store.ErrNotFound) {
				return awserr.New(api.ErrCodePipelineVersionNotFoundException, "Pipeline '%s' has no version %d", row.ID, *in.Version)
			}
			if err != nil {
				return err
			}
			d = old.Doc.Declaration
		}
		out = &api.GetPipelineOutput{Pipeline: &d, Metadata: &api.PipelineMetadata{PipelineArn: new(pipelineARN(id, row.ID)), Created: &row.Created, Updated: &row.Doc.Updated}}
		return nil
	})
	return out, err
}

func (s *Service) listPipelines(ctx context.Context, in *api.ListPipelinesInput) (*api.ListPipelinesOutput, error) {
	id := caller.From(ctx)
	rows, err := pipelines.Select(ctx, s.deps.Store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	rows, next, err := page(rows, in.NextToken, in.MaxResults, func(r *pipelineRow) string { return r.ID })
	out := &api.ListPipelinesOutput{Pipelines: []api.PipelineSummary{}, NextToken: next}
	for _, row := range rows {
		d := &row.Doc.Declaration
		out.Pipelines = append(out.Pipelines, api.PipelineSummary{Name: d.Name, Version: d.Version, PipelineType: d.PipelineType, ExecutionMode: d.ExecutionMode,
			Created: &row.Created, Updated: &row.Doc.Updated})
	}
	return out, err
}

// withTags gives the tags of the pipeline that an ARN names to fn and saves them.
func (s *Service) withTags(ctx context.Context, arn *string, fn func(map[string]string)) error {
	id := caller.From(ctx)
	name, ok := strings.CutPrefix(ptr.Value(arn), pipelineARN(id, ""))
	if !ok {
		return awserr.New(api.ErrCodeInvalidArnException, "'%s' is not the ARN of a pipeline in this account and region", ptr.Value(arn))
	}
	_, err := pipelines.Modify(ctx, s.deps.Store, id.Account, id.Region, name, "Tagged", func(p *Pipeline) error {
		if p.Tags == nil {
			p.Tags = map[string]string{}
		}
		if fn(p.Tags); len(p.Tags) > 50 {
			return awserr.New(api.ErrCodeTooManyTagsException, "A pipeline has at most 50 tags")
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return awserr.New(api.ErrCodeResourceNotFoundException, "'%s' does not exist", *arn)
	}
	return err
}

func (s *Service) tagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	return nil, s.withTags(ctx, in.ResourceArn, func(tags map[string]string) {
		for _, t := range in.Tags {
			tags[ptr.Value(t.Key)] = ptr.Value(t.Value)
		}
	})
}

func (s *Service) untagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return nil, s.withTags(ctx, in.ResourceArn, func(tags map[string]string) {
		for _, k := range in.TagKeys {
			delete(tags, k)
		}
	})
}

func (s *Service) listTags(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	id := caller.From(ctx)
	name, ok := strings.CutPrefix(ptr.Value(in.ResourceArn), pipelineARN(id, ""))
	if !ok {
		return nil, awserr.New(api.ErrCodeInvalidArnException, "'%s' is not the ARN of a pipeline in this account and region", ptr.Value(in.ResourceArn))
	}
	row, err := pipelines.Find(ctx, s.deps.Store, id.Account, id.Region, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New(api.ErrCodeResourceNotFoundException, "'%s' does not exist", ptr.Value(in.ResourceArn))
	}
	if err != nil {
		return nil, err
	}
	out := &api.ListTagsForResourceOutput{Tags: []api.Tag{}}
	for _, k := range slices.Sorted(mapKeys(row.Doc.Tags)) {
		out.Tags = append(out.Tags, api.Tag{Key: new(k), Value: new(row.Doc.Tags[k])})
	}
	return out, nil
}

const pageSize = 100

// page cuts one answer from all; the token is the last id of the one before.
func page[T any](all []T, token *string, size *int64, id func(T) string) ([]T, *string, error) {
	if ptr.Value(token) != "" {
		last, err := base64.RawURLEncoding.DecodeString(*token)
		i := slices.IndexFunc(all, func(v T) bool { return id(v) == string(last) })
		if err != nil || i < 0 {
			return nil, nil, awserr.New(api.ErrCodeInvalidNextTokenException, "The next token is not valid")
		}
		all = all[i+1:]
	}
	n := pageSize
	if m := ptr.Value(size); m > 0 {
		n = int(min(m, pageSize))
	}
	if len(all) <= n {
		return all, nil, nil
	}
	return all[:n], new(base64.RawURLEncoding.EncodeToString([]byte(id(all[n-1])))), nil
}
