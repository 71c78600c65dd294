package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"slipway/internal/agent/awscall"
)

// client makes the API client of the build's role.
func (r *runner) client() (*awscall.Client, error) {
	if r.api != nil {
		return r.api, nil
	}
	c := r.job.Credentials
	if r.job.Endpoint == "" || r.job.Region == "" || c == nil {
		return nil, errors.New("the build has no endpoint, region or credentials to call the API with")
	}
	var err error
	r.api, err = awscall.New(r.job.Endpoint, r.job.Region, awscall.Static(aws.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}))
	return r.api, err
}

// environ puts the environment of the commands together: that of the build environment itself, then the
// buildspec's variables, then the project's (with StartBuild's), which win.
func (r *runner) environ(ctx context.Context) (map[string]string, error) {
	env := map[string]string{}
	for _, kv := range os.Environ() {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	env["HOME"] = "/root"
	if os.Getuid() != 0 {
		env["HOME"] = os.Getenv("HOME")
	}
	if env["PATH"] == "" {
		env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	for _, v := range r.spec.Env.Variables {
		env[v.Name] = v.Value
	}
	params, secrets := map[string]string{}, map[string]string{} // name of the variable -> reference
	for _, v := range r.spec.Env.ParameterStore {
		params[v.Name] = v.Value
	}
	for _, v := range r.spec.Env.SecretsManager {
		secrets[v.Name] = v.Value
	}
	for _, v := range r.job.Env {
		delete(params, v.Name)
		delete(secrets, v.Name)
		switch v.Type {
		case "", EnvPlaintext:
			env[v.Name] = v.Value
			continue
		case EnvParameterStore:
			params[v.Name] = v.Value
		case EnvSecretsManager:
			secrets[v.Name] = v.Value
		default:
			return nil, fmt.Errorf("the environment variable %s has the unknown type %q", v.Name, v.Type)
		}
		r.unexportable[v.Name] = true
	}
	if err := r.parameters(ctx, params, env); err != nil {
		return nil, err
	}
	return env, r.secrets(ctx, secrets, env)
}

// parameters resolves parameter-store references, ten to a call, as the API allows.
func (r *runner) parameters(ctx context.Context, refs, env map[string]string) error {
	if len(refs) == 0 {
		return nil
	}
	r.e.container("Decrypting parameter store environment variables")
	api, err := r.client()
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Values(refs))
	names = slices.Compact(names)
	values := map[string]string{}
	for batch := range slices.Chunk(names, 10) {
		var out struct {
			Parameters        []struct{ Name, Value, ARN string }
			InvalidParameters []string
		}
		in := map[string]any{"Names": batch, "WithDecryption": true}
		err := patiently(ctx, func() error { return api.JSON(ctx, "ssm", "AmazonSSM.GetParameters", nil, in, &out) })
		if err != nil {
			return fmt.Errorf("parameter store: %w", err)
		}
		if len(out.InvalidParameters) > 0 {
			return fmt.Errorf("parameter does not exist: %s", strings.Join(out.InvalidParameters, ", "))
		}
		for _, p := range out.Parameters {
			values[p.Name], values[p.ARN] = p.Value, p.Value
		}
	}
	for name, ref := range refs {
		v, ok := values[ref]
		if !ok {
			return fmt.Errorf("parameter does not exist: %s", ref)
		}
		env[name] = v
		r.e.addSecret(v)
	}
	return nil
}

// secrets resolves references of the form id[:json-key[:version-stage[:version-id]]].
func (r *runner) secrets(ctx context.Context, refs, env map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		v, err := r.secret(ctx, refs[name])
		if err != nil {
			return fmt.Errorf("secrets manager: %s: %w", name, err)
		}
		env[name] = v
		r.e.addSecret(v)
	}
	return nil
}

func (r *runner) secret(ctx context.Context, ref string) (string, error) {
	id, rest := ref, ""
	if strings.HasPrefix(ref, "arn:") { // an ARN has six colons of its own
		parts := strings.SplitN(ref, ":", 8)
		id = strings.Join(parts[:min(7, len(parts))], ":")
		if len(parts) == 8 {
			rest = parts[7]
		}
	} else {
		id, rest, _ = strings.Cut(ref, ":")
	}
	parts := append(strings.SplitN(rest, ":", 3), "", "", "")
	key, stage, version := parts[0], parts[1], parts[2]
	if stage != "" && version != "" {
		return "", errors.New("version-stage and version-id cannot be given together")
	}
	api, err := r.client()
	if err != nil {
		return "", err
	}
	in := map[string]string{"SecretId": id}
	if stage != "" {
		in["VersionStage"] = stage
	}
	if version != "" {
		in["VersionId"] = version
	}
	var out struct{ SecretString string }
	err = patiently(ctx, func() error {
		return api.JSON(ctx, "secretsmanager", "secretsmanager.GetSecretValue", nil, in, &out)
	})
	if err != nil {
		return "", err
	}
	if key == "" {
		return out.SecretString, nil
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out.SecretString), &doc); err != nil {
		return "", fmt.Errorf("the secret %s is not a JSON object", id)
	}
	raw, ok := doc[key]
	if !ok {
		return "", fmt.Errorf("the secret %s has no key %q", id, key)
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	return text, nil
}
