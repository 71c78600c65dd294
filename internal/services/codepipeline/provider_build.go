package codepipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"

	"slipway/internal/api/codebuild"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

// stepBuild starts a build, or asks how it goes. The action run's id is the
// idempotency token: a repeat finds the build.
func (s *Service) stepBuild(ctx context.Context, a *action) (*outcome, error) {
	if a.run.External == "" {
		in, err := a.buildRequest()
		if err != nil {
			return a.fail(configurationError, err.Error()), nil
		}
		out, err := dispatch.Call(ctx, s.deps.Mux, codebuild.OpStartBuild, in)
		if err != nil {
			return nil, err
		}
		a.run.External = ptr.Value(out.Build.Id)
		s.own(a.run.External, a.key, false)
	}
	out, err := dispatch.Call(ctx, s.deps.Mux, codebuild.OpBatchGetBuilds, &codebuild.BatchGetBuildsInput{Ids: []string{a.run.External}})
	if err != nil {
		return nil, err
	}
	if len(out.Builds) == 0 {
		return a.fail(jobFailed, "The build "+a.run.External+" was deleted"), nil
	}
	b := &out.Builds[0]
	switch {
	case !ptr.Value(b.BuildComplete):
		return a.wait(), nil
	case ptr.Value(b.BuildStatus) != codebuild.StatusTypeSucceeded:
		return a.fail(jobFailed, buildFailure(b)), nil
	}
	a.run.Variables, a.run.Outputs = map[string]string{}, map[string]Artifact{}
	for _, v := range b.ExportedEnvironmentVariables {
		a.run.Variables[ptr.Value(v.Name)] = ptr.Value(v.Value)
	}
	for _, o := range a.decl.OutputArtifacts {
		a.run.Outputs[ptr.Value(o.Name)] = a.output(ptr.Value(o.Name))
	}
	return a.succeed("Build succeeded"), nil
}

// buildFailure says which phase failed and why, as AWS does.
func buildFailure(b *codebuild.Build) string {
	text := "Build terminated with state: " + ptr.Value(b.BuildStatus)
	for _, p := range b.Phases {
		if s := ptr.Value(p.PhaseStatus); s == "" || s == codebuild.StatusTypeSucceeded {
			continue
		}
		text += ". Phase: " + ptr.Value(p.PhaseType)
		for _, c := range p.Contexts {
			if ptr.Value(c.Message) != "" {
				return text + ", Code: " + ptr.Value(c.StatusCode) + ", Message: " + ptr.Value(c.Message)
			}
		}
		return text
	}
	return text
}

// buildRequest is the build of an action: see package codebuild on how a
// pipeline says where things are.
func (a *action) buildRequest() (*codebuild.StartBuildInput, error) {
	c := a.run.Resolved
	primary, input := a.input()
	if len(a.decl.InputArtifacts) > 1 && c["PrimarySource"] == "" {
		return nil, fmt.Errorf("PrimarySource must say which of the %d input artifacts holds the buildspec", len(a.decl.InputArtifacts))
	}
	if input.Key == "" {
		return nil, fmt.Errorf("PrimarySource %s is not an input artifact of the action", primary)
	}
	if c["BatchEnabled"] == "true" {
		return nil, fmt.Errorf("BatchEnabled is not supported yet")
	}
	source := func(art Artifact) *string { return new(art.Bucket + "/" + art.Key) }
	in := &codebuild.StartBuildInput{
		ProjectName: new(c["ProjectName"]), IdempotencyToken: &a.run.ID, BuildspecOverride: ptr.NonZero(c["BuildspecOverride"]),
		SourceTypeOverride: new(codebuild.SourceTypeCodepipeline), SourceLocationOverride: source(input), SourceVersion: new("arn:aws:s3:::" + *source(input)),
		ServiceRoleOverride: ptr.NonZero(c["ServiceRoleArnOverride"]),
	}
	for _, name := range slices.Sorted(mapKeys(a.run.Inputs)) {
		if name != primary {
			in.SecondarySourcesOverride = append(in.SecondarySourcesOverride, codebuild.ProjectSource{
				Type: new(codebuild.SourceTypeCodepipeline), Location: source(a.run.Inputs[name]), SourceIdentifier: &name})
		}
	}
	in.ArtifactsOverride = &codebuild.ProjectArtifacts{Type: new(codebuild.ArtifactsTypeNoArtifacts)}
	for _, o := range a.decl.OutputArtifacts {
		to := a.output(ptr.Value(o.Name))
		art := codebuild.ProjectArtifacts{Type: new(codebuild.ArtifactsTypeCodepipeline), Location: &to.Bucket, Path: new(path.Dir(to.Key)), Name: new(path.Base(to.Key)),
			Packaging: new(codebuild.ArtifactPackagingZip), NamespaceType: new(codebuild.ArtifactNamespaceNone)}
		if len(a.decl.OutputArtifacts) == 1 {
			in.ArtifactsOverride = &art
			break
		}
		art.ArtifactIdentifier = o.Name
		in.SecondaryArtifactsOverride = append(in.SecondaryArtifactsOverride, art)
	}
	for _, r := range a.exec.Revisions {
		if r.Artifact == primary || len(a.exec.Revisions) == 1 {
			in.EnvironmentVariablesOverride = append(in.EnvironmentVariablesOverride, codebuild.EnvironmentVariable{Name: new("CODEBUILD_RESOLVED_SOURCE_VERSION"), Value: new(r.ID)})
		}
	}
	if text := c["EnvironmentVariables"]; text != "" {
		var vars []struct{ Name, Value, Type string }
		if err := json.Unmarshal([]byte(text), &vars); err != nil {
			return nil, fmt.Errorf("EnvironmentVariables is not a JSON array of objects with name, value and type: %w", err)
		}
		for _, v := range vars {
			in.EnvironmentVariablesOverride = append(in.EnvironmentVariablesOverride, codebuild.EnvironmentVariable{Name: new(v.Name), Value: new(v.Value), Type: ptr.NonZero(v.Type)})
		}
	}
	return in, nil
}
