package sandbox

import (
	"os"
	"testing"
)

// The test binary is also the init of the machines that the tests boot.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		os.Exit(InitMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}
