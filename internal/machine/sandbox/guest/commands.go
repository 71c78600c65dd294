package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"slipway/internal/agent/cloudwatch"
	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

// Commands that the slipway executable answers to under other names inside a
// machine. Keys are names in the file system of the image.
var commands = map[string]func(args []string) int{
	"systemctl": systemctl, "journalctl": journalctl, "dnf": dnf, "yum": dnf, "amazon-linux-extras": extras,
	"shutdown": powerOff, "poweroff": powerOff, "halt": powerOff, "reboot": powerOff,
	cloudwatch.CtlName: cloudwatch.Ctl, cloudwatch.AgentName: cloudwatch.Main,
}

// onlyIfMissing are stand-ins that a host's real program goes before.
var onlyIfMissing = map[string]func(args []string) int{"sudo": sudo, "service": service_}

// MultiCall runs the command that the program was called as, if it is one of
// the stand-ins: main calls it before anything else.
func MultiCall(argv0 string, args []string) (code int, ok bool) {
	name := filepath.Base(argv0)
	f := commands[name]
	if f == nil {
		f = onlyIfMissing[name]
	}
	if f == nil {
		return 0, false
	}
	return f(args), true
}

// StandIns are the links and files by which an image answers to commands of
// Amazon Linux, or of an init, that the host has otherwise or not at all.
func StandIns() []wire.MaskEntry {
	var out []wire.MaskEntry
	link := func(name string) {
		out = append(out, wire.MaskEntry{Path: "usr/bin/" + name, Kind: wire.MaskLink, Data: machine.SlipwayBinary})
	}
	for name := range commands {
		link(name)
	}
	for name := range onlyIfMissing {
		found := false
		for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				found = true
			}
		}
		if !found {
			link(name)
		}
	}
	// Where /sbin comes first in PATH, or is no link, the host's own would win.
	for _, name := range []string{"shutdown", "poweroff", "halt", "reboot"} {
		out = append(out, wire.MaskEntry{Path: "usr/sbin/" + name, Kind: wire.MaskLink, Data: machine.SlipwayBinary})
	}
	// AWS's package has these in a directory of its own, and scripts look there.
	for _, name := range []string{cloudwatch.CtlName, cloudwatch.AgentName} {
		out = append(out, wire.MaskEntry{Path: cloudwatch.BinDir[1:] + "/" + name, Kind: wire.MaskLink, Data: machine.SlipwayBinary})
	}
	return append(out,
		wire.MaskEntry{Path: "etc/pip.conf", Kind: wire.MaskFile, Mode: 0o644, Data: pipConf()},
		wire.MaskEntry{Path: "usr/sbin/policy-rc.d", Kind: wire.MaskGone})
}

// pipConf lets pip install system-wide, as on Amazon Linux, and keeps the host's
// own settings where they hold no credentials.
func pipConf() string {
	b, err := os.ReadFile("/etc/pip.conf")
	text := string(b)
	if err != nil || strings.Contains(text, "@") {
		text = ""
	}
	if strings.Contains(text, "break-system-packages") {
		return text
	}
	if strings.Contains(text, "[install]") {
		return strings.Replace(text, "[install]", "[install]\nbreak-system-packages = true", 1)
	}
	return text + "\n[install]\nbreak-system-packages = true\n"
}

func systemctl(args []string) int {
	var a ask
	quiet := false
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--now":
			a.Now = true
		case arg == "-q" || arg == "--quiet":
			quiet = true
		case arg == "--value":
			a.Value = true
		case arg == "--version":
			fmt.Println("slipway systemctl")
			return 0
		case arg == "-p" || arg == "--property" || arg == "-s" || arg == "--signal" || arg == "-n" || arg == "--lines" || arg == "-t" || arg == "--type" || arg == "-o":
			if i++; i < len(args) && strings.HasPrefix(arg, "-p") || strings.HasPrefix(arg, "--p") {
				a.Props = append(a.Props, strings.Split(args[i], ",")...)
			}
		case strings.HasPrefix(arg, "--property="):
			a.Props = append(a.Props, strings.Split(arg[len("--property="):], ",")...)
		case strings.HasPrefix(arg, "-p") && len(arg) > 2:
			a.Props = append(a.Props, strings.Split(arg[2:], ",")...)
		case strings.HasPrefix(arg, "-"):
		case a.Verb == "":
			a.Verb = arg
		default:
			a.Units = append(a.Units, arg)
		}
	}
	switch a.Verb {
	case "poweroff", "halt", "reboot":
		return powerOff(nil)
	}
	t, err := askInit(a)
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemctl:", err)
		return 1
	}
	if !quiet {
		fmt.Print(t.Out)
		fmt.Fprint(os.Stderr, t.Err)
	}
	return t.Code
}

func askInit(a ask) (told, error) {
	var t told
	c, err := net.Dial("unix", controlSocket)
	if err != nil {
		return t, fmt.Errorf("cannot reach init: %w", err)
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(a); err != nil {
		return t, err
	}
	return t, json.NewDecoder(c).Decode(&t)
}

// service_ stands for Debian's `service NAME VERB`.
func service_(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: service NAME start|stop|restart|reload|status")
		return 1
	}
	return systemctl([]string{args[1], args[0]})
}

func powerOff([]string) int {
	if err := syscall.Kill(1, syscall.SIGTERM); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// journalctl shows what services wrote: -u UNIT, -n LINES, -f.
func journalctl(args []string) int {
	units, n, follow := []string(nil), 1000, false
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-u" || arg == "--unit":
			if i++; i < len(args) {
				units = append(units, args[i])
			}
		case strings.HasPrefix(arg, "--unit="):
			units = append(units, arg[7:])
		case strings.HasPrefix(arg, "-u") && len(arg) > 2:
			units = append(units, arg[2:])
		case arg == "-n" || arg == "--lines":
			if i++; i < len(args) {
				n, _ = strconv.Atoi(args[i])
			}
		case arg == "-f" || arg == "--follow":
			follow = true
		}
	}
	if len(units) == 0 {
		files, _ := filepath.Glob(filepath.Join(logDir, "*.log"))
		for _, f := range files {
			units = append(units, strings.TrimSuffix(filepath.Base(f), ".log"))
		}
	}
	for _, u := range units {
		for _, l := range tail(logPath(fullName(u)), n) {
			fmt.Println(l)
		}
	}
	if !follow || len(units) == 0 {
		return 0
	}
	f, err := os.Open(logPath(fullName(units[0])))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer f.Close()
	_, _ = f.Seek(0, io.SeekEnd)
	for {
		if _, err := io.Copy(os.Stdout, f); err != nil {
			return 1
		}
		time.Sleep(200 * time.Millisecond) // a person watches
	}
}

// sudo stands in where there is none: root may become anybody, nobody root.
func sudo(args []string) int {
	user := ""
	env := os.Environ()
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-u", "--user":
			if len(args) < 2 {
				fmt.Fprintln(os.Stderr, "sudo: -u needs a user")
				return 1
			}
			user, args = args[1], args[1:]
		case "--":
		case "-n", "-E", "-H", "-S", "-i", "-s":
		default:
			fmt.Fprintln(os.Stderr, "sudo: option", args[0], "is not known here")
			return 1
		}
		args = args[1:]
	}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "sudo: not installed in this image; only root can use this stand-in")
		return 1
	}
	if len(args) == 0 {
		args = []string{"/bin/sh"}
	}
	p, err := prepare(args, env, ".", user)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sudo:", err)
		return 1
	}
	if p.cred != nil {
		groups := make([]int, len(p.cred.Groups))
		for i, g := range p.cred.Groups {
			groups[i] = int(g)
		}
		if err := firstError(syscall.Setgroups(groups), syscall.Setgid(int(p.cred.Gid)), syscall.Setuid(int(p.cred.Uid))); err != nil {
			fmt.Fprintln(os.Stderr, "sudo:", err)
			return 1
		}
	}
	fmt.Fprintln(os.Stderr, "sudo:", syscall.Exec(p.path, p.argv, p.env))
	return 1
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
