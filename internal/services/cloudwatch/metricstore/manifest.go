package metricstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// manifest is the one file that says what counts. It is replaced atomically.
type manifest struct {
	Version int
	Blocks  []string
	// FirstLog is the first log whose points are in no block.
	FirstLog uint64
	// Next numbers logs and blocks.
	Next uint64
	// Positions are those of PutAt. They may be ahead of the blocks: the points
	// are then in the logs, which are replayed whatever stands here.
	Positions map[string]uint64 `json:",omitempty"`
}

const manifestName = "manifest.json"

func (s *Store) writeManifest(m manifest) error {
	m.Version = 1
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(s.opts.Dir, manifestName)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(s.opts.Dir)
}

// recover opens what the manifest names, replays the logs after it, removes
// what nothing names, and begins a log.
func (s *Store) recover() error {
	var m manifest
	b, err := os.ReadFile(filepath.Join(s.opts.Dir, manifestName))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("metricstore: %s: %w", manifestName, err)
	}
	for source, position := range m.Positions {
		s.positions[source] = position
	}
	for _, name := range m.Blocks {
		blk, err := s.openBlock(name)
		if err != nil {
			// One damaged block is no reason to serve nothing: its points are
			// lost, and the file stays for whoever can mend it.
			s.opts.Log.Error("metric block is unreadable", "block", name, "error", err)
			continue
		}
		s.blocks = append(s.blocks, blk)
	}
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return fmt.Errorf("metricstore: %w", err)
	}
	s.nextLog = max(m.Next, 1)
	for _, e := range entries {
		var n uint64
		switch {
		case strings.HasPrefix(e.Name(), "points-"):
			if _, err := fmt.Sscanf(e.Name(), "points-%x.log", &n); err != nil {
				continue
			}
			s.nextLog = max(s.nextLog, n+1)
			if n >= m.FirstLog {
				s.logs = append(s.logs, n)
				continue
			}
		case strings.HasPrefix(e.Name(), "block-") && !slices.Contains(m.Blocks, e.Name()):
		default:
			continue
		}
		if err := os.Remove(filepath.Join(s.opts.Dir, e.Name())); err != nil {
			return fmt.Errorf("metricstore: %w", err)
		}
	}
	slices.Sort(s.logs)
	for _, n := range s.logs {
		size, damaged, err := s.replay(logName(s.opts.Dir, n))
		if err != nil {
			return fmt.Errorf("metricstore: log %d: %w", n, err)
		}
		if damaged {
			// The end of what a killed server wrote; nobody was told that it is kept.
			s.opts.Log.Debug("metric log ends in an incomplete record", "log", n, "bytes", size)
		}
	}
	return s.beginLog()
}

// beginLog opens the next log.
func (s *Store) beginLog() error {
	l, err := createLog(s.opts.Dir, s.nextLog)
	if err != nil {
		return fmt.Errorf("metricstore: %w", err)
	}
	s.nextLog++
	s.mu.Lock()
	s.logs = append(s.logs, l.number)
	s.mu.Unlock()
	s.log = l
	return nil
}
