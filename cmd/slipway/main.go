// Command slipway is the whole of Slipway in one binary: the server, the load
// balancer process, what runs inside instances, and the command line. Which
// one it is depends on its first argument, or on the name it is called by.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"slipway/internal/agent/build"
	"slipway/internal/agent/cloudwatch"
	"slipway/internal/agent/codedeploy"
	"slipway/internal/cli"
	"slipway/internal/lb"
	"slipway/internal/machine/sandbox"
)

func main() {
	os.Exit(run(os.Args))
}

// run picks the process that this binary is to be. The ones that run inside
// instances come first: they must start quickly and know nothing of the rest.
func run(args []string) int {
	if code, ok := sandbox.MultiCall(filepath.Base(args[0]), args[1:]); ok {
		return code
	}
	if len(args) > 1 {
		switch args[1] {
		case "init":
			return sandbox.InitMain(args[2:])
		case "lb":
			return lb.Main(args[2:])
		case "agent":
			return agent(args[2:])
		}
	}
	cli.Version = version()
	cli.Down = down
	return cli.Main(serve)
}

// agent runs one of the agents of an instance or a build.
func agent(args []string) int {
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch name {
	case "codedeploy":
		return codedeploy.Main(args[1:])
	case "cloudwatch":
		return cloudwatch.Main(args[1:])
	case "build":
		return build.Main(args[1:])
	}
	fmt.Fprintf(os.Stderr, "slipway agent: there is no agent %q; there are codedeploy, cloudwatch and build\n", name)
	return 2
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v = s.Value[:12]
		}
	}
	if v == "" || v == "(devel)" {
		v = "dev"
	}
	return v
}
