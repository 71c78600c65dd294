package metricstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// A log is a row of records: length and CRC-32C of the payload, each four
// bytes little endian, then the payload. A payload is entries, 's' for a
// series (id, metric, unit), 'p' for a point (id, resolution, time, set) and 'm'
// for a source's position (source, position), which belongs to the points of
// its record: both are kept or neither.
// Ids are of one log only: it can be read by itself.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const maxRecord = 256 << 20

func logName(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("points-%016x.log", n))
}

type logFile struct {
	number uint64
	file   *os.File
	size   int64 // of what is complete in the file
	buf    []byte
}

func createLog(dir string, n uint64) (*logFile, error) {
	f, err := os.OpenFile(logName(dir, n), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		f.Close()
		return nil, err
	}
	return &logFile{number: n, file: f}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// begin makes room for the head of the next record.
func (l *logFile) begin() {
	if len(l.buf) == 0 {
		l.buf = append(l.buf, make([]byte, 8)...)
	}
}

// mark appends a source's position to the next record.
func (l *logFile) mark(source string, position uint64) {
	l.begin()
	l.buf = appendString(append(l.buf, 'm'), source)
	l.buf = binary.AppendUvarint(l.buf, position)
}

// add appends a point to the next record; the caller holds the store's lock.
func (l *logFile) add(s *Store, p *Point) {
	l.begin()
	x := s.lookup(&p.Metric, p.Metric.Key(), p.Unit)
	if x.logged != l.number {
		s.nextID++
		x.logged, x.id = l.number, s.nextID
		l.buf = binary.AppendUvarint(append(l.buf, 's'), x.id)
		l.buf = x.metric.appendKey(l.buf)
		l.buf = appendString(l.buf, x.unit)
	}
	l.buf = binary.AppendUvarint(append(l.buf, 'p'), x.id)
	l.buf = append(l.buf, byte(p.Resolution))
	l.buf = binary.AppendVarint(l.buf, p.At.Unix())
	l.buf = appendSet(l.buf, &p.Set)
}

// flush writes the record and makes it durable. After an error the file ends
// where it ended before.
func (l *logFile) flush(sync bool) error {
	if len(l.buf) == 0 {
		return nil
	}
	payload := l.buf[8:]
	binary.LittleEndian.PutUint32(l.buf, uint32(len(payload)))
	binary.LittleEndian.PutUint32(l.buf[4:], crc32.Checksum(payload, castagnoli))
	_, err := l.file.WriteAt(l.buf, l.size)
	if err == nil && sync {
		err = l.file.Sync()
	}
	n := int64(len(l.buf))
	if l.buf = l.buf[:0]; cap(l.buf) > 4<<20 {
		l.buf = nil
	}
	if err != nil {
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += n
	return nil
}

func (l *logFile) close() error { return l.file.Close() }

// forgetIDs makes the open log define every series anew.
func (s *Store) forgetIDs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.metrics {
		for _, x := range m.series {
			x.logged = 0
		}
	}
}

// replay reads a log into the head. It returns how many bytes are complete
// records; damaged says that something else follows them.
func (s *Store) replay(path string) (size int64, damaged bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	ids := map[uint64]*series{}
	var head [8]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return size, !errors.Is(err, io.EOF), readError(err)
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n > maxRecord {
			return size, true, nil
		}
		payload, err := io.ReadAll(io.LimitReader(in, int64(n)))
		if err != nil {
			return size, true, err
		}
		if len(payload) != int(n) || crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
			return size, true, nil
		}
		if !s.replayRecord(payload, ids) {
			return size, true, nil
		}
		size += int64(n) + 8
	}
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func (s *Store) replayRecord(payload []byte, ids map[uint64]*series) bool {
	r := &reader{b: payload}
	for len(r.b) > 0 {
		switch r.byte() {
		case 's':
			id, m, unit := r.uvarint(), r.metric(), r.string()
			if r.bad {
				return false
			}
			ids[id] = s.lookup(&m, m.Key(), unit)
		case 'p':
			x, resolution, at, set := ids[r.uvarint()], int64(r.byte()), r.varint(), r.set()
			if r.bad || x == nil {
				return false
			}
			x.apply(at, resolution, set)
		case 'm':
			source, position := r.string(), r.uvarint()
			if r.bad {
				return false
			}
			s.moved(source, position)
		default:
			return false
		}
	}
	return !r.bad
}
