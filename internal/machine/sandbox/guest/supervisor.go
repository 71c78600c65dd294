package guest

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/internal/machine"
)

// bootTarget is where `systemctl enable` links what starts with the machine.
const bootTarget = "multi-user.target"

// supervisor keeps the machine's services. Safe for concurrent use.
type supervisor struct {
	in       *Init
	mu       sync.Mutex
	services map[string]*service
	agents   map[string]*unit
}

func newSupervisor(in *Init) *supervisor {
	return &supervisor{in: in, services: map[string]*service{}, agents: map[string]*unit{}}
}

// service finds or makes the entry of a unit.
func (s *supervisor) service(name string) *service {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.services[name]
	if v == nil {
		v = &service{in: s.in, state: stInactive}
		s.services[name] = v
	}
	return v
}

// load finds a unit: an agent of the Spec, or a file.
func (s *supervisor) load(name string) (*unit, error) {
	s.mu.Lock()
	u := s.agents[name]
	s.mu.Unlock()
	if u != nil {
		return u, nil
	}
	u, err := loadUnit(name)
	if err != nil {
		return nil, err
	}
	// An alias is the unit that it links to.
	if real, err := filepath.EvalSymlinks(u.Path); err == nil && u.Path != "" && !strings.Contains(name, "@") {
		if base := filepath.Base(real); base != name && strings.HasSuffix(base, ".service") {
			return s.load(base)
		}
	}
	return u, nil
}

// start starts a unit and what it requires.
func (s *supervisor) start(name string) error { return s.startDeep(name, 0) }

func (s *supervisor) startDeep(name string, depth int) error {
	if !strings.HasSuffix(name, ".service") {
		return nil // targets, sockets and timers group or trigger; there is nothing to run
	}
	u, err := s.load(name)
	if err != nil {
		return err
	}
	if depth < 8 {
		for _, r := range u.Requires {
			if strings.HasSuffix(r, ".service") {
				if err := s.startDeep(r, depth+1); err != nil {
					return fmt.Errorf("%s requires %s: %w", name, r, err)
				}
			}
		}
	}
	return s.service(u.Name).start(u)
}

// startAgents starts the Spec's commands: for ever, ever slower when they die.
func (s *supervisor) startAgents(agents []machine.AgentCommand) {
	for _, a := range agents {
		u := &unit{Name: a.Name + ".service", Type: "simple", Description: "Slipway agent " + a.Name, Restart: "always",
			RestartSec: 10 * time.Millisecond, BackoffMost: 30 * time.Second, TimeoutStop: 10 * time.Second, TimeoutStart: 90 * time.Second,
			KillMode: "control-group", KillSignal: "SIGTERM", UMask: 0o022, ExecStart: []string{quoteWords(a.Args)}}
		for _, kv := range a.Env {
			u.Environment = append(u.Environment, quoteWord(kv)) // no variables there
		}
		s.mu.Lock()
		s.agents[u.Name] = u
		s.mu.Unlock()
		if err := s.service(u.Name).start(u); err != nil {
			s.in.console.printf("agent %s: %v", a.Name, err)
			v := s.service(u.Name)
			v.mu.Lock()
			v.wanted = true
			v.restartLater()
			v.mu.Unlock()
		}
	}
}

// quoteWords is the inverse of parseCommand.
func quoteWords(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = quoteWord(strings.ReplaceAll(w, "$", "$$"))
	}
	return strings.Join(out, " ")
}

// quoteWord is the inverse of splitWords for one word.
func quoteWord(w string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(w) + `"`
}

// startEnabled starts what is linked below the boot targets, in parallel.
func (s *supervisor) startEnabled() {
	var wg sync.WaitGroup
	for _, dir := range []string{bootTarget + ".wants", "default.target.wants", "basic.target.wants", "sysinit.target.wants", "network-online.target.wants"} {
		links, _ := filepath.Glob(filepath.Join("/etc/systemd/system", dir, "*.service"))
		for _, l := range links {
			wg.Go(func() {
				if err := s.start(filepath.Base(l)); err != nil {
					s.in.console.printf("%s: %v", filepath.Base(l), err)
				}
			})
		}
	}
	wg.Wait()
}

// stopAll stops every service, in parallel, by the deadline.
func (s *supervisor) stopAll(deadline time.Time) {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.services))
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, v := range all {
		wg.Go(func() { _ = v.stop(deadline) })
	}
	wg.Wait()
}

// enable links a unit where startEnabled finds it; it says what it did.
func (s *supervisor) enable(name string) (string, error) {
	u, err := s.load(name)
	if err != nil {
		return "", err
	}
	if u.Path == "" {
		if _, agent := s.agents[name]; agent {
			return "", nil
		}
		// An init script has no [Install]: give it a link of our own.
		return "", s.enableScript(u)
	}
	var out strings.Builder
	link := func(path string) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if old, err := os.Readlink(path); err == nil && old == u.Path {
			return nil
		}
		_ = os.Remove(path)
		if err := os.Symlink(u.Path, path); err != nil {
			return err
		}
		fmt.Fprintf(&out, "Created symlink %s -> %s.\n", path, u.Path)
		return nil
	}
	for _, w := range append(slices.Clone(u.WantedBy), u.RequiredBy...) {
		if err := link(filepath.Join("/etc/systemd/system", w+".wants", u.Name)); err != nil {
			return "", err
		}
	}
	for _, a := range u.Alias {
		if err := link(filepath.Join("/etc/systemd/system", filepath.Base(a))); err != nil {
			return "", err
		}
	}
	if len(u.WantedBy)+len(u.RequiredBy)+len(u.Alias) == 0 {
		return "The unit files have no installation config; they are not meant to be enabled with systemctl.\n", nil
	}
	return out.String(), nil
}

func (s *supervisor) enableScript(u *unit) error {
	dir := filepath.Join("/etc/systemd/system", bootTarget+".wants")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := os.Symlink("/etc/init.d/"+strings.TrimSuffix(u.Name, ".service"), filepath.Join(dir, u.Name))
	if os.IsExist(err) {
		return nil
	}
	return err
}

// wantLinks are the links that make a unit start with the machine.
func wantLinks(name string) []string {
	wants, _ := filepath.Glob(filepath.Join("/etc/systemd/system", "*.wants", name))
	reqs, _ := filepath.Glob(filepath.Join("/etc/systemd/system", "*.requires", name))
	return append(wants, reqs...)
}

func (s *supervisor) disable(name string) (string, error) {
	if _, err := s.load(name); err != nil && len(wantLinks(name)) == 0 {
		return "", err
	}
	var out strings.Builder
	for _, l := range wantLinks(name) {
		if err := os.Remove(l); err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "Removed %q.\n", l)
	}
	return out.String(), nil
}

// enabledState is what `systemctl is-enabled` prints.
func (s *supervisor) enabledState(name string) (string, bool) {
	if t, err := os.Readlink("/etc/systemd/system/" + name); err == nil && t == "/dev/null" {
		return "masked", false
	}
	if len(wantLinks(name)) > 0 {
		return "enabled", true
	}
	u, err := s.load(name)
	switch {
	case err != nil:
		return "not-found", false
	case u.BackoffMost > 0:
		return "enabled", true
	case u.Path != "" && len(u.WantedBy)+len(u.RequiredBy)+len(u.Alias) == 0:
		return "static", true
	}
	return "disabled", false
}

// known lists the units that have been loaded, by name.
func (s *supervisor) known() []*service {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*service
	for _, v := range s.services {
		if v.unit != nil {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b *service) int { return cmp.Compare(a.unit.Name, b.unit.Name) })
	return out
}
