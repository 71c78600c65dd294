package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/lazyre"
	"slipway/internal/machine"
)

// intent is what the server was doing with a machine when it last wrote its
// record; after a crash it says what to finish.
type intent string

const (
	intentBoot    intent = "booting"    // first boot: destroyed if init is not found alive
	intentRun     intent = "running"    // adopted if alive, else stopped
	intentStart   intent = "starting"   // adopted if alive, else stopped
	intentStop    intent = "stopped"    // killed if alive
	intentDestroy intent = "destroying" // destroyed
)

// record is a machine on disk: <data>/machines/<id>/record.json, mode 0600. It is
// written before any side effect that it speaks of.
type record struct {
	Intent   intent
	Spec     machine.Spec
	Layers   []string // image layers, top first, fixed at the first boot
	Link     string   // name of the machine's link in the VPC, new at each start
	PID      int
	BootedAt time.Time
	ExitedAt time.Time
	Cause    string
}

var idPattern = lazyre.New(`^[a-z][a-z0-9-]{0,62}$`)

// paths are where things of an installation are.
type paths struct {
	data string // survives the host
	run  string // does not: sockets, the VPC's mount
}

func (p paths) machines() string          { return filepath.Join(p.data, "machines") }
func (p paths) machine(id string) string  { return filepath.Join(p.machines(), id) }
func (p paths) record(id string) string   { return filepath.Join(p.machine(id), "record.json") }
func (p paths) console(id string) string  { return filepath.Join(p.machine(id), "console.log") }
func (p paths) upper(id string) string    { return filepath.Join(p.machine(id), "upper") }
func (p paths) work(id string) string     { return filepath.Join(p.machine(id), "work") }
func (p paths) images() string            { return filepath.Join(p.data, "images") }
func (p paths) layers() string            { return filepath.Join(p.data, "layers") }
func (p paths) volumes() string           { return filepath.Join(p.data, "volumes") }
func (p paths) bin() string               { return filepath.Join(p.data, "bin") }
func (p paths) lock() string              { return filepath.Join(p.data, "machines.lock") }
func (p paths) stage() string             { return filepath.Join(p.run, "stage") }
func (p paths) vpc() string               { return filepath.Join(p.run, "vpc") }
func (p paths) socket(id string) string   { return filepath.Join(p.run, id+".sock") }
func (p paths) layer(name string) string  { return filepath.Join(p.layers(), name) }
func (p paths) volume(name string) string { return filepath.Join(p.volumes(), name) }

// save writes the record so that a reader finds the old or the new one.
func (p paths) save(r *record) error {
	if err := os.MkdirAll(p.machine(r.Spec.ID), 0o700); err != nil {
		return fmt.Errorf("record of %s: %w", r.Spec.ID, err)
	}
	return writeJSON(p.record(r.Spec.ID), r)
}

// writeJSON replaces a file whole, mode 0600. It is not fsynced: what it
// describes does not survive a crash of the host either, and after a crash of
// the server alone the kernel has it.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (p paths) load(id string) (*record, error) {
	b, err := os.ReadFile(p.record(id))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("record of %s: %w", id, err)
	}
	if r.Spec.ID != id {
		return nil, fmt.Errorf("record of %s speaks of %q", id, r.Spec.ID)
	}
	return &r, nil
}

// ids lists the machines that have a directory, whole or not.
func (p paths) ids() ([]string, error) {
	entries, err := os.ReadDir(p.machines())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
