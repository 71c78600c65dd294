package codedeploy

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// maxTags is how many tags AWS allows on a resource.
const maxTags = 50

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func tagMap(tags []api.Tag) (map[string]string, error) {
	if len(tags) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(tags))
	for i, t := range tags {
		key := ptr.Value(t.Key)
		if key == "" || len(key) > 128 || len(ptr.Value(t.Value)) > 256 {
			return nil, awserr.New(api.ErrCodeInvalidTagsToAddException, "tags[%d]: a key has 1 to 128 characters and a value at most 256.", i)
		}
		m[key] = ptr.Value(t.Value)
	}
	if len(m) > maxTags {
		return nil, awserr.New(api.ErrCodeInvalidTagsToAddException, "A resource has at most %d tags.", maxTags)
	}
	return m, nil
}

func renderTags(m map[string]string) []api.Tag {
	tags := []api.Tag{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		tags = append(tags, api.Tag{Key: new(k), Value: new(m[k])})
	}
	return tags
}

// withTags finds the application or group that an ARN names and gives its
// tags to fn; when fn changes them they are saved.
func (s *Service) withTags(ctx context.Context, arn *string, fn func(map[string]string) (map[string]string, error)) error {
	if ptr.Value(arn) == "" {
		return awserr.New(api.ErrCodeResourceArnRequiredException, "resourceArn must be specified.")
	}
	id := caller.From(ctx)
	rest, ok := strings.CutPrefix(*arn, "arn:aws:codedeploy:"+id.Region+":"+id.Account+":")
	if !ok {
		return awserr.New(api.ErrCodeInvalidArnException, "resourceArn %.200q is not the ARN of a CodeDeploy resource of this account and region.", *arn)
	}
	kind, name, _ := strings.Cut(rest, ":")
	return s.store.Update(ctx, func(tx store.Tx) error {
		switch kind {
		case "application":
			row, err := application(tx, id, &name)
			if err != nil {
				return err
			}
			if row.Doc.Tags, err = fn(row.Doc.Tags); err != nil {
				return err
			}
			return applications.Save(tx, row, "Tagged", nil)
		case "deploymentgroup":
			app, name, _ := strings.Cut(name, "/")
			row, err := group(tx, id, &app, &name)
			if err != nil {
				return err
			}
			if row.Doc.Tags, err = fn(row.Doc.Tags); err != nil {
				return err
			}
			return groups.Save(tx, row, "Tagged", nil)
		}
		return awserr.New(api.ErrCodeArnNotSupportedException, "Only applications and deployment groups have tags, not %.200q.", *arn)
	})
}

func (s *Service) tagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	add, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	if len(add) == 0 {
		return nil, awserr.New(api.ErrCodeTagRequiredException, "tags must name at least one tag.")
	}
	err = s.withTags(ctx, in.ResourceArn, func(m map[string]string) (map[string]string, error) {
		m = maps.Clone(m)
		if m == nil {
			m = map[string]string{}
		}
		maps.Copy(m, add)
		if len(m) > maxTags {
			return nil, awserr.New(api.ErrCodeInvalidTagsToAddException, "A resource has at most %d tags.", maxTags)
		}
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.TagResourceOutput{}, nil
}

func (s *Service) untagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	err := s.withTags(ctx, in.ResourceArn, func(m map[string]string) (map[string]string, error) {
		for _, k := range in.TagKeys {
			delete(m, k)
		}
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	return &api.UntagResourceOutput{}, nil
}

var errReadOnly = fmt.Errorf("codedeploy: only reading")

func (s *Service) listTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	out := &api.ListTagsForResourceOutput{}
	err := s.withTags(ctx, in.ResourceArn, func(m map[string]string) (map[string]string, error) {
		out.Tags = renderTags(m)
		return nil, errReadOnly
	})
	if err != errReadOnly {
		return nil, err
	}
	return out, nil
}
