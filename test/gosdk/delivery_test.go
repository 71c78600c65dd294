package gosdk

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	cbtypes "github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/aws/aws-sdk-go-v2/service/codecommit"
	cctypes "github.com/aws/aws-sdk-go-v2/service/codecommit/types"
	"github.com/aws/aws-sdk-go-v2/service/codedeploy"
	cdtypes "github.com/aws/aws-sdk-go-v2/service/codedeploy/types"
	"github.com/aws/aws-sdk-go-v2/service/codepipeline"
	cptypes "github.com/aws/aws-sdk-go-v2/service/codepipeline/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"codepipeline.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// TestIdentity makes a role, assumes it, and keeps parameters.
func TestIdentity(t *testing.T) {
	cfg := start(t)
	ctx := t.Context()
	roles, tokens, params := iam.NewFromConfig(cfg), sts.NewFromConfig(cfg), ssm.NewFromConfig(cfg)
	role := must[*iam.CreateRoleOutput](t)(roles.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("app"), AssumeRolePolicyDocument: aws.String(trust)})).Role
	ok(t, nil, iam.NewRoleExistsWaiter(roles).Wait(ctx, &iam.GetRoleInput{RoleName: aws.String("app")}, soon))
	_, err := roles.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("app"), AssumeRolePolicyDocument: aws.String(trust)})
	refused[*iamtypes.EntityAlreadyExistsException](t, "a second role of that name", nil, err)
	_, err = roles.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("none")})
	refused[*iamtypes.NoSuchEntityException](t, "a role that is not there", nil, err)
	_, err = roles.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("bad"), AssumeRolePolicyDocument: aws.String("{")})
	refused[*iamtypes.MalformedPolicyDocumentException](t, "half a document", nil, err)
	n := 0
	pages(t, iam.NewListRolesPaginator(roles, &iam.ListRolesInput{MaxItems: aws.Int32(1)}), func(p *iam.ListRolesOutput) { n += len(p.Roles) })
	if n != 1 || role.CreateDate == nil {
		t.Errorf("%d roles, %+v", n, role)
	}
	session := must[*sts.AssumeRoleOutput](t)(tokens.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: role.Arn, RoleSessionName: aws.String("me")})).Credentials
	assumed := cfg.Copy()
	assumed.Credentials = credentials.NewStaticCredentialsProvider(*session.AccessKeyId, *session.SecretAccessKey, *session.SessionToken)
	who := must[*sts.GetCallerIdentityOutput](t)(sts.NewFromConfig(assumed).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}))
	if *who.Arn != "arn:aws:sts::123456789012:assumed-role/app/me" {
		t.Errorf("assumed: %s", *who.Arn)
	}
	assumed.Credentials = credentials.NewStaticCredentialsProvider(*session.AccessKeyId, "wrong", *session.SessionToken)
	_, err = sts.NewFromConfig(assumed).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	coded(t, "SignatureDoesNotMatch", nil, err)

	for _, name := range []string{"/app/a", "/app/b", "/app/c"} {
		_, err := params.PutParameter(ctx, &ssm.PutParameterInput{Name: &name, Value: aws.String("v" + name), Type: ssmtypes.ParameterTypeSecureString})
		ok(t, nil, err)
	}
	_, err = params.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/app/a"), Value: aws.String("v"), Type: ssmtypes.ParameterTypeString})
	refused[*ssmtypes.ParameterAlreadyExists](t, "a second parameter of that name", nil, err)
	_, err = params.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/none")})
	refused[*ssmtypes.ParameterNotFound](t, "a parameter that is not there", nil, err)
	var values []string
	pages(t, ssm.NewGetParametersByPathPaginator(params, &ssm.GetParametersByPathInput{Path: aws.String("/app"), WithDecryption: aws.Bool(true), MaxResults: aws.Int32(2)}), func(p *ssm.GetParametersByPathOutput) {
		for _, v := range p.Parameters {
			values = append(values, *v.Value)
		}
	})
	if len(values) != 3 || values[2] != "v/app/c" {
		t.Errorf("values: %v", values)
	}
	_, err = roles.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: aws.String("app")})
	ok(t, nil, err)
}

// TestDelivery makes a repository, a project, an application, and a pipeline
// of them, as a program that sets up a delivery does.
func TestDelivery(t *testing.T) {
	cfg := start(t)
	ctx := t.Context()
	repos, builds, deploys, pipes := codecommit.NewFromConfig(cfg), codebuild.NewFromConfig(cfg), codedeploy.NewFromConfig(cfg), codepipeline.NewFromConfig(cfg)
	name := aws.String("app")
	role := must[*iam.CreateRoleOutput](t)(iam.NewFromConfig(cfg).CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: aws.String(trust)})).Role.Arn
	_, err := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }).CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("app-artifacts")})
	ok(t, nil, err)

	_, err = repos.CreateRepository(ctx, &codecommit.CreateRepositoryInput{RepositoryName: name})
	ok(t, nil, err)
	_, err = repos.CreateRepository(ctx, &codecommit.CreateRepositoryInput{RepositoryName: name})
	refused[*cctypes.RepositoryNameExistsException](t, "a second repository of that name", nil, err)
	clone := must[*codecommit.GetRepositoryOutput](t)(repos.GetRepository(ctx, &codecommit.GetRepositoryInput{RepositoryName: name})).RepositoryMetadata.CloneUrlHttp
	commit := push(t, cfg, *clone, "a/b.txt", "hi\x00\xff")
	file := must[*codecommit.GetFileOutput](t)(repos.GetFile(ctx, &codecommit.GetFileInput{RepositoryName: name, FilePath: aws.String("a/b.txt")}))
	if string(file.FileContent) != "hi\x00\xff" || *file.CommitId != commit {
		t.Errorf("file: %+v", file)
	}
	_, err = repos.GetFile(ctx, &codecommit.GetFileInput{RepositoryName: name, FilePath: aws.String("none")})
	refused[*cctypes.FileDoesNotExistException](t, "a file that is not there", nil, err)
	_, err = repos.GetBranch(ctx, &codecommit.GetBranchInput{RepositoryName: name, BranchName: aws.String("none")})
	refused[*cctypes.BranchDoesNotExistException](t, "a branch that is not there", nil, err)

	_, err = builds.CreateProject(ctx, &codebuild.CreateProjectInput{Name: name, ServiceRole: role, Source: &cbtypes.ProjectSource{Type: cbtypes.SourceTypeCodepipeline}, Artifacts: &cbtypes.ProjectArtifacts{Type: cbtypes.ArtifactsTypeCodepipeline},
		Environment: &cbtypes.ProjectEnvironment{Type: cbtypes.EnvironmentTypeLinuxContainer, ComputeType: cbtypes.ComputeTypeBuildGeneral1Small, Image: aws.String("aws/codebuild/standard:7.0"), EnvironmentVariables: []cbtypes.EnvironmentVariable{{Name: aws.String("A"), Value: aws.String("b")}}}})
	ok(t, nil, err)
	got := must[*codebuild.BatchGetProjectsOutput](t)(builds.BatchGetProjects(ctx, &codebuild.BatchGetProjectsInput{Names: []string{"app", "none"}}))
	if len(got.Projects) != 1 || len(got.ProjectsNotFound) != 1 || *got.Projects[0].Environment.EnvironmentVariables[0].Value != "b" {
		t.Errorf("projects: %+v", got)
	}
	_, err = builds.StartBuild(ctx, &codebuild.StartBuildInput{ProjectName: aws.String("none")})
	refused[*cbtypes.ResourceNotFoundException](t, "a project that is not there", nil, err)

	_, err = deploys.CreateApplication(ctx, &codedeploy.CreateApplicationInput{ApplicationName: name})
	ok(t, nil, err)
	_, err = deploys.CreateDeploymentGroup(ctx, &codedeploy.CreateDeploymentGroupInput{ApplicationName: name, DeploymentGroupName: name, ServiceRoleArn: role,
		Ec2TagFilters: []cdtypes.EC2TagFilter{{Key: aws.String("app"), Value: aws.String("app"), Type: cdtypes.EC2TagFilterTypeKeyAndValue}}})
	ok(t, nil, err)
	_, err = deploys.GetDeployment(ctx, &codedeploy.GetDeploymentInput{DeploymentId: aws.String("d-ABCDEFGHI")})
	refused[*cdtypes.DeploymentDoesNotExistException](t, "a deployment that is not there", nil, err)
	var configs []string
	pages(t, codedeploy.NewListDeploymentConfigsPaginator(deploys, &codedeploy.ListDeploymentConfigsInput{}), func(p *codedeploy.ListDeploymentConfigsOutput) { configs = append(configs, p.DeploymentConfigsList...) })
	if len(configs) < 3 {
		t.Errorf("configurations: %v", configs)
	}

	action := func(name, provider string, category cptypes.ActionCategory, conf map[string]string, in, out string) cptypes.ActionDeclaration {
		a := cptypes.ActionDeclaration{Name: &name, Configuration: conf, ActionTypeId: &cptypes.ActionTypeId{Category: category, Owner: cptypes.ActionOwnerAws, Provider: &provider, Version: aws.String("1")}}
		if in != "" {
			a.InputArtifacts = []cptypes.InputArtifact{{Name: &in}}
		}
		if out != "" {
			a.OutputArtifacts = []cptypes.OutputArtifact{{Name: &out}}
		}
		return a
	}
	decl := &cptypes.PipelineDeclaration{Name: name, RoleArn: role, PipelineType: cptypes.PipelineTypeV2, ArtifactStore: &cptypes.ArtifactStore{Type: cptypes.ArtifactStoreTypeS3, Location: aws.String("app-artifacts")}, Stages: []cptypes.StageDeclaration{
		{Name: aws.String("Source"), Actions: []cptypes.ActionDeclaration{action("Source", "CodeCommit", cptypes.ActionCategorySource, map[string]string{"RepositoryName": "app", "BranchName": "main"}, "", "src")}},
		{Name: aws.String("Gate"), Actions: []cptypes.ActionDeclaration{action("Approve", "Manual", cptypes.ActionCategoryApproval, nil, "", "")}},
	}}
	made := must[*codepipeline.CreatePipelineOutput](t)(pipes.CreatePipeline(ctx, &codepipeline.CreatePipelineInput{Pipeline: decl}))
	if aws.ToInt32(made.Pipeline.Version) != 1 {
		t.Errorf("pipeline: %+v", made.Pipeline)
	}
	_, err = pipes.CreatePipeline(ctx, &codepipeline.CreatePipelineInput{Pipeline: decl})
	refused[*cptypes.PipelineNameInUseException](t, "a second pipeline of that name", nil, err)
	_, err = pipes.GetPipeline(ctx, &codepipeline.GetPipelineInput{Name: aws.String("none")})
	refused[*cptypes.PipelineNotFoundException](t, "a pipeline that is not there", nil, err)
	var token *string
	eventually(t, "the approval", func() bool {
		for _, s := range must[*codepipeline.GetPipelineStateOutput](t)(pipes.GetPipelineState(ctx, &codepipeline.GetPipelineStateInput{Name: name})).StageStates {
			for _, a := range s.ActionStates {
				if a.LatestExecution != nil && *s.StageName == "Gate" {
					token = a.LatestExecution.Token
				}
			}
		}
		return token != nil
	})
	approve := &codepipeline.PutApprovalResultInput{PipelineName: name, StageName: aws.String("Gate"), ActionName: aws.String("Approve"), Token: aws.String("00000000-0000-0000-0000-000000000000"), Result: &cptypes.ApprovalResult{Status: cptypes.ApprovalStatusApproved, Summary: aws.String("fine")}}
	_, err = pipes.PutApprovalResult(ctx, approve)
	refused[*cptypes.InvalidApprovalTokenException](t, "a wrong token", nil, err)
	approve.Token = token
	_, err = pipes.PutApprovalResult(ctx, approve)
	ok(t, nil, err)
	eventually(t, "the pipeline to succeed", func() bool {
		var last []cptypes.PipelineExecutionSummary
		pages(t, codepipeline.NewListPipelineExecutionsPaginator(pipes, &codepipeline.ListPipelineExecutionsInput{PipelineName: name, MaxResults: aws.Int32(1)}), func(p *codepipeline.ListPipelineExecutionsOutput) {
			last = append(last, p.PipelineExecutionSummaries...)
		})
		return len(last) == 1 && last[0].Status == cptypes.PipelineExecutionStatusSucceeded && *last[0].SourceRevisions[0].RevisionId == commit
	})
	_, err = pipes.DeletePipeline(ctx, &codepipeline.DeletePipelineInput{Name: name})
	ok(t, nil, err)
}

// push makes a repository with one file and pushes it to main; it returns the
// commit.
func push(t *testing.T, cfg aws.Config, to, path, content string) string {
	t.Helper()
	keys, err := cfg.Credentials.Retrieve(t.Context())
	ok(t, nil, err)
	u, err := url.Parse(to)
	ok(t, nil, err)
	u.User = url.UserPassword(keys.AccessKeyID, keys.SecretAccessKey)
	dir := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=dev", "-c", "user.email=dev@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	ok(t, nil, os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755))
	ok(t, nil, os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644))
	git("add", ".")
	git("commit", "-q", "-m", "one file")
	git("push", "-q", u.String(), "main")
	return git("rev-parse", "HEAD")
}
