package s3

import (
	"context"
	"encoding/json"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
)

// set stores a sub-resource in the bucket.
func (b *bucket) set(name string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // generated shapes always marshal
	}
	if b.Settings == nil {
		b.Settings = map[string]json.RawMessage{}
	}
	b.Settings[name] = raw
}

// putSetting stores a sub-resource that must have been sent.
func putSetting[T any](ctx context.Context, s *Service, name, owner *string, setting string, v *T) error {
	if v == nil {
		return malformedXML()
	}
	return s.changeBucket(ctx, name, owner, func(b *bucket) error {
		b.set(setting, v)
		return nil
	})
}

// setting reads a sub-resource; where it was never put: an error with the
// code, or an empty value where there is no code.
func setting[T any](ctx context.Context, s *Service, name, owner *string, setting, code, msg string) (*T, error) {
	row, err := s.bucket(ctx, name, owner)
	if err != nil {
		return nil, err
	}
	v := new(T)
	raw, ok := row.Doc.Settings[setting]
	if !ok {
		if code == "" {
			return v, nil
		}
		return nil, awserr.New(code, "%s", msg).WithStatus(404).WithField("BucketName", row.Doc.Name)
	}
	return v, json.Unmarshal(raw, v)
}

func (s *Service) dropSetting(ctx context.Context, name, owner *string, setting string) error {
	return s.changeBucket(ctx, name, owner, func(b *bucket) error {
		delete(b.Settings, setting)
		return nil
	})
}

// registerSettings serves the sub-resources that are kept as they are put.
func (s *Service) registerSettings(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpPutBucketCors, func(ctx context.Context, in *s3.PutBucketCorsInput) (*s3.PutBucketCorsOutput, error) {
		return &s3.PutBucketCorsOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "cors", in.CORSConfiguration)
	})
	dispatch.Register(m, s3.OpGetBucketCors, func(ctx context.Context, in *s3.GetBucketCorsInput) (*s3.GetBucketCorsOutput, error) {
		v, err := setting[s3.CORSConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "cors", "NoSuchCORSConfiguration", "The CORS configuration does not exist")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketCorsOutput{CORSRules: v.CORSRules}, nil
	})
	dispatch.Register(m, s3.OpDeleteBucketCors, func(ctx context.Context, in *s3.DeleteBucketCorsInput) (*s3.DeleteBucketCorsOutput, error) {
		return &s3.DeleteBucketCorsOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "cors")
	})
	dispatch.Register(m, s3.OpPutBucketLifecycleConfiguration, func(ctx context.Context, in *s3.PutBucketLifecycleConfigurationInput) (*s3.PutBucketLifecycleConfigurationOutput, error) {
		return &s3.PutBucketLifecycleConfigurationOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "lifecycle", in.LifecycleConfiguration)
	})
	dispatch.Register(m, s3.OpGetBucketLifecycleConfiguration, func(ctx context.Context, in *s3.GetBucketLifecycleConfigurationInput) (*s3.GetBucketLifecycleConfigurationOutput, error) {
		v, err := setting[s3.BucketLifecycleConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "lifecycle", "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketLifecycleConfigurationOutput{Rules: v.Rules}, nil
	})
	dispatch.Register(m, s3.OpDeleteBucketLifecycle, func(ctx context.Context, in *s3.DeleteBucketLifecycleInput) (*s3.DeleteBucketLifecycleOutput, error) {
		return &s3.DeleteBucketLifecycleOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "lifecycle")
	})
	dispatch.Register(m, s3.OpPutBucketOwnershipControls, func(ctx context.Context, in *s3.PutBucketOwnershipControlsInput) (*s3.PutBucketOwnershipControlsOutput, error) {
		return &s3.PutBucketOwnershipControlsOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "ownershipControls", in.OwnershipControls)
	})
	dispatch.Register(m, s3.OpGetBucketOwnershipControls, func(ctx context.Context, in *s3.GetBucketOwnershipControlsInput) (*s3.GetBucketOwnershipControlsOutput, error) {
		v, err := setting[s3.OwnershipControls](ctx, s, in.Bucket, in.ExpectedBucketOwner, "ownershipControls", "OwnershipControlsNotFoundError", "The bucket ownership controls were not found")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketOwnershipControlsOutput{OwnershipControls: v}, nil
	})
	dispatch.Register(m, s3.OpDeleteBucketOwnershipControls, func(ctx context.Context, in *s3.DeleteBucketOwnershipControlsInput) (*s3.DeleteBucketOwnershipControlsOutput, error) {
		return &s3.DeleteBucketOwnershipControlsOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "ownershipControls")
	})
	dispatch.Register(m, s3.OpPutBucketReplication, func(ctx context.Context, in *s3.PutBucketReplicationInput) (*s3.PutBucketReplicationOutput, error) {
		return &s3.PutBucketReplicationOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "replication", in.ReplicationConfiguration)
	})
	dispatch.Register(m, s3.OpGetBucketReplication, func(ctx context.Context, in *s3.GetBucketReplicationInput) (*s3.GetBucketReplicationOutput, error) {
		v, err := setting[s3.ReplicationConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "replication", "ReplicationConfigurationNotFoundError", "The replication configuration was not found")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketReplicationOutput{ReplicationConfiguration: v}, nil
	})
	dispatch.Register(m, s3.OpDeleteBucketReplication, func(ctx context.Context, in *s3.DeleteBucketReplicationInput) (*s3.DeleteBucketReplicationOutput, error) {
		return &s3.DeleteBucketReplicationOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "replication")
	})
	dispatch.Register(m, s3.OpPutBucketTagging, func(ctx context.Context, in *s3.PutBucketTaggingInput) (*s3.PutBucketTaggingOutput, error) {
		if in.Tagging != nil {
			if _, err := tagMap(in.Tagging.TagSet); err != nil {
				return nil, err
			}
		}
		return &s3.PutBucketTaggingOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "tagging", in.Tagging)
	})
	dispatch.Register(m, s3.OpGetBucketTagging, func(ctx context.Context, in *s3.GetBucketTaggingInput) (*s3.GetBucketTaggingOutput, error) {
		v, err := setting[s3.Tagging](ctx, s, in.Bucket, in.ExpectedBucketOwner, "tagging", "NoSuchTagSet", "The TagSet does not exist")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketTaggingOutput{TagSet: v.TagSet}, nil
	})
	dispatch.Register(m, s3.OpDeleteBucketTagging, func(ctx context.Context, in *s3.DeleteBucketTaggingInput) (*s3.DeleteBucketTaggingOutput, error) {
		return &s3.DeleteBucketTaggingOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "tagging")
	})
	dispatch.Register(m, s3.OpPutBucketWebsite, func(ctx context.Context, in *s3.PutBucketWebsiteInput) (*s3.PutBucketWebsiteOutput, error) {
		return &s3.PutBucketWebsiteOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "website", in.WebsiteConfiguration)
	})
	dispatch.Register(m, s3.OpGetBucketWebsite, func(ctx context.Context, in *s3.GetBucketWebsiteInput) (*s3.GetBucketWebsiteOutput, error) {
		v, err := setting[s3.WebsiteConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "website", "NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketWebsiteOutput{RedirectAllRequestsTo: v.RedirectAllRequestsTo, IndexDocument: v.IndexDocument, ErrorDocument: v.ErrorDocument, RoutingRules: v.RoutingRules}, nil
	})
	dispatch.Register(m, s3.OpDeleteBucketWebsite, func(ctx context.Context, in *s3.DeleteBucketWebsiteInput) (*s3.DeleteBucketWebsiteOutput, error) {
		return &s3.DeleteBucketWebsiteOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "website")
	})
	dispatch.Register(m, s3.OpPutPublicAccessBlock, func(ctx context.Context, in *s3.PutPublicAccessBlockInput) (*s3.PutPublicAccessBlockOutput, error) {
		return &s3.PutPublicAccessBlockOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "publicAccessBlock", in.PublicAccessBlockConfiguration)
	})
	dispatch.Register(m, s3.OpGetPublicAccessBlock, func(ctx context.Context, in *s3.GetPublicAccessBlockInput) (*s3.GetPublicAccessBlockOutput, error) {
		v, err := setting[s3.PublicAccessBlockConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "publicAccessBlock", "NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found")
		if err != nil {
			return nil, err
		}
		return &s3.GetPublicAccessBlockOutput{PublicAccessBlockConfiguration: v}, nil
	})
	dispatch.Register(m, s3.OpDeletePublicAccessBlock, func(ctx context.Context, in *s3.DeletePublicAccessBlockInput) (*s3.DeletePublicAccessBlockOutput, error) {
		return &s3.DeletePublicAccessBlockOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "publicAccessBlock")
	})
	dispatch.Register(m, s3.OpPutObjectLockConfiguration, func(ctx context.Context, in *s3.PutObjectLockConfigurationInput) (*s3.PutObjectLockConfigurationOutput, error) {
		return &s3.PutObjectLockConfigurationOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "object-lock", in.ObjectLockConfiguration)
	})
	dispatch.Register(m, s3.OpGetObjectLockConfiguration, func(ctx context.Context, in *s3.GetObjectLockConfigurationInput) (*s3.GetObjectLockConfigurationOutput, error) {
		v, err := setting[s3.ObjectLockConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "object-lock", "ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket")
		if err != nil {
			return nil, err
		}
		return &s3.GetObjectLockConfigurationOutput{ObjectLockConfiguration: v}, nil
	})
	dispatch.Register(m, s3.OpPutBucketAccelerateConfiguration, func(ctx context.Context, in *s3.PutBucketAccelerateConfigurationInput) (*s3.PutBucketAccelerateConfigurationOutput, error) {
		return &s3.PutBucketAccelerateConfigurationOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "accelerate", in.AccelerateConfiguration)
	})
	dispatch.Register(m, s3.OpGetBucketAccelerateConfiguration, func(ctx context.Context, in *s3.GetBucketAccelerateConfigurationInput) (*s3.GetBucketAccelerateConfigurationOutput, error) {
		v, err := setting[s3.AccelerateConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "accelerate", "", "")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketAccelerateConfigurationOutput{Status: v.Status}, nil
	})
	dispatch.Register(m, s3.OpPutBucketLogging, func(ctx context.Context, in *s3.PutBucketLoggingInput) (*s3.PutBucketLoggingOutput, error) {
		return &s3.PutBucketLoggingOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "logging", in.BucketLoggingStatus)
	})
	dispatch.Register(m, s3.OpGetBucketLogging, func(ctx context.Context, in *s3.GetBucketLoggingInput) (*s3.GetBucketLoggingOutput, error) {
		v, err := setting[s3.BucketLoggingStatus](ctx, s, in.Bucket, in.ExpectedBucketOwner, "logging", "", "")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketLoggingOutput{LoggingEnabled: v.LoggingEnabled}, nil
	})
	dispatch.Register(m, s3.OpPutBucketNotificationConfiguration, func(ctx context.Context, in *s3.PutBucketNotificationConfigurationInput) (*s3.PutBucketNotificationConfigurationOutput, error) {
		return &s3.PutBucketNotificationConfigurationOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "notification", in.NotificationConfiguration)
	})
	dispatch.Register(m, s3.OpGetBucketNotificationConfiguration, func(ctx context.Context, in *s3.GetBucketNotificationConfigurationInput) (*s3.GetBucketNotificationConfigurationOutput, error) {
		v, err := setting[s3.NotificationConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "notification", "", "")
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketNotificationConfigurationOutput{TopicConfigurations: v.TopicConfigurations, QueueConfigurations: v.QueueConfigurations, LambdaFunctionConfigurations: v.LambdaFunctionConfigurations, EventBridgeConfiguration: v.EventBridgeConfiguration}, nil
	})
}
