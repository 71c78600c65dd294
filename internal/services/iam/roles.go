package iam

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/keyring"
	"slipway/internal/store"
)

// escape writes a policy document as IAM returns it (RFC 3986).
func escape(doc string) *string { return new(strings.ReplaceAll(url.QueryEscape(doc), "+", "%20")) }

func roleOut(e *entity, full bool) iam.Role {
	r := iam.Role{Path: &e.Path, RoleName: &e.Name, RoleId: &e.ID, Arn: &e.ARN, CreateDate: &e.Created,
		AssumeRolePolicyDocument: escape(e.Trust), Description: ptr.NonZero(e.Description), MaxSessionDuration: &e.MaxSession}
	if full {
		r.PermissionsBoundary, r.Tags, r.RoleLastUsed = boundary(e.Boundary), e.Tags, &iam.RoleLastUsed{}
	}
	return r
}

func (s *Service) registerRoles(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpCreateRole, s.createRole)
	dispatch.Register(m, iam.OpGetRole, func(ctx context.Context, in *iam.GetRoleInput) (*iam.GetRoleOutput, error) {
		e, err := s.get(ctx, roles, in.RoleName)
		if err != nil {
			return nil, err
		}
		return &iam.GetRoleOutput{Role: new(roleOut(e, true))}, nil
	})
	dispatch.Register(m, iam.OpListRoles, func(ctx context.Context, in *iam.ListRolesInput) (*iam.ListRolesOutput, error) {
		all, err := s.list(ctx, roles, in.PathPrefix)
		if err != nil {
			return nil, err
		}
		out := &iam.ListRolesOutput{}
		all, out.IsTruncated, out.Marker = paged(all, entityName, in.Marker, in.MaxItems)
		for _, e := range all {
			out.Roles = append(out.Roles, roleOut(e, false))
		}
		return out, nil
	})
	dispatch.Register(m, iam.OpUpdateRole, func(ctx context.Context, in *iam.UpdateRoleInput) (*iam.UpdateRoleOutput, error) {
		_, err := s.change(ctx, roles, in.RoleName, "Updated", func(e *entity) error {
			if in.Description != nil {
				e.Description = *in.Description
			}
			if in.MaxSessionDuration != nil {
				e.MaxSession = *in.MaxSessionDuration
			}
			return nil
		})
		return &iam.UpdateRoleOutput{}, err
	})
	dispatch.Register(m, iam.OpUpdateRoleDescription, func(ctx context.Context, in *iam.UpdateRoleDescriptionInput) (*iam.UpdateRoleDescriptionOutput, error) {
		e, err := s.change(ctx, roles, in.RoleName, "Updated", func(e *entity) error {
			e.Description = ptr.Value(in.Description)
			return nil
		})
		if err != nil {
			return nil, err
		}
		return &iam.UpdateRoleDescriptionOutput{Role: new(roleOut(e, true))}, nil
	})
	dispatch.Register(m, iam.OpUpdateAssumeRolePolicy, func(ctx context.Context, in *iam.UpdateAssumeRolePolicyInput) (*iam.UpdateAssumeRolePolicyOutput, error) {
		if err := checkTrust(in.PolicyDocument); err != nil {
			return nil, err
		}
		_, err := s.change(ctx, roles, in.RoleName, "Updated", func(e *entity) error {
			e.Trust = ptr.Value(in.PolicyDocument)
			return nil
		})
		return &iam.UpdateAssumeRolePolicyOutput{}, err
	})
	dispatch.Register(m, iam.OpDeleteRole, s.deleteRole)
	dispatch.Register(m, iam.OpTagRole, func(ctx context.Context, in *iam.TagRoleInput) (*iam.TagRoleOutput, error) {
		return &iam.TagRoleOutput{}, s.tag(ctx, roles, in.RoleName, in.Tags)
	})
	dispatch.Register(m, iam.OpUntagRole, func(ctx context.Context, in *iam.UntagRoleInput) (*iam.UntagRoleOutput, error) {
		return &iam.UntagRoleOutput{}, s.untag(ctx, roles, in.RoleName, in.TagKeys)
	})
	dispatch.Register(m, iam.OpListRoleTags, func(ctx context.Context, in *iam.ListRoleTagsInput) (*iam.ListRoleTagsOutput, error) {
		e, err := s.get(ctx, roles, in.RoleName)
		if err != nil {
			return nil, err
		}
		out := &iam.ListRoleTagsOutput{}
		out.Tags, out.IsTruncated, out.Marker = paged(e.Tags, tagKey, in.Marker, in.MaxItems)
		return out, nil
	})
	dispatch.Register(m, iam.OpCreateServiceLinkedRole, s.createServiceLinkedRole)
	dispatch.Register(m, iam.OpDeleteServiceLinkedRole, func(ctx context.Context, in *iam.DeleteServiceLinkedRoleInput) (*iam.DeleteServiceLinkedRoleOutput, error) {
		e, err := s.get(ctx, roles, in.RoleName)
		if err != nil {
			return nil, err
		}
		if err := s.remove(ctx, roles, in.RoleName, nil); err != nil {
			return nil, err
		}
		task := "task" + e.Path + e.Name + "/" + keyring.NewID("", 12)
		return &iam.DeleteServiceLinkedRoleOutput{DeletionTaskId: &task}, nil
	})
}

func (s *Service) createRole(ctx context.Context, in *iam.CreateRoleInput) (*iam.CreateRoleOutput, error) {
	if err := checkTrust(in.AssumeRolePolicyDocument); err != nil {
		return nil, err
	}
	if err := s.attachable(ctx, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	max := int64(3600)
	if in.MaxSessionDuration != nil {
		max = *in.MaxSessionDuration
	}
	row, err := s.create(ctx, roles, in.Path, entity{Name: ptr.Value(in.RoleName), Trust: ptr.Value(in.AssumeRolePolicyDocument),
		Description: ptr.Value(in.Description), MaxSession: max, Tags: in.Tags, Boundary: ptr.Value(in.PermissionsBoundary)})
	if err != nil {
		return nil, err
	}
	r := roleOut(&row.Doc, true)
	r.RoleLastUsed = nil
	return &iam.CreateRoleOutput{Role: &r}, nil
}

func (s *Service) deleteRole(ctx context.Context, in *iam.DeleteRoleInput) (*iam.DeleteRoleOutput, error) {
	return &iam.DeleteRoleOutput{}, s.remove(ctx, roles, in.RoleName, func(tx store.Tx, e *entity) error {
		if strings.HasPrefix(e.Path, "/aws-service-role/") {
			return awserr.New("UnmodifiableEntity", "Cannot perform the operation on the protected role '%s' - this role is only modifiable by AWS", e.Name).WithStatus(400)
		}
		rows, err := profiles.List(tx, store.Query{Account: account(ctx)})
		if err != nil {
			return err
		}
		for _, p := range rows {
			if strings.EqualFold(p.Doc.Role, e.Name) {
				return awserr.New("DeleteConflict", "Cannot delete entity, must remove roles from instance profile first.").WithStatus(409)
			}
		}
		return nil
	})
}

// serviceRoles are the names that AWS gives the service-linked roles of the
// services that Slipway has.
var serviceRoles = map[string]string{
	"autoscaling.amazonaws.com":            "AWSServiceRoleForAutoScaling",
	"elasticloadbalancing.amazonaws.com":   "AWSServiceRoleForElasticLoadBalancing",
	"events.amazonaws.com":                 "AWSServiceRoleForCloudWatchEvents",
	"codestar-notifications.amazonaws.com": "AWSServiceRoleForCodeStarNotifications",
}

func (s *Service) createServiceLinkedRole(ctx context.Context, in *iam.CreateServiceLinkedRoleInput) (*iam.CreateServiceLinkedRoleOutput, error) {
	service := ptr.Value(in.AWSServiceName)
	name, ok := serviceRoles[service]
	if !ok {
		return nil, awserr.New("InvalidInput", "Service role template for service %s is not known to Slipway.", service)
	}
	if in.CustomSuffix != nil {
		name += "_" + *in.CustomSuffix
	}
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`
	row, err := s.create(ctx, roles, new("/aws-service-role/"+service+"/"), entity{Name: name, Trust: trust, Description: ptr.Value(in.Description), MaxSession: 3600})
	if awserr.Is(err, "EntityAlreadyExists") {
		return nil, awserr.New("InvalidInput", "Service role name %s has been taken in this account, please try a different suffix.", name)
	}
	if err != nil {
		return nil, err
	}
	return &iam.CreateServiceLinkedRoleOutput{Role: new(roleOut(&row.Doc, false))}, nil
}

func (s *Service) profileOut(r store.Reader, acct string, e *entity) (iam.InstanceProfile, error) {
	p := iam.InstanceProfile{Path: &e.Path, InstanceProfileName: &e.Name, InstanceProfileId: &e.ID, Arn: &e.ARN,
		CreateDate: &e.Created, Tags: e.Tags, Roles: []iam.Role{}}
	if e.Role == "" {
		return p, nil
	}
	role, err := roles.Get(r, acct, "", strings.ToLower(e.Role))
	if errors.Is(err, store.ErrNotFound) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.Roles = append(p.Roles, roleOut(&role.Doc, false))
	return p, nil
}

func (s *Service) profilesOut(ctx context.Context, es []*entity) (out []iam.InstanceProfile, err error) {
	err = s.Store.View(ctx, func(r store.Reader) error {
		for _, e := range es {
			p, err := s.profileOut(r, account(ctx), e)
			if err != nil {
				return err
			}
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

func (s *Service) registerProfiles(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpCreateInstanceProfile, func(ctx context.Context, in *iam.CreateInstanceProfileInput) (*iam.CreateInstanceProfileOutput, error) {
		row, err := s.create(ctx, profiles, in.Path, entity{Name: ptr.Value(in.InstanceProfileName), Tags: in.Tags})
		if err != nil {
			return nil, err
		}
		out, err := s.profilesOut(ctx, []*entity{&row.Doc})
		if err != nil {
			return nil, err
		}
		return &iam.CreateInstanceProfileOutput{InstanceProfile: &out[0]}, nil
	})
	dispatch.Register(m, iam.OpGetInstanceProfile, func(ctx context.Context, in *iam.GetInstanceProfileInput) (*iam.GetInstanceProfileOutput, error) {
		e, err := s.get(ctx, profiles, in.InstanceProfileName)
		if err != nil {
			return nil, err
		}
		out, err := s.profilesOut(ctx, []*entity{e})
		if err != nil {
			return nil, err
		}
		return &iam.GetInstanceProfileOutput{InstanceProfile: &out[0]}, nil
	})
	dispatch.Register(m, iam.OpListInstanceProfiles, func(ctx context.Context, in *iam.ListInstanceProfilesInput) (*iam.ListInstanceProfilesOutput, error) {
		all, err := s.list(ctx, profiles, in.PathPrefix)
		if err != nil {
			return nil, err
		}
		out := &iam.ListInstanceProfilesOutput{}
		all, out.IsTruncated, out.Marker = paged(all, entityName, in.Marker, in.MaxItems)
		out.InstanceProfiles, err = s.profilesOut(ctx, all)
		return out, err
	})
	dispatch.Register(m, iam.OpListInstanceProfilesForRole, func(ctx context.Context, in *iam.ListInstanceProfilesForRoleInput) (*iam.ListInstanceProfilesForRoleOutput, error) {
		if _, err := s.get(ctx, roles, in.RoleName); err != nil {
			return nil, err
		}
		all, err := s.list(ctx, profiles, nil)
		if err != nil {
			return nil, err
		}
		var with []*entity
		for _, e := range all {
			if strings.EqualFold(e.Role, ptr.Value(in.RoleName)) {
				with = append(with, e)
			}
		}
		out := &iam.ListInstanceProfilesForRoleOutput{}
		with, out.IsTruncated, out.Marker = paged(with, entityName, in.Marker, in.MaxItems)
		out.InstanceProfiles, err = s.profilesOut(ctx, with)
		return out, err
	})
	dispatch.Register(m, iam.OpDeleteInstanceProfile, func(ctx context.Context, in *iam.DeleteInstanceProfileInput) (*iam.DeleteInstanceProfileOutput, error) {
		return &iam.DeleteInstanceProfileOutput{}, s.remove(ctx, profiles, in.InstanceProfileName, func(_ store.Tx, e *entity) error {
			if e.Role != "" {
				return awserr.New("DeleteConflict", "Cannot delete entity, must remove roles from instance profile first.").WithStatus(409)
			}
			return nil
		})
	})
	dispatch.Register(m, iam.OpAddRoleToInstanceProfile, s.addRole)
	dispatch.Register(m, iam.OpRemoveRoleFromInstanceProfile, func(ctx context.Context, in *iam.RemoveRoleFromInstanceProfileInput) (*iam.RemoveRoleFromInstanceProfileOutput, error) {
		_, err := s.change(ctx, profiles, in.InstanceProfileName, "RoleRemoved", func(e *entity) error {
			if !strings.EqualFold(e.Role, ptr.Value(in.RoleName)) {
				return roles.missing(ptr.Value(in.RoleName))
			}
			e.Role = ""
			return nil
		})
		return &iam.RemoveRoleFromInstanceProfileOutput{}, err
	})
	dispatch.Register(m, iam.OpTagInstanceProfile, func(ctx context.Context, in *iam.TagInstanceProfileInput) (*iam.TagInstanceProfileOutput, error) {
		return &iam.TagInstanceProfileOutput{}, s.tag(ctx, profiles, in.InstanceProfileName, in.Tags)
	})
	dispatch.Register(m, iam.OpUntagInstanceProfile, func(ctx context.Context, in *iam.UntagInstanceProfileInput) (*iam.UntagInstanceProfileOutput, error) {
		return &iam.UntagInstanceProfileOutput{}, s.untag(ctx, profiles, in.InstanceProfileName, in.TagKeys)
	})
	dispatch.Register(m, iam.OpListInstanceProfileTags, func(ctx context.Context, in *iam.ListInstanceProfileTagsInput) (*iam.ListInstanceProfileTagsOutput, error) {
		e, err := s.get(ctx, profiles, in.InstanceProfileName)
		if err != nil {
			return nil, err
		}
		out := &iam.ListInstanceProfileTagsOutput{}
		out.Tags, out.IsTruncated, out.Marker = paged(e.Tags, tagKey, in.Marker, in.MaxItems)
		return out, nil
	})
}

func (s *Service) addRole(ctx context.Context, in *iam.AddRoleToInstanceProfileInput) (*iam.AddRoleToInstanceProfileOutput, error) {
	acct := account(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		p, err := profiles.Get(tx, acct, "", strings.ToLower(ptr.Value(in.InstanceProfileName)))
		if err != nil {
			return profiles.fail(err, ptr.Value(in.InstanceProfileName))
		}
		r, err := roles.Get(tx, acct, "", strings.ToLower(ptr.Value(in.RoleName)))
		if err != nil {
			return roles.fail(err, ptr.Value(in.RoleName))
		}
		if p.Doc.Role != "" {
			return awserr.New("LimitExceeded", "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1").WithStatus(409)
		}
		p.Doc.Role = r.Doc.Name
		return profiles.Save(tx, p, "RoleAdded", nil)
	})
	return &iam.AddRoleToInstanceProfileOutput{}, err
}
