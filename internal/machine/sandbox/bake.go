package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"slipway/internal/machine"
)

// bakeLabel marks an image with what it was baked from.
const bakeLabel = "slipway:baked-from"

// Bake implements machine.Driver: a build machine of the base image runs the
// script, and what it changed becomes the image's layer.
func (d *Driver) Bake(ctx context.Context, spec machine.BakeSpec) (machine.Image, error) {
	base, err := d.image(spec.Base)
	if err != nil {
		return machine.Image{}, err
	}
	key, err := bakeKey(spec, base)
	if err != nil {
		return machine.Image{}, err
	}
	id := "bake-" + key[:16]
	release, err := d.locks.take(ctx, "bake:"+key)
	if err != nil {
		return machine.Image{}, err
	}
	defer release()
	for _, img := range d.Images() {
		if img.Labels[bakeLabel] == key {
			return img, nil
		}
	}
	if err := d.Destroy(ctx, id); err != nil { // of a server that died amid it
		return machine.Image{}, err
	}
	if _, err := d.Boot(ctx, machine.Spec{ID: id, Kind: machine.KindBuild, Image: spec.Base, PrivateIP: spec.PrivateIP}); err != nil {
		return machine.Image{}, fmt.Errorf("bake %s: %w", spec.Name, err)
	}
	img, err := d.bakeIn(ctx, id, key, spec)
	clean, cancel := cleanupContext(ctx)
	defer cancel()
	if err = errors.Join(err, d.Destroy(clean, id)); err != nil {
		return machine.Image{}, fmt.Errorf("bake %s: %w", spec.Name, err)
	}
	return img, nil
}

// bakeKey names the outcome by everything that it is made of. The host's own
// packages count: the default image shows them.
func bakeKey(spec machine.BakeSpec, base machine.Image) (string, error) {
	var host int64
	if info, err := os.Stat("/var/lib/dpkg/status"); err == nil {
		host = info.ModTime().Unix()
	}
	b, err := json.Marshal([]any{base.ID, spec.Name, spec.Files, spec.Script, spec.Env, host})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

func (d *Driver) bakeIn(ctx context.Context, id, key string, spec machine.BakeSpec) (machine.Image, error) {
	for _, f := range spec.Files {
		if err := d.WriteFile(ctx, id, f); err != nil {
			return machine.Image{}, err
		}
	}
	if len(spec.Script) > 0 {
		const script = "/tmp/bake-script"
		if err := d.WriteFile(ctx, id, machine.File{Path: script, Mode: 0o700, Data: spec.Script}); err != nil {
			return machine.Image{}, err
		}
		out := spec.Output
		if out == nil {
			out = io.Discard
		}
		env := append([]string{"DEBIAN_FRONTEND=noninteractive"}, spec.Env...)
		code, err := d.Exec(ctx, id, machine.ExecSpec{Args: []string{script}, Env: env, Dir: "/", Stdout: out, Stderr: out})
		if err != nil {
			return machine.Image{}, err
		}
		if code != 0 {
			return machine.Image{}, fmt.Errorf("the script ended with exit status %d", code)
		}
	}
	if err := d.Stop(ctx, id); err != nil {
		return machine.Image{}, err
	}
	return d.Snapshot(ctx, id, spec.Name, map[string]string{bakeLabel: key})
}

// RemoveImage implements machine.Driver.
func (d *Driver) RemoveImage(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	img, ok := d.images[id]
	if !ok || id == machine.DefaultImage {
		return fmt.Errorf("image %s: %w", id, machine.ErrNotFound)
	}
	for other, b := range d.machines {
		if len(img.Layers) > 0 && slices.Contains(b.rec.Layers, img.Layers[0]) {
			return fmt.Errorf("image %s: %w by %s", id, machine.ErrInUse, other)
		}
	}
	for _, other := range d.images {
		if other.ID != id && len(img.Layers) > 0 && slices.Contains(other.Layers, img.Layers[0]) {
			return fmt.Errorf("image %s: %w by image %s", id, machine.ErrInUse, other.ID)
		}
	}
	if err := os.Remove(filepath.Join(d.paths.images(), imageFile(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(d.images, id)
	if len(img.Layers) == 0 {
		return nil
	}
	return os.RemoveAll(d.paths.layer(img.Layers[0]))
}

// sweepLayers removes layers that no image names: of a server that died amid a
// snapshot or a removal.
func (d *Driver) sweepLayers() error {
	used := map[string]bool{}
	for _, img := range d.images {
		for _, l := range img.Layers {
			used[l] = true
		}
	}
	entries, err := os.ReadDir(d.paths.layers())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !used[e.Name()] {
			if err := os.RemoveAll(d.paths.layer(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveVolume implements machine.Driver.
func (d *Driver) RemoveVolume(_ context.Context, name string) error {
	if !idPattern.MatchString(name) {
		return fmt.Errorf("%w: volume name %q", machine.ErrInvalid, name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, b := range d.machines {
		for _, m := range b.rec.Spec.Mounts {
			if m.Source == name {
				return fmt.Errorf("volume %s: %w by %s", name, machine.ErrInUse, id)
			}
		}
	}
	return os.RemoveAll(d.paths.volume(name))
}
