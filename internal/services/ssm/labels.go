package ssm

import (
	"context"
	"slices"
	"strings"

	"slipway/internal/api/ssm"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

var labelChars = lazyre.New(`^[a-zA-Z_.\-][a-zA-Z0-9_.\-]{0,99}$`)

func validLabel(l string) bool {
	lower := strings.ToLower(l)
	return labelChars.MatchString(l) && !strings.HasPrefix(lower, "aws") && !strings.HasPrefix(lower, "ssm")
}

// eachVersion calls fn for all versions of a parameter and saves those that changed.
func eachVersion(tx store.Tx, row *store.Row[parameter], fn func(*value) (changed bool)) error {
	all, err := older(tx, row)
	if err != nil {
		return err
	}
	for _, o := range all {
		if fn(&o.Doc.value) {
			if err := versions.Save(tx, o, "Labelled", nil); err != nil {
				return err
			}
		}
	}
	if fn(&row.Doc.value) {
		return parameters.Save(tx, row, "Labelled", nil)
	}
	return nil
}

// label moves labels to one version: a label is on one version at most.
func (s *Service) label(ctx context.Context, in *ssm.LabelParameterVersionInput) (*ssm.LabelParameterVersionOutput, error) {
	out := &ssm.LabelParameterVersionOutput{InvalidLabels: []string{}}
	var good []string
	for _, l := range in.Labels {
		if validLabel(l) {
			good = append(good, l)
		} else {
			out.InvalidLabels = append(out.InvalidLabels, l)
		}
	}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := load(ctx, tx, ptr.Value(in.Name))
		if err != nil {
			return err
		}
		target := row.Doc.Version
		if in.ParameterVersion != nil {
			target = *in.ParameterVersion
		}
		found, tooMany := false, false
		err = eachVersion(tx, row, func(v *value) bool {
			before := len(v.Labels)
			kept := slices.DeleteFunc(slices.Clone(v.Labels), func(l string) bool { return slices.Contains(good, l) })
			if v.Version != target {
				v.Labels = kept
				return len(kept) != before
			}
			v.Labels = append(kept, good...)
			found, tooMany = true, len(v.Labels) > maxLabels
			return true
		})
		switch {
		case err != nil:
			return err
		case !found:
			return awserr.New("ParameterVersionNotFound", "Systems Manager could not find version %d of %s. Verify the version and try again.", target, ptr.Value(in.Name))
		case tooMany:
			return awserr.New("ParameterVersionLabelLimitExceeded", "A parameter version can have maximum %d labels.", maxLabels)
		}
		out.ParameterVersion = &target
		return nil
	})
	return out, err
}

func (s *Service) unlabel(ctx context.Context, in *ssm.UnlabelParameterVersionInput) (*ssm.UnlabelParameterVersionOutput, error) {
	var out *ssm.UnlabelParameterVersionOutput
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		out = &ssm.UnlabelParameterVersionOutput{RemovedLabels: []string{}, InvalidLabels: []string{}}
		row, err := load(ctx, tx, ptr.Value(in.Name))
		if err != nil {
			return err
		}
		found := false
		err = eachVersion(tx, row, func(v *value) bool {
			if v.Version != ptr.Value(in.ParameterVersion) {
				return false
			}
			found = true
			for _, l := range in.Labels {
				if i := slices.Index(v.Labels, l); i >= 0 {
					v.Labels = slices.Delete(v.Labels, i, i+1)
					out.RemovedLabels = append(out.RemovedLabels, l)
				} else {
					out.InvalidLabels = append(out.InvalidLabels, l)
				}
			}
			return len(out.RemovedLabels) > 0
		})
		if err == nil && !found {
			return awserr.New("ParameterVersionNotFound", "Systems Manager could not find version %d of %s. Verify the version and try again.", ptr.Value(in.ParameterVersion), ptr.Value(in.Name))
		}
		return err
	})
	return out, err
}

// tagged changes the tags of a parameter, the only taggable resource here.
func (s *Service) tagged(ctx context.Context, kind, id *string, fn func(map[string]string) error) error {
	if ptr.Value(kind) != "Parameter" {
		return awserr.New("NotImplemented", "Slipway does not implement tags of %s resources.", ptr.Value(kind)).WithStatus(501)
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := load(ctx, tx, ptr.Value(id))
		if err != nil {
			return awserr.New("InvalidResourceId", "The resource ID %s isn't valid. Verify that you entered the correct ID and try again.", ptr.Value(id)).WithCause(err)
		}
		if row.Doc.Tags == nil {
			row.Doc.Tags = map[string]string{}
		}
		if err := fn(row.Doc.Tags); err != nil {
			return err
		}
		return parameters.Save(tx, row, "Tagged", nil)
	})
}

func (s *Service) addTags(ctx context.Context, in *ssm.AddTagsToResourceInput) (*ssm.AddTagsToResourceOutput, error) {
	return &ssm.AddTagsToResourceOutput{}, s.tagged(ctx, in.ResourceType, in.ResourceId, func(tags map[string]string) error {
		for _, t := range in.Tags {
			tags[ptr.Value(t.Key)] = ptr.Value(t.Value)
		}
		if len(tags) > 50 {
			return awserr.New("TooManyTagsError", "The resource can have 50 tags at most.")
		}
		return nil
	})
}

func (s *Service) removeTags(ctx context.Context, in *ssm.RemoveTagsFromResourceInput) (*ssm.RemoveTagsFromResourceOutput, error) {
	return &ssm.RemoveTagsFromResourceOutput{}, s.tagged(ctx, in.ResourceType, in.ResourceId, func(tags map[string]string) error {
		for _, k := range in.TagKeys {
			delete(tags, k)
		}
		return nil
	})
}

func (s *Service) listTags(ctx context.Context, in *ssm.ListTagsForResourceInput) (*ssm.ListTagsForResourceOutput, error) {
	out := &ssm.ListTagsForResourceOutput{TagList: []ssm.Tag{}}
	err := s.Store.View(ctx, func(r store.Reader) error {
		row, err := load(ctx, r, ptr.Value(in.ResourceId))
		if err != nil || ptr.Value(in.ResourceType) != "Parameter" {
			return awserr.New("InvalidResourceId", "The resource ID %s isn't valid. Verify that you entered the correct ID and try again.", ptr.Value(in.ResourceId)).WithCause(err)
		}
		for k, v := range row.Doc.Tags {
			out.TagList = append(out.TagList, ssm.Tag{Key: &k, Value: &v})
		}
		return nil
	})
	slices.SortFunc(out.TagList, func(a, b ssm.Tag) int { return strings.Compare(*a.Key, *b.Key) })
	return out, err
}
