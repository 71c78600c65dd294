package scenarios

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// everydayCommands asks each service something with the aws command line, and
// says what must be in the answer.
func everydayCommands(t *testing.T, w *world) {
	file := filepath.Join(t.TempDir(), "x.txt")
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ command, want string }{
		{"sts get-caller-identity", "123456789012"},
		{"iam get-role --role-name todo-instance", "ec2.amazonaws.com"},
		{"iam list-instance-profiles", "todo-instance"},
		{"ssm put-parameter --name /todo/x --type SecureString --value secret", "Version"},
		{"ssm get-parameter --name /todo/x --with-decryption", "secret"},
		{"s3api put-object --bucket todo-artifacts-123456789012-us-east-1 --key cli/x.txt --body " + file, "ETag"},
		{"s3api list-objects-v2 --bucket todo-artifacts-123456789012-us-east-1 --prefix cli/", "cli/x.txt"},
		{"ec2 describe-instances --filters Name=tag:aws:autoscaling:groupName,Values=todo", "running"},
		{"ec2 describe-launch-template-versions --launch-template-name todo --versions $Latest", "LaunchTemplateData"},
		{"autoscaling describe-scaling-activities --auto-scaling-group-name todo", "Launching a new EC2 instance"},
		{"autoscaling describe-policies --auto-scaling-group-name todo", "TargetTrackingScaling"},
		{"elbv2 describe-load-balancers --names todo", "elb.amazonaws.com"},
		{"codecommit get-branch --repository-name todo --branch-name main", "commitId"},
		{"codecommit get-file --repository-name todo --file-path appspec.yml", "fileContent"},
		{"codebuild batch-get-projects --names todo", "CODEPIPELINE"},
		{"codebuild list-reports", "report/"},
		{"deploy get-deployment-group --application-name todo --deployment-group-name todo", "CodeDeployDefault.OneAtATime"},
		{"codepipeline get-pipeline --name todo", "BuildOutput"},
		{"codepipeline list-action-executions --pipeline-name todo --max-items 5", "Succeeded"},
		{"cloudwatch describe-alarms --alarm-name-prefix todo-", "todo-cpu-high"},
		{"logs filter-log-events --log-group-name /aws/codebuild/todo --filter-pattern \"Entering phase\" --max-items 1", "Entering phase"},
		{"sns list-subscriptions", "alerts@slipway.local"},
	} {
		args := strings.Fields(tc.command)
		if i := strings.Index(tc.command, `"`); i >= 0 { // one quoted argument
			j := i + 1 + strings.Index(tc.command[i+1:], `"`)
			args = append(append(strings.Fields(tc.command[:i]), tc.command[i+1:j]), strings.Fields(tc.command[j+1:])...)
		}
		out, err := w.tryAWS(args...)
		if err != nil || !bytes.Contains(out, []byte(tc.want)) {
			t.Errorf("aws %s: %v; want %q in\n%.600s", tc.command, err, tc.want, out)
		}
	}
	out, err := w.tryAWS("ec2", "create-vpc", "--cidr-block", "10.0.0.0/16")
	if err == nil || !bytes.Contains(out, []byte("NotImplemented")) || !bytes.Contains(out, []byte("CreateVpc")) {
		t.Errorf("an unbuilt operation does not name itself: %v %s", err, out)
	}
}

// tailLogs follows a log group with the aws command line, whose second
// version has that command.
func tailLogs(t *testing.T, w *world) {
	aws := ""
	for _, path := range []string{"aws", "/usr/bin/aws", "/usr/local/bin/aws"} {
		if out, err := exec.Command(path, "--version").CombinedOutput(); err == nil && strings.HasPrefix(string(out), "aws-cli/2") {
			aws = path
		}
	}
	if aws == "" {
		t.Skip("needs version 2 of the aws command line: version 1 has no logs tail")
	}
	if w.env == nil {
		w.loadEnv()
	}
	cmd := exec.Command(aws, "logs", "tail", "/todo/nginx/error", "--follow", "--since", "1m", "--endpoint-url", w.endpoint)
	cmd.Env = append(w.env, "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true", "PYTHONUNBUFFERED=1")
	out, err := os.CreateTemp(t.TempDir(), "tail")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	time.Sleep(2 * time.Second) // it follows by now: what comes is new to it
	if err := tooLarge(w); err != nil {
		t.Fatal(err)
	}
	w.wait(2*time.Minute, "the line in aws logs tail", func() (bool, string) {
		b, err := os.ReadFile(out.Name())
		return err == nil && strings.Contains(string(b), "too large body"), string(b)
	})
}
