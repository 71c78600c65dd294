package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/codebuild"
	"slipway/internal/api/codecommit"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codepipeline"
	"slipway/internal/api/codestarnotifications"
	"slipway/internal/api/ec2"
	"slipway/internal/api/elbv2"
	"slipway/internal/api/iam"
	"slipway/internal/api/logs"
	"slipway/internal/api/s3"
	"slipway/internal/api/sns"
	"slipway/internal/api/ssm"
	"slipway/internal/api/sts"
	"slipway/internal/aws/model"
	"slipway/internal/cli"
)

// The README's table of what is served is checked against what is wired.
func TestReadmeSaysWhatIsServed(t *testing.T) {
	s := &server{log: slog.New(slog.DiscardHandler), endpoint: "http://127.0.0.1:4566", opts: cli.ServerOptions{
		DataDir: t.TempDir(), Machines: "simulated", Ephemeral: true, TimeScale: 1, Account: "123456789012", Region: "us-east-1", LBAddress: "127.0.0.1", Auth: "verify",
	}}
	if err := s.open(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, svc := range []struct {
		name string
		m    *model.Service
	}{
		{"CodePipeline", codepipeline.Service}, {"CodeBuild", codebuild.Service}, {"CodeDeploy", codedeploy.Service}, {"CodeCommit", codecommit.Service},
		{"EC2", ec2.Service}, {"Auto Scaling", autoscaling.Service}, {"Elastic Load Balancing v2", elbv2.Service}, {"S3", s3.Service},
		{"CloudWatch", cloudwatch.Service}, {"CloudWatch Logs", logs.Service}, {"SNS", sns.Service}, {"IAM", iam.Service}, {"STS", sts.Service}, {"SSM Parameter Store", ssm.Service},
		{"CodeStar Notifications", codestarnotifications.Service},
	} {
		built := len(s.mux.Built(svc.m.Name))
		if want := fmt.Sprintf("| %s | %d of %d |", svc.name, built, len(svc.m.Operations)); !strings.Contains(string(readme), want) {
			t.Errorf("the README's table of services lacks: %s", want)
		}
	}
}
