package cloudwatch

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"slipway/internal/lb"
)

// balancerArgs is the environment variable that makes this program the load
// balancer process of a test: its arguments, one per line.
const balancerArgs = "SLIPWAY_TEST_BALANCER"

func TestMain(m *testing.M) {
	if args := os.Getenv(balancerArgs); args != "" {
		os.Exit(lb.Main(strings.Split(args, "\n")))
	}
	goleak.VerifyTestMain(m)
}
