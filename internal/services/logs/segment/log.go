package segment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// Options of Open.
type Options struct {
	// Durable syncs every append; without it a crash of the machine may lose some.
	Durable bool
	// SealBytes is the size at which the active segment is sealed; 0 is 16 MiB.
	SealBytes int64
}

// Stats tell of one stream. Times are milliseconds since the epoch.
type Stats struct {
	First, Last, Ingested int64
	Bytes                 int64 // message bytes and AWS's 26 per event
	Events                int64
}

// ErrClosed is returned after Close.
var ErrClosed = errors.New("segment: log is closed")

// file is a segment. Readers hold it while they read; removed segments stay
// readable until then.
type file struct {
	number int
	path   string
	f      *os.File
	index  *os.File // of a sealed one; nil where there is none
	sealed bool
	size   int64
	blocks []block
	refs   int // 1 of the Log, and one of each reader; guarded by Log.mu
}

type block struct {
	header
	offset int64 // of the header in its file
}

// Log is one group's events. All methods are safe for concurrent use.
type Log struct {
	dir string
	o   Options

	mu     sync.Mutex
	files  []*file // by number; the last is active
	seq    uint64
	stats  map[uint32]*Stats
	closed bool

	wmu     sync.Mutex // guards pending and writing
	pending []*batch
	writing bool

	sealMu sync.Mutex // one seal or expiry at a time
	// ioMu keeps a write and the rolling of its segment apart. The order of
	// locks is sealMu, ioMu, mu.
	ioMu sync.Mutex
}

type batch struct {
	stream   uint32
	ingested int64
	events   []Event
	first    uint64
	err      error
	done     chan struct{}
}

// Open opens or makes the log in dir.
func Open(dir string, o Options) (*Log, error) {
	if o.SealBytes == 0 {
		o.SealBytes = 16 << 20
	}
	l := &Log{dir: dir, o: o, seq: 1, stats: map[uint32]*Stats{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("segment: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("segment: %w", err)
	}
	sealed := map[int]bool{}
	var raw []int
	for _, n := range names {
		base, ext, _ := strings.Cut(n.Name(), ".")
		number, err := strconv.Atoi(base)
		switch {
		case err == nil && ext == "seg":
			sealed[number] = true
		case err == nil && ext == "log":
			raw = append(raw, number)
		case strings.HasSuffix(n.Name(), ".tmp"): // a seal that a crash interrupted
			if err := os.Remove(filepath.Join(dir, n.Name())); err != nil {
				return nil, fmt.Errorf("segment: %w", err)
			}
		}
	}
	if err := l.load(sealed, raw); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) load(sealed map[int]bool, raw []int) error {
	for n := range sealed {
		if err := l.openFile(n, true); err != nil {
			return err
		}
	}
	for _, n := range raw {
		if sealed[n] { // sealed, but not yet removed
			if err := os.Remove(l.path(n, false)); err != nil {
				return fmt.Errorf("segment: %w", err)
			}
			continue
		}
		if err := l.openFile(n, false); err != nil {
			return err
		}
	}
	sort.Slice(l.files, func(i, j int) bool { return l.files[i].number < l.files[j].number })
	l.restat()
	if n := len(l.files); n == 0 || l.files[n-1].sealed {
		return l.roll()
	}
	return nil
}

func (l *Log) path(n int, sealed bool) string {
	if sealed {
		return filepath.Join(l.dir, fmt.Sprintf("%08d.seg", n))
	}
	return filepath.Join(l.dir, fmt.Sprintf("%08d.log", n))
}

// openFile reads the headers of a segment and checks its blocks. A torn tail
// of an unsealed one is cut off.
func (l *Log) openFile(n int, sealed bool) error {
	path := l.path(n, sealed)
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	sf := &file{number: n, path: path, f: f, sealed: sealed, refs: 1}
	l.files = append(l.files, sf)
	if sealed {
		if err := sf.openIndex(); err != nil {
			return err
		}
	}
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	for sf.size < fi.Size() {
		b, err := readBlock(f, sf.size, !sealed)
		if errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return err
		}
		sf.blocks = append(sf.blocks, b)
		sf.size += headerSize + int64(b.size)
	}
	if sf.size == fi.Size() {
		return nil
	}
	if sealed {
		return fmt.Errorf("segment: %s is damaged at byte %d: move it away to go on without its events", path, sf.size)
	}
	if err := f.Truncate(sf.size); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	return l.sync(f)
}

// readBlock reads the header at offset, and verifies the block if asked to.
func readBlock(f *os.File, offset int64, verify bool) (block, error) {
	head := make([]byte, headerSize)
	b := block{offset: offset}
	if n, err := f.ReadAt(head, offset); n < headerSize {
		return b, fmt.Errorf("%w: %w", errTorn, err)
	}
	if err := b.get(head); err != nil {
		return b, err
	}
	if !verify {
		return b, nil
	}
	payload := make([]byte, b.size)
	if n, err := f.ReadAt(payload, offset+headerSize); n < len(payload) {
		return b, fmt.Errorf("%w: %w", errTorn, err)
	}
	if !sound(head, payload) {
		return b, errTorn
	}
	return b, nil
}

func (l *Log) sync(f *os.File) error {
	if !l.o.Durable {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	return nil
}

func (l *Log) syncDir() error {
	d, err := os.Open(l.dir)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	defer d.Close()
	return l.sync(d)
}

// roll begins a new active segment. Called with mu held, or before anybody
// else knows the log.
func (l *Log) roll() error {
	n := 1
	if len(l.files) > 0 {
		n = l.files[len(l.files)-1].number + 1
	}
	f, err := os.OpenFile(l.path(n, false), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	l.files = append(l.files, &file{number: n, path: l.path(n, false), f: f, refs: 1})
	return l.syncDir()
}

// restat counts streams and the sequence anew from the blocks.
func (l *Log) restat() {
	l.stats = map[uint32]*Stats{}
	for _, f := range l.files {
		for i := range f.blocks {
			l.count(&f.blocks[i])
			l.seq = max(l.seq, f.blocks[i].maxSeq+1)
		}
	}
}

func (l *Log) count(b *block) {
	s := l.stats[b.stream]
	if s == nil {
		s = &Stats{First: b.minTime, Last: b.maxTime}
		l.stats[b.stream] = s
	}
	s.First, s.Last, s.Ingested = min(s.First, b.minTime), max(s.Last, b.maxTime), max(s.Ingested, b.ingested)
	s.Events += int64(b.count)
	s.Bytes += int64(b.raw) + 22*int64(b.count) // about 4 bytes of each event's encoding are no text
}

// Stats tells of a stream; false where it has no events.
func (l *Log) Stats(stream uint32) (Stats, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.stats[stream]; s != nil {
		return *s, true
	}
	return Stats{}, false
}

// Bytes is the size of all streams' events.
func (l *Log) Bytes() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stats {
		n += s.Bytes
	}
	return n
}

// Next is the sequence number that the next event will have: all before it can
// be read.
func (l *Log) Next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// Append stores events, sorted by time, and returns when they are durable.
// The first has the returned sequence number, the others follow.
func (l *Log) Append(ctx context.Context, stream uint32, ingested int64, events []Event) (uint64, error) {
	if len(events) == 0 {
		return 0, nil
	}
	b := &batch{stream: stream, ingested: ingested, events: events, done: make(chan struct{})}
	l.wmu.Lock()
	l.pending = append(l.pending, b)
	lead := !l.writing
	l.writing = true
	l.wmu.Unlock()
	if lead {
		l.lead()
	}
	select {
	case <-b.done:
		return b.first, b.err
	case <-ctx.Done(): // it may still become durable: the caller was not told
		return 0, ctx.Err()
	}
}

// lead writes what is pending until nothing is. Whoever comes meanwhile waits
// and shares the next write.
func (l *Log) lead() {
	for {
		l.wmu.Lock()
		batches := l.pending
		l.pending = nil
		if len(batches) == 0 {
			l.writing = false
			l.wmu.Unlock()
			return
		}
		l.wmu.Unlock()
		err := l.write(batches)
		for _, b := range batches {
			b.err = err
			close(b.done)
		}
	}
}

func (l *Log) write(batches []*batch) error {
	l.ioMu.Lock()
	defer l.ioMu.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	f, seq := l.files[len(l.files)-1], l.seq
	f.refs++ // an expiry may not close it meanwhile
	l.mu.Unlock()
	defer l.release(f)
	var buf []byte
	var blocks []block
	var rs []Record
	for _, b := range batches {
		rs = rs[:0]
		b.first = seq
		for _, e := range b.events {
			rs = append(rs, Record{Event: e, Stream: b.stream, Seq: seq, Ingested: b.ingested})
			seq++
		}
		at := f.size + int64(len(buf))
		var h header
		buf, h = appendRecords(buf, b.stream, rs, false)
		blocks = append(blocks, block{h, at})
	}
	_, err := f.f.WriteAt(buf, f.size)
	if err == nil {
		err = l.sync(f.f)
	}
	if err != nil {
		// What was written may or may not be there. It is cut off, so that it
		// cannot appear later; a block behind it would otherwise be lost with it.
		if terr := f.f.Truncate(f.size); terr != nil {
			err = errors.Join(err, terr)
		}
		return fmt.Errorf("segment: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.blocks = append(f.blocks, blocks...)
	f.size += int64(len(buf))
	l.seq = seq
	for i := range blocks {
		l.count(&blocks[i])
	}
	if f.size < l.o.SealBytes {
		return nil
	}
	return l.roll()
}

// release gives a file back; the last one closes it. Not with mu held.
func (l *Log) release(f *file) {
	l.mu.Lock()
	f.refs--
	last := f.refs == 0
	l.mu.Unlock()
	if last {
		f.f.Close() // everything in it was synced
		if f.index != nil {
			f.index.Close()
		}
	}
}

// Close closes the files. Appends and scans that follow fail with ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	files := l.files
	if l.closed {
		files = nil
	}
	l.closed = true
	l.mu.Unlock()
	for _, f := range files {
		l.release(f)
	}
	return nil
}
