package cloudwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"slipway/internal/agent/awscall"
	"slipway/internal/agent/imds"
	"slipway/internal/lazyre"
)

const (
	// CtlName and AgentName are the names by which the switch and the agent are called; BinDir is where AWS's package
	// has both.
	CtlName   = "amazon-cloudwatch-agent-ctl"
	AgentName = "amazon-cloudwatch-agent"
	BinDir    = "/opt/aws/amazon-cloudwatch-agent/bin"

	unitName = "amazon-cloudwatch-agent.service"
	unitPath = "/etc/systemd/system/" + unitName
)

// unitFile is the service that runs the agent.
const unitFile = `[Unit]
Description=Amazon CloudWatch Agent (Slipway's)
After=network.target

[Service]
Type=simple
ExecStart=/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent
Restart=on-failure
RestartSec=3
KillMode=process

[Install]
WantedBy=multi-user.target
`

const ctlUsage = `usage: amazon-cloudwatch-agent-ctl -a ACTION [-m ec2|onPremise|onPrem|auto] [-c default|all|ssm:NAME|file:PATH] [-s]

actions: fetch-config, append-config, remove-config, start, stop, status
`

// ctl is one call of the switch. Its fields are for tests.
type ctl struct {
	configDir, stateDir, unit string
	systemctl                 func(args ...string) error
	fetch                     func(name string) ([]byte, error) // a parameter of SSM
	out, err                  io.Writer
}

// Ctl is amazon-cloudwatch-agent-ctl. It returns the exit status: 0 when the action was done, 1 when not.
func Ctl(args []string) int {
	c := &ctl{configDir: ConfigDir, stateDir: StateDir, unit: unitPath, out: os.Stdout, err: os.Stderr, fetch: fetchParameter,
		systemctl: func(args ...string) error {
			cmd := exec.Command("systemctl", args...)
			cmd.Stderr = os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("systemctl %s: %w", strings.Join(args, " "), err)
			}
			return nil
		}}
	if err := c.run(args); err != nil {
		fmt.Fprintln(os.Stderr, "amazon-cloudwatch-agent-ctl:", err)
		return 1
	}
	return 0
}

var errUsage = errors.New(ctlUsage)

func (c *ctl) run(args []string) error {
	action, mode, source, start := "", "ec2", "default", false
	for i := 0; i < len(args); i++ {
		to := map[string]*string{"-a": &action, "-action": &action, "--action": &action, "-m": &mode, "-mode": &mode, "--mode": &mode,
			"-c": &source, "-config": &source, "--config": &source, "-o": new(string)}[args[i]]
		switch {
		case to != nil && i+1 < len(args):
			i++
			*to = args[i]
		case args[i] == "-s" || args[i] == "-start" || args[i] == "--start":
			start = true
		case args[i] == "-h" || args[i] == "-help" || args[i] == "--help":
			fmt.Fprint(c.out, ctlUsage)
			return nil
		default:
			return fmt.Errorf("%q is not understood\n%w", args[i], errUsage)
		}
	}
	switch mode {
	case "ec2", "onPremise", "onPrem", "auto":
	default:
		return fmt.Errorf("-m %q is none of ec2, onPremise, onPrem and auto", mode)
	}
	switch action {
	case "fetch-config":
		return c.configure(source, start, true)
	case "append-config":
		return c.configure(source, start, false)
	case "remove-config":
		return c.remove(source, start)
	case "start":
		return c.start()
	case "stop":
		return c.stop()
	case "status":
		return c.status()
	}
	return fmt.Errorf("-a %q is no action\n%w", action, errUsage)
}

// configure checks a configuration, puts it into the agent's directory, and starts the agent anew if asked.
func (c *ctl) configure(source string, start, alone bool) error {
	name, text, err := c.load(source)
	if err != nil {
		return err
	}
	cfg, err := parseConfig(source, text)
	if err != nil {
		return fmt.Errorf("configuration validation failed: %w", err)
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(c.err, "warning:", w)
	}
	if err := os.MkdirAll(c.configDir, 0o755); err != nil {
		return err
	}
	if !alone {
		// What the agent would refuse at its start is refused now.
		if err := c.checkTogether(name, text); err != nil {
			return err
		}
	}
	path := filepath.Join(c.configDir, name)
	if err := os.WriteFile(path+".tmp", text, 0o644); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	if alone {
		if err := c.clear(path); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.out, "Successfully fetched the config and saved in %s\nConfiguration validation succeeded\n", path)
	if start {
		return c.start()
	}
	return nil
}

// checkTogether checks a configuration beside those that are there.
func (c *ctl) checkTogether(name string, text []byte) error {
	dir, err := os.MkdirTemp("", "amazon-cloudwatch-agent")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	others, err := filepath.Glob(filepath.Join(c.configDir, "*.json"))
	if err != nil {
		return err
	}
	for _, o := range others {
		b, err := os.ReadFile(o)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(o)), b, 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
		return err
	}
	if _, err := loadConfig(dir); err != nil {
		return fmt.Errorf("configuration validation failed: %s", strings.ReplaceAll(err.Error(), dir+"/", ""))
	}
	return nil
}

// clear removes all configurations but one.
func (c *ctl) clear(but string) error {
	others, err := filepath.Glob(filepath.Join(c.configDir, "*.json"))
	if err != nil {
		return err
	}
	for _, o := range others {
		if o == but {
			continue
		}
		if err := os.Remove(o); err != nil {
			return err
		}
	}
	return nil
}

var unsafeName = lazyre.New(`[^A-Za-z0-9._-]+`)

// fileName is the name that a source's configuration has in the agent's directory.
func fileName(source string) (string, error) {
	kind, rest, _ := strings.Cut(source, ":")
	switch {
	case source == "default":
		return "default.json", nil
	case kind == "file" && rest != "":
		return "file_" + strings.TrimSuffix(unsafeName.ReplaceAllString(filepath.Base(rest), "_"), ".json") + ".json", nil
	case kind == "ssm" && rest != "":
		return "ssm_" + unsafeName.ReplaceAllString(rest, "_") + ".json", nil
	}
	return "", fmt.Errorf("-c %q is none of default, file:PATH and ssm:NAME", source)
}

// defaultConfig is what `-c default` means: memory and disk of the instance.
const defaultConfig = `{"metrics": {"append_dimensions": {"InstanceId": "${aws:InstanceId}"}, "metrics_collected": {"mem": {"measurement": ["mem_used_percent"]}, "disk": {"measurement": ["used_percent"], "resources": ["*"]}}}}
`

func (c *ctl) load(source string) (name string, text []byte, err error) {
	if name, err = fileName(source); err != nil {
		return "", nil, err
	}
	kind, rest, _ := strings.Cut(source, ":")
	switch kind {
	case "file":
		f, err := os.Open(rest)
		if err != nil {
			return "", nil, err
		}
		defer f.Close()
		text, err = io.ReadAll(io.LimitReader(f, maxConfig+1))
		return name, text, err
	case "ssm":
		text, err = c.fetch(rest)
		return name, text, err
	}
	return name, []byte(defaultConfig), nil
}

func (c *ctl) remove(source string, start bool) error {
	if source == "all" {
		if err := c.clear(""); err != nil {
			return err
		}
	} else {
		name, err := fileName(source)
		if err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(c.configDir, name)); err != nil {
			return fmt.Errorf("no such configuration is in use: %w", err)
		}
	}
	if start {
		return c.start()
	}
	return nil
}

// start makes the agent run with the present configuration, now and after every boot.
func (c *ctl) start() error {
	if old, err := os.ReadFile(c.unit); err != nil || string(old) != unitFile {
		if err := os.MkdirAll(filepath.Dir(c.unit), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(c.unit, []byte(unitFile), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", unitName}, {"restart", unitName}} {
		if err := c.systemctl(args...); err != nil {
			return err
		}
	}
	// systemctl says only that the process began: wait until it has the configuration and holds its state.
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, ok := since(c.stateDir); ok {
			fmt.Fprintln(c.out, "amazon-cloudwatch-agent has been started")
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the agent did not start; `journalctl -u %s` says why", unitName)
		}
	}
}

func (c *ctl) stop() error {
	if _, ok := since(c.stateDir); !ok {
		fmt.Fprintln(c.out, "amazon-cloudwatch-agent has already been stopped")
		return nil
	}
	if err := c.systemctl("stop", unitName); err != nil {
		return err
	}
	return c.systemctl("disable", unitName)
}

// status prints what AWS's switch prints.
func (c *ctl) status() error {
	s := struct {
		Status    string `json:"status"`
		StartTime string `json:"starttime"`
		Configs   string `json:"configstatus"`
		Version   string `json:"version"`
	}{Status: "stopped", Configs: "not configured", Version: "slipway"}
	if when, ok := since(c.stateDir); ok {
		s.Status = "running"
		if t, err := time.Parse(time.RFC3339, when); err == nil {
			s.StartTime = t.Format("2006-01-02T15:04:05-07:00")
		}
	}
	if files, err := filepath.Glob(filepath.Join(c.configDir, "*.json")); err == nil && len(files) > 0 {
		s.Configs = "configured"
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out, string(b))
	return err
}

// fetchParameter reads a parameter of SSM's parameter store with the instance's role.
func fetchParameter(name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	meta := imds.New("")
	id, err := meta.Identity(ctx)
	if err != nil {
		return nil, err
	}
	client, err := awscall.New(os.Getenv("AWS_ENDPOINT_URL"), id.Region, awscall.Role{IMDS: meta})
	if err != nil {
		return nil, err
	}
	var out struct {
		Parameter struct{ Value string }
	}
	if err := client.JSON(ctx, "ssm", "AmazonSSM.GetParameter", nil, map[string]any{"Name": name, "WithDecryption": true}, &out); err != nil {
		return nil, fmt.Errorf("ssm:%s: %w", name, err)
	}
	return []byte(out.Parameter.Value), nil
}
