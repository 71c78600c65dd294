// Package cli is the command line: what people type, and what they see.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// Version is the version of this build; the linker may set it.
var Version = "dev"

// options are the flags that every command has.
type options struct {
	dataDir string
	region  string
}

// Server runs the server in this process until ctx ends; cmd/slipway
// provides it, so that this package needs to know no service.
type Server func(ctx context.Context, o ServerOptions) error

// ServerOptions are the flags of `slipway server`.
type ServerOptions struct {
	DataDir      string
	Listen       string // host:port of the API endpoint
	Account      string
	Region       string
	Machines     string // sandbox or simulated
	Auth         string // verify or any
	TimeScale    float64
	Ephemeral    bool
	StrictImages bool
	ReachHost    bool // instances may connect to the host's own addresses
	PortShift    int
	LBAddress    string // of the first load balancer
	Verbose      bool
	// Ready is called with the endpoint when requests are served.
	Ready func(endpoint string)
}

// Main runs the command line and returns the exit status.
func Main(server Server) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := &options{}
	root := &cobra.Command{
		Use:   "slipway",
		Short: "The AWS deployment stack on machines that you own",
		Long: "Slipway runs pipelines, builds, deployments, instances, Auto Scaling groups and load balancers\n" +
			"behind AWS's own API, on this machine.\n\nStart with: slipway up DIR",
		SilenceUsage: true, SilenceErrors: true, Version: Version,
	}
	root.PersistentFlags().StringVar(&o.dataDir, "data-dir", defaultDataDir(), "where the server keeps its data")
	root.PersistentFlags().StringVar(&o.region, "region", envOr("AWS_REGION", "us-east-1"), "AWS region")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; %s --help lists the flags", err, c.CommandPath())
	})
	root.Args, root.RunE = noArgs, func(c *cobra.Command, _ []string) error { return c.Help() }
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		// A server in the background works in another directory.
		o.dataDir, err = filepath.Abs(o.dataDir)
		return err
	}
	root.AddCommand(
		upCommand(o), downCommand(o), statusCommand(o), logsCommand(o), execCommand(o), killCommand(o), envCommand(o),
		serverCommand(o, server), credentialCommand(o), cloneCommand(o), mailCommand(o),
	)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\nslipway: interrupted; what was begun goes on in the server (slipway status)")
		return 130
	}
	fmt.Fprintln(os.Stderr, "slipway: "+err.Error())
	return 1
}

// arguments takes between least and most arguments, and otherwise shows how
// the command is called.
func arguments(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("wrong number of arguments (%d); usage: %s", len(args), c.UseLine())
		}
		return nil
	}
}

// noArgs refuses arguments by name.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s has no %q; see %s --help", c.CommandPath(), args[0], c.CommandPath())
	}
	return nil
}

// exitCode ends the program with the status of a program in an instance.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// defaultDataDir is /var/lib/slipway for root, below the home for others.
func defaultDataDir() string {
	if v := os.Getenv("SLIPWAY_DATA_DIR"); v != "" {
		return v
	}
	if os.Getuid() == 0 {
		return "/var/lib/slipway"
	}
	if home, err := os.UserHomeDir(); err == nil {
		return home + "/.local/share/slipway"
	}
	return "slipway-data"
}
