package s3

import (
	"context"
	"encoding/json"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

// registerDefaults serves the settings that every bucket has, or that are no
// plain sub-resources.
func (s *Service) registerDefaults(m *dispatch.Mux) {
	s.registerEncryption(m)
	s.registerPolicy(m)
	s.registerACLs(m)
	dispatch.Register(m, s3.OpGetBucketRequestPayment, func(ctx context.Context, in *s3.GetBucketRequestPaymentInput) (*s3.GetBucketRequestPaymentOutput, error) {
		v, err := setting[s3.RequestPaymentConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "requestPayment", "", "")
		if err != nil {
			return nil, err
		}
		if v.Payer == nil {
			v.Payer = new("BucketOwner")
		}
		return &s3.GetBucketRequestPaymentOutput{Payer: v.Payer}, nil
	})
	dispatch.Register(m, s3.OpPutBucketRequestPayment, func(ctx context.Context, in *s3.PutBucketRequestPaymentInput) (*s3.PutBucketRequestPaymentOutput, error) {
		return &s3.PutBucketRequestPaymentOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "requestPayment", in.RequestPaymentConfiguration)
	})
}

// registerEncryption serves the encryption setting: AWS encrypts everything
// with SSE-S3 unless told otherwise. Slipway leaves encryption to the disk.
func (s *Service) registerEncryption(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpGetBucketEncryption, func(ctx context.Context, in *s3.GetBucketEncryptionInput) (*s3.GetBucketEncryptionOutput, error) {
		v, err := setting[s3.ServerSideEncryptionConfiguration](ctx, s, in.Bucket, in.ExpectedBucketOwner, "encryption", "", "")
		if err != nil {
			return nil, err
		}
		if len(v.Rules) == 0 {
			v.Rules = []s3.ServerSideEncryptionRule{{BucketKeyEnabled: new(false),
				ApplyServerSideEncryptionByDefault: &s3.ServerSideEncryptionByDefault{SSEAlgorithm: new("AES256")}}}
		}
		return &s3.GetBucketEncryptionOutput{ServerSideEncryptionConfiguration: v}, nil
	})
	dispatch.Register(m, s3.OpPutBucketEncryption, func(ctx context.Context, in *s3.PutBucketEncryptionInput) (*s3.PutBucketEncryptionOutput, error) {
		return &s3.PutBucketEncryptionOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "encryption", in.ServerSideEncryptionConfiguration)
	})
	dispatch.Register(m, s3.OpDeleteBucketEncryption, func(ctx context.Context, in *s3.DeleteBucketEncryptionInput) (*s3.DeleteBucketEncryptionOutput, error) {
		return &s3.DeleteBucketEncryptionOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "encryption")
	})
}

const noPolicy = "The bucket policy does not exist"

func (s *Service) registerPolicy(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpPutBucketPolicy, func(ctx context.Context, in *s3.PutBucketPolicyInput) (*s3.PutBucketPolicyOutput, error) {
		var doc struct{ Statement json.RawMessage }
		if err := json.Unmarshal([]byte(ptr.Value(in.Policy)), &doc); err != nil || doc.Statement == nil {
			return nil, awserr.New("MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'").WithStatus(400)
		}
		return &s3.PutBucketPolicyOutput{}, putSetting(ctx, s, in.Bucket, in.ExpectedBucketOwner, "policy", in.Policy)
	})
	dispatch.Register(m, s3.OpGetBucketPolicy, func(ctx context.Context, in *s3.GetBucketPolicyInput) (*s3.GetBucketPolicyOutput, error) {
		v, err := setting[string](ctx, s, in.Bucket, in.ExpectedBucketOwner, "policy", "NoSuchBucketPolicy", noPolicy)
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketPolicyOutput{Policy: v}, nil
	})
	dispatch.Register(m, s3.OpDeleteBucketPolicy, func(ctx context.Context, in *s3.DeleteBucketPolicyInput) (*s3.DeleteBucketPolicyOutput, error) {
		return &s3.DeleteBucketPolicyOutput{}, s.dropSetting(ctx, in.Bucket, in.ExpectedBucketOwner, "policy")
	})
	dispatch.Register(m, s3.OpGetBucketPolicyStatus, func(ctx context.Context, in *s3.GetBucketPolicyStatusInput) (*s3.GetBucketPolicyStatusOutput, error) {
		if _, err := setting[string](ctx, s, in.Bucket, in.ExpectedBucketOwner, "policy", "NoSuchBucketPolicy", noPolicy); err != nil {
			return nil, err
		}
		// Policies are not evaluated: none makes a bucket public.
		return &s3.GetBucketPolicyStatusOutput{PolicyStatus: &s3.PolicyStatus{IsPublic: new(false)}}, nil
	})
}

// fullControl is the one grant that every bucket and object has.
func fullControl(account string) []s3.Grant {
	return []s3.Grant{{Permission: new("FULL_CONTROL"), Grantee: &s3.Grantee{Type: new("CanonicalUser"), ID: owner(account).ID}}}
}

// checkACL accepts what leaves an object with its owner: buckets enforce
// ownership by default, and then AWS refuses every other ACL.
func checkACL(acl *string, policy *s3.AccessControlPolicy, account string) error {
	switch ptr.Value(acl) {
	case "", "private", "bucket-owner-full-control", "bucket-owner-read":
	default:
		return awserr.New("AccessControlListNotSupported", "The bucket does not allow ACLs").WithStatus(400)
	}
	if policy != nil {
		for _, g := range policy.Grants {
			if g.Grantee == nil || ptr.Value(g.Grantee.ID) != *owner(account).ID {
				return awserr.New("AccessControlListNotSupported", "The bucket does not allow ACLs").WithStatus(400)
			}
		}
	}
	return nil
}

func (s *Service) registerACLs(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpGetBucketAcl, func(ctx context.Context, in *s3.GetBucketAclInput) (*s3.GetBucketAclOutput, error) {
		b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return nil, err
		}
		return &s3.GetBucketAclOutput{Owner: owner(b.Doc.Account), Grants: fullControl(b.Doc.Account)}, nil
	})
	dispatch.Register(m, s3.OpPutBucketAcl, func(ctx context.Context, in *s3.PutBucketAclInput) (*s3.PutBucketAclOutput, error) {
		if _, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner); err != nil {
			return nil, err
		}
		return &s3.PutBucketAclOutput{}, checkACL(in.ACL, in.AccessControlPolicy, caller.From(ctx).Account)
	})
	dispatch.Register(m, s3.OpGetObjectAcl, func(ctx context.Context, in *s3.GetObjectAclInput) (*s3.GetObjectAclOutput, error) {
		b, _, err := s.find(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner)
		if err != nil {
			return nil, err
		}
		return &s3.GetObjectAclOutput{Owner: owner(b.Account), Grants: fullControl(b.Account)}, nil
	})
	dispatch.Register(m, s3.OpPutObjectAcl, func(ctx context.Context, in *s3.PutObjectAclInput) (*s3.PutObjectAclOutput, error) {
		if _, _, err := s.find(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner); err != nil {
			return nil, err
		}
		return &s3.PutObjectAclOutput{}, checkACL(in.ACL, in.AccessControlPolicy, caller.From(ctx).Account)
	})
}
