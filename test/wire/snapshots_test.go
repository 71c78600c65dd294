package wire

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
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
)

// The modules that hold AWS's snapshots, with their versions and go.sum hashes.
//
//go:embed snapshots.txt
var snapshotModules string

// served are the services by the name of the SDK's module.
var served = map[string][]model.AnyOp{
	"autoscaling": autoscaling.Ops(), "cloudwatch": cloudwatch.Ops(), "codebuild": codebuild.Ops(),
	"codecommit": codecommit.Ops(), "codedeploy": codedeploy.Ops(), "codepipeline": codepipeline.Ops(), "codestarnotifications": codestarnotifications.Ops(),
	"ec2": ec2.Ops(), "elasticloadbalancingv2": elbv2.Ops(), "iam": iam.Ops(), "cloudwatchlogs": logs.Ops(),
	"s3": s3.Ops(), "sns": sns.Ops(), "ssm": ssm.Ops(), "sts": sts.Ops(),
}

// snapshotDirs downloads the modules once and returns their directories.
var snapshotDirs = sync.OnceValues(func() (map[string]string, error) {
	var args []string
	sums := map[string]string{}
	for line := range strings.Lines(snapshotModules) {
		f := strings.Fields(line)
		args = append(args, f[0]+"@"+f[1])
		sums[f[0]] = f[2]
	}
	tmp, err := os.MkdirTemp("", "slipway-wire-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	cmd := exec.Command("go", append([]string{"mod", "download", "-json"}, args...)...)
	cmd.Dir = tmp // outside of our module, whose go.mod need not name them
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	d := json.NewDecoder(bytes.NewReader(out))
	for d.More() {
		var m struct{ Path, Dir, Sum string }
		if err := d.Decode(&m); err != nil {
			return nil, err
		}
		if m.Sum != sums[m.Path] {
			return nil, &os.PathError{Op: "checksum of " + m.Path, Path: m.Dir, Err: os.ErrInvalid}
		}
		dirs[m.Path[strings.LastIndexByte(m.Path, '/')+1:]] = m.Dir
	}
	return dirs, nil
})

// snapshot is a request or response that AWS wrote down.
type snapshot struct {
	first  string // "POST /" or "200"
	header http.Header
	body   []byte
}

func readSnapshot(t *testing.T, file string) snapshot {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot{header: http.Header{}}
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	s.first = string(line)
	rest = bytes.TrimPrefix(rest, []byte("\n")) // requests have an empty line here
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		if len(line) == 0 {
			break
		}
		k, v, _ := strings.Cut(string(line), ": ")
		s.header.Add(k, v)
	}
	s.body = rest
	return s
}

// eachSnapshot runs f for every generated operation that has the file
// dir/<op><suffix>, and fails where none has.
func eachSnapshot(t *testing.T, dir, suffix string, f func(t *testing.T, op model.AnyOp, s snapshot)) {
	dirs, err := snapshotDirs()
	if err != nil {
		t.Fatalf("AWS's snapshots cannot be downloaded: %v", err)
	}
	found := 0
	var names []string
	for n := range served {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, name := range names {
		if dirs[name] == "" {
			t.Fatalf("no module for %s in snapshots.txt", name)
		}
		for _, op := range served[name] {
			file := filepath.Join(dirs[name], dir, op.OpName()+suffix)
			if _, err := os.Stat(file); err != nil {
				continue
			}
			found++
			t.Run(name+"/"+op.OpName(), func(t *testing.T) { f(t, op, readSnapshot(t, file)) })
		}
	}
	if found == 0 {
		t.Fatal("no snapshots found")
	}
	t.Logf("%d snapshots", found)
}
