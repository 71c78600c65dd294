package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"slipway/internal/spec/appspec"
)

// executor carries out commands. Commands of one deployment group come one at a time; of several groups, at once.
type executor struct {
	cfg Config
	l   layout
	log *deploymentsLog

	mu    sync.Mutex // guards group
	group map[string]*sync.Mutex
}

func newExecutor(cfg Config, l layout) *executor {
	return &executor{cfg: cfg, l: l, group: map[string]*sync.Mutex{},
		log: &deploymentsLog{dir: filepath.Join(l.root, "deployment-logs")}}
}

func (x *executor) lock(group string) func() {
	x.mu.Lock()
	m := x.group[group]
	if m == nil {
		m = &sync.Mutex{}
		x.group[group] = m
	}
	x.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// eventError is a failure with one of the protocol's codes.
type eventError struct {
	code   int
	script string
	msg    string
	log    string
}

func (e *eventError) Error() string { return e.msg }

func diagnosticsOf(err error) diagnostics {
	var e *eventError
	switch {
	case err == nil:
		return diagnostics{Message: "Succeeded"}
	case errors.As(err, &e):
		return diagnostics{ErrorCode: e.code, ScriptName: e.script, Message: e.msg, Log: e.log}
	}
	return diagnostics{ErrorCode: codeUnknown, Message: err.Error()}
}

// run executes one command; a panic in it is a failure of the event, not of the agent.
func (x *executor) run(ctx context.Context, s *specification, command string) (err error) {
	defer x.lock(s.DeploymentGroupId)()
	defer func() {
		if r := recover(); r != nil {
			x.cfg.Log.Error("panic in a lifecycle event", "command", command, "panic", r)
			err = fmt.Errorf("the agent failed: %v", r)
		}
	}()
	switch command {
	case "DownloadBundle":
		return x.downloadBundle(ctx, s)
	case "Install":
		return x.install(s)
	}
	return x.hooks(ctx, s, command)
}

// noop reports whether a command has nothing to do. It fails when the command is unknown or the AppSpec that
// it depends on cannot be parsed.
func (x *executor) noop(s *specification, command string) (bool, error) {
	if command == "DownloadBundle" || command == "Install" {
		return false, nil
	}
	if !slices.Contains(appspec.Events, command) {
		return false, fmt.Errorf("unsupported command type: %s", command)
	}
	_, scripts, err := x.scripts(s, command)
	return len(scripts) == 0, err
}

// scriptSource returns the deployment directory whose scripts an event runs. The events that act on what is
// running now come from the revision that was installed before, unless the new one is on disk already.
func (x *executor) scriptSource(s *specification, event string) (string, error) {
	current := x.l.deployment(s)
	group := s.DeploymentGroupId
	if s.DeploymentCreator == "codeDeployRollback" && s.DeploymentType == "BLUE_GREEN" {
		switch event {
		case "BeforeBlockTraffic", "AfterBlockTraffic":
			return pointer(x.l.mostRecent(group))
		case "BeforeAllowTraffic", "AfterAllowTraffic":
			return pointer(x.l.lastSuccessful(group))
		}
	}
	switch event {
	case "BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop":
		if _, err := os.Stat(archiveIn(current)); errors.Is(err, fs.ErrNotExist) {
			return pointer(x.l.lastSuccessful(group))
		}
	}
	return current, nil
}

// scripts returns the archive directory and the scripts of an event; none when nothing was installed yet.
func (x *executor) scripts(s *specification, event string) (string, []appspec.Script, error) {
	dir, err := x.scriptSource(s, event)
	if err != nil || dir == "" {
		return "", nil, err
	}
	archive := archiveIn(dir)
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	spec, err := readAppSpec(archive, appSpecName(archive, s.AppSpecFilename))
	if err != nil {
		return "", nil, err
	}
	return archive, spec.Hooks[event], nil
}

// readAppSpec reads an AppSpec file of an archive; a link that leads out of the archive is refused.
func readAppSpec(archive, name string) (*appspec.Spec, error) {
	root, err := os.OpenRoot(archive)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the CodeDeploy agent did not find an AppSpec file within the unpacked revision directory at revision-relative path %q; it was expected at %q", name, filepath.Join(archive, name))
	}
	if err != nil {
		return nil, fmt.Errorf("the AppSpec file cannot be read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2<<20))
	if err != nil {
		return nil, fmt.Errorf("the AppSpec file cannot be read: %w", err)
	}
	spec, err := appspec.Parse(name, data)
	if err != nil {
		return nil, err
	}
	if spec.OS != "linux" {
		return nil, fmt.Errorf("%s: the revision is for %s, this host runs linux", name, spec.OS)
	}
	return spec, nil
}

// install is the Install event.
func (x *executor) install(s *specification) error {
	archive := x.l.archive(s)
	spec, err := readAppSpec(archive, appSpecName(archive, s.AppSpecFilename))
	if err != nil {
		return err
	}
	if err := spec.CheckEvents(s.AllPossibleLifecycleEvents); err != nil {
		return err
	}
	for _, w := range spec.Warnings {
		x.log.write(s.DeploymentId, "Warning: "+w.Error())
	}
	behavior := s.AgentActionOverrides.AgentOverrides.FileExistsBehavior
	if spec.FileExistsBehavior != "" {
		behavior = spec.FileExistsBehavior
	}
	if behavior == "" {
		behavior = appspec.Disallow
	}
	in := &installer{archive: archive, behavior: behavior,
		cleanupFile: x.l.cleanup(s.DeploymentGroupId), instructionsFile: x.l.install(s.DeploymentGroupId)}
	if err := in.run(spec); err != nil {
		return err
	}
	return replaceFile(x.l.lastSuccessful(s.DeploymentGroupId), []byte(x.l.deployment(s)), 0o644)
}

// appSpecName finds the default file under either of its two endings. (AWS's agent does so for Install only and
// then fails the hooks of a revision that has appspec.yaml.)
func appSpecName(archive, name string) string {
	other := map[string]string{"appspec.yml": "appspec.yaml", "appspec.yaml": "appspec.yml"}[name]
	if other == "" {
		return name
	}
	if _, err := os.Lstat(filepath.Join(archive, name)); err == nil {
		return name
	}
	if _, err := os.Lstat(filepath.Join(archive, other)); err == nil {
		return other
	}
	return name
}

// pruneRevisions removes the oldest deployments of the group, so that with the coming one at most
// MaxRevisions remain; the last successful one always stays, and so does what is no deployment.
func (x *executor) pruneRevisions(s *specification) error {
	dir := filepath.Join(x.l.root, s.DeploymentGroupId)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	keep, err := pointer(x.l.lastSuccessful(s.DeploymentGroupId))
	if err != nil {
		return err
	}
	type old struct {
		path string
		at   int64
	}
	var olds []old
	count := 1 // the coming one
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() || e.Name() == s.DeploymentId {
			continue
		}
		count++
		info, err := e.Info()
		if err != nil || path == strings.TrimRight(keep, "/") {
			continue
		}
		olds = append(olds, old{path, info.ModTime().UnixNano()})
	}
	sort.Slice(olds, func(i, j int) bool { return olds[i].at < olds[j].at })
	for _, o := range olds {
		if count <= x.cfg.MaxRevisions {
			break
		}
		if err := os.RemoveAll(o.path); err != nil {
			return fmt.Errorf("removing an old revision: %w", err)
		}
		count--
	}
	return nil
}
