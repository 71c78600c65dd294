package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"slipway/internal/agent/awscall"
	"slipway/internal/spec/buildspec"
	"slipway/internal/spec/yamlpos"
)

// Causes with which a build's context is cancelled.
var (
	errStopped  = errors.New("the build was stopped")
	errTimedOut = errors.New("the build timed out")
)

// runner runs one build. Its methods are called from one goroutine.
type runner struct {
	job  Job
	e    *emitter
	root string
	tmp  string
	api  *awscall.Client

	spec         *buildspec.Spec
	src          string // CODEBUILD_SRC_DIR
	env          map[string]string
	sh           *shell
	unexportable map[string]bool

	failed bool   // some phase has failed
	ended  string // STOPPED or TIMED_OUT, once that has happened
}

// phaseError is a failure with its status code.
type phaseError struct {
	code string
	err  error
}

func (e *phaseError) Error() string { return e.err.Error() }
func (e *phaseError) Unwrap() error { return e.err }

func clientError(err error) error { return &phaseError{CodeClientError, err} }

// Run runs the build and emits its events; the last one is EventDone with the returned status. ctx ended with
// any cause but the time limit stops the build. The error is a failure to write events, nothing else.
func Run(ctx context.Context, job Job, e *emitter) (string, error) {
	r := &runner{job: job, e: e, root: job.Root, unexportable: map[string]bool{}}
	if r.root == "" {
		r.root = "/codebuild"
	}
	r.tmp = filepath.Join(r.root, "output", "tmp")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if job.TimeoutSeconds > 0 {
		t := time.AfterFunc(time.Duration(job.TimeoutSeconds)*time.Second, func() { cancel(errTimedOut) })
		defer t.Stop()
	}
	r.phases(ctx)
	if r.sh != nil {
		r.sh.close()
	}
	status := StatusSucceeded
	switch {
	case r.ended != "":
		status = r.ended
	case r.failed:
		status = StatusFailed
	}
	e.emit(Event{Type: EventDone, Status: status})
	return status, e.err
}

// phases goes through the build. What follows a failure is CodeBuild's order: INSTALL and PRE_BUILD end the
// build, BUILD is followed by POST_BUILD and UPLOAD_ARTIFACTS all the same, POST_BUILD by UPLOAD_ARTIFACTS.
func (r *runner) phases(ctx context.Context) {
	defer r.phase(context.WithoutCancel(ctx), PhaseFinalizing, func(context.Context) []error { return nil })
	for _, line := range []string{"Running on CodeBuild On-demand", "Waiting for agent ping", "Waiting for DOWNLOAD_SOURCE", "Phase is DOWNLOAD_SOURCE"} {
		r.e.container("%s", line)
	}
	if !r.phase(ctx, PhaseDownloadSource, r.prepare) {
		return
	}
	for _, step := range []struct {
		name, phase string
		final       bool // a failure without on-failure ends the build
	}{{"install", PhaseInstall, true}, {"pre_build", PhasePreBuild, true}, {"build", PhaseBuild, false}, {"post_build", PhasePostBuild, false}} {
		p := r.spec.Phase(step.name)
		ok := r.userPhase(ctx, step.phase, p)
		if r.ended != "" {
			return
		}
		if !ok && p.OnFailure.Action != buildspec.Continue && (step.final || p.OnFailure.Action != "") {
			return
		}
	}
	r.exported(ctx)
	r.phase(ctx, PhaseUploadArtifacts, r.upload)
}

// phase brackets a piece of work with its events and log lines and reports whether it succeeded.
func (r *runner) phase(ctx context.Context, name string, work func(context.Context) []error) bool {
	r.e.emit(Event{Type: EventPhaseStart, Phase: name, Status: StatusInProgress})
	errs := work(ctx)
	status := StatusSucceeded
	if len(errs) > 0 {
		status, r.failed = StatusFailed, true
	}
	switch cause := context.Cause(ctx); {
	case cause == nil:
	case errors.Is(cause, errTimedOut):
		status, r.ended = StatusTimedOut, StatusTimedOut
	default:
		status, r.ended = StatusStopped, StatusStopped
	}
	contexts := []Context{}
	for _, err := range errs {
		if r.ended == "" || !errors.Is(err, context.Cause(ctx)) {
			contexts = append(contexts, contextOf(err))
		}
	}
	if len(contexts) == 0 {
		contexts = append(contexts, Context{})
		if status == StatusTimedOut {
			contexts[0].Message = fmt.Sprintf("Build has timed out. The limit is %d seconds.", r.job.TimeoutSeconds)
		}
	}
	if name != PhaseFinalizing {
		r.e.container("Phase complete: %s State: %s", name, status)
		for _, c := range contexts {
			r.e.container("Phase context status code: %s Message: %s", c.StatusCode, c.Message)
		}
	}
	r.e.emit(Event{Type: EventPhaseEnd, Phase: name, Status: status, Contexts: contexts})
	return status == StatusSucceeded
}

func contextOf(err error) Context {
	var (
		pe *phaseError
		ye *yamlpos.Error
		ce *commandError
	)
	switch {
	case errors.As(err, &pe):
		return Context{pe.code, err.Error()}
	case errors.As(err, &ye):
		return Context{CodeYAMLError, err.Error()}
	case errors.As(err, &ce):
		return Context{CodeCommandError, err.Error()}
	}
	return Context{CodeClientError, err.Error()}
}

// prepare is DOWNLOAD_SOURCE: sources, buildspec, environment, cache.
func (r *runner) prepare(ctx context.Context) []error {
	if err := os.MkdirAll(r.tmp, 0o755); err != nil {
		return []error{err}
	}
	var err error
	if r.src, err = r.fetch(ctx, r.job.Source); err != nil {
		return []error{clientError(err)}
	}
	dirs := map[string]string{"CODEBUILD_SRC_DIR": r.src}
	for _, s := range r.job.SecondarySources {
		if dirs["CODEBUILD_SRC_DIR_"+s.Identifier], err = r.fetch(ctx, s); err != nil {
			return []error{clientError(fmt.Errorf("source %s: %w", s.Identifier, err))}
		}
	}
	r.e.container("CODEBUILD_SRC_DIR=%s", r.src)
	if r.spec, err = r.readSpec(); err != nil {
		return []error{&phaseError{CodeYAMLError, err}}
	}
	for _, w := range r.spec.Warnings {
		r.e.container("Warning: %s", w)
	}
	if r.spec.HasBatch && len(r.spec.Phases) == 0 {
		return []error{&phaseError{CodeYAMLError, errors.New("the buildspec has only a batch section; batch builds are not supported")}}
	}
	if r.spec.HasBatch {
		r.e.container("Warning: batch builds are not supported; the batch section is ignored")
	}
	r.e.container("Processing environment variables")
	if r.env, err = r.environ(ctx); err != nil {
		return []error{clientError(err)}
	}
	maps.Copy(r.env, dirs)
	r.env["CODEBUILD_BUILD_SUCCEEDING"] = "1"
	if r.env["CODEBUILD_BUILD_ARN"] == "" && r.job.BuildARN != "" {
		r.env["CODEBUILD_BUILD_ARN"] = r.job.BuildARN
	}
	r.runtimes()
	r.e.container("Moving to directory %s", r.src)
	r.restoreCache()
	r.e.container("Registering with agent")
	r.e.container("Phases found in YAML: %d", len(r.spec.Phases))
	for _, p := range r.spec.Phases {
		r.e.container(" %s: %d commands", strings.ToUpper(p.Name), len(p.Commands))
	}
	return r.startShell()
}

func (r *runner) runtimes() {
	if len(r.spec.Phase("install").RuntimeVersions) == 0 {
		r.e.container("No runtime version selected in buildspec.")
		return
	}
	r.e.container("Skipping install of runtimes. Runtime version selection is not supported by this build image")
}

func (r *runner) startShell() []error {
	path := "/bin/sh"
	if r.spec.Env.Shell == "bash" {
		path = "bash"
	}
	r.sh = &shell{dir: r.tmp, start: r.src, path: path, base: r.env, fresh: r.spec.Version == "0.1",
		out: &lines{e: r.e}, grace: 5 * time.Second}
	if err := r.sh.init(); err != nil {
		return []error{err}
	}
	return nil
}

// userPhase runs one phase of the buildspec. A RETRY of on-failure repeats the phase (decision 0300).
func (r *runner) userPhase(ctx context.Context, name string, p buildspec.Phase) bool {
	before := r.failed
	for attempt := 0; ; attempt++ {
		again := false
		ok := r.phase(ctx, name, func(ctx context.Context) []error {
			r.e.container("Entering phase %s", name)
			errs := r.commands(ctx, p)
			again = len(errs) > 0 && attempt < p.OnFailure.Count && p.OnFailure.Action == buildspec.Retry &&
				(p.OnFailure.Match == nil || slices.ContainsFunc(errs, func(e error) bool { return p.OnFailure.Match.MatchString(e.Error()) }))
			return errs
		})
		if ok && attempt > 0 {
			r.failed = before
		}
		if ok || !again || r.ended != "" {
			return ok
		}
		r.e.container("Retrying phase %s: %d of %d", name, attempt+1, p.OnFailure.Count)
	}
}

// commands runs the commands until one fails, then the finally block in any case (unless the build is ended).
func (r *runner) commands(ctx context.Context, p buildspec.Phase) []error {
	runAs := p.RunAs
	if runAs == "" {
		runAs = r.spec.RunAs
	}
	var errs []error
	for _, block := range [][]buildspec.Command{p.Commands, p.Finally} {
		for _, c := range block {
			if ctx.Err() != nil {
				return append(errs, context.Cause(ctx))
			}
			if err := r.command(ctx, c, runAs, len(errs) > 0); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	return errs
}

func (r *runner) command(ctx context.Context, c buildspec.Command, runAs string, failing bool) error {
	text := strings.TrimRight(c.Text, "\n")
	if strings.TrimSpace(text) == "" {
		return nil
	}
	r.e.container("Running command %s", text)
	extra := "export CODEBUILD_BUILD_SUCCEEDING=1"
	if r.failed || failing {
		extra = "export CODEBUILD_BUILD_SUCCEEDING=0"
	}
	err := r.sh.run(ctx, text, runAs, extra)
	r.e.emit(Event{Type: EventLog, Log: "\n"})
	var ce *commandError
	if errors.As(err, &ce) {
		r.e.container("Command did not exit successfully %s %s", text, ce.reason)
	}
	return err
}

// exported tells the values of exported-variables as they are after POST_BUILD. Values that came from the
// project's parameter store or secrets entries are not told.
func (r *runner) exported(ctx context.Context) {
	names := r.spec.Env.Exported
	if len(names) == 0 || ctx.Err() != nil {
		return
	}
	env, err := r.sh.environment(ctx)
	if err != nil {
		r.e.container("The exported variables could not be read: %v", err)
		return
	}
	var out []EnvVar
	for _, n := range names {
		if v, ok := env[n]; ok && !r.unexportable[n] {
			out = append(out, EnvVar{Name: n, Value: v})
		}
	}
	r.e.emit(Event{Type: EventExported, Exported: out})
}

// upload is UPLOAD_ARTIFACTS: reports are read and artifacts packed; the service stores them.
func (r *runner) upload(ctx context.Context) []error {
	r.saveCache()
	r.reports()
	return r.artifacts(ctx)
}
