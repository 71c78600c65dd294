package ssm_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	api "slipway/internal/api/ssm"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/keyring"
	"slipway/internal/services/ssm"
	"slipway/internal/store"
)

func start(t *testing.T) (context.Context, *dispatch.Mux, store.Store) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	m := dispatch.New()
	ssm.New(ssm.Deps{Store: st, Ring: keyring.Ephemeral(), DefaultImage: func(r string) string { return "ami-" + r }}).Register(m)
	return caller.With(t.Context(), caller.Identity{Account: "123456789012", Region: "us-east-1", PrincipalARN: "arn:aws:iam::123456789012:root"}), m, st
}

func put(t *testing.T, ctx context.Context, m *dispatch.Mux, in api.PutParameterInput) int64 {
	t.Helper()
	out, err := dispatch.Call(ctx, m, api.OpPutParameter, &in)
	if err != nil {
		t.Fatal(err)
	}
	return *out.Version
}

func TestVersionsLabelsAndSecrets(t *testing.T) {
	ctx, m, st := start(t)
	name := new("/app/password")
	put(t, ctx, m, api.PutParameterInput{Name: name, Value: new("hunter2"), Type: new("SecureString")})
	_, err := dispatch.Call(ctx, m, api.OpPutParameter, &api.PutParameterInput{Name: name, Value: new("x"), Type: new("SecureString")})
	if !awserr.Is(err, "ParameterAlreadyExists") {
		t.Errorf("again: %v", err)
	}
	if v := put(t, ctx, m, api.PutParameterInput{Name: name, Value: new("hunter3"), Overwrite: new(true)}); v != 2 {
		t.Errorf("version %d", v)
	}
	if _, err := dispatch.Call(ctx, m, api.OpLabelParameterVersion, &api.LabelParameterVersionInput{Name: name, ParameterVersion: new(int64(1)), Labels: []string{"old"}}); err != nil {
		t.Fatal(err)
	}
	for selector, want := range map[string]string{"": "hunter3", ":1": "hunter2", ":2": "hunter3", ":old": "hunter2"} {
		out, err := dispatch.Call(ctx, m, api.OpGetParameter, &api.GetParameterInput{Name: new(*name + selector), WithDecryption: new(true)})
		if err != nil || *out.Parameter.Value != want {
			t.Errorf("%s: %+v %v", selector, out, err)
		}
	}
	out, err := dispatch.Call(ctx, m, api.OpGetParameter, &api.GetParameterInput{Name: name})
	if err != nil || strings.Contains(*out.Parameter.Value, "hunter") {
		t.Errorf("without decryption: %+v %v", out, err)
	}
	_, err = dispatch.Call(ctx, m, api.OpGetParameter, &api.GetParameterInput{Name: new(*name + ":9")})
	if !awserr.Is(err, "ParameterVersionNotFound") {
		t.Errorf("version 9: %v", err)
	}
	err = st.View(ctx, func(r store.Reader) error {
		for _, kind := range []string{"ssm:parameter", "ssm:parameter-version"} {
			recs, err := r.List(store.Query{Kind: kind})
			if err != nil {
				return err
			}
			for _, rec := range recs {
				if bytes.Contains(rec.Doc, []byte("hunter")) {
					t.Errorf("a secret lies open in %s %s", kind, rec.ID)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := dispatch.Call(ctx, m, api.OpGetParameterHistory, &api.GetParameterHistoryInput{Name: name, WithDecryption: new(true)})
	if err != nil || len(h.Parameters) != 2 || *h.Parameters[0].Value != "hunter2" || h.Parameters[0].Labels[0] != "old" {
		t.Errorf("%+v %v", h, err)
	}
}

func TestPathsFiltersAndDeletion(t *testing.T) {
	ctx, m, _ := start(t)
	for _, n := range []string{"/a/x", "/a/y", "/a/b/z", "/ab", "plain"} {
		put(t, ctx, m, api.PutParameterInput{Name: &n, Value: new("v"), Type: new("String")})
	}
	names := func(recursive bool) (got []string) {
		t.Helper()
		in := &api.GetParametersByPathInput{Path: new("/a"), Recursive: &recursive, MaxResults: new(int64(1))}
		for range 10 {
			out, err := dispatch.Call(ctx, m, api.OpGetParametersByPath, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range out.Parameters {
				got = append(got, *p.Name)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				break
			}
		}
		return got
	}
	if got := strings.Join(names(false), " "); got != "/a/x /a/y" {
		t.Error(got)
	}
	if got := strings.Join(names(true), " "); got != "/a/b/z /a/x /a/y" {
		t.Error(got)
	}
	d, err := dispatch.Call(ctx, m, api.OpDescribeParameters, &api.DescribeParametersInput{ParameterFilters: []api.ParameterStringFilter{{Key: new("Name"), Option: new("BeginsWith"), Values: []string{"/a/"}}}})
	if err != nil || len(d.Parameters) != 3 {
		t.Errorf("%+v %v", d, err)
	}
	del, err := dispatch.Call(ctx, m, api.OpDeleteParameters, &api.DeleteParametersInput{Names: []string{"plain", "none"}})
	if err != nil || len(del.DeletedParameters) != 1 || len(del.InvalidParameters) != 1 {
		t.Errorf("%+v %v", del, err)
	}
	_, err = dispatch.Call(ctx, m, api.OpGetParameter, &api.GetParameterInput{Name: new("plain")})
	if !awserr.Is(err, "ParameterNotFound") {
		t.Error(err)
	}
	p, err := dispatch.Call(ctx, m, api.OpGetParameter, &api.GetParameterInput{Name: new("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")})
	if err != nil || *p.Parameter.Value != "ami-us-east-1" {
		t.Errorf("%+v %v", p, err)
	}
	for name, code := range map[string]string{"/aws/x": "AccessDeniedException", "ssmthing": "ValidationException", "a/b": "ValidationException", "sp ace": "ValidationException", "/a//b": "ValidationException"} {
		if _, err := dispatch.Call(ctx, m, api.OpPutParameter, &api.PutParameterInput{Name: &name, Value: new("v"), Type: new("String")}); !awserr.Is(err, code) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
