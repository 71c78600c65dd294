package cloudwatch

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// state is what outlives the agent: how far each file was sent and which sends are undecided.
type state struct {
	dir   string
	dirty bool

	Files   []*filePos         `json:"files"`
	Streams map[string]int64   `json:"streams"` // newest timestamp sent to each stream, milliseconds
	Intents map[string]*intent `json:"intents"` // by stream; at most one each
}

// filePos is the position in one file, for one entry of the configuration.
type filePos struct {
	Source string `json:"source"` // fileConfig.id
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Path   string `json:"path"` // where it was seen last
	Offset int64  `json:"offset"`
	// Skip says that the position is inside an event that was cut: the rest of it is passed over.
	Skip bool `json:"skip,omitempty"`
	// Parked files were read to their end while a newer one is written; they may grow again.
	Parked bool `json:"parked,omitempty"`
	// FP is the hash of the first FPLen bytes: an inode number is used again, contents hardly.
	FP    string `json:"fp,omitempty"`
	FPLen int64  `json:"fpLen,omitempty"`
}

// intent is a batch that may or may not have been stored.
type intent struct {
	Group  string `json:"group"`
	Stream string `json:"stream"`
	// Moves are the positions that hold if the batch was stored.
	Source string `json:"source"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	To     int64  `json:"to"`
	Skip   bool   `json:"skip,omitempty"`

	// The witness is one event of the batch; Before and After are how many equal ones the stream holds without and
	// with the batch.
	Time   int64  `json:"time"`
	Hash   string `json:"hash"`
	Before int    `json:"before"`
	After  int    `json:"after"`
	Newest int64  `json:"newest"` // newest timestamp of the batch
}

const fingerprintLen = 256

func streamKey(group, stream string) string { return group + ":" + stream } // a stream has no colon

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// loadState reads the state of a directory, which it makes if need be. It returns an error when the state is there and
// cannot be read: to begin anew would double everything.
func loadState(dir string) (*state, error) {
	s := &state{dir: dir, Streams: map[string]int64{}, Intents: map[string]*intent{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", s.path(), err)
	}
	if s.Streams == nil {
		s.Streams = map[string]int64{}
	}
	if s.Intents == nil {
		s.Intents = map[string]*intent{}
	}
	return s, nil
}

func (s *state) path() string { return filepath.Join(s.dir, "state.json") }

// save writes the state so that a crash at any point leaves the old or the new one.
func (s *state) save() error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := s.path() + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.path()); err != nil {
		return err
	}
	s.dirty = false
	return nil
}

// forget drops a position.
func (s *state) forget(p *filePos) {
	for i, q := range s.Files {
		if q == p {
			s.Files = append(s.Files[:i], s.Files[i+1:]...)
			s.dirty = true
			return
		}
	}
}

// settle ends an intent: with the batch stored its positions hold.
func (s *state) settle(in *intent, stored bool) error {
	key := streamKey(in.Group, in.Stream)
	if stored {
		for _, p := range s.Files {
			if p.Source == in.Source && p.Dev == in.Dev && p.Ino == in.Ino {
				p.Offset, p.Skip = in.To, in.Skip
			}
		}
		s.Streams[key] = max(s.Streams[key], in.Newest)
		s.prune(key)
	}
	delete(s.Intents, key)
	return s.save()
}

// maxStreams is how many streams' newest times are kept; for others the service is asked.
const maxStreams = 1000

// prune forgets the stream with the oldest events: names with dates add up.
func (s *state) prune(keep string) {
	for len(s.Streams) > maxStreams {
		oldest := ""
		for k, t := range s.Streams {
			if k != keep && (oldest == "" || t < s.Streams[oldest]) {
				oldest = k
			}
		}
		delete(s.Streams, oldest)
	}
}

// restart sets a position to the start of a file that was truncated. An undecided send then moves nothing any more.
func (s *state) restart(p *filePos) {
	for _, in := range s.Intents {
		if in.Source == p.Source && in.Dev == p.Dev && in.Ino == p.Ino {
			in.Source = ""
		}
	}
	p.Offset, p.Skip, p.FPLen, p.FP = 0, false, 0, ""
	s.dirty = true
}

func identity(info os.FileInfo) (dev, ino uint64) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return uint64(st.Dev), st.Ino
}

// fingerprint hashes the first n bytes of a file, fewer where it has fewer.
func fingerprint(f *os.File, n int64) (string, int64, error) {
	b := make([]byte, n)
	got, err := f.ReadAt(b, 0)
	if err != nil && got == 0 && !isEOF(err) {
		return "", 0, err
	}
	return hashOf(b[:got]), int64(got), nil
}

// same reports whether an open file is the one that the position was taken in.
func (p *filePos) same(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() < p.Offset {
		return false
	}
	if p.FPLen == 0 {
		return true
	}
	sum, n, err := fingerprint(f, p.FPLen)
	return err == nil && n == p.FPLen && sum == p.FP
}

// mark renews the fingerprint while the file is still short.
func (p *filePos) mark(f *os.File) error {
	if p.FPLen >= fingerprintLen {
		return nil
	}
	sum, n, err := fingerprint(f, fingerprintLen)
	if err == nil && n > p.FPLen {
		p.FP, p.FPLen = sum, n
	}
	return err
}
