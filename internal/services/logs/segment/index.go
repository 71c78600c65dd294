package segment

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"strings"
)

// A sealed segment has an index beside it: for each block a Bloom filter of
// the sequences of three bytes in its events. A text that is in no event of a
// block is nearly always in no filter either, so a search for a rare text
// reads the filters and hardly any block. The index is a hint: where it is
// missing or damaged blocks are read.
const (
	bloomBytes = 8 << 10
	bloomEntry = 4 + bloomBytes // CRC and filter
)

func indexPath(segPath string) string { return strings.TrimSuffix(segPath, ".seg") + ".idx" }

// slots are the two bits of three bytes.
func slots(a, b, c byte) (uint32, uint32) {
	h := (uint32(a) | uint32(b)<<8 | uint32(c)<<16) * 0x9E3779B1
	return h >> 16, (h ^ h>>15) * 0x85EBCA6B >> 16
}

// bloom fills a filter with the messages' texts.
func bloom(entry []byte, rs []Record) {
	clear(entry)
	bits := entry[4:]
	for i := range rs {
		m := rs[i].Message
		for j := 2; j < len(m); j++ {
			x, y := slots(m[j-2], m[j-1], m[j])
			bits[x>>3] |= 1 << (x & 7)
			bits[y>>3] |= 1 << (y & 7)
		}
	}
	binary.LittleEndian.PutUint32(entry, crc32.Checksum(bits, castagnoli))
}

// may reports whether the n-th block of a file may hold a text.
func (f *file) may(n int, text string, entry []byte) bool {
	if f.index == nil || len(text) < 3 {
		return true
	}
	if _, err := f.index.ReadAt(entry, int64(n)*bloomEntry); err != nil || crc32.Checksum(entry[4:], castagnoli) != binary.LittleEndian.Uint32(entry) {
		return true
	}
	bits := entry[4:]
	for j := 2; j < len(text); j++ {
		x, y := slots(text[j-2], text[j-1], text[j])
		if bits[x>>3]&(1<<(x&7)) == 0 || bits[y>>3]&(1<<(y&7)) == 0 {
			return false
		}
	}
	return true
}

// openIndex opens the index of a sealed segment, if there is one.
func (f *file) openIndex() error {
	x, err := os.Open(indexPath(f.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	f.index = x
	return nil
}

// indexWriter writes an index block by block.
type indexWriter struct {
	f     *os.File
	w     *bufio.Writer
	entry []byte
}

// newIndex begins the index of a segment that is being sealed. It is written
// under its own name at once: until the segment is there nobody reads it.
func newIndex(segPath string) (*indexWriter, error) {
	f, err := os.OpenFile(indexPath(segPath), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("segment: %w", err)
	}
	return &indexWriter{f, bufio.NewWriterSize(f, 64<<10), make([]byte, bloomEntry)}, nil
}

func (x *indexWriter) add(rs []Record) error {
	bloom(x.entry, rs)
	if _, err := x.w.Write(x.entry); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	return nil
}

// abandon removes an index whose segment did not come to be.
func (x *indexWriter) abandon() {
	x.f.Close()
	os.Remove(x.f.Name())
}
