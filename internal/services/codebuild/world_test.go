package codebuild

import (
	"archive/zip"
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
	"slipway/internal/api/logs"
	"slipway/internal/api/s3"
	"slipway/internal/api/sts"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/git"
	"slipway/internal/machine"
	"slipway/internal/machine/sandbox"
	"slipway/internal/store"
)

// The test binary is also the init of the machines, and the runner in them.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		os.Exit(sandbox.InitMain(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == "agent" && os.Args[2] == "build" {
		os.Exit(build.Main(os.Args[3:]))
	}
	goleak.VerifyTestMain(m)
}

const (
	testAccount = "123456789012"
	testRegion  = "us-east-1"
	testRole    = "arn:aws:iam::123456789012:role/build"
)

// world is everything around the service. It outlives restarts of it.
type world struct {
	t        *testing.T
	store    store.Store
	machines machine.Driver
	clock    clock.Clock   // nil: the real one
	free     atomic.Uint64 // bytes on the disk of builds

	mu       sync.Mutex
	objects  map[string]string // "bucket/key" -> content
	lines    []string
	streams  map[string]bool
	denyRole bool
	commits  map[string]map[string]string // commit -> file -> content

	svc  *Service
	stop func()
}

func newWorld(t *testing.T, machines machine.Driver) *world {
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: st, machines: machines, objects: map[string]string{}, streams: map[string]bool{}, commits: map[string]map[string]string{}}
	w.free.Store(1 << 40)
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// start brings the service up; stop brings it down, rows and machines stay.
func (w *world) start() *world {
	w.t.Helper()
	mux := dispatch.New()
	w.fakes(mux)
	w.svc = New(Deps{Store: w.store, Clock: w.clock, Mux: mux, Machines: w.machines, Repositories: w, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)), Free: func() (uint64, bool) { return w.free.Load(), true }})
	w.svc.Register(mux)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func(s *Service) { done <- s.Run(ctx) }(w.svc)
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = nil
	}
	return w
}

func (w *world) fakes(mux *dispatch.Mux) {
	dispatch.Register(mux, s3.OpPutObject, func(_ context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
		b, err := io.ReadAll(in.Body)
		if err != nil {
			return nil, err
		}
		if int64(len(b)) != *in.ContentLength {
			w.t.Errorf("%s has %d bytes, %d were announced", *in.Key, len(b), *in.ContentLength)
		}
		if *in.Bucket != "artifacts" {
			return nil, awserr.New("NoSuchBucket", "The specified bucket does not exist").WithStatus(404)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.objects[*in.Bucket+"/"+*in.Key] = string(b)
		return nil, nil
	})
	dispatch.Register(mux, sts.OpAssumeRole, func(_ context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
		if w.denyRole {
			return nil, awserr.New("AccessDenied", "no").WithStatus(403)
		}
		return &sts.AssumeRoleOutput{Credentials: &sts.Credentials{AccessKeyId: new("ASIA"), SecretAccessKey: new("secret"), SessionToken: new("token"),
			Expiration: new(clock.Real.Now().Add(time.Hour))}}, nil
	})
	dispatch.Register(mux, logs.OpCreateLogGroup, func(context.Context, *logs.CreateLogGroupInput) (*logs.CreateLogGroupOutput, error) {
		return nil, nil
	})
	dispatch.Register(mux, logs.OpCreateLogStream, func(_ context.Context, in *logs.CreateLogStreamInput) (*logs.CreateLogStreamOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.streams[*in.LogGroupName+"/"+*in.LogStreamName] = true
		return nil, nil
	})
	dispatch.Register(mux, logs.OpPutLogEvents, func(_ context.Context, in *logs.PutLogEventsInput) (*logs.PutLogEventsOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.streams[*in.LogGroupName+"/"+*in.LogStreamName] {
			return nil, awserr.New("ResourceNotFoundException", "The specified log stream does not exist.")
		}
		for _, e := range in.LogEvents {
			w.lines = append(w.lines, *e.Message)
		}
		return nil, nil
	})
}

// Commit and Archive make the world the Repositories of the service.
func (w *world) Commit(_ context.Context, _, _, repository, spec string) (*git.Commit, error) {
	if repository != "todo" || w.commits[spec] == nil {
		return nil, awserr.New("CommitDoesNotExistException", "The specifier %s names no commit.", spec)
	}
	return &git.Commit{ID: spec}, nil
}

func (w *world) Archive(_ context.Context, _, _, _, commit string, to io.Writer) error {
	z := zip.NewWriter(to)
	for name, content := range w.commits[commit] {
		f, err := z.Create(name)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(f, content); err != nil {
			return err
		}
	}
	return z.Close()
}

func ctxAs(t *testing.T) context.Context {
	return caller.With(t.Context(), caller.Identity{Account: testAccount, Region: testRegion, PrincipalARN: "arn:aws:iam::123456789012:user/ann"})
}

func call[I, O any](t *testing.T, h func(context.Context, *I) (*O, error), in *I) *O {
	t.Helper()
	out, err := h(ctxAs(t), in)
	if err != nil {
		t.Fatalf("%T: %v", in, err)
	}
	return out
}

// project makes a project with an inline buildspec and artifacts in a bucket.
func (w *world) project(spec string, change func(*api.CreateProjectInput)) {
	w.t.Helper()
	in := &api.CreateProjectInput{Name: new("todo"), ServiceRole: new(testRole),
		Source:      &api.ProjectSource{Type: new("NO_SOURCE"), Buildspec: &spec},
		Artifacts:   &api.ProjectArtifacts{Type: new("S3"), Location: new("artifacts"), Path: new("out"), Name: new("app.zip"), Packaging: new("ZIP")},
		Environment: &api.ProjectEnvironment{Type: new("LINUX_CONTAINER"), Image: new("aws/codebuild/standard:7.0"), ComputeType: new("BUILD_GENERAL1_SMALL")}}
	if change != nil {
		change(in)
	}
	call(w.t, w.svc.createProject, in)
}

func (w *world) build(change func(*api.StartBuildInput)) string {
	w.t.Helper()
	in := &api.StartBuildInput{ProjectName: new("todo")}
	if change != nil {
		change(in)
	}
	return *call(w.t, w.svc.startBuild, in).Build.Id
}

func (w *world) get(id string) api.Build {
	w.t.Helper()
	out := call(w.t, w.svc.batchGetBuilds, &api.BatchGetBuildsInput{Ids: []string{id}})
	if len(out.Builds) != 1 {
		w.t.Fatalf("no build %s", id)
	}
	return out.Builds[0]
}

// until waits for the store to say so.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	sub := w.store.Subscribe(builds.Kind)
	defer sub.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for !ok() {
		next, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		_, _ = sub.Next(next)
		stop()
		if ctx.Err() != nil {
			w.t.Fatalf("never happened: %s", what)
		}
	}
}

// wait waits for a build's end and for what it held to be given back.
func (w *world) wait(id string) api.Build {
	w.t.Helper()
	w.until("the end of "+id, func() bool {
		row, err := builds.Find(w.t.Context(), w.store, testAccount, testRegion, id)
		return err == nil && row.Doc.Cleaned
	})
	if n := len(w.machines.List()); n > 0 {
		w.t.Errorf("%d machines are left", n)
	}
	return w.get(id)
}

func (w *world) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "\n")
}

// phases writes a build's phases as "BUILD:SUCCEEDED ...".
func phases(b api.Build) string {
	var out []string
	for _, p := range b.Phases {
		out = append(out, ptr.Value(p.PhaseType)+":"+ptr.Value(p.PhaseStatus))
	}
	return strings.Join(out, " ")
}

func unzip(t *testing.T, content string) map[string]string {
	t.Helper()
	r, err := zip.NewReader(strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range r.File {
		rc, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(rc); err != nil {
			t.Fatal(err)
		}
		rc.Close()
		files[f.Name] = b.String()
	}
	return files
}
