package sandbox

import (
	"os"
	"testing"
)

// The test binary is also the init of the machines that the tests boot, and
// their systemctl.
func TestMain(m *testing.M) {
	if code, ok := MultiCall(os.Args[0], os.Args[1:]); ok {
		os.Exit(code)
	}
	if len(os.Args) > 1 && os.Args[1] == "init" {
		os.Exit(InitMain(os.Args[2:]))
	}
	if dir := os.Getenv(crashEnv); dir != "" {
		crashServer(dir)
	}
	os.Exit(m.Run())
}
