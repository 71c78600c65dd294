package iam

import (
	"context"

	"slipway/internal/api/iam"
	"slipway/internal/aws/dispatch"
)

// registerEntityPolicies serves what users, groups and roles have in common:
// inline and attached policies, and boundaries.
func (s *Service) registerEntityPolicies(m *dispatch.Mux) {
	s.registerUserPolicies(m)
	s.registerGroupPolicies(m)
	s.registerRolePolicies(m)
}

func (s *Service) registerUserPolicies(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpPutUserPolicy, func(ctx context.Context, in *iam.PutUserPolicyInput) (*iam.PutUserPolicyOutput, error) {
		return &iam.PutUserPolicyOutput{}, s.putInline(ctx, users, in.UserName, in.PolicyName, in.PolicyDocument)
	})
	dispatch.Register(m, iam.OpGetUserPolicy, func(ctx context.Context, in *iam.GetUserPolicyInput) (*iam.GetUserPolicyOutput, error) {
		e, doc, err := s.getInline(ctx, users, in.UserName, in.PolicyName)
		if err != nil {
			return nil, err
		}
		return &iam.GetUserPolicyOutput{UserName: &e.Name, PolicyName: in.PolicyName, PolicyDocument: escape(doc)}, nil
	})
	dispatch.Register(m, iam.OpDeleteUserPolicy, func(ctx context.Context, in *iam.DeleteUserPolicyInput) (*iam.DeleteUserPolicyOutput, error) {
		return &iam.DeleteUserPolicyOutput{}, s.deleteInline(ctx, users, in.UserName, in.PolicyName)
	})
	dispatch.Register(m, iam.OpListUserPolicies, func(ctx context.Context, in *iam.ListUserPoliciesInput) (*iam.ListUserPoliciesOutput, error) {
		e, err := s.get(ctx, users, in.UserName)
		if err != nil {
			return nil, err
		}
		out := &iam.ListUserPoliciesOutput{}
		out.PolicyNames, out.IsTruncated, out.Marker = paged(sortedKeys(e.Inline), self, in.Marker, in.MaxItems)
		return out, nil
	})
	dispatch.Register(m, iam.OpAttachUserPolicy, func(ctx context.Context, in *iam.AttachUserPolicyInput) (*iam.AttachUserPolicyOutput, error) {
		return &iam.AttachUserPolicyOutput{}, s.attach(ctx, users, in.UserName, in.PolicyArn)
	})
	dispatch.Register(m, iam.OpDetachUserPolicy, func(ctx context.Context, in *iam.DetachUserPolicyInput) (*iam.DetachUserPolicyOutput, error) {
		return &iam.DetachUserPolicyOutput{}, s.detach(ctx, users, in.UserName, in.PolicyArn)
	})
	dispatch.Register(m, iam.OpListAttachedUserPolicies, func(ctx context.Context, in *iam.ListAttachedUserPoliciesInput) (*iam.ListAttachedUserPoliciesOutput, error) {
		all, err := s.attached(ctx, users, in.UserName, in.PathPrefix)
		if err != nil {
			return nil, err
		}
		out := &iam.ListAttachedUserPoliciesOutput{}
		out.AttachedPolicies, out.IsTruncated, out.Marker = paged(all, attachedARN, in.Marker, in.MaxItems)
		return out, nil
	})
	dispatch.Register(m, iam.OpPutUserPermissionsBoundary, func(ctx context.Context, in *iam.PutUserPermissionsBoundaryInput) (*iam.PutUserPermissionsBoundaryOutput, error) {
		return &iam.PutUserPermissionsBoundaryOutput{}, s.setBoundary(ctx, users, in.UserName, in.PermissionsBoundary)
	})
	dispatch.Register(m, iam.OpDeleteUserPermissionsBoundary, func(ctx context.Context, in *iam.DeleteUserPermissionsBoundaryInput) (*iam.DeleteUserPermissionsBoundaryOutput, error) {
		return &iam.DeleteUserPermissionsBoundaryOutput{}, s.setBoundary(ctx, users, in.UserName, nil)
	})
}

func (s *Service) registerGroupPolicies(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpPutGroupPolicy, func(ctx context.Context, in *iam.PutGroupPolicyInput) (*iam.PutGroupPolicyOutput, error) {
		return &iam.PutGroupPolicyOutput{}, s.putInline(ctx, groups, in.GroupName, in.PolicyName, in.PolicyDocument)
	})
	dispatch.Register(m, iam.OpGetGroupPolicy, func(ctx context.Context, in *iam.GetGroupPolicyInput) (*iam.GetGroupPolicyOutput, error) {
		e, doc, err := s.getInline(ctx, groups, in.GroupName, in.PolicyName)
		if err != nil {
			return nil, err
		}
		return &iam.GetGroupPolicyOutput{GroupName: &e.Name, PolicyName: in.PolicyName, PolicyDocument: escape(doc)}, nil
	})
	dispatch.Register(m, iam.OpDeleteGroupPolicy, func(ctx context.Context, in *iam.DeleteGroupPolicyInput) (*iam.DeleteGroupPolicyOutput, error) {
		return &iam.DeleteGroupPolicyOutput{}, s.deleteInline(ctx, groups, in.GroupName, in.PolicyName)
	})
	dispatch.Register(m, iam.OpListGroupPolicies, func(ctx context.Context, in *iam.ListGroupPoliciesInput) (*iam.ListGroupPoliciesOutput, error) {
		e, err := s.get(ctx, groups, in.GroupName)
		if err != nil {
			return nil, err
		}
		out := &iam.ListGroupPoliciesOutput{}
		out.PolicyNames, out.IsTruncated, out.Marker = paged(sortedKeys(e.Inline), self, in.Marker, in.MaxItems)
		return out, nil
	})
	dispatch.Register(m, iam.OpAttachGroupPolicy, func(ctx context.Context, in *iam.AttachGroupPolicyInput) (*iam.AttachGroupPolicyOutput, error) {
		return &iam.AttachGroupPolicyOutput{}, s.attach(ctx, groups, in.GroupName, in.PolicyArn)
	})
	dispatch.Register(m, iam.OpDetachGroupPolicy, func(ctx context.Context, in *iam.DetachGroupPolicyInput) (*iam.DetachGroupPolicyOutput, error) {
		return &iam.DetachGroupPolicyOutput{}, s.detach(ctx, groups, in.GroupName, in.PolicyArn)
	})
	dispatch.Register(m, iam.OpListAttachedGroupPolicies, func(ctx context.Context, in *iam.ListAttachedGroupPoliciesInput) (*iam.ListAttachedGroupPoliciesOutput, error) {
		all, err := s.attached(ctx, groups, in.GroupName, in.PathPrefix)
		if err != nil {
			return nil, err
		}
		out := &iam.ListAttachedGroupPoliciesOutput{}
		out.AttachedPolicies, out.IsTruncated, out.Marker = paged(all, attachedARN, in.Marker, in.MaxItems)
		return out, nil
	})
}

func (s *Service) registerRolePolicies(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpPutRolePolicy, func(ctx context.Context, in *iam.PutRolePolicyInput) (*iam.PutRolePolicyOutput, error) {
		return &iam.PutRolePolicyOutput{}, s.putInline(ctx, roles, in.RoleName, in.PolicyName, in.PolicyDocument)
	})
	dispatch.Register(m, iam.OpGetRolePolicy, func(ctx context.Context, in *iam.GetRolePolicyInput) (*iam.GetRolePolicyOutput, error) {
		e, doc, err := s.getInline(ctx, roles, in.RoleName, in.PolicyName)
		if err != nil {
			return nil, err
		}
		return &iam.GetRolePolicyOutput{RoleName: &e.Name, PolicyName: in.PolicyName, PolicyDocument: escape(doc)}, nil
	})
	dispatch.Register(m, iam.OpDeleteRolePolicy, func(ctx context.Context, in *iam.DeleteRolePolicyInput) (*iam.DeleteRolePolicyOutput, error) {
		return &iam.DeleteRolePolicyOutput{}, s.deleteInline(ctx, roles, in.RoleName, in.PolicyName)
	})
	dispatch.Register(m, iam.OpListRolePolicies, func(ctx context.Context, in *iam.ListRolePoliciesInput) (*iam.ListRolePoliciesOutput, error) {
		e, err := s.get(ctx, roles, in.RoleName)
		if err != nil {
			return nil, err
		}
		out := &iam.ListRolePoliciesOutput{}
		out.PolicyNames, out.IsTruncated, out.Marker = paged(sortedKeys(e.Inline), self, in.Marker, in.MaxItems)
		return out, nil
	})
	dispatch.Register(m, iam.OpAttachRolePolicy, func(ctx context.Context, in *iam.AttachRolePolicyInput) (*iam.AttachRolePolicyOutput, error) {
		return &iam.AttachRolePolicyOutput{}, s.attach(ctx, roles, in.RoleName, in.PolicyArn)
	})
	dispatch.Register(m, iam.OpDetachRolePolicy, func(ctx context.Context, in *iam.DetachRolePolicyInput) (*iam.DetachRolePolicyOutput, error) {
		return &iam.DetachRolePolicyOutput{}, s.detach(ctx, roles, in.RoleName, in.PolicyArn)
	})
	dispatch.Register(m, iam.OpListAttachedRolePolicies, func(ctx context.Context, in *iam.ListAttachedRolePoliciesInput) (*iam.ListAttachedRolePoliciesOutput, error) {
		all, err := s.attached(ctx, roles, in.RoleName, in.PathPrefix)
		if err != nil {
			return nil, err
		}
		out := &iam.ListAttachedRolePoliciesOutput{}
		out.AttachedPolicies, out.IsTruncated, out.Marker = paged(all, attachedARN, in.Marker, in.MaxItems)
		return out, nil
	})
	dispatch.Register(m, iam.OpPutRolePermissionsBoundary, func(ctx context.Context, in *iam.PutRolePermissionsBoundaryInput) (*iam.PutRolePermissionsBoundaryOutput, error) {
		return &iam.PutRolePermissionsBoundaryOutput{}, s.setBoundary(ctx, roles, in.RoleName, in.PermissionsBoundary)
	})
	dispatch.Register(m, iam.OpDeleteRolePermissionsBoundary, func(ctx context.Context, in *iam.DeleteRolePermissionsBoundaryInput) (*iam.DeleteRolePermissionsBoundaryOutput, error) {
		return &iam.DeleteRolePermissionsBoundaryOutput{}, s.setBoundary(ctx, roles, in.RoleName, nil)
	})
}
