package iam

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"sort"
	"strings"

	"slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/keyring"
	"slipway/internal/store"
)

func userOut(e *entity, full bool) iam.User {
	u := iam.User{Path: &e.Path, UserName: &e.Name, UserId: &e.ID, Arn: &e.ARN, CreateDate: &e.Created}
	if full {
		u.PermissionsBoundary, u.Tags = boundary(e.Boundary), e.Tags
	}
	return u
}

func (s *Service) registerUsers(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpCreateUser, func(ctx context.Context, in *iam.CreateUserInput) (*iam.CreateUserOutput, error) {
		if err := s.attachable(ctx, in.PermissionsBoundary); err != nil {
			return nil, err
		}
		row, err := s.create(ctx, users, in.Path, entity{Name: ptr.Value(in.UserName), Tags: in.Tags, Boundary: ptr.Value(in.PermissionsBoundary)})
		if err != nil {
			return nil, err
		}
		return &iam.CreateUserOutput{User: new(userOut(&row.Doc, true))}, nil
	})
	dispatch.Register(m, iam.OpGetUser, s.getUser)
	dispatch.Register(m, iam.OpListUsers, func(ctx context.Context, in *iam.ListUsersInput) (*iam.ListUsersOutput, error) {
		all, err := s.list(ctx, users, in.PathPrefix)
		if err != nil {
			return nil, err
		}
		out := &iam.ListUsersOutput{}
		all, out.IsTruncated, out.Marker = paged(all, entityName, in.Marker, in.MaxItems)
		for _, e := range all {
			out.Users = append(out.Users, userOut(e, false))
		}
		return out, nil
	})
	dispatch.Register(m, iam.OpDeleteUser, s.deleteUser)
	dispatch.Register(m, iam.OpTagUser, func(ctx context.Context, in *iam.TagUserInput) (*iam.TagUserOutput, error) {
		return &iam.TagUserOutput{}, s.tag(ctx, users, in.UserName, in.Tags)
	})
	dispatch.Register(m, iam.OpUntagUser, func(ctx context.Context, in *iam.UntagUserInput) (*iam.UntagUserOutput, error) {
		return &iam.UntagUserOutput{}, s.untag(ctx, users, in.UserName, in.TagKeys)
	})
	dispatch.Register(m, iam.OpListUserTags, func(ctx context.Context, in *iam.ListUserTagsInput) (*iam.ListUserTagsOutput, error) {
		e, err := s.get(ctx, users, in.UserName)
		if err != nil {
			return nil, err
		}
		out := &iam.ListUserTagsOutput{}
		out.Tags, out.IsTruncated, out.Marker = paged(e.Tags, tagKey, in.Marker, in.MaxItems)
		return out, nil
	})
	dispatch.Register(m, iam.OpCreateAccessKey, s.createAccessKey)
	dispatch.Register(m, iam.OpListAccessKeys, s.listAccessKeys)
	dispatch.Register(m, iam.OpUpdateAccessKey, s.updateAccessKey)
	dispatch.Register(m, iam.OpDeleteAccessKey, s.deleteAccessKey)
	s.registerLogins(m)
}

func entityName(e *entity) string { return e.Name }

// callerUser is the named user, or the caller's own where no name is given.
func (s *Service) callerUser(ctx context.Context, name *string) (*string, error) {
	if name != nil {
		return name, nil
	}
	arn := caller.From(ctx).PrincipalARN
	if i := strings.LastIndexByte(arn, '/'); i >= 0 && strings.Contains(arn, ":user/") {
		return new(arn[i+1:]), nil
	}
	return nil, awserr.New("ValidationError", "Must specify userName when calling with non-User credentials")
}

func (s *Service) getUser(ctx context.Context, in *iam.GetUserInput) (*iam.GetUserOutput, error) {
	if id := caller.From(ctx); in.UserName == nil && strings.HasSuffix(id.PrincipalARN, ":root") {
		return &iam.GetUserOutput{User: &iam.User{Path: new("/"), UserName: new("root"), UserId: &id.Account, Arn: &id.PrincipalARN, CreateDate: new(s.Clock.Now())}}, nil
	}
	name, err := s.callerUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	e, err := s.get(ctx, users, name)
	if err != nil {
		return nil, err
	}
	return &iam.GetUserOutput{User: new(userOut(e, true))}, nil
}

func (s *Service) deleteUser(ctx context.Context, in *iam.DeleteUserInput) (*iam.DeleteUserOutput, error) {
	acct := account(ctx)
	return &iam.DeleteUserOutput{}, s.remove(ctx, users, in.UserName, func(tx store.Tx, e *entity) error {
		keys, err := accessKeys.Count(tx, store.Query{Parent: ownerKey(acct, e.Name)})
		switch {
		case err != nil:
			return err
		case keys > 0:
			return conflict("access keys")
		case e.Login != nil:
			return conflict("login profile")
		case len(e.Groups) > 0:
			return awserr.New("DeleteConflict", "Cannot delete entity, must remove users from group first.").WithStatus(409)
		}
		return nil
	})
}

func conflict(what string) error {
	return awserr.New("DeleteConflict", "Cannot delete entity, must delete %s first.", what).WithStatus(409)
}

// remove deletes an entity that has no policies and passes check.
func (s *Service) remove(ctx context.Context, c class, name *string, check func(store.Tx, *entity) error) error {
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := c.Get(tx, account(ctx), "", strings.ToLower(ptr.Value(name)))
		if err != nil {
			return err
		}
		if len(row.Doc.Attached) > 0 {
			return awserr.New("DeleteConflict", "Cannot delete entity, must detach all policies first.").WithStatus(409)
		}
		if len(row.Doc.Inline) > 0 {
			return conflict("policies")
		}
		if check != nil {
			if err := check(tx, &row.Doc); err != nil {
				return err
			}
		}
		return c.Delete(tx, row, "Deleted", nil)
	})
	return c.fail(err, ptr.Value(name))
}

func (s *Service) tag(ctx context.Context, c class, name *string, tags []iam.Tag) error {
	_, err := s.change(ctx, c, name, "Tagged", func(e *entity) (err error) {
		e.Tags, err = mergeTags(e.Tags, tags)
		return err
	})
	return err
}

func (s *Service) untag(ctx context.Context, c class, name *string, keys []string) error {
	_, err := s.change(ctx, c, name, "Untagged", func(e *entity) error {
		e.Tags = dropTags(e.Tags, keys)
		return nil
	})
	return err
}

func (s *Service) createAccessKey(ctx context.Context, in *iam.CreateAccessKeyInput) (*iam.CreateAccessKeyOutput, error) {
	name, err := s.callerUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	acct := account(ctx)
	id, secret := keyring.NewID("AKIA", 16), keyring.NewSecret()
	var row *store.Row[keyRow]
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		u, err := users.Get(tx, acct, "", strings.ToLower(*name))
		if err != nil {
			return err
		}
		n, err := accessKeys.Count(tx, store.Query{Parent: ownerKey(acct, *name)})
		if err != nil {
			return err
		}
		if n >= 2 {
			return awserr.New("LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2").WithStatus(409)
		}
		k := keyRow{accessKey{ID: id, UserName: u.Doc.Name, Active: true, Sealed: s.Ring.Seal("access-key", id, []byte(secret))}, acct}
		row, err = accessKeys.Insert(tx, "", "", id, k, "Created", nil)
		return err
	})
	if err != nil {
		return nil, users.fail(err, *name)
	}
	return &iam.CreateAccessKeyOutput{AccessKey: &iam.AccessKey{UserName: &row.Doc.UserName, AccessKeyId: &id,
		Status: new("Active"), SecretAccessKey: &secret, CreateDate: &row.Created}}, nil
}

func (s *Service) listAccessKeys(ctx context.Context, in *iam.ListAccessKeysInput) (*iam.ListAccessKeysOutput, error) {
	name, err := s.callerUser(ctx, in.UserName)
	if err != nil {
		return nil, err
	}
	if _, err := s.get(ctx, users, name); err != nil {
		return nil, err
	}
	rows, err := accessKeys.Select(ctx, s.Store, store.Query{Parent: ownerKey(account(ctx), *name)})
	if err != nil {
		return nil, err
	}
	out := &iam.ListAccessKeysOutput{}
	rows, out.IsTruncated, out.Marker = paged(rows, func(r *store.Row[keyRow]) string { return r.ID }, in.Marker, in.MaxItems)
	for _, r := range rows {
		out.AccessKeyMetadata = append(out.AccessKeyMetadata, iam.AccessKeyMetadata{UserName: &r.Doc.UserName,
			AccessKeyId: &r.Doc.ID, Status: new(r.Doc.status()), CreateDate: &r.Created})
	}
	return out, nil
}

// changeKey finds a key of the user in the caller's account and changes or deletes it.
func (s *Service) changeKey(ctx context.Context, user, id *string, fn func(store.Tx, *store.Row[keyRow]) error) error {
	name, err := s.callerUser(ctx, user)
	if err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := accessKeys.Get(tx, "", "", ptr.Value(id))
		if err != nil || row.Doc.Owner != account(ctx) || !strings.EqualFold(row.Doc.UserName, *name) {
			return awserr.New("NoSuchEntity", "The Access Key with id %s cannot be found.", ptr.Value(id)).WithStatus(404).WithCause(err)
		}
		return fn(tx, row)
	})
}

func (s *Service) updateAccessKey(ctx context.Context, in *iam.UpdateAccessKeyInput) (*iam.UpdateAccessKeyOutput, error) {
	return &iam.UpdateAccessKeyOutput{}, s.changeKey(ctx, in.UserName, in.AccessKeyId, func(tx store.Tx, row *store.Row[keyRow]) error {
		row.Doc.Active = ptr.Value(in.Status) == "Active"
		return accessKeys.Save(tx, row, "Updated", nil)
	})
}

func (s *Service) deleteAccessKey(ctx context.Context, in *iam.DeleteAccessKeyInput) (*iam.DeleteAccessKeyOutput, error) {
	return &iam.DeleteAccessKeyOutput{}, s.changeKey(ctx, in.UserName, in.AccessKeyId, func(tx store.Tx, row *store.Row[keyRow]) error {
		return accessKeys.Delete(tx, row, "Deleted", nil)
	})
}

func hashPassword(password string) []byte {
	salt := make([]byte, 16)
	rand.Read(salt)
	key, err := pbkdf2.Key(sha256.New, password, salt, 200_000, 32)
	if err != nil {
		panic(err) // only for key lengths that 32 is not
	}
	return append(salt, key...)
}

func loginOut(e *entity) *iam.LoginProfile {
	return &iam.LoginProfile{UserName: &e.Name, CreateDate: &e.Login.Created, PasswordResetRequired: &e.Login.Reset}
}

func (s *Service) registerLogins(m *dispatch.Mux) {
	none := func(name *string) error {
		return awserr.New("NoSuchEntity", "Login Profile for User %s cannot be found.", ptr.Value(name)).WithStatus(404)
	}
	dispatch.Register(m, iam.OpCreateLoginProfile, func(ctx context.Context, in *iam.CreateLoginProfileInput) (*iam.CreateLoginProfileOutput, error) {
		hash := hashPassword(ptr.Value(in.Password)) // slow: not within a transaction
		e, err := s.change(ctx, users, in.UserName, "LoginCreated", func(e *entity) error {
			if e.Login != nil {
				return awserr.New("EntityAlreadyExists", "Login Profile for user %s already exists.", e.Name).WithStatus(409)
			}
			e.Login = &login{Hash: hash, Created: s.Clock.Now(), Reset: ptr.Value(in.PasswordResetRequired)}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return &iam.CreateLoginProfileOutput{LoginProfile: loginOut(e)}, nil
	})
	dispatch.Register(m, iam.OpGetLoginProfile, func(ctx context.Context, in *iam.GetLoginProfileInput) (*iam.GetLoginProfileOutput, error) {
		e, err := s.get(ctx, users, in.UserName)
		if err != nil {
			return nil, err
		}
		if e.Login == nil {
			return nil, none(in.UserName)
		}
		return &iam.GetLoginProfileOutput{LoginProfile: loginOut(e)}, nil
	})
	dispatch.Register(m, iam.OpDeleteLoginProfile, func(ctx context.Context, in *iam.DeleteLoginProfileInput) (*iam.DeleteLoginProfileOutput, error) {
		_, err := s.change(ctx, users, in.UserName, "LoginDeleted", func(e *entity) error {
			if e.Login == nil {
				return none(in.UserName)
			}
			e.Login = nil
			return nil
		})
		return &iam.DeleteLoginProfileOutput{}, err
	})
}

// inGroup reports whether e is a member of the group.
func inGroup(e *entity, group string) bool {
	return slices.ContainsFunc(e.Groups, func(g string) bool { return strings.EqualFold(g, group) })
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
