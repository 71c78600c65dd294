package stack

import (
	"context"
	"fmt"

	"slipway/internal/api/iam"
)

// roles makes a role for each service that acts for the application, so that
// the same set-up is understood on AWS.
func (s *Stack) roles(ctx context.Context) (bool, error) {
	anyMade := false
	for _, r := range []struct {
		name, service string
		policies      []string
		arn           *string
	}{
		{"instance", "ec2", list("arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"), &s.Roles.Instance},
		{"build", "codebuild", list("arn:aws:iam::aws:policy/AWSCodeBuildDeveloperAccess"), &s.Roles.Build},
		{"deploy", "codedeploy", list("arn:aws:iam::aws:policy/service-role/AWSCodeDeployRole"), &s.Roles.Deploy},
		{"pipeline", "codepipeline", list("arn:aws:iam::aws:policy/AWSCodePipeline_FullAccess"), &s.Roles.Pipeline},
	} {
		made, err := s.role(ctx, s.cfg.Name+"-"+r.name, r.service, r.policies, r.arn)
		if err != nil {
			return false, err
		}
		anyMade = anyMade || made
	}
	made, err := s.profile(ctx)
	return anyMade || made, err
}

func (s *Stack) role(ctx context.Context, name, service string, policies []string, arn *string) (bool, error) {
	found, err := call(ctx, s, iam.OpGetRole, &iam.GetRoleInput{RoleName: &name})
	if err == nil {
		*arn = *found.Role.Arn
		return false, nil
	}
	if !missing(err, "NoSuchEntity") {
		return false, err
	}
	trust := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"%s.amazonaws.com"},"Action":"sts:AssumeRole"}]}`, service)
	made, err := call(ctx, s, iam.OpCreateRole, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
	if err != nil {
		return false, err
	}
	*arn = *made.Role.Arn
	for _, p := range policies {
		if _, err := call(ctx, s, iam.OpAttachRolePolicy, &iam.AttachRolePolicyInput{RoleName: &name, PolicyArn: &p}); err != nil {
			return false, err
		}
	}
	return true, nil
}

// profile makes the instance profile that hands the instance role out.
func (s *Stack) profile(ctx context.Context) (bool, error) {
	name := s.cfg.Name + "-instance"
	_, err := call(ctx, s, iam.OpGetInstanceProfile, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
	if err == nil {
		return false, nil
	}
	if !missing(err, "NoSuchEntity") {
		return false, err
	}
	if _, err := call(ctx, s, iam.OpCreateInstanceProfile, &iam.CreateInstanceProfileInput{InstanceProfileName: &name}); err != nil {
		return false, err
	}
	_, err = call(ctx, s, iam.OpAddRoleToInstanceProfile, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name})
	return true, err
}
