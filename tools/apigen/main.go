// Command apigen writes internal/api/<service> from AWS's own models: shapes
// as Go structs, the operation table, and the schema that codecs and
// validation walk. It reads the models from the module cache (names, shapes
// and limits are facts; no documentation text is read) and takes only the
// operations listed in operations/<service>.txt.
//
// Usage, inside tools/: go run ./apigen [service...]
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// source says where a service's model is and what Slipway calls it.
type source struct {
	pkg string // the package under internal/api and the operation list's name
	dir string // the directory under models/apis, or "" for overlay only
}

var sources = []source{
	{"autoscaling", "autoscaling"},
	{"cloudformation", "cloudformation"},
	{"cloudwatch", "monitoring"},
	{"codebuild", "codebuild"},
	{"codecommit", "codecommit"},
	{"codedeploy", "codedeploy"},
	{"codedeploycommands", ""},
	{"codepipeline", "codepipeline"},
	{"codestarnotifications", "codestar-notifications"},
	{"ec2", "ec2"},
	{"elbv2", "elasticloadbalancingv2"},
	{"iam", "iam"},
	{"logs", "logs"},
	{"s3", "s3"},
	{"sns", "sns"},
	{"ssm", "ssm"},
	{"sts", "sts"},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

func run(only []string) error {
	models, err := modelDir()
	if err != nil {
		return err
	}
	here, err := toolDir()
	if err != nil {
		return err
	}
	out := filepath.Join(here, "..", "..", "internal", "api")
	done := 0
	for _, s := range sources {
		if len(only) > 0 && !contains(only, s.pkg) {
			continue
		}
		done++
		if err := generate(s, models, here, filepath.Join(out, s.pkg)); err != nil {
			return fmt.Errorf("%s: %w", s.pkg, err)
		}
	}
	if done == 0 {
		return fmt.Errorf("no such service: %s", strings.Join(only, " "))
	}
	return nil
}

func generate(s source, models, here, out string) error {
	m, err := load(s, models, filepath.Join(here, "overlay", s.pkg+".json"))
	if err != nil {
		return err
	}
	ops, err := readOperations(filepath.Join(here, "operations", s.pkg+".txt"))
	if err != nil {
		return err
	}
	p, err := plan(s.pkg, m, ops)
	if err != nil {
		return err
	}
	return p.write(out)
}

// readOperations reads one name per line; '#' starts a comment.
func readOperations(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var ops []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			ops = append(ops, line)
		}
	}
	return ops, nil
}

// modelDir finds the pinned SDK in the module cache, downloading it if need be.
func modelDir() (string, error) {
	const mod = "github.com/aws/aws-sdk-go"
	list := func() (string, error) {
		b, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", mod).Output()
		return strings.TrimSpace(string(b)), err
	}
	dir, err := list()
	if err == nil && dir == "" {
		if b, err := exec.Command("go", "mod", "download", mod).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go mod download %s: %w: %s", mod, err, b)
		}
		dir, err = list()
	}
	if err != nil || dir == "" {
		return "", fmt.Errorf("no AWS models: run apigen inside tools/ (go list -m %s: %v)", mod, err)
	}
	return filepath.Join(dir, "models", "apis"), nil
}

// toolDir is tools/apigen: the working directory may be tools or apigen itself.
func toolDir() (string, error) {
	for _, d := range []string{"apigen", "."} {
		if _, err := os.Stat(filepath.Join(d, "operations")); err == nil {
			return filepath.Abs(d)
		}
	}
	return "", fmt.Errorf("run apigen inside tools/")
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
