package cloudwatch

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/agent/awscall"
	"slipway/internal/agent/imds"
	"slipway/internal/lean"
)

const (
	// ConfigDir is where the switch puts configuration files and the agent reads them, as AWS's does.
	ConfigDir = "/opt/aws/amazon-cloudwatch-agent/etc/amazon-cloudwatch-agent.d"
	// StateDir is where positions are kept. Images that are made of an instance do not contain it.
	StateDir = "/var/lib/slipway-agent/cloudwatch"
)

type options struct {
	endpoint, imds, config, state, region, host string
}

// Main is `slipway agent cloudwatch`. It returns the exit status: 0 after SIGTERM or SIGINT, 2 for bad usage, 1 when
// the configuration is wrong or the agent runs already.
func Main(args []string) int {
	var o options
	fl := flag.NewFlagSet("slipway agent cloudwatch", flag.ContinueOnError)
	fl.StringVar(&o.endpoint, "endpoint", os.Getenv("AWS_ENDPOINT_URL"), "endpoint of the API (default from AWS_ENDPOINT_URL; AWS_ENDPOINT_URL_CLOUDWATCH_LOGS and AWS_ENDPOINT_URL_CLOUDWATCH go before it)")
	fl.StringVar(&o.imds, "imds", "", "metadata service (default from AWS_EC2_METADATA_SERVICE_ENDPOINT, else http://169.254.169.254)")
	fl.StringVar(&o.config, "config-dir", ConfigDir, "directory of the configuration files")
	fl.StringVar(&o.state, "state-dir", StateDir, "directory of the agent's state")
	fl.StringVar(&o.region, "region", "", "region (default from the configuration, then the metadata service)")
	fl.StringVar(&o.host, "host", "", "name of this host where there is no metadata service")
	if err := fl.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fl.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "slipway agent cloudwatch: unexpected argument %q\n", fl.Arg(0))
		return 2
	}
	// An instance has little memory and the agent mostly waits: trade CPU for a small heap.
	debug.SetGCPercent(30)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		if err := lean.Keep(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "slipway agent cloudwatch: unused memory is not given back:", err)
		}
	}()
	if err := serve(ctx, o, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "slipway agent cloudwatch:", err)
		return 1
	}
	return 0
}

// serve runs the agent until ctx ends.
func serve(ctx context.Context, o options, out io.Writer) error {
	log := slog.New(slog.NewTextHandler(out, nil))
	cfg, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		log.Warn(w)
	}
	lock, err := hold(o.state)
	if err != nil {
		return err
	}
	defer lock.Close()
	st, err := loadState(o.state)
	if err != nil {
		return err
	}
	meta := imds.New(o.imds)
	h := identify(ctx, meta, o, log)
	if ctx.Err() != nil {
		return nil
	}
	h.Region = orElse(orElse(o.region, cfg.Region), orElse(h.Region, os.Getenv("AWS_REGION")))
	var creds awscall.Credentials = awscall.Role{IMDS: meta}
	if id := os.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
		creds = awscall.Static(aws.Credentials{AccessKeyID: id, SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")})
	}
	client := func(configured, variable string) (*awscall.Client, error) {
		return awscall.New(orElse(configured, orElse(os.Getenv(variable), o.endpoint)), h.Region, creds)
	}
	g, ctx := errgroup.WithContext(ctx)
	if len(cfg.Logs.Files) > 0 {
		c, err := client(cfg.Logs.Endpoint, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS")
		if err != nil {
			return err
		}
		a := newLogsAgent(cfg.Logs, st, h, c, log)
		g.Go(func() error { return a.Run(ctx) })
	}
	if m := cfg.Metrics; m != nil && len(m.Sections) > 0 {
		c, err := client(m.Endpoint, "AWS_ENDPOINT_URL_CLOUDWATCH")
		if err != nil {
			return err
		}
		a := &metricsAgent{cfg: m, meter: newMeter(""), api: c, log: log, resolve: func(ctx context.Context) (map[string]string, error) {
			return h.dimensions(ctx, m, c)
		}}
		g.Go(func() error { return a.Run(ctx) })
	}
	log.Info("amazon-cloudwatch-agent (Slipway's) runs", "files", len(cfg.Logs.Files), "instance", h.InstanceID)
	g.Go(func() error { <-ctx.Done(); return nil })
	return g.Wait()
}

// hold takes the state directory for this process: a second agent would double every line. The file says since when.
func hold(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another agent works in %s: %w", dir, err)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.WriteAt([]byte(time.Now().UTC().Format(time.RFC3339)), 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// since tells since when an agent works in a state directory; false when none does.
func since(dir string) (string, bool) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return "", false
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return "", false // closing gives it back
	}
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	if err != nil && !isEOF(err) {
		return "", true
	}
	return string(b[:n]), true
}

// identify asks the metadata service who this is, for as long as it takes: at boot the network may not be up yet.
func identify(ctx context.Context, meta *imds.Client, o options, log *slog.Logger) *host {
	if o.host != "" {
		return &host{InstanceID: o.host, Hostname: o.host}
	}
	wait := 50 * time.Millisecond
	for attempt := 0; ctx.Err() == nil; attempt++ {
		id, err := meta.Identity(ctx)
		if err == nil {
			h := &host{InstanceID: id.InstanceID, InstanceType: id.InstanceType, ImageID: id.ImageID, Region: id.Region, IP: id.PrivateIP}
			if name, err := meta.Get(ctx, "/latest/meta-data/hostname"); err == nil {
				h.Hostname = name
			}
			return h
		}
		if attempt%60 == 5 {
			log.Warn("the metadata service does not say who this instance is; trying again", "error", err)
		}
		pause(ctx, wait)
		wait = min(2*wait, 5*time.Second)
	}
	return &host{}
}

// dimensions are the values of the identity dimensions; those that the instance has no value for are left out.
func (h *host) dimensions(ctx context.Context, m *metricsConfig, client api) (map[string]string, error) {
	out := map[string]string{}
	if m.Hostname {
		name, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		out["host"] = name
	}
	for k := range m.Identity {
		v := map[string]string{"InstanceId": h.InstanceID, "ImageId": h.ImageID, "InstanceType": h.InstanceType}[k]
		if k == "AutoScalingGroupName" {
			var err error
			if v, err = groupOfInstance(ctx, client, h.InstanceID); err != nil {
				return nil, err
			}
		}
		if v != "" {
			out[k] = v
		}
	}
	return out, nil
}

// groupOfInstance reads the tag that Auto Scaling puts on its instances; "" without one. EC2's own protocol is XML;
// Slipway takes JSON for every service from its own programs, with the names that the XML has.
func groupOfInstance(ctx context.Context, client api, id string) (string, error) {
	const key = "aws:autoscaling:groupName"
	filter := func(name, value string) map[string]any { return map[string]any{"Name": name, "Value": []string{value}} }
	in := map[string]any{"Filter": []map[string]any{filter("resource-id", id), filter("key", key)}}
	var out struct {
		Tags []struct {
			Resource string `json:"resourceId"`
			Key      string `json:"key"`
			Value    string `json:"value"`
		} `json:"tagSet"`
	}
	if err := client.JSON(ctx, "ec2", "Slipway_ec2.DescribeTags", nil, in, &out); err != nil {
		return "", err
	}
	for _, t := range out.Tags {
		if t.Resource == id && t.Key == key {
			return t.Value, nil
		}
	}
	return "", nil
}
