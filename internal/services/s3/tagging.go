package s3

import (
	"context"
	"sort"

	"slipway/internal/api/s3"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) registerTagging(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpGetObjectTagging, func(ctx context.Context, in *s3.GetObjectTaggingInput) (*s3.GetObjectTaggingOutput, error) {
		b, v, _, err := s.read(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner, nil, nil, conditions{})
		if err != nil {
			return nil, err
		}
		out := &s3.GetObjectTaggingOutput{VersionId: shown(b, v), TagSet: []s3.Tag{}}
		for k, val := range v.Tags {
			out.TagSet = append(out.TagSet, s3.Tag{Key: &k, Value: &val})
		}
		sort.Slice(out.TagSet, func(i, j int) bool { return *out.TagSet[i].Key < *out.TagSet[j].Key })
		return out, nil
	})
	dispatch.Register(m, s3.OpPutObjectTagging, func(ctx context.Context, in *s3.PutObjectTaggingInput) (*s3.PutObjectTaggingOutput, error) {
		if in.Tagging == nil {
			return nil, malformedXML()
		}
		tags, err := objectTags(in.Tagging.TagSet)
		if err != nil {
			return nil, err
		}
		id, err := s.retag(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner, tags)
		return &s3.PutObjectTaggingOutput{VersionId: id}, err
	})
	dispatch.Register(m, s3.OpDeleteObjectTagging, func(ctx context.Context, in *s3.DeleteObjectTaggingInput) (*s3.DeleteObjectTaggingOutput, error) {
		id, err := s.retag(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner, nil)
		return &s3.DeleteObjectTaggingOutput{VersionId: id}, err
	})
}

// retag replaces the tags of a version.
func (s *Service) retag(ctx context.Context, name, key, id, owner *string, tags map[string]string) (out *string, err error) {
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := bucketIn(ctx, tx, name, owner)
		if err != nil {
			return err
		}
		b := &row.Doc
		v, err := findIn(tx, b, ptr.Value(key), id)
		if err != nil {
			return err
		}
		if v.Marker {
			return methodNotAllowed(v)
		}
		out = shown(b, v)
		if cur, err := current(tx, b, v.Key); err != nil {
			return err
		} else if cur != nil && cur.Doc.ID == v.ID {
			cur.Doc.Tags = tags
			return objects.Save(tx, cur, "Tagged", nil)
		}
		old, err := olderVersion(tx, b, v.Key, v.ID)
		if err != nil {
			return err
		}
		old.Doc.Tags = tags
		return versions.Save(tx, old, "Tagged", nil)
	})
	return out, err
}
