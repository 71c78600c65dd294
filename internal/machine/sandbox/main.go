package sandbox

import "slipway/internal/machine/sandbox/guest"

// InitMain is the `slipway init` subcommand: args are those after "init". It
// must run before anything else of the program does. The result is the exit status.
func InitMain(args []string) int { return guest.InitMain(args) }
