package iam_test

import (
	"context"
	"errors"
	"os"
	"testing"

	api "slipway/internal/api/iam"
	stsapi "slipway/internal/api/sts"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/sigv4"
	"slipway/internal/keyring"
	"slipway/internal/services/iam"
	"slipway/internal/services/sts"
	"slipway/internal/store"
)

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
const allow = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`

func start(t *testing.T) (context.Context, *dispatch.Mux, *iam.Service) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	m, ring := dispatch.New(), keyring.Ephemeral()
	s := iam.New(iam.Deps{Store: st, Ring: ring, Root: iam.NewRoot()})
	s.Register(m)
	sts.New(sts.Deps{Mux: m, Ring: ring}).Register(m)
	return caller.With(t.Context(), caller.Identity{Account: "123456789012", Region: "us-east-1", PrincipalARN: "arn:aws:iam::123456789012:root", PrincipalID: "123456789012"}), m, s
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if awserr.Code(err) != code {
		t.Errorf("error %v, want code %s", err, code)
	}
}

func TestRoleOfAnInstance(t *testing.T) {
	ctx, m, s := start(t)
	name := new("web")
	_, err := dispatch.Call(ctx, m, api.OpCreateRole, &api.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: new("{")})
	wantCode(t, err, "MalformedPolicyDocument")
	role := must[*api.CreateRoleOutput](t)(dispatch.Call(ctx, m, api.OpCreateRole, &api.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: new(trust)}))
	_, err = dispatch.Call(ctx, m, api.OpCreateRole, &api.CreateRoleInput{RoleName: new("WEB"), AssumeRolePolicyDocument: new(trust)})
	wantCode(t, err, "EntityAlreadyExists")
	must[*api.CreateInstanceProfileOutput](t)(dispatch.Call(ctx, m, api.OpCreateInstanceProfile, &api.CreateInstanceProfileInput{InstanceProfileName: name}))
	must[*api.AddRoleToInstanceProfileOutput](t)(dispatch.Call(ctx, m, api.OpAddRoleToInstanceProfile, &api.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name}))
	p := must[*api.GetInstanceProfileOutput](t)(dispatch.Call(ctx, m, api.OpGetInstanceProfile, &api.GetInstanceProfileInput{InstanceProfileName: name}))
	if len(p.InstanceProfile.Roles) != 1 || *p.InstanceProfile.Roles[0].Arn != *role.Role.Arn {
		t.Fatalf("profile: %+v", p.InstanceProfile)
	}
	_, err = dispatch.Call(ctx, m, api.OpDeleteRole, &api.DeleteRoleInput{RoleName: name})
	wantCode(t, err, "DeleteConflict")

	got := must[*stsapi.AssumeRoleOutput](t)(dispatch.Call(ctx, m, stsapi.OpAssumeRole, &stsapi.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: new("i-0123456789abcdef0")}))
	c := got.Credentials
	cred, err := s.Lookup(ctx, *c.AccessKeyId, *c.SessionToken)
	if err != nil || cred.Secret != *c.SecretAccessKey || cred.PrincipalARN != "arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0" {
		t.Fatalf("%+v %v", cred, err)
	}
	if _, err := s.Lookup(ctx, *c.AccessKeyId, ""); !errors.Is(err, sigv4.ErrInvalidToken) {
		t.Errorf("without its token: %v", err)
	}
	_, err = dispatch.Call(ctx, m, stsapi.OpAssumeRole, &stsapi.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: new("x2"), DurationSeconds: new(int64(7200))})
	wantCode(t, err, "ValidationError")
	_, err = dispatch.Call(ctx, m, stsapi.OpAssumeRole, &stsapi.AssumeRoleInput{RoleArn: new("arn:aws:iam::123456789012:role/none"), RoleSessionName: new("x2")})
	wantCode(t, err, "AccessDenied")
}

func TestUsersAndKeys(t *testing.T) {
	ctx, m, s := start(t)
	name := new("ann")
	must[*api.CreateUserOutput](t)(dispatch.Call(ctx, m, api.OpCreateUser, &api.CreateUserInput{UserName: name}))
	k := must[*api.CreateAccessKeyOutput](t)(dispatch.Call(ctx, m, api.OpCreateAccessKey, &api.CreateAccessKeyInput{UserName: name})).AccessKey
	cred, err := s.Lookup(ctx, *k.AccessKeyId, "")
	if err != nil || cred.Secret != *k.SecretAccessKey || cred.PrincipalARN != "arn:aws:iam::123456789012:user/ann" {
		t.Fatalf("%+v %v", cred, err)
	}
	must[*api.UpdateAccessKeyOutput](t)(dispatch.Call(ctx, m, api.OpUpdateAccessKey, &api.UpdateAccessKeyInput{UserName: name, AccessKeyId: k.AccessKeyId, Status: new("Inactive")}))
	if _, err := s.Lookup(ctx, *k.AccessKeyId, ""); !errors.Is(err, sigv4.ErrUnknownKey) {
		t.Errorf("an inactive key: %v", err)
	}
	_, err = dispatch.Call(ctx, m, api.OpDeleteUser, &api.DeleteUserInput{UserName: name})
	wantCode(t, err, "DeleteConflict")
	must[*api.DeleteAccessKeyOutput](t)(dispatch.Call(ctx, m, api.OpDeleteAccessKey, &api.DeleteAccessKeyInput{UserName: name, AccessKeyId: k.AccessKeyId}))
	must[*api.DeleteUserOutput](t)(dispatch.Call(ctx, m, api.OpDeleteUser, &api.DeleteUserInput{UserName: name}))
	_, err = dispatch.Call(ctx, m, api.OpGetUser, &api.GetUserInput{UserName: name})
	wantCode(t, err, "NoSuchEntity")
}

func TestPolicies(t *testing.T) {
	ctx, m, _ := start(t)
	_, err := dispatch.Call(ctx, m, api.OpCreatePolicy, &api.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(trust)})
	wantCode(t, err, "MalformedPolicyDocument")
	p := must[*api.CreatePolicyOutput](t)(dispatch.Call(ctx, m, api.OpCreatePolicy, &api.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allow)})).Policy
	must[*api.CreateRoleOutput](t)(dispatch.Call(ctx, m, api.OpCreateRole, &api.CreateRoleInput{RoleName: new("r"), AssumeRolePolicyDocument: new(trust)}))
	for _, arn := range []string{*p.Arn, "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"} {
		must[*api.AttachRolePolicyOutput](t)(dispatch.Call(ctx, m, api.OpAttachRolePolicy, &api.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: &arn}))
	}
	l := must[*api.ListAttachedRolePoliciesOutput](t)(dispatch.Call(ctx, m, api.OpListAttachedRolePolicies, &api.ListAttachedRolePoliciesInput{RoleName: new("r")}))
	if len(l.AttachedPolicies) != 2 || *l.AttachedPolicies[0].PolicyName != "p" {
		t.Fatalf("%+v", l)
	}
	_, err = dispatch.Call(ctx, m, api.OpDeletePolicy, &api.DeletePolicyInput{PolicyArn: p.Arn})
	wantCode(t, err, "DeleteConflict")
	_, err = dispatch.Call(ctx, m, api.OpAttachRolePolicy, &api.AttachRolePolicyInput{RoleName: new("r"), PolicyArn: new("arn:aws:iam::123456789012:policy/none")})
	wantCode(t, err, "NoSuchEntity")
	g := must[*api.GetPolicyOutput](t)(dispatch.Call(ctx, m, api.OpGetPolicy, &api.GetPolicyInput{PolicyArn: p.Arn}))
	if *g.Policy.AttachmentCount != 1 {
		t.Errorf("attached %d times", *g.Policy.AttachmentCount)
	}
}

func TestRootFile(t *testing.T) {
	dir := t.TempDir()
	a := must[iam.RootCredentials](t)(iam.OpenRoot(dir))
	b := must[iam.RootCredentials](t)(iam.OpenRoot(dir))
	if a != b || len(a.Secret) != 40 {
		t.Fatal("the second start found other credentials")
	}
	fi, err := os.Stat(dir + "/root-credentials.json")
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatal(fi, err)
	}
}
