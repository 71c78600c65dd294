package stack

import (
	"context"

	"slipway/internal/api/codebuild"
	"slipway/internal/api/codecommit"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codepipeline"
)

func (s *Stack) repository(ctx context.Context) (bool, error) {
	found, err := call(ctx, s, codecommit.OpGetRepository, &codecommit.GetRepositoryInput{RepositoryName: &s.cfg.Name})
	if err == nil {
		s.CloneURL = *found.RepositoryMetadata.CloneUrlHttp
		return false, nil
	}
	if !missing(err, "RepositoryDoesNotExistException") {
		return false, err
	}
	made, err := call(ctx, s, codecommit.OpCreateRepository, &codecommit.CreateRepositoryInput{RepositoryName: &s.cfg.Name})
	if err != nil {
		return false, err
	}
	s.CloneURL = *made.RepositoryMetadata.CloneUrlHttp
	return true, nil
}

func (s *Stack) project(ctx context.Context) (bool, error) {
	found, err := call(ctx, s, codebuild.OpBatchGetProjects, &codebuild.BatchGetProjectsInput{Names: list(s.cfg.Name)})
	if err != nil {
		return false, err
	}
	if len(found.Projects) > 0 {
		return false, nil
	}
	_, err = call(ctx, s, codebuild.OpCreateProject, &codebuild.CreateProjectInput{
		Name: &s.cfg.Name, ServiceRole: &s.Roles.Build,
		Source:    &codebuild.ProjectSource{Type: new("CODEPIPELINE")},
		Artifacts: &codebuild.ProjectArtifacts{Type: new("CODEPIPELINE")},
		Cache:     &codebuild.ProjectCache{Type: new("LOCAL"), Modes: list("LOCAL_CUSTOM_CACHE")},
		Environment: &codebuild.ProjectEnvironment{Type: new("LINUX_CONTAINER"), Image: new("aws/codebuild/amazonlinux-x86_64-standard:5.0"),
			ComputeType: new("BUILD_GENERAL1_SMALL")},
	})
	return true, err
}

func (s *Stack) deployment(ctx context.Context) (bool, error) {
	anyMade := false
	_, err := call(ctx, s, codedeploy.OpGetApplication, &codedeploy.GetApplicationInput{ApplicationName: &s.cfg.Name})
	if missing(err, "ApplicationDoesNotExistException") {
		_, err = call(ctx, s, codedeploy.OpCreateApplication, &codedeploy.CreateApplicationInput{ApplicationName: &s.cfg.Name, ComputePlatform: new("Server")})
		anyMade = true
	}
	if err != nil {
		return false, err
	}
	_, err = call(ctx, s, codedeploy.OpGetDeploymentGroup, &codedeploy.GetDeploymentGroupInput{ApplicationName: &s.cfg.Name, DeploymentGroupName: &s.cfg.Name})
	if !missing(err, "DeploymentGroupDoesNotExistException") {
		return anyMade, err
	}
	_, err = call(ctx, s, codedeploy.OpCreateDeploymentGroup, &codedeploy.CreateDeploymentGroupInput{
		ApplicationName: &s.cfg.Name, DeploymentGroupName: &s.cfg.Name, ServiceRoleArn: &s.Roles.Deploy,
		DeploymentConfigName: new("CodeDeployDefault.OneAtATime"), AutoScalingGroups: list(s.cfg.Name),
		DeploymentStyle:           &codedeploy.DeploymentStyle{DeploymentType: new("IN_PLACE"), DeploymentOption: new("WITH_TRAFFIC_CONTROL")},
		LoadBalancerInfo:          &codedeploy.LoadBalancerInfo{TargetGroupInfoList: list(codedeploy.TargetGroupInfo{Name: &s.cfg.Name})},
		AutoRollbackConfiguration: &codedeploy.AutoRollbackConfiguration{Enabled: new(true), Events: list("DEPLOYMENT_FAILURE")},
	})
	return true, err
}

func (s *Stack) pipeline(ctx context.Context) (bool, error) {
	_, err := call(ctx, s, codepipeline.OpGetPipeline, &codepipeline.GetPipelineInput{Name: &s.cfg.Name})
	if !missing(err, "PipelineNotFoundException") {
		return false, err
	}
	source, build := "SourceOutput", "BuildOutput"
	action := func(name, category, provider string, in, out string, configuration map[string]string) codepipeline.ActionDeclaration {
		a := codepipeline.ActionDeclaration{Name: &name, RunOrder: new(int64(1)), Configuration: configuration,
			ActionTypeId: &codepipeline.ActionTypeId{Category: &category, Owner: new("AWS"), Provider: &provider, Version: new("1")}}
		if in != "" {
			a.InputArtifacts = list(codepipeline.InputArtifact{Name: &in})
		}
		if out != "" {
			a.OutputArtifacts = list(codepipeline.OutputArtifact{Name: &out})
		}
		return a
	}
	name := s.cfg.Name
	_, err = call(ctx, s, codepipeline.OpCreatePipeline, &codepipeline.CreatePipelineInput{Pipeline: &codepipeline.PipelineDeclaration{
		Name: &name, RoleArn: &s.Roles.Pipeline, PipelineType: new("V2"), ExecutionMode: new("SUPERSEDED"),
		ArtifactStore: &codepipeline.ArtifactStore{Type: new("S3"), Location: &s.Bucket},
		Stages: list(
			codepipeline.StageDeclaration{Name: new("Source"), Actions: list(action("Source", "Source", "CodeCommit", "", source,
				map[string]string{"RepositoryName": name, "BranchName": s.cfg.Branch, "PollForSourceChanges": "false"}))},
			codepipeline.StageDeclaration{Name: new("Build"), Actions: list(action("Build", "Build", "CodeBuild", source, build,
				map[string]string{"ProjectName": name}))},
			codepipeline.StageDeclaration{Name: new("Deploy"), Actions: list(action("Deploy", "Deploy", "CodeDeploy", build, "",
				map[string]string{"ApplicationName": name, "DeploymentGroupName": name}))},
		),
	}})
	return true, err
}
