package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/machine"
)

// Images are small descriptions, <data>/images/<hex>.json; their layers are
// directories <data>/layers/<hex>, named by content and never changed.

func (d *Driver) loadImages() error {
	d.images = map[string]machine.Image{machine.DefaultImage: {ID: machine.DefaultImage, Name: machine.DefaultImage}}
	files, err := filepath.Glob(filepath.Join(d.paths.images(), "*.json"))
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		var img machine.Image
		if err := json.Unmarshal(b, &img); err != nil || img.ID == "" {
			return fmt.Errorf("image %s: not an image description: %v", f, err)
		}
		d.images[img.ID] = img
	}
	return d.sweepLayers()
}

// Images implements machine.Driver.
func (d *Driver) Images() []machine.Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]machine.Image, 0, len(d.images))
	for _, img := range d.images {
		out = append(out, img)
	}
	slices.SortFunc(out, func(a, b machine.Image) int {
		if (a.ID == machine.DefaultImage) != (b.ID == machine.DefaultImage) {
			if a.ID == machine.DefaultImage {
				return -1
			}
			return 1
		}
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (d *Driver) image(id string) (machine.Image, error) {
	if id == "" {
		id = machine.DefaultImage
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	img, ok := d.images[id]
	if !ok {
		return machine.Image{}, fmt.Errorf("image %s: %w", id, machine.ErrNotFound)
	}
	return img, nil
}

// imageLayers are the layers of an image, top first.
func (d *Driver) imageLayers(id string) ([]string, error) {
	img, err := d.image(id)
	return img.Layers, err
}

func imageFile(id string) string { return strings.TrimPrefix(id, "sha256:") + ".json" }

func copyFile(src, dst string, mode os.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := dst + ".new"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(mode) // the mask took some of it
	}
	if err == nil {
		err = out.Close()
	} else {
		out.Close()
	}
	if err == nil {
		err = os.Rename(tmp, dst)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
