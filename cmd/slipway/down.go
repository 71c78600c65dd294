package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"slipway/internal/hostinfo"
	"slipway/internal/machine"
	"slipway/internal/machine/sandbox"
)

// down gives back everything that runs on behalf of a data directory whose
// server is stopped: load balancer, instances, network. With purge it removes
// the directory too.
func down(ctx context.Context, dataDir string, purge bool) error {
	if _, err := hostinfo.Claim(dataDir); err != nil {
		return err
	}
	lock, err := hostinfo.Lock(dataDir)
	if err != nil {
		return hostinfo.Explain(dataDir, err)
	}
	defer lock.Close()
	if err := stopBalancer(ctx, filepath.Join(dataDir, "lb")); err != nil {
		return err
	}
	d, err := sandbox.Open(ctx, sandbox.Options{DataDir: filepath.Join(dataDir, "machines")})
	switch {
	case errors.Is(err, machine.ErrUnsupported):
		// This machine never ran sandboxes: there is nothing to give back.
	case err != nil:
		return err
	default:
		if err := d.PurgeAll(ctx, purge); err != nil {
			return err
		}
		if left := d.Leftovers(); len(left) > 0 {
			return fmt.Errorf("left behind: %v", left)
		}
	}
	if err := hostinfo.RemoveRunning(dataDir); err != nil {
		return err
	}
	if purge {
		return os.RemoveAll(dataDir)
	}
	return nil
}
