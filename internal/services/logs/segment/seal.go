package segment

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
)

// sealBlock is how much text one compressed block holds, about.
const sealBlock = 256 << 10

// Maintain seals the full segments and removes what is older than cutoff
// (milliseconds since the epoch) or of a dropped stream. It is called now and
// then by one goroutine; appends and scans go on meanwhile.
func (l *Log) Maintain(cutoff int64, dropped func(stream uint32) bool) error {
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	full, err := l.full(cutoff, dropped)
	if err != nil {
		return err
	}
	for _, f := range full {
		if gone(f, cutoff, dropped) {
			err = l.replace(f, nil)
		} else if !f.sealed {
			err = l.seal(f, cutoff, dropped)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// full returns the segments that nothing is appended to any more.
func (l *Log) full(cutoff int64, dropped func(uint32) bool) ([]*file, error) {
	l.ioMu.Lock()
	defer l.ioMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if last := l.files[len(l.files)-1]; len(last.blocks) > 0 && gone(last, cutoff, dropped) {
		if err := l.roll(); err != nil { // an idle group's events expire as well
			return nil, err
		}
	}
	return append([]*file(nil), l.files[:len(l.files)-1]...), nil
}

func gone(f *file, cutoff int64, dropped func(uint32) bool) bool {
	for i := range f.blocks {
		if f.blocks[i].maxTime >= cutoff && !dropped(f.blocks[i].stream) {
			return false
		}
	}
	return true
}

// replace puts a sealed file (nil: nothing) in the place of f and removes f.
func (l *Log) replace(f, by *file) error {
	l.mu.Lock()
	for i := range l.files {
		if l.files[i] == f {
			if by != nil {
				l.files[i] = by
			} else {
				l.files = append(l.files[:i:i], l.files[i+1:]...)
			}
			break
		}
	}
	l.restat()
	l.mu.Unlock()
	err := os.Remove(f.path)
	if f.sealed {
		err = errors.Join(err, removeIndex(f.path))
	}
	l.release(f)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	return l.syncDir()
}

// seal writes f's events anew: by stream, sorted, compressed.
func (l *Log) seal(f *file, cutoff int64, dropped func(uint32) bool) (err error) {
	byStream := map[uint32][]block{}
	var streams []uint32
	for _, b := range f.blocks {
		if b.maxTime < cutoff || dropped(b.stream) {
			continue
		}
		if byStream[b.stream] == nil {
			streams = append(streams, b.stream)
		}
		byStream[b.stream] = append(byStream[b.stream], b)
	}
	path := l.path(f.number, true)
	out, err := os.OpenFile(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	defer func() {
		if err != nil {
			out.Close()
			os.Remove(path + ".tmp")
		}
	}()
	idx, err := newIndex(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			idx.abandon()
		}
	}()
	by := &file{number: f.number, path: path, f: out, sealed: true, refs: 1}
	w := bufio.NewWriterSize(out, 1<<20)
	for _, s := range streams {
		if err := sealStream(w, idx, f, by, byStream[s]); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Flush(), idx.w.Flush()); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	by.index = idx.f
	if err := errors.Join(l.sync(idx.f), l.sync(out)); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	if err := l.syncDir(); err != nil {
		return err
	}
	return l.replace(f, by)
}

// sealStream writes one stream's events in blocks of about sealBlock.
func sealStream(w *bufio.Writer, idx *indexWriter, f, by *file, blocks []block) error {
	var rs []Record
	for _, b := range blocks {
		part, err := (&candidate{f: f, b: b}).load("")
		if err != nil {
			return err
		}
		rs = append(rs, part...)
	}
	sort.SliceStable(rs, func(i, j int) bool { return rs[i].pos().less(rs[j].pos()) })
	for len(rs) > 0 {
		n, size := 0, 0
		for n < len(rs) && size < sealBlock {
			size += len(rs[n].Message) + 8
			n++
		}
		buf, h := appendRecords(nil, rs[0].Stream, rs[:n], true)
		if _, err := w.Write(buf); err != nil {
			return fmt.Errorf("segment: %w", err)
		}
		if err := idx.add(rs[:n]); err != nil {
			return err
		}
		by.blocks = append(by.blocks, block{h, by.size})
		by.size += int64(len(buf))
		rs = rs[n:]
	}
	return nil
}

func removeIndex(segPath string) error {
	if err := os.Remove(indexPath(segPath)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
