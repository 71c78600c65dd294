package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sort"
	"strings"
	"time"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// owner is the canonical user of an account: an id of 64 hexadecimal digits.
func owner(account string) *s3.Owner {
	sum := sha256.Sum256([]byte("slipway:canonical-user:" + account))
	return &s3.Owner{ID: new(hex.EncodeToString(sum[:]))}
}

func (s *Service) registerBuckets(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpCreateBucket, s.createBucket)
	dispatch.Register(m, s3.OpDeleteBucket, s.deleteBucket)
	dispatch.Register(m, s3.OpListBuckets, s.listBuckets)
	dispatch.Register(m, s3.OpHeadBucket, func(ctx context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
		b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return nil, err
		}
		return &s3.HeadBucketOutput{BucketRegion: &b.Doc.Region, AccessPointAlias: new(false), BucketArn: new("arn:aws:s3:::" + b.Doc.Name)}, nil
	})
	dispatch.Register(m, s3.OpGetBucketLocation, func(ctx context.Context, in *s3.GetBucketLocationInput) (*s3.GetBucketLocationOutput, error) {
		b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return nil, err
		}
		out := &s3.GetBucketLocationOutput{}
		if b.Doc.Region != "us-east-1" { // which is said by an empty element
			out.LocationConstraint = &b.Doc.Region
		}
		return out, nil
	})
	dispatch.Register(m, s3.OpGetBucketVersioning, func(ctx context.Context, in *s3.GetBucketVersioningInput) (*s3.GetBucketVersioningOutput, error) {
		b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketVersioningOutput{Status: ptr.NonZero(b.Doc.Versioning)}, nil
	})
	dispatch.Register(m, s3.OpPutBucketVersioning, func(ctx context.Context, in *s3.PutBucketVersioningInput) (*s3.PutBucketVersioningOutput, error) {
		if in.VersioningConfiguration == nil || in.VersioningConfiguration.Status == nil {
			return nil, awserr.New("IllegalVersioningConfigurationException", "The Versioning element must be specified").WithStatus(400)
		}
		st := *in.VersioningConfiguration.Status
		if st != "Enabled" && st != "Suspended" {
			return nil, malformedXML()
		}
		return &s3.PutBucketVersioningOutput{}, s.changeBucket(ctx, in.Bucket, in.ExpectedBucketOwner, func(b *bucket) error {
			b.Versioning = st
			return nil
		})
	})
}

func malformedXML() error {
	return awserr.New("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema").WithStatus(400)
}

func (s *Service) changeBucket(ctx context.Context, name, owner *string, fn func(*bucket) error) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := bucketIn(ctx, tx, name, owner)
		if err != nil {
			return err
		}
		if err := fn(&row.Doc); err != nil {
			return err
		}
		return buckets.Save(tx, row, "Changed", nil)
	})
}

func (s *Service) createBucket(ctx context.Context, in *s3.CreateBucketInput) (*s3.CreateBucketOutput, error) {
	id, name := caller.From(ctx), ptr.Value(in.Bucket)
	if err := checkBucketName(name); err != nil {
		return nil, err
	}
	region := id.Region
	var tags []s3.Tag
	if c := in.CreateBucketConfiguration; c != nil {
		if c.LocationConstraint != nil && *c.LocationConstraint != "" {
			if *c.LocationConstraint != id.Region && id.Region != "us-east-1" {
				return nil, awserr.New("IllegalLocationConstraintException", "The %s location constraint is incompatible for the region specific endpoint this request was sent to.", *c.LocationConstraint).WithStatus(400)
			}
			if region = *c.LocationConstraint; region == "EU" {
				region = "eu-west-1"
			}
		}
		tags = c.Tags
	}
	if region == "" {
		region = "us-east-1"
	}
	b := bucket{Name: name, Account: id.Account, Region: region, Created: s.Clock.Now().Truncate(time.Millisecond)}
	if len(tags) > 0 {
		if _, err := tagMap(tags); err != nil {
			return nil, err
		}
		b.set("tagging", &s3.Tagging{TagSet: tags})
	}
	if in.ObjectOwnership != nil {
		b.set("ownershipControls", &s3.OwnershipControls{Rules: []s3.OwnershipControlsRule{{ObjectOwnership: in.ObjectOwnership}}})
	}
	if ptr.Value(in.ObjectLockEnabledForBucket) {
		b.Versioning = "Enabled"
		b.set("object-lock", &s3.ObjectLockConfiguration{ObjectLockEnabled: new("Enabled")})
	}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		old, err := buckets.Get(tx, "", "", name)
		switch {
		case err == nil && old.Doc.Account != id.Account:
			return awserr.New("BucketAlreadyExists", "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again.").WithStatus(409).WithField("BucketName", name)
		case err == nil && old.Doc.Region == "us-east-1" && region == "us-east-1":
			return nil // the oldest region has always answered so
		case err == nil:
			return awserr.New("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.").WithStatus(409).WithField("BucketName", name)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		_, err = buckets.Insert(tx, "", "", name, b, "Created", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &s3.CreateBucketOutput{Location: new("/" + name), BucketArn: new("arn:aws:s3:::" + name)}, nil
}

func (s *Service) deleteBucket(ctx context.Context, in *s3.DeleteBucketInput) (*s3.DeleteBucketOutput, error) {
	var freed []string
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := bucketIn(ctx, tx, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		rest, err := objects.List(tx, store.Query{Parent: row.Doc.Name, Limit: 1})
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return awserr.New("BucketNotEmpty", "The bucket you tried to delete is not empty").WithStatus(409).WithField("BucketName", row.Doc.Name)
		}
		left, err := uploads.List(tx, store.Query{Parent: row.Doc.Name})
		if err != nil {
			return err
		}
		for _, u := range left { // uploads in progress do not keep a bucket
			f, err := s.dropUpload(tx, u, nil)
			if err != nil {
				return err
			}
			freed = append(freed, f...)
		}
		return buckets.Delete(tx, row, "Deleted", nil)
	})
	if err != nil {
		return nil, err
	}
	s.release(freed)
	return &s3.DeleteBucketOutput{}, nil
}

func (s *Service) listBuckets(ctx context.Context, in *s3.ListBucketsInput) (*s3.ListBucketsOutput, error) {
	id := caller.From(ctx)
	rows, err := buckets.Select(ctx, s.Store, store.Query{Parent: id.Account, Prefix: ptr.Value(in.Prefix), After: ptr.Value(in.ContinuationToken)})
	if err != nil {
		return nil, err
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].Doc.Name < rows[j].Doc.Name })
	out := &s3.ListBucketsOutput{Owner: owner(id.Account), Prefix: in.Prefix, Buckets: []s3.Bucket{}}
	for _, r := range rows {
		if in.BucketRegion != nil && *in.BucketRegion != r.Doc.Region {
			continue
		}
		if in.MaxBuckets != nil && int64(len(out.Buckets)) >= *in.MaxBuckets {
			out.ContinuationToken = out.Buckets[len(out.Buckets)-1].Name
			break
		}
		b := s3.Bucket{Name: &r.Doc.Name, CreationDate: &r.Doc.Created}
		if in.MaxBuckets != nil || in.BucketRegion != nil {
			b.BucketRegion = &r.Doc.Region
		}
		out.Buckets = append(out.Buckets, b)
	}
	return out, nil
}

// tagMap checks tags ("Categorizing your storage using tags": 10 for objects,
// 50 for buckets; keys to 128 and values to 256 characters).
func tagMap(tags []s3.Tag) (map[string]string, error) {
	out := map[string]string{}
	for _, t := range tags {
		k, v := ptr.Value(t.Key), ptr.Value(t.Value)
		if _, twice := out[k]; twice {
			return nil, awserr.New("InvalidTag", "Cannot provide multiple Tags with the same key").WithStatus(400).WithField("TagKey", k)
		}
		switch {
		case k == "" || len([]rune(k)) > 128:
			return nil, awserr.New("InvalidTag", "The TagKey you have provided is invalid").WithStatus(400).WithField("TagKey", k)
		case len([]rune(v)) > 256:
			return nil, awserr.New("InvalidTag", "The TagValue you have provided is invalid").WithStatus(400).WithField("TagKey", k)
		case strings.HasPrefix(strings.ToLower(k), "aws:"):
			return nil, awserr.New("InvalidTag", "System tags cannot be added/updated by requester").WithStatus(400).WithField("TagKey", k)
		}
		out[k] = v
	}
	return out, nil
}
