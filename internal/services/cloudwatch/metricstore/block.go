package metricstore

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
)

// A block is an immutable file: the chunks of its series one after the other,
// each buckets and then their CRC-32C; then the index, which names the metric
// and unit of each chunk, its place and its span of time; then 16 bytes: the
// index's length and CRC, and a magic number.

const blockMagic = 0x53574d42 // "SWMB"

// block is an open file. Readers may hold it while it is replaced: it is
// closed when the last one lets go.
type block struct {
	name   string
	tier   int
	window int64 // start of the stretch of time
	file   *os.File
	size   int64
	refs   atomic.Int64
}

// release closes the file when nobody is left who reads it.
func (b *block) release() {
	if b.refs.Add(-1) == 0 {
		b.file.Close() // opened for reading, or synced
	}
}

// chunk is one series in one block.
type chunk struct {
	block       *block
	offset      int64
	length      int64
	first, last int64 // starts of the first and last bucket
}

// piece is what goes into a block for one series.
type piece struct {
	series  *series
	buckets []bucket
}

func blockName(tier int, window int64, n uint64) string {
	return fmt.Sprintf("block-%d-%d-%016x", tiers[tier].seconds, window, n)
}

// writeBlock writes and opens a block. fill calls add for each series once; it
// returns the chunk that it wrote. No series is touched.
func writeBlock(dir, name string, tier int, window int64, fill func(add func(*series, []bucket) (chunk, error)) error) (b *block, err error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path)
		}
	}()
	b = &block{name: name, tier: tier, window: window, file: f}
	b.refs.Store(1)
	out := bufio.NewWriterSize(f, 256<<10)
	var index, buf []byte
	err = fill(func(x *series, list []bucket) (chunk, error) {
		buf = appendBuckets(buf[:0], list)
		buf = binary.LittleEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
		c := chunk{block: b, offset: b.size, length: int64(len(buf)), first: list[0].start, last: list[len(list)-1].start}
		index = appendIndex(index, x, c)
		b.size += c.length
		_, err := out.Write(buf)
		return c, err
	})
	if err != nil {
		return nil, err
	}
	foot := binary.LittleEndian.AppendUint64(nil, uint64(len(index)))
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(index, castagnoli))
	foot = binary.LittleEndian.AppendUint32(foot, blockMagic)
	b.size += int64(len(index) + len(foot))
	if _, err = out.Write(append(index, foot...)); err != nil {
		return nil, err
	}
	if err = out.Flush(); err != nil {
		return nil, err
	}
	return b, f.Sync()
}

func appendIndex(b []byte, x *series, c chunk) []byte {
	b = x.metric.appendKey(b)
	b = appendString(b, x.unit)
	b = binary.AppendUvarint(b, uint64(c.offset))
	b = binary.AppendUvarint(b, uint64(c.length))
	b = binary.AppendVarint(b, c.first)
	return binary.AppendVarint(b, c.last)
}

func appendBuckets(b []byte, list []bucket) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	prev := int64(0)
	for i := range list {
		b = binary.AppendVarint(b, list[i].start-prev)
		prev = list[i].start
		b = appendSet(b, &list[i].set)
	}
	return b
}

// read returns the buckets of a chunk.
func (c chunk) read() ([]bucket, error) {
	raw := make([]byte, c.length)
	if _, err := c.block.file.ReadAt(raw, c.offset); err != nil {
		return nil, fmt.Errorf("metricstore: %s: %w", c.block.name, err)
	}
	body := raw[:len(raw)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(raw[len(body):]) {
		return nil, fmt.Errorf("%w: %s at byte %d", errDamaged, c.block.name, c.offset)
	}
	r := &reader{b: body}
	n := r.uvarint()
	if n > uint64(len(body)) {
		return nil, fmt.Errorf("%w: %s at byte %d", errDamaged, c.block.name, c.offset)
	}
	list := make([]bucket, 0, n)
	at := int64(0)
	for range n {
		at += r.varint()
		list = append(list, bucket{at, r.set()})
	}
	if r.bad {
		return nil, fmt.Errorf("%w: %s at byte %d", errDamaged, c.block.name, c.offset)
	}
	return list, nil
}

// openBlock opens a block and adds its chunks to the series.
func (s *Store) openBlock(name string) (b *block, err error) {
	b = &block{name: name, tier: -1}
	b.refs.Store(1)
	var seconds int64
	var n uint64
	if _, err := fmt.Sscanf(name, "block-%d-%d-%x", &seconds, &b.window, &n); err != nil {
		return nil, fmt.Errorf("%w: %q names no block", errDamaged, name)
	}
	b.tier = slices.IndexFunc(tiers[:], func(t tier) bool { return t.seconds == seconds })
	if b.tier < 0 {
		return nil, fmt.Errorf("%w: %q names no block", errDamaged, name)
	}
	if b.file, err = os.Open(filepath.Join(s.opts.Dir, name)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.file.Close()
		}
	}()
	st, err := b.file.Stat()
	if err != nil {
		return nil, err
	}
	b.size = st.Size()
	index, err := b.index()
	if err != nil {
		return nil, err
	}
	r := &reader{b: index}
	for len(r.b) > 0 {
		m, unit := r.metric(), r.string()
		c := chunk{b, int64(r.uvarint()), int64(r.uvarint()), r.varint(), r.varint()}
		if r.bad || c.length < 5 || c.offset < 0 || c.length > b.size || c.offset > b.size-c.length {
			return nil, fmt.Errorf("%w: index of %s", errDamaged, name)
		}
		x := s.lookup(&m, m.Key(), unit)
		x.chunks = append(x.chunks, c)
		x.metric.saw(c.first)
		x.metric.saw(c.last)
		x.metric.fine = x.metric.fine || b.tier == 0
	}
	return b, nil
}

func (b *block) index() ([]byte, error) {
	var foot [16]byte
	if b.size < int64(len(foot)) {
		return nil, fmt.Errorf("%w: %s is too short", errDamaged, b.name)
	}
	if _, err := b.file.ReadAt(foot[:], b.size-16); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(foot[:])
	if binary.LittleEndian.Uint32(foot[12:]) != blockMagic || n > uint64(b.size-16) {
		return nil, fmt.Errorf("%w: end of %s", errDamaged, b.name)
	}
	index := make([]byte, n)
	if _, err := b.file.ReadAt(index, b.size-16-int64(n)); err != nil {
		return nil, err
	}
	if crc32.Checksum(index, castagnoli) != binary.LittleEndian.Uint32(foot[8:]) {
		return nil, fmt.Errorf("%w: index of %s", errDamaged, b.name)
	}
	return index, nil
}
