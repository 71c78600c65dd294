package sandbox

import (
	"context"
	"fmt"

	"slipway/internal/machine"
)

// Snapshot implements machine.Driver.
func (d *Driver) Snapshot(ctx context.Context, id, name string, labels map[string]string) (machine.Image, error) {
	return machine.Image{}, fmt.Errorf("snapshot: %w", machine.ErrUnsupported)
}

// Bake implements machine.Driver.
func (d *Driver) Bake(ctx context.Context, spec machine.BakeSpec) (machine.Image, error) {
	return machine.Image{}, fmt.Errorf("bake: %w", machine.ErrUnsupported)
}

// RemoveImage implements machine.Driver.
func (d *Driver) RemoveImage(ctx context.Context, id string) error {
	return fmt.Errorf("remove image: %w", machine.ErrUnsupported)
}

// RemoveVolume implements machine.Driver.
func (d *Driver) RemoveVolume(ctx context.Context, name string) error {
	return fmt.Errorf("remove volume: %w", machine.ErrUnsupported)
}
