package ssm

import (
	"context"
	"encoding/base64"
	"slices"
	"sort"
	"strings"

	"slipway/internal/api/ssm"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func tokenAfter(t *string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(ptr.Value(t))
	if err != nil {
		return "", awserr.New("InvalidNextToken", "The specified token isn't valid.")
	}
	return string(b), nil
}

// paged cuts a page out of rows sorted by id.
func paged[T any](rows []*store.Row[T], after string, limit *int64, def int) ([]*store.Row[T], *string) {
	i := 0
	if after != "" {
		i = sort.Search(len(rows), func(i int) bool { return rows[i].ID > after })
	}
	rows = rows[i:]
	n := def
	if limit != nil {
		n = int(*limit)
	}
	if len(rows) <= n || n <= 0 {
		return rows, nil
	}
	return rows[:n], new(encode([]byte(rows[n-1].ID)))
}

func (s *Service) byPath(ctx context.Context, in *ssm.GetParametersByPathInput) (*ssm.GetParametersByPathOutput, error) {
	id, path := caller.From(ctx), ptr.Value(in.Path)
	if !strings.HasPrefix(path, "/") {
		return nil, invalid("The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\".")
	}
	if !strings.HasSuffix(path, "/") {
		path += "/"
	}
	after, err := tokenAfter(in.NextToken)
	if err != nil {
		return nil, err
	}
	rows, err := parameters.Select(ctx, s.Store, store.Query{Account: id.Account, Region: id.Region, Prefix: path})
	if err != nil {
		return nil, err
	}
	if path == "/" { // names without a slash are on the first level
		if rows, err = parameters.Select(ctx, s.Store, store.Query{Account: id.Account, Region: id.Region}); err != nil {
			return nil, err
		}
	}
	var ferr error
	rows = slices.DeleteFunc(rows, func(r *store.Row[parameter]) bool {
		if !ptr.Value(in.Recursive) && strings.Contains(strings.TrimPrefix(r.Doc.Name, path), "/") {
			return true
		}
		ok, err := matches(&r.Doc, in.ParameterFilters)
		if err != nil {
			ferr = err
		}
		return !ok
	})
	if ferr != nil {
		return nil, ferr
	}
	out := &ssm.GetParametersByPathOutput{Parameters: []ssm.Parameter{}}
	rows, out.NextToken = paged(rows, after, in.MaxResults, 10)
	for _, r := range rows {
		p, err := s.wire(ctx, r.Doc.Name, &r.Doc.value, ptr.Value(in.WithDecryption))
		if err != nil {
			return nil, err
		}
		out.Parameters = append(out.Parameters, *p)
	}
	return out, nil
}

// matches applies the filters of DescribeParameters and GetParametersByPath.
func matches(p *parameter, filters []ssm.ParameterStringFilter) (bool, error) {
	for _, f := range filters {
		key, option := ptr.Value(f.Key), ptr.Value(f.Option)
		ok := false
		var have []string
		switch {
		case key == "Name":
			have = []string{p.Name, strings.TrimPrefix(p.Name, "/")}
		case key == "Type":
			have = []string{p.Type}
		case key == "KeyId":
			have = []string{p.KeyID}
		case key == "Tier":
			have = []string{p.Tier}
		case key == "DataType":
			have = []string{p.DataType}
		case key == "Label":
			have = p.Labels
		case key == "Path":
			ok = slices.ContainsFunc(f.Values, func(v string) bool { return underPath(p.Name, v, option == "Recursive") })
		case strings.HasPrefix(key, "tag:"):
			v, has := p.Tags[key[len("tag:"):]]
			if ok = has && len(f.Values) == 0; has {
				have = []string{v}
			}
		default:
			return false, awserr.New("InvalidFilterKey", "The filter key %s isn't valid.", key)
		}
		for _, h := range have {
			for _, v := range f.Values {
				switch option {
				case "", "Equals":
					ok = ok || h == v
				case "BeginsWith":
					ok = ok || strings.HasPrefix(h, v)
				case "Contains":
					ok = ok || strings.Contains(h, v)
				default:
					return false, awserr.New("InvalidFilterOption", "The filter option %s isn't valid for the key %s. Valid options include: [Equals, BeginsWith, Contains]", option, key)
				}
			}
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

func underPath(name, path string, recursive bool) bool {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(path, "/")+"/")
	return ok && (recursive || !strings.Contains(rest, "/"))
}

func (s *Service) describe(ctx context.Context, in *ssm.DescribeParametersInput) (*ssm.DescribeParametersOutput, error) {
	if in.Filters != nil && in.ParameterFilters != nil {
		return nil, invalid("You can use either Filters or ParameterFilters in a single request.")
	}
	filters := in.ParameterFilters
	for _, f := range in.Filters {
		filters = append(filters, ssm.ParameterStringFilter{Key: f.Key, Option: new("BeginsWith"), Values: f.Values})
	}
	after, err := tokenAfter(in.NextToken)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	rows, err := parameters.Select(ctx, s.Store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	var keep []*store.Row[parameter]
	for _, r := range rows {
		ok, err := matches(&r.Doc, filters)
		if err != nil {
			return nil, err
		}
		if ok {
			keep = append(keep, r)
		}
	}
	out := &ssm.DescribeParametersOutput{Parameters: []ssm.ParameterMetadata{}}
	keep, out.NextToken = paged(keep, after, in.MaxResults, 50)
	for _, r := range keep {
		p := &r.Doc
		out.Parameters = append(out.Parameters, ssm.ParameterMetadata{Name: &p.Name, ARN: new(arn(id, p.Name)), Type: &p.Type, KeyId: ptr.NonZero(p.KeyID), LastModifiedDate: &p.Modified,
			LastModifiedUser: &p.User, Description: ptr.NonZero(p.Description), AllowedPattern: ptr.NonZero(p.AllowedPattern), Version: &p.Version, Tier: &p.Tier, DataType: &p.DataType, Policies: []ssm.ParameterInlinePolicy{}})
	}
	return out, nil
}

func (s *Service) history(ctx context.Context, in *ssm.GetParameterHistoryInput) (*ssm.GetParameterHistoryOutput, error) {
	after, err := tokenAfter(in.NextToken)
	if err != nil {
		return nil, err
	}
	var row *store.Row[parameter]
	var all []*store.Row[olderValue]
	err = s.Store.View(ctx, func(r store.Reader) error {
		if row, err = load(ctx, r, ptr.Value(in.Name)); err != nil {
			return err
		}
		all, err = older(r, row)
		return err
	})
	if err != nil {
		return nil, err
	}
	newest := &store.Row[olderValue]{Key: row.Key, Doc: olderValue{row.Doc.Name, row.Doc.value}}
	newest.ID = versionID(row.Doc.Name, row.Doc.Version)
	out := &ssm.GetParameterHistoryOutput{}
	all, out.NextToken = paged(append(all, newest), after, in.MaxResults, 50)
	for _, o := range all {
		v := &o.Doc.value
		text, err := s.open(ctx, row.Doc.Name, v, ptr.Value(in.WithDecryption))
		if err != nil {
			return nil, err
		}
		labels := v.Labels
		if labels == nil {
			labels = []string{}
		}
		out.Parameters = append(out.Parameters, ssm.ParameterHistory{Name: &row.Doc.Name, Type: &v.Type, KeyId: ptr.NonZero(v.KeyID), LastModifiedDate: &v.Modified, LastModifiedUser: &v.User,
			Description: ptr.NonZero(v.Description), Value: &text, AllowedPattern: ptr.NonZero(v.AllowedPattern), Version: &v.Version, Labels: labels, Tier: &v.Tier, DataType: &v.DataType, Policies: []ssm.ParameterInlinePolicy{}})
	}
	return out, nil
}
