package logs

import (
	"context"
	"errors"
	"strings"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/logs/insights"
	"slipway/internal/store"
)

// definition is a query that somebody saved.
type definition struct {
	ID, Name, Query string
	Groups          []string
	Modified        int64
}

var definitions = store.NewTable[definition]("logs:querydefinition", nil)

func (s *Service) registerDefinitions(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpPutQueryDefinition, s.putDefinition)
	dispatch.Register(m, logs.OpDescribeQueryDefinitions, s.describeDefinitions)
	dispatch.Register(m, logs.OpDeleteQueryDefinition, func(ctx context.Context, in *logs.DeleteQueryDefinitionInput) (*logs.DeleteQueryDefinitionOutput, error) {
		id := caller.From(ctx)
		err := s.Store.Update(ctx, func(tx store.Tx) error {
			row, err := definitions.Get(tx, id.Account, id.Region, ptr.Value(in.QueryDefinitionId))
			if errors.Is(err, store.ErrNotFound) {
				return noDefinition()
			}
			if err != nil {
				return err
			}
			return definitions.Delete(tx, row, "Deleted", nil)
		})
		return &logs.DeleteQueryDefinitionOutput{Success: new(err == nil)}, err
	})
}

func noDefinition() error {
	return awserr.New("ResourceNotFoundException", "The specified query definition does not exist.")
}

func (s *Service) putDefinition(ctx context.Context, in *logs.PutQueryDefinitionInput) (*logs.PutQueryDefinitionOutput, error) {
	if l := ptr.Value(in.QueryLanguage); l != "" && l != "CWLI" {
		return nil, awserr.New("NotImplemented", "Slipway does not implement queries in %s.", l).WithStatus(501)
	}
	if len(in.Parameters) > 0 {
		return nil, awserr.New("NotImplemented", "Slipway does not implement parameters of saved queries.").WithStatus(501)
	}
	_, err := insights.Parse(ptr.Value(in.QueryString))
	if nb := (*insights.NotBuilt)(nil); err != nil && !errors.As(err, &nb) {
		return nil, invalid("queryString: %s", err)
	}
	id := caller.From(ctx)
	d := definition{ID: ptr.Value(in.QueryDefinitionId), Name: ptr.Value(in.Name), Query: ptr.Value(in.QueryString), Groups: in.LogGroupNames, Modified: s.Clock.Now().UnixMilli()}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		if d.ID == "" {
			d.ID = newUUID()
			_, err := definitions.Insert(tx, id.Account, id.Region, d.ID, d, "Created", nil)
			return err
		}
		row, err := definitions.Get(tx, id.Account, id.Region, d.ID)
		if errors.Is(err, store.ErrNotFound) {
			return noDefinition()
		}
		if err != nil {
			return err
		}
		row.Doc = d
		return definitions.Save(tx, row, "Changed", nil)
	})
	return &logs.PutQueryDefinitionOutput{QueryDefinitionId: &d.ID}, err
}

func (s *Service) describeDefinitions(ctx context.Context, in *logs.DescribeQueryDefinitionsInput) (*logs.DescribeQueryDefinitionsOutput, error) {
	after, err := decodeToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	rows, err := definitions.Select(ctx, s.Store, store.Query{Account: id.Account, Region: id.Region, After: after})
	if err != nil {
		return nil, err
	}
	out := &logs.DescribeQueryDefinitionsOutput{QueryDefinitions: []logs.QueryDefinition{}}
	limit, last := pageLimit(in.MaxResults, 1000), ""
	for _, r := range rows {
		d := &r.Doc
		if !strings.HasPrefix(d.Name, ptr.Value(in.QueryDefinitionNamePrefix)) {
			continue
		}
		if len(out.QueryDefinitions) == limit {
			out.NextToken = encodeToken(last)
			break
		}
		last = r.ID
		out.QueryDefinitions = append(out.QueryDefinitions, logs.QueryDefinition{QueryDefinitionId: &d.ID, Name: &d.Name, QueryString: &d.Query, LastModified: &d.Modified,
			LogGroupNames: d.Groups, QueryLanguage: new("CWLI")})
	}
	return out, nil
}
