package iam

import (
	"context"
	"slices"
	"strings"

	"slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func groupOut(e *entity) iam.Group {
	return iam.Group{Path: &e.Path, GroupName: &e.Name, GroupId: &e.ID, Arn: &e.ARN, CreateDate: &e.Created}
}

func (s *Service) members(ctx context.Context, group string) ([]*entity, error) {
	all, err := s.list(ctx, users, nil)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(u *entity) bool { return !inGroup(u, group) }), nil
}

func (s *Service) registerGroups(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpCreateGroup, func(ctx context.Context, in *iam.CreateGroupInput) (*iam.CreateGroupOutput, error) {
		row, err := s.create(ctx, groups, in.Path, entity{Name: ptr.Value(in.GroupName)})
		if err != nil {
			return nil, err
		}
		return &iam.CreateGroupOutput{Group: new(groupOut(&row.Doc))}, nil
	})
	dispatch.Register(m, iam.OpGetGroup, func(ctx context.Context, in *iam.GetGroupInput) (*iam.GetGroupOutput, error) {
		e, err := s.get(ctx, groups, in.GroupName)
		if err != nil {
			return nil, err
		}
		us, err := s.members(ctx, e.Name)
		if err != nil {
			return nil, err
		}
		out := &iam.GetGroupOutput{Group: new(groupOut(e)), Users: []iam.User{}}
		us, out.IsTruncated, out.Marker = paged(us, entityName, in.Marker, in.MaxItems)
		for _, u := range us {
			out.Users = append(out.Users, userOut(u, false))
		}
		return out, nil
	})
	dispatch.Register(m, iam.OpListGroups, func(ctx context.Context, in *iam.ListGroupsInput) (*iam.ListGroupsOutput, error) {
		all, err := s.list(ctx, groups, in.PathPrefix)
		if err != nil {
			return nil, err
		}
		out := &iam.ListGroupsOutput{}
		all, out.IsTruncated, out.Marker = paged(all, entityName, in.Marker, in.MaxItems)
		for _, e := range all {
			out.Groups = append(out.Groups, groupOut(e))
		}
		return out, nil
	})
	dispatch.Register(m, iam.OpListGroupsForUser, func(ctx context.Context, in *iam.ListGroupsForUserInput) (*iam.ListGroupsForUserOutput, error) {
		u, err := s.get(ctx, users, in.UserName)
		if err != nil {
			return nil, err
		}
		all, err := s.list(ctx, groups, nil)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(g *entity) bool { return !inGroup(u, g.Name) })
		out := &iam.ListGroupsForUserOutput{}
		all, out.IsTruncated, out.Marker = paged(all, entityName, in.Marker, in.MaxItems)
		for _, e := range all {
			out.Groups = append(out.Groups, groupOut(e))
		}
		return out, nil
	})
	dispatch.Register(m, iam.OpDeleteGroup, func(ctx context.Context, in *iam.DeleteGroupInput) (*iam.DeleteGroupOutput, error) {
		return &iam.DeleteGroupOutput{}, s.remove(ctx, groups, in.GroupName, func(tx store.Tx, g *entity) error {
			rows, err := users.List(tx, store.Query{Account: account(ctx)})
			if err != nil {
				return err
			}
			for _, u := range rows {
				if inGroup(&u.Doc, g.Name) {
					return awserr.New("DeleteConflict", "Cannot delete entity, must remove users from group first.").WithStatus(409)
				}
			}
			return nil
		})
	})
	dispatch.Register(m, iam.OpAddUserToGroup, func(ctx context.Context, in *iam.AddUserToGroupInput) (*iam.AddUserToGroupOutput, error) {
		return &iam.AddUserToGroupOutput{}, s.member(ctx, in.UserName, in.GroupName, true)
	})
	dispatch.Register(m, iam.OpRemoveUserFromGroup, func(ctx context.Context, in *iam.RemoveUserFromGroupInput) (*iam.RemoveUserFromGroupOutput, error) {
		return &iam.RemoveUserFromGroupOutput{}, s.member(ctx, in.UserName, in.GroupName, false)
	})
}

// member puts a user into a group or takes it out.
func (s *Service) member(ctx context.Context, user, group *string, in bool) error {
	acct := account(ctx)
	return s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := groups.Get(tx, acct, "", strings.ToLower(ptr.Value(group)))
		if err != nil {
			return groups.fail(err, ptr.Value(group))
		}
		u, err := users.Get(tx, acct, "", strings.ToLower(ptr.Value(user)))
		if err != nil {
			return users.fail(err, ptr.Value(user))
		}
		if inGroup(&u.Doc, g.Doc.Name) == in {
			return nil
		}
		if in {
			u.Doc.Groups = append(u.Doc.Groups, g.Doc.Name)
		} else {
			u.Doc.Groups = slices.DeleteFunc(u.Doc.Groups, func(n string) bool { return n == g.Doc.Name })
		}
		return users.Save(tx, u, "GroupsChanged", nil)
	})
}
