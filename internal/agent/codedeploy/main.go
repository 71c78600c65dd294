package codedeploy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"slipway/internal/agent/awscall"
	"slipway/internal/agent/imds"
	"slipway/internal/lean"
)

// DefaultRoot is the deployment root of AWS's agent on Linux.
const DefaultRoot = "/opt/codedeploy-agent/deployment-root"

type options struct {
	endpoint, root, imds, host, region, logDir string
	maxRevisions                               int
}

// Main is `slipway agent codedeploy`. It returns the exit status: 0 after SIGTERM or SIGINT, 2 for bad usage.
func Main(args []string) int {
	var o options
	fl := flag.NewFlagSet("slipway agent codedeploy", flag.ContinueOnError)
	fl.StringVar(&o.endpoint, "endpoint", firstEnv("AWS_ENDPOINT_URL_CODEDEPLOY_COMMANDS", "AWS_ENDPOINT_URL"), "endpoint of the API and S3 (default from AWS_ENDPOINT_URL_CODEDEPLOY_COMMANDS or AWS_ENDPOINT_URL)")
	fl.StringVar(&o.root, "root", DefaultRoot, "deployment root")
	fl.StringVar(&o.imds, "imds", "", "metadata service (default from AWS_EC2_METADATA_SERVICE_ENDPOINT, else http://169.254.169.254)")
	fl.StringVar(&o.host, "host", "", "host identifier (default the instance's ARN from the metadata service)")
	fl.StringVar(&o.region, "region", "", "region (default from the metadata service)")
	fl.StringVar(&o.logDir, "log-dir", DefaultLogDir, "directory of the agent's own log")
	fl.IntVar(&o.maxRevisions, "max-revisions", 5, "revisions kept per deployment group")
	if err := fl.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fl.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "slipway agent codedeploy: unexpected argument %q\n", fl.Arg(0))
		return 2
	}
	if o.endpoint == "" {
		fmt.Fprintln(os.Stderr, "slipway agent codedeploy: no endpoint: set --endpoint or AWS_ENDPOINT_URL")
		return 2
	}
	if os.Getenv("PATH") == "" { // hook scripts inherit it
		os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	// An instance has little memory and the agent mostly waits: trade CPU for a small heap.
	debug.SetGCPercent(30)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		if err := lean.Keep(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "slipway agent codedeploy: unused memory is not given back:", err)
		}
	}()
	if err := serve(ctx, o, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "slipway agent codedeploy:", err)
		return 1
	}
	return 0
}

func firstEnv(names ...string) string {
	for _, n := range names {
		if v := os.Getenv(n); v != "" {
			return v
		}
	}
	return ""
}

// serve waits until the metadata service says who this host is, then runs the agent.
func serve(ctx context.Context, o options, out io.Writer) error {
	log := newAgentLog(o.logDir, out)
	meta := imds.New(o.imds)
	if err := identify(ctx, meta, &o, log); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	var creds awscall.Credentials = awscall.Role{IMDS: meta}
	if id := os.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
		creds = awscall.Static(aws.Credentials{AccessKeyID: id, SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")})
	}
	api, err := awscall.New(o.endpoint, o.region, creds)
	if err != nil {
		return err
	}
	return New(Config{Host: o.host, API: api, Root: o.root, MaxRevisions: o.maxRevisions, Log: log,
		Developer: os.Getenv("CODEDEPLOY_DEVELOPER_MODE") == "true"}).Run(ctx)
}

// identify fills in host and region. It asks for as long as it takes: at boot the network may not be up yet.
func identify(ctx context.Context, meta *imds.Client, o *options, log *slog.Logger) error {
	if o.host != "" && o.region != "" {
		return nil
	}
	wait := 20 * time.Millisecond
	for attempt := 0; ctx.Err() == nil; attempt++ {
		id, err := meta.Identity(ctx)
		if err == nil {
			if o.region == "" {
				o.region = id.Region
			}
			if o.host == "" {
				o.host = fmt.Sprintf("arn:%s:ec2:%s:%s:instance/%s", meta.Partition(ctx), id.Region, id.AccountID, id.InstanceID)
			}
			return nil
		}
		if attempt%60 == 5 { // at boot the first attempts are often too early
			log.Warn("the metadata service does not say who this instance is; trying again", "err", err)
		}
		pause(ctx, wait)
		wait = min(2*wait, time.Second)
	}
	return nil
}
