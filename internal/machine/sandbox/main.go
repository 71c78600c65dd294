package sandbox

import "slipway/internal/machine/sandbox/guest"

// InitMain is the `slipway init` subcommand: args are those after "init". It
// must run before anything else of the program does. The result is the exit status.
func InitMain(args []string) int { return guest.InitMain(args) }

// MultiCall runs the stand-in command that the program was called as inside a
// machine (systemctl, journalctl, dnf, ...), if argv0 names one. main calls it
// first, before it looks at arguments.
func MultiCall(argv0 string, args []string) (code int, ok bool) { return guest.MultiCall(argv0, args) }
