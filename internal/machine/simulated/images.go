package simulated

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"slipway/internal/machine"
)

// Snapshot implements machine.Driver: an image without content, named by what
// it was made from.
func (d *Driver) Snapshot(_ context.Context, id, name string, labels map[string]string) (machine.Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.machines[id]
	if !ok {
		return machine.Image{}, notFound(id)
	}
	return d.register(name, m.status.Spec.Image, labels, []string{"snapshot", id, m.status.BootedAt.String()})
}

// Bake implements machine.Driver: the script is not run.
func (d *Driver) Bake(_ context.Context, spec machine.BakeSpec) (machine.Image, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.images[cmp.Or(spec.Base, machine.DefaultImage)]; !ok {
		return machine.Image{}, fmt.Errorf("image %s: %w", spec.Base, machine.ErrNotFound)
	}
	return d.register(spec.Name, spec.Base, nil, []any{"bake", spec.Files, spec.Script, spec.Env})
}

// register makes an image; d.mu is held.
func (d *Driver) register(name, parent string, labels map[string]string, content any) (machine.Image, error) {
	b, err := json.Marshal([]any{parent, content})
	if err != nil {
		return machine.Image{}, err
	}
	sum := sha256.Sum256(b)
	layer := hex.EncodeToString(sum[:])
	img := machine.Image{ID: "sha256:" + layer, Name: name, Parent: cmp.Or(parent, machine.DefaultImage), Labels: labels, At: d.clk.Now()}
	if old, ok := d.images[img.ID]; ok {
		return old, nil
	}
	img.Layers = append([]string{layer}, d.images[img.Parent].Layers...)
	d.images[img.ID] = img
	return img, nil
}

// Images implements machine.Driver.
func (d *Driver) Images() []machine.Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []machine.Image
	for _, img := range d.images {
		if img.ID != machine.DefaultImage {
			out = append(out, img)
		}
	}
	slices.SortFunc(out, func(a, b machine.Image) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	return append([]machine.Image{d.images[machine.DefaultImage]}, out...)
}

// RemoveImage implements machine.Driver.
func (d *Driver) RemoveImage(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.images[id]; !ok || id == machine.DefaultImage {
		return fmt.Errorf("image %s: %w", id, machine.ErrNotFound)
	}
	for _, m := range d.machines {
		if m.status.Spec.Image == id {
			return fmt.Errorf("image %s: %w by %s", id, machine.ErrInUse, m.status.ID)
		}
	}
	for _, img := range d.images {
		if img.Parent == id {
			return fmt.Errorf("image %s: %w by image %s", id, machine.ErrInUse, img.ID)
		}
	}
	delete(d.images, id)
	return nil
}

// RemoveVolume implements machine.Driver.
func (d *Driver) RemoveVolume(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, m := range d.machines {
		for _, mt := range m.status.Spec.Mounts {
			if mt.Source == name {
				return fmt.Errorf("volume %s: %w by %s", name, machine.ErrInUse, id)
			}
		}
	}
	return nil
}
