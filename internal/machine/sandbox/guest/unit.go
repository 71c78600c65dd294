package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// unitDirs are searched in order, as in systemd.unit(5).
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unit is a service's unit file with its drop-ins: the settings that PID 1 acts on.
type unit struct {
	Name string // with suffix
	Path string // "" when made by Slipway or from an init script
	Type string

	ExecStartPre, ExecStart, ExecStartPost, ExecReload, ExecStop, ExecStopPost []string

	Description, PIDFile, User, Group, WorkingDirectory string
	Environment, EnvironmentFile                        []string
	Restart, KillMode, KillSignal                       string
	StandardOutput, StandardError                       string
	RuntimeDirectory, StateDirectory, LogsDirectory     []string
	RestartSec, TimeoutStop, TimeoutStart               time.Duration
	RemainAfterExit                                     bool
	UMask                                               int
	Requires, Wants                                     []string
	WantedBy, RequiredBy, Alias                         []string
	BackoffMost                                         time.Duration // restarts for ever, ever slower (agents)
}

var errNoUnit = errors.New("not found")

// fullName adds .service where a command left it out.
func fullName(name string) string {
	for _, s := range []string{".service", ".target", ".timer", ".socket", ".mount", ".path", ".slice"} {
		if strings.HasSuffix(name, s) {
			return name
		}
	}
	return name + ".service"
}

// loadUnit finds and parses a service's unit, or its init script.
func loadUnit(name string) (*unit, error) {
	if strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("unit name %q is not valid", name)
	}
	names := []string{name}
	if base, rest, ok := strings.Cut(name, "@"); ok {
		names = append(names, base+"@"+filepath.Ext(rest))
	}
	for _, n := range names {
		for _, dir := range unitDirs {
			path := filepath.Join(dir, n)
			if target, err := os.Readlink(path); err == nil && target == "/dev/null" {
				return nil, fmt.Errorf("unit %s is masked", name)
			}
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
				continue
			}
			u := &unit{Name: name, Path: path, Type: "", RestartSec: 100 * time.Millisecond, TimeoutStop: 30 * time.Second,
				TimeoutStart: 90 * time.Second, KillMode: "control-group", KillSignal: "SIGTERM", UMask: 0o022}
			if err := u.parseAll(path, n); err != nil {
				return nil, err
			}
			return u, u.complete()
		}
	}
	script := filepath.Join("/etc/init.d", strings.TrimSuffix(name, ".service"))
	if info, err := os.Stat(script); err == nil && info.Mode()&0o111 != 0 {
		return &unit{Name: name, Type: "forking", Description: "init script " + script, RemainAfterExit: true, KillMode: "process",
			KillSignal: "SIGTERM", TimeoutStop: 30 * time.Second, TimeoutStart: 90 * time.Second, UMask: 0o022,
			ExecStart: []string{script + " start"}, ExecStop: []string{script + " stop"}, ExecReload: []string{script + " reload"}}, nil
	}
	return nil, fmt.Errorf("unit %s could not be found: %w", name, errNoUnit)
}

func (u *unit) parseAll(path, fileName string) error {
	files := []string{path}
	for _, dir := range unitDirs {
		more, _ := filepath.Glob(filepath.Join(dir, fileName+".d", "*.conf"))
		files = append(files, more...)
	}
	for _, f := range files {
		if err := u.parseFile(f); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) parseFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	section, pending := "", ""
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if pending == "" && (line == "" || line[0] == '#' || line[0] == ';') {
			continue
		}
		if rest, ok := strings.CutSuffix(line, `\`); ok {
			pending += rest + " "
			continue
		}
		line, pending = pending+line, ""
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("%s:%d: %q is neither a section nor a setting", path, n, line)
		}
		if err := u.set(section, strings.TrimSpace(key), u.specifiers(strings.TrimSpace(value))); err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	return sc.Err()
}

// specifiers replaces what systemd.unit(5) calls specifiers; unknown ones stay.
func (u *unit) specifiers(v string) string {
	if !strings.Contains(v, "%") {
		return v
	}
	base := strings.TrimSuffix(u.Name, filepath.Ext(u.Name))
	prefix, instance, _ := strings.Cut(base, "@")
	host, _ := os.Hostname()
	return strings.NewReplacer("%%", "%", "%n", u.Name, "%N", base, "%p", prefix, "%i", instance, "%I", instance, "%j", prefix,
		"%H", host, "%t", "/run", "%S", "/var/lib", "%L", "/var/log", "%C", "/var/cache", "%h", "/root", "%u", "root").Replace(v)
}

func (u *unit) set(section, key, value string) (err error) {
	lists := map[string]*[]string{
		"Service.ExecStartPre": &u.ExecStartPre, "Service.ExecStart": &u.ExecStart, "Service.ExecStartPost": &u.ExecStartPost,
		"Service.ExecReload": &u.ExecReload, "Service.ExecStop": &u.ExecStop, "Service.ExecStopPost": &u.ExecStopPost,
		"Service.Environment": &u.Environment, "Service.EnvironmentFile": &u.EnvironmentFile,
	}
	words := map[string]*[]string{
		"Service.RuntimeDirectory": &u.RuntimeDirectory, "Service.StateDirectory": &u.StateDirectory, "Service.LogsDirectory": &u.LogsDirectory,
		"Unit.Requires": &u.Requires, "Unit.BindsTo": &u.Requires, "Unit.Wants": &u.Wants,
		"Install.WantedBy": &u.WantedBy, "Install.RequiredBy": &u.RequiredBy, "Install.Alias": &u.Alias,
	}
	texts := map[string]*string{
		"Service.Type": &u.Type, "Unit.Description": &u.Description, "Service.PIDFile": &u.PIDFile, "Service.User": &u.User,
		"Service.Group": &u.Group, "Service.WorkingDirectory": &u.WorkingDirectory, "Service.Restart": &u.Restart,
		"Service.KillMode": &u.KillMode, "Service.KillSignal": &u.KillSignal,
		"Service.StandardOutput": &u.StandardOutput, "Service.StandardError": &u.StandardError,
	}
	spans := map[string]*time.Duration{"Service.RestartSec": &u.RestartSec, "Service.TimeoutStopSec": &u.TimeoutStop, "Service.TimeoutStartSec": &u.TimeoutStart}
	name := section + "." + key
	switch {
	case lists[name] != nil:
		l := lists[name]
		if value == "" {
			*l = nil // an empty assignment resets
			return nil
		}
		*l = append(*l, value)
	case words[name] != nil:
		l := words[name]
		if value == "" {
			*l = nil
		}
		*l = append(*l, strings.Fields(value)...)
	case texts[name] != nil:
		*texts[name] = value
	case spans[name] != nil:
		*spans[name], err = timeSpan(value)
	case name == "Service.TimeoutSec":
		u.TimeoutStop, err = timeSpan(value)
		u.TimeoutStart = u.TimeoutStop
	case name == "Service.RemainAfterExit":
		u.RemainAfterExit, err = boolean(value)
	case name == "Service.UMask":
		var m uint64
		m, err = strconv.ParseUint(value, 8, 16)
		u.UMask = int(m)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func boolean(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "yes", "true", "on":
		return true, nil
	case "0", "no", "false", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is not yes or no", v)
}

// timeSpan parses systemd.time(7)'s spans: seconds without a unit.
func timeSpan(v string) (time.Duration, error) {
	if v == "infinity" || v == "0" {
		return 365 * 24 * time.Hour, nil
	}
	var sum time.Duration
	for f := range strings.FieldsSeq(v) {
		if n, err := strconv.ParseFloat(f, 64); err == nil {
			sum += time.Duration(n * float64(time.Second))
			continue
		}
		d, err := time.ParseDuration(strings.NewReplacer("sec", "s", "min", "m").Replace(f))
		if err != nil {
			return 0, fmt.Errorf("%q is not a time span", v)
		}
		sum += d
	}
	return sum, nil
}

func (u *unit) complete() error {
	if u.Type == "" {
		u.Type = "simple"
		if len(u.ExecStart) == 0 {
			u.Type = "oneshot"
		}
	}
	switch u.Type {
	case "simple", "exec", "idle", "notify", "notify-reload", "dbus", "forking", "oneshot":
	default:
		return fmt.Errorf("%s: Type=%s is not known", u.Name, u.Type)
	}
	if strings.HasSuffix(u.Name, ".service") && len(u.ExecStart) == 0 && u.Type != "oneshot" {
		return fmt.Errorf("%s: has no ExecStart=", u.Name)
	}
	if u.Type != "oneshot" && len(u.ExecStart) > 1 {
		return fmt.Errorf("%s: has more than one ExecStart=, which only Type=oneshot may", u.Name)
	}
	return nil
}

// environ is what the unit's programs get besides the basics.
func (u *unit) environ() ([]string, error) {
	var out []string
	for _, line := range u.Environment {
		w, err := splitWords(line)
		if err != nil {
			return nil, fmt.Errorf("%s: Environment=: %w", u.Name, err)
		}
		out = append(out, w...)
	}
	for _, path := range u.EnvironmentFile {
		path, optional := strings.CutPrefix(path, "-")
		b, err := os.ReadFile(path)
		if err != nil {
			if optional {
				continue
			}
			return nil, fmt.Errorf("%s: EnvironmentFile=: %w", u.Name, err)
		}
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			k, v, ok := strings.Cut(line, "=")
			if !ok || line[0] == '#' || line[0] == ';' {
				continue
			}
			if n := len(v); n >= 2 && (v[0] == '"' || v[0] == '\'') && v[n-1] == v[0] {
				v = v[1 : n-1]
			}
			out = append(out, strings.TrimSpace(k)+"="+v)
		}
	}
	return mergeEnv(out), nil
}

// command is one Exec line, ready to run.
type command struct {
	args         []string
	ignoreErrors bool // "-"
	asRoot       bool // "+", "!"
}

// parseCommand splits an Exec line and puts variables in, as in systemd.service(5).
func parseCommand(line string, env []string) (command, error) {
	var c command
	for line != "" && strings.ContainsRune("-@:+!|", rune(line[0])) {
		switch line[0] {
		case '-':
			c.ignoreErrors = true
		case '+', '!':
			c.asRoot = true
		}
		line = strings.TrimSpace(line[1:])
	}
	words, err := splitWords(line)
	if err != nil {
		return c, err
	}
	for i, w := range words {
		if name, ok := strings.CutPrefix(w, "$"); ok && i > 0 && name != "" && name[0] != '{' && name[0] != '$' {
			// A whole word $VAR is split at white space.
			c.args = append(c.args, strings.Fields(envValue(env, name))...)
			continue
		}
		c.args = append(c.args, expandBraces(w, env))
	}
	if len(c.args) == 0 {
		return c, errors.New("is empty")
	}
	return c, nil
}

func expandBraces(w string, env []string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(w, '$')
		if i < 0 || i+1 >= len(w) {
			return b.String() + w
		}
		b.WriteString(w[:i])
		switch end := strings.IndexByte(w[i:], '}'); {
		case w[i+1] == '$':
			b.WriteByte('$')
			w = w[i+2:]
		case w[i+1] == '{' && end > 0:
			b.WriteString(envValue(env, w[i+2:i+end]))
			w = w[i+end+1:]
		default:
			b.WriteByte('$')
			w = w[i+1:]
		}
	}
}

// splitWords splits at white space outside of quotes.
func splitWords(s string) ([]string, error) {
	var out []string
	var b strings.Builder
	quote, in := byte(0), false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && quote != '\'':
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 's':
				b.WriteByte(' ')
			default:
				b.WriteByte(s[i])
			}
			in = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == ' ' || c == '\t':
			if in {
				out = append(out, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unbalanced %c", quote)
	}
	if in {
		out = append(out, b.String())
	}
	return out, nil
}
