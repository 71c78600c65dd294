package codedeploy

import (
	"log/slog"
	"os"
	"time"

	"slipway/internal/agent/archive"
	"slipway/internal/agent/awscall"
)

// Version is sent to the service in every call. The service shows it; nothing depends on it.
const Version = "slipway-1.0.0"

// Config of an agent. The zero value of every field but Host, API and Root has a meaning.
type Config struct {
	Host string          // host identifier: the instance's ARN
	API  *awscall.Client // the service and S3
	Root string          // deployment root, see layout

	// WorkDir is the working directory of hook scripts: AWS's agent leaves its own, not the bundle's.
	WorkDir      string
	MaxRevisions int            // archives kept per deployment group, the current one included; 0 means 5
	Limits       archive.Limits // zero means archive.DefaultLimits
	Log          *slog.Logger

	// Developer accepts unsigned deployment specifications (format TEXT/JSON), as AWS's agent 2 does when
	// CODEDEPLOY_DEVELOPER_MODE is true.
	Developer bool

	// KillGrace is how long a script that timed out has between SIGTERM and SIGKILL; 0 means 5 s.
	KillGrace time.Duration
	// MaxBackoff bounds the pause after failed calls; 0 means 1 s: the service is near and may be back any time.
	MaxBackoff time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxRevisions <= 0 {
		c.MaxRevisions = 5
	}
	if c.Limits == (archive.Limits{}) {
		c.Limits = archive.DefaultLimits
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.KillGrace <= 0 {
		c.KillGrace = 5 * time.Second
	}
	if c.MaxBackoff <= 0 {
		c.MaxBackoff = time.Second
	}
	if c.WorkDir == "" {
		c.WorkDir = "/"
		if st, err := os.Stat("/opt/codedeploy-agent"); err == nil && st.IsDir() {
			c.WorkDir = "/opt/codedeploy-agent"
		}
	}
	return c
}
