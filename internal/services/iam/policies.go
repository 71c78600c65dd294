package iam

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/keyring"
	"slipway/internal/store"
)

// policy is a customer managed policy. Its row's id is its ARN.
type policy struct {
	Name, Path, ID, ARN, Description string
	Created, Updated                 time.Time
	Tags                             []iam.Tag `json:",omitempty"`
	Default                          string    // version id
	Next                             int       // number of the next version
	Versions                         []policyVersion
}

type policyVersion struct {
	ID       string
	Document string
	Created  time.Time
}

var policies = store.NewTable[policy]("iam:policy", nil)

func (p *policy) version(id string) *policyVersion {
	for i := range p.Versions {
		if p.Versions[i].ID == id {
			return &p.Versions[i]
		}
	}
	return nil
}

func noPolicy(arn string) error {
	return awserr.New("NoSuchEntity", "Policy %s was not found.", arn).WithStatus(404)
}

// awsManaged reports whether arn names one of AWS's own policies.
func awsManaged(arn string) bool { return strings.HasPrefix(arn, "arn:aws:iam::aws:policy/") }

// splitPolicy takes path and name out of a policy's ARN.
func splitPolicy(arn string) (path, name string) {
	_, rest, _ := strings.Cut(arn, ":policy")
	i := strings.LastIndexByte(rest, '/')
	return rest[:i+1], rest[i+1:]
}

// holder is an entity that a managed policy is attached to.
type holder struct {
	class class
	e     *entity
}

type counts struct{ attached, boundary int64 }

func policyOut(p *policy, c counts, full bool) iam.Policy {
	o := iam.Policy{PolicyName: &p.Name, PolicyId: &p.ID, Arn: &p.ARN, Path: &p.Path, DefaultVersionId: &p.Default,
		AttachmentCount: &c.attached, PermissionsBoundaryUsageCount: &c.boundary, IsAttachable: new(true),
		CreateDate: &p.Created, UpdateDate: &p.Updated}
	if full {
		o.Description, o.Tags = ptr.NonZero(p.Description), p.Tags
	}
	return o
}

// builtIn describes one of AWS's policies by its ARN alone.
func builtIn(arn string) *policy {
	path, name := splitPolicy(arn)
	sum := sha256.Sum256([]byte(arn))
	at := time.Date(2015, 2, 6, 18, 39, 46, 0, time.UTC)
	return &policy{Name: name, Path: path, ARN: arn, Default: "v1", Created: at, Updated: at,
		ID: "ANPA" + base32.StdEncoding.EncodeToString(sum[:])[:17]}
}

func (s *Service) findPolicy(ctx context.Context, arn *string) (*policy, error) {
	if awsManaged(ptr.Value(arn)) {
		return builtIn(*arn), nil
	}
	row, err := policies.Find(ctx, s.Store, account(ctx), "", ptr.Value(arn))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noPolicy(ptr.Value(arn))
	}
	if err != nil {
		return nil, err
	}
	return &row.Doc, nil
}

func (s *Service) changePolicy(ctx context.Context, arn *string, event string, fn func(*policy) error) error {
	if awsManaged(ptr.Value(arn)) {
		return awserr.New("AccessDenied", "The policy %s belongs to AWS and cannot be changed.", *arn).WithStatus(403)
	}
	_, err := policies.Modify(ctx, s.Store, account(ctx), "", ptr.Value(arn), event, fn)
	if errors.Is(err, store.ErrNotFound) {
		return noPolicy(ptr.Value(arn))
	}
	return err
}

func (s *Service) createPolicy(ctx context.Context, in *iam.CreatePolicyInput) (*iam.CreatePolicyOutput, error) {
	if err := checkDocument(in.PolicyDocument, false); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	path := ptr.Value(in.Path)
	if path == "" {
		path = "/"
	}
	acct, now := account(ctx), s.Clock.Now().Truncate(time.Second)
	p := policy{Name: ptr.Value(in.PolicyName), Path: path, ID: keyring.NewID("ANPA", 17), Description: ptr.Value(in.Description),
		ARN: "arn:aws:iam::" + acct + ":policy" + path + ptr.Value(in.PolicyName), Created: now, Updated: now, Tags: in.Tags,
		Default: "v1", Next: 2, Versions: []policyVersion{{"v1", ptr.Value(in.PolicyDocument), now}}}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		_, err := policies.Insert(tx, acct, "", p.ARN, p, "Created", nil)
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return nil, awserr.New("EntityAlreadyExists", "A policy called %s already exists. Duplicate names are not allowed.", p.Name).WithStatus(409)
	}
	if err != nil {
		return nil, err
	}
	return &iam.CreatePolicyOutput{Policy: new(policyOut(&p, counts{}, true))}, nil
}

func (s *Service) deletePolicy(ctx context.Context, in *iam.DeletePolicyInput) (*iam.DeletePolicyOutput, error) {
	arn, acct := ptr.Value(in.PolicyArn), account(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := policies.Get(tx, acct, "", arn)
		if errors.Is(err, store.ErrNotFound) {
			return noPolicy(arn)
		}
		if err != nil {
			return err
		}
		inUse := false
		if err := s.usage(tx, acct, func(_ holder, a string, _ bool) { inUse = inUse || a == arn }); err != nil {
			return err
		}
		if inUse {
			return awserr.New("DeleteConflict", "Cannot delete a policy attached to entities.").WithStatus(409)
		}
		if len(row.Doc.Versions) > 1 {
			return awserr.New("DeleteConflict", "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.").WithStatus(409)
		}
		return policies.Delete(tx, row, "Deleted", nil)
	})
	return &iam.DeletePolicyOutput{}, err
}

func noVersion(p, v *string) error {
	return awserr.New("NoSuchEntity", "Policy %s version %s does not exist or is not attachable.", ptr.Value(p), ptr.Value(v)).WithStatus(404)
}

func versionOut(p *policy, v *policyVersion, doc bool) iam.PolicyVersion {
	o := iam.PolicyVersion{VersionId: &v.ID, IsDefaultVersion: new(v.ID == p.Default), CreateDate: &v.Created}
	if doc {
		o.Document = escape(v.Document)
	}
	return o
}

func (s *Service) createPolicyVersion(ctx context.Context, in *iam.CreatePolicyVersionInput) (*iam.CreatePolicyVersionOutput, error) {
	if err := checkDocument(in.PolicyDocument, false); err != nil {
		return nil, err
	}
	var out iam.PolicyVersion
	err := s.changePolicy(ctx, in.PolicyArn, "VersionCreated", func(p *policy) error {
		if len(p.Versions) >= 5 {
			return awserr.New("LimitExceeded", "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.").WithStatus(409)
		}
		v := policyVersion{fmt.Sprintf("v%d", p.Next), ptr.Value(in.PolicyDocument), s.Clock.Now().Truncate(time.Second)}
		p.Next++
		p.Versions = append(p.Versions, v)
		p.Updated = v.Created
		if ptr.Value(in.SetAsDefault) {
			p.Default = v.ID
		}
		out = versionOut(p, &v, false)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iam.CreatePolicyVersionOutput{PolicyVersion: &out}, nil
}

func (s *Service) getPolicyVersion(ctx context.Context, in *iam.GetPolicyVersionInput) (*iam.GetPolicyVersionOutput, error) {
	if awsManaged(ptr.Value(in.PolicyArn)) {
		return nil, notKept(*in.PolicyArn)
	}
	p, err := s.findPolicy(ctx, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	v := p.version(ptr.Value(in.VersionId))
	if v == nil {
		return nil, noVersion(in.PolicyArn, in.VersionId)
	}
	return &iam.GetPolicyVersionOutput{PolicyVersion: new(versionOut(p, v, true))}, nil
}

func notKept(arn string) error {
	return awserr.New("NotImplemented", "Slipway accepts %s but does not keep the documents of AWS's own policies.", arn).WithStatus(501)
}

func (s *Service) listPolicyVersions(ctx context.Context, in *iam.ListPolicyVersionsInput) (*iam.ListPolicyVersionsOutput, error) {
	p, err := s.findPolicy(ctx, in.PolicyArn)
	if err != nil {
		return nil, err
	}
	var all []iam.PolicyVersion
	for i := range p.Versions {
		all = append(all, versionOut(p, &p.Versions[i], false))
	}
	if awsManaged(p.ARN) {
		all = append(all, versionOut(p, &policyVersion{ID: "v1", Created: p.Created}, false))
	}
	out := &iam.ListPolicyVersionsOutput{}
	out.Versions, out.IsTruncated, out.Marker = paged(all, func(v iam.PolicyVersion) string { return *v.VersionId }, in.Marker, in.MaxItems)
	return out, nil
}

func (s *Service) listPolicies(ctx context.Context, in *iam.ListPoliciesInput) (*iam.ListPoliciesOutput, error) {
	rows, err := policies.Select(ctx, s.Store, store.Query{Account: account(ctx)})
	if err != nil {
		return nil, err
	}
	uses, err := s.counts(ctx)
	if err != nil {
		return nil, err
	}
	var all []*policy
	if ptr.Value(in.Scope) != "AWS" {
		for _, r := range rows {
			all = append(all, &r.Doc)
		}
	}
	if ptr.Value(in.Scope) != "Local" { // those that are in use: there is no list of all of AWS's
		for arn := range uses {
			if awsManaged(arn) {
				all = append(all, builtIn(arn))
			}
		}
	}
	all = slices.DeleteFunc(all, func(p *policy) bool {
		return !strings.HasPrefix(p.Path, ptr.Value(in.PathPrefix)) || ptr.Value(in.OnlyAttached) && uses[p.ARN].attached == 0
	})
	sort.Slice(all, func(i, j int) bool { return all[i].ARN < all[j].ARN })
	out := &iam.ListPoliciesOutput{}
	all, out.IsTruncated, out.Marker = paged(all, func(p *policy) string { return p.ARN }, in.Marker, in.MaxItems)
	for _, p := range all {
		out.Policies = append(out.Policies, policyOut(p, uses[p.ARN], false))
	}
	return out, nil
}

func (s *Service) listEntities(ctx context.Context, in *iam.ListEntitiesForPolicyInput) (*iam.ListEntitiesForPolicyOutput, error) {
	if err := s.attachable(ctx, in.PolicyArn); err != nil {
		return nil, err
	}
	out := &iam.ListEntitiesForPolicyOutput{IsTruncated: new(false)}
	filter := ptr.Value(in.EntityFilter)
	err := s.Store.View(ctx, func(r store.Reader) error {
		return s.usage(r, account(ctx), func(h holder, arn string, boundary bool) {
			if arn != *in.PolicyArn || boundary != (ptr.Value(in.PolicyUsageFilter) == "PermissionsBoundary") || !strings.HasPrefix(h.e.Path, ptr.Value(in.PathPrefix)) {
				return
			}
			switch c := h.class.title(); {
			case filter != "" && filter != c:
			case c == "User":
				out.PolicyUsers = append(out.PolicyUsers, iam.PolicyUser{UserName: &h.e.Name, UserId: &h.e.ID})
			case c == "Group":
				out.PolicyGroups = append(out.PolicyGroups, iam.PolicyGroup{GroupName: &h.e.Name, GroupId: &h.e.ID})
			default:
				out.PolicyRoles = append(out.PolicyRoles, iam.PolicyRole{RoleName: &h.e.Name, RoleId: &h.e.ID})
			}
		})
	})
	return out, err
}

func (s *Service) registerPolicies(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpCreatePolicy, s.createPolicy)
	dispatch.Register(m, iam.OpDeletePolicy, s.deletePolicy)
	dispatch.Register(m, iam.OpListPolicies, s.listPolicies)
	dispatch.Register(m, iam.OpListEntitiesForPolicy, s.listEntities)
	dispatch.Register(m, iam.OpCreatePolicyVersion, s.createPolicyVersion)
	dispatch.Register(m, iam.OpGetPolicyVersion, s.getPolicyVersion)
	dispatch.Register(m, iam.OpListPolicyVersions, s.listPolicyVersions)
	dispatch.Register(m, iam.OpGetPolicy, func(ctx context.Context, in *iam.GetPolicyInput) (*iam.GetPolicyOutput, error) {
		p, err := s.findPolicy(ctx, in.PolicyArn)
		if err != nil {
			return nil, err
		}
		uses, err := s.counts(ctx)
		if err != nil {
			return nil, err
		}
		return &iam.GetPolicyOutput{Policy: new(policyOut(p, uses[p.ARN], true))}, nil
	})
	dispatch.Register(m, iam.OpDeletePolicyVersion, func(ctx context.Context, in *iam.DeletePolicyVersionInput) (*iam.DeletePolicyVersionOutput, error) {
		return &iam.DeletePolicyVersionOutput{}, s.changePolicy(ctx, in.PolicyArn, "VersionDeleted", func(p *policy) error {
			if p.version(ptr.Value(in.VersionId)) == nil {
				return noVersion(in.PolicyArn, in.VersionId)
			}
			if p.Default == *in.VersionId {
				return awserr.New("DeleteConflict", "Cannot delete the default version of a policy.").WithStatus(409)
			}
			p.Versions = slices.DeleteFunc(p.Versions, func(v policyVersion) bool { return v.ID == *in.VersionId })
			return nil
		})
	})
	dispatch.Register(m, iam.OpSetDefaultPolicyVersion, func(ctx context.Context, in *iam.SetDefaultPolicyVersionInput) (*iam.SetDefaultPolicyVersionOutput, error) {
		return &iam.SetDefaultPolicyVersionOutput{}, s.changePolicy(ctx, in.PolicyArn, "DefaultChanged", func(p *policy) error {
			if p.version(ptr.Value(in.VersionId)) == nil {
				return noVersion(in.PolicyArn, in.VersionId)
			}
			p.Default, p.Updated = *in.VersionId, s.Clock.Now().Truncate(time.Second)
			return nil
		})
	})
	dispatch.Register(m, iam.OpTagPolicy, func(ctx context.Context, in *iam.TagPolicyInput) (*iam.TagPolicyOutput, error) {
		return &iam.TagPolicyOutput{}, s.changePolicy(ctx, in.PolicyArn, "Tagged", func(p *policy) (err error) {
			p.Tags, err = mergeTags(p.Tags, in.Tags)
			return err
		})
	})
	dispatch.Register(m, iam.OpUntagPolicy, func(ctx context.Context, in *iam.UntagPolicyInput) (*iam.UntagPolicyOutput, error) {
		return &iam.UntagPolicyOutput{}, s.changePolicy(ctx, in.PolicyArn, "Untagged", func(p *policy) error {
			p.Tags = dropTags(p.Tags, in.TagKeys)
			return nil
		})
	})
	dispatch.Register(m, iam.OpListPolicyTags, func(ctx context.Context, in *iam.ListPolicyTagsInput) (*iam.ListPolicyTagsOutput, error) {
		p, err := s.findPolicy(ctx, in.PolicyArn)
		if err != nil {
			return nil, err
		}
		out := &iam.ListPolicyTagsOutput{}
		out.Tags, out.IsTruncated, out.Marker = paged(p.Tags, tagKey, in.Marker, in.MaxItems)
		return out, nil
	})
}
