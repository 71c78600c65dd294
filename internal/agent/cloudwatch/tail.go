package cloudwatch

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// lingering is how long a rotated file is kept open after its last growth: its writer turns to the new one a moment later.
const lingering = 10 * time.Second

// settled is how long a file must not have grown until an event of several lines is taken as complete.
const settled = time.Second

// source follows the files of one entry of the configuration. It belongs to one goroutine.
type source struct {
	cfg   fileConfig
	state *state
	log   *slog.Logger
	files []*tailed // oldest first

	blocked time.Time // not to be sent before
	backoff time.Duration
	lastTS  int64 // timestamp of the last event that had one, milliseconds
}

// tailed is one open file.
type tailed struct {
	f        *os.File
	pos      *filePos
	size     int64
	grown    time.Time // when the size was last seen to change
	waiting  time.Time // since when unsent lines are known; zero: there are none
	replaced bool      // another file is being written now
}

func newSource(cfg fileConfig, st *state, log *slog.Logger) *source {
	return &source{cfg: cfg, state: st, log: log.With("file", cfg.Path)}
}

// resume opens the files that were followed before: under their path, or under the name they were rotated to.
func (s *source) resume(now time.Time) {
	for _, p := range slices.Clone(s.state.Files) {
		if p.Source != s.cfg.id() {
			continue
		}
		if p.Parked {
			if !p.at(p.Path) {
				s.state.forget(p)
			}
			continue
		}
		f := reopen(p)
		if f == nil {
			s.log.Warn("a file that was being read is gone", "path", p.Path, "position", p.Offset)
			s.state.forget(p)
			continue
		}
		s.files = append(s.files, &tailed{f: f, pos: p, grown: now, replaced: f.Name() != p.Path})
	}
	if n := len(s.files); n > 0 && s.files[n-1].replaced {
		s.catchUp(s.files[n-1], now)
	}
}

// reopen finds a position's file by its identity, in its directory.
func reopen(p *filePos) *os.File {
	paths := []string{p.Path}
	siblings, err := filepath.Glob(escapeGlob(filepath.Dir(p.Path)) + "/*")
	if err == nil {
		paths = append(paths, siblings...)
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() && path != p.Path {
			continue
		}
		f, info, err := openFile(path)
		if err != nil {
			continue
		}
		if dev, ino := identity(info); dev == p.Dev && ino == p.Ino && p.same(f) {
			return f
		}
		f.Close()
	}
	return nil
}

func escapeGlob(s string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(s, `\$0`)
}

// openFile opens a regular file; a pipe of that name must not block the agent.
func openFile(path string) (*os.File, os.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, nil, fmt.Errorf("%s is no regular file: %w", path, err)
	}
	return f, info, nil
}

// look finds new files and growth. It is called every poll.
func (s *source) look(now time.Time) {
	for _, path := range s.candidates() {
		s.lookAt(path, now)
	}
	for _, t := range slices.Clone(s.files) {
		info, err := t.f.Stat()
		if err != nil {
			s.drop(t)
			continue
		}
		if info.Size() < t.pos.Offset || info.Size() != t.size && !t.pos.same(t.f) { // truncated, or written anew from the start
			s.state.restart(t.pos)
			t.size = 0
		}
		if info.Size() != t.size {
			t.size, t.grown = info.Size(), now
		}
		if t.size > t.pos.Offset && t.waiting.IsZero() {
			t.waiting = now
		}
		if t.replaced && t.size == t.pos.Offset && now.Sub(t.grown) > lingering {
			s.finished(t)
		}
	}
}

// candidates are the paths to be read now: of a glob the newest, unless all are wanted.
func (s *source) candidates() []string {
	if !s.cfg.glob() {
		return []string{s.cfg.Path}
	}
	paths, err := filepath.Glob(s.cfg.Path)
	if err != nil {
		return nil
	}
	newest, when := "", time.Time{}
	var all []string
	for _, p := range paths {
		if s.cfg.Blacklist != nil && s.cfg.Blacklist.MatchString(filepath.Base(p)) || compressed(p) {
			continue
		}
		info, err := os.Stat(p)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		all = append(all, p)
		if newest == "" || info.ModTime().After(when) {
			newest, when = p, info.ModTime()
		}
	}
	if s.cfg.All || newest == "" {
		return all
	}
	return []string{newest}
}

func compressed(path string) bool {
	return slices.Contains([]string{".gz", ".bz2", ".xz", ".zst", ".zip", ".Z"}, filepath.Ext(path))
}

// lookAt starts to read a path's file unless it is being read.
func (s *source) lookAt(path string, now time.Time) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	dev, ino := identity(info)
	for _, t := range s.files {
		if t.pos.Dev == dev && t.pos.Ino == ino {
			if t.pos.Path != path {
				t.pos.Path = path
				s.state.dirty = true
			}
			return
		}
	}
	for _, t := range s.files {
		if !t.replaced && !s.cfg.All {
			t.replaced = true
			t.grown = now
			s.catchUp(t, now)
		}
	}
	s.open(path, now, false)
}

func (s *source) open(path string, now time.Time, replaced bool) {
	f, info, err := openFile(path)
	if err != nil {
		s.log.Warn("a log file cannot be read", "path", path, "error", err)
		return
	}
	dev, ino := identity(info)
	for _, t := range s.files {
		if t.pos.Dev == dev && t.pos.Ino == ino {
			f.Close()
			return
		}
	}
	p := s.parked(dev, ino, f)
	if p == nil {
		p = &filePos{Source: s.cfg.id(), Dev: dev, Ino: ino}
		s.state.Files = append(s.state.Files, p)
	}
	p.Path, p.Parked, s.state.dirty = path, false, true
	s.files = append(s.files, &tailed{f: f, pos: p, grown: now, replaced: replaced})
}

// parked is the position of a file that was read before and is written again.
func (s *source) parked(dev, ino uint64, f *os.File) *filePos {
	for _, p := range s.state.Files {
		if p.Parked && p.Source == s.cfg.id() && p.Dev == dev && p.Ino == ino {
			if p.same(f) {
				return p
			}
			s.state.forget(p)
			return nil
		}
	}
	return nil
}

// catchUp opens the files that were written and rotated away between the last look and now: those with a rotated name
// that are younger than the one that was being read.
func (s *source) catchUp(last *tailed, now time.Time) {
	if s.cfg.glob() {
		return // the glob finds what it should find
	}
	info, err := last.f.Stat()
	if err != nil {
		return
	}
	rotated := regexp.MustCompile(`^` + regexp.QuoteMeta(filepath.Base(s.cfg.Path)) + `[.-]\d[\d.\-_T:]*$`)
	entries, err := os.ReadDir(filepath.Dir(s.cfg.Path))
	if err != nil {
		return
	}
	type found struct {
		path string
		when time.Time
	}
	var between []found
	for _, e := range entries {
		i, err := e.Info()
		if err != nil || !rotated.MatchString(e.Name()) || !i.Mode().IsRegular() || os.SameFile(i, info) || !i.ModTime().After(info.ModTime()) {
			continue
		}
		between = append(between, found{filepath.Join(filepath.Dir(s.cfg.Path), e.Name()), i.ModTime()})
	}
	slices.SortFunc(between, func(a, b found) int { return a.when.Compare(b.when) })
	for _, b := range between {
		s.open(b.path, now, true)
	}
}

// read takes the next events of a file. It returns where the position is after them.
func (t *tailed) read(cfg *fileConfig, now time.Time) (events []rawEvent, to int64, skip bool, err error) {
	if err := t.pos.mark(t.f); err != nil {
		return nil, 0, false, err
	}
	piece := make([]byte, min(maxRead, max(t.size-t.pos.Offset, 0)))
	n, err := t.f.ReadAt(piece, t.pos.Offset)
	if err != nil && !isEOF(err) {
		return nil, 0, false, err
	}
	piece = piece[:n]
	still := now.Sub(t.grown)
	sp := splitter{start: cfg.Start, base: t.pos.Offset, skip: t.pos.Skip, full: n == maxRead,
		last: t.replaced && still > settled, idle: still > settled && n < maxRead}
	events, to, skip = sp.split(piece)
	return events, to, skip, nil
}

// due reports whether a file's lines should be sent now: there are many, or they have waited long enough.
func (t *tailed) due(flush time.Duration, now time.Time) bool {
	if t.waiting.IsZero() || t.size <= t.pos.Offset {
		return false
	}
	return t.size-t.pos.Offset >= maxRead || now.Sub(t.waiting) >= flush
}

// finished ends the reading of a rotated file.
func (s *source) finished(t *tailed) {
	here := t.pos.at(t.pos.Path)
	if here && s.cfg.AutoRemove {
		if err := os.Remove(t.pos.Path); err != nil {
			s.log.Warn("auto_removal", "error", err)
		} else {
			here = false
		}
	}
	if !here {
		s.drop(t)
		return
	}
	t.f.Close()
	t.pos.Parked, s.state.dirty = true, true
	s.files = slices.DeleteFunc(s.files, func(o *tailed) bool { return o == t })
}

// at reports whether a path is the position's file.
func (p *filePos) at(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	dev, ino := identity(info)
	return dev == p.Dev && ino == p.Ino
}

func (s *source) drop(t *tailed) {
	t.f.Close()
	s.state.forget(t.pos)
	s.files = slices.DeleteFunc(s.files, func(o *tailed) bool { return o == t })
}

func (s *source) close() {
	for _, t := range s.files {
		t.f.Close()
	}
	s.files = nil
}

// valid replaces what is no UTF-8, byte by byte, as JSON would.
func valid(text []byte) string {
	return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
}
