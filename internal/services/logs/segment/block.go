package segment

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Event is what is appended: Time is in milliseconds since the epoch.
type Event struct {
	Time    int64
	Message string
}

// Record is a stored event.
type Record struct {
	Event
	Stream   uint32
	Seq      uint64
	Ingested int64 // milliseconds since the epoch
}

// Pos is a place in the order of events.
type Pos struct {
	Time int64
	Seq  uint64
}

func (p Pos) less(q Pos) bool { return p.Time < q.Time || p.Time == q.Time && p.Seq < q.Seq }

func (r *Record) pos() Pos { return Pos{r.Time, r.Seq} }

const (
	magic      = 0x53574c31 // "SWL1"
	headerSize = 72
	// maxBlock bounds what a header may claim: a batch is at most 1 MiB.
	maxBlock = 8 << 20
	flagZstd = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn says that no whole, sound block begins here.
var errTorn = errors.New("segment: torn or damaged block")

// header is the index entry of a block.
type header struct {
	size     uint32 // of the payload as stored
	raw      uint32 // of the payload decompressed
	stream   uint32
	count    uint32
	flags    uint32
	minTime  int64
	maxTime  int64
	minSeq   uint64
	maxSeq   uint64
	ingested int64 // of the newest event
}

func (h *header) put(b []byte, payload []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], magic)
	le.PutUint32(b[8:], h.size)
	le.PutUint32(b[12:], h.raw)
	le.PutUint32(b[16:], h.stream)
	le.PutUint32(b[20:], h.count)
	le.PutUint32(b[24:], h.flags)
	le.PutUint64(b[28:], uint64(h.minTime))
	le.PutUint64(b[36:], uint64(h.maxTime))
	le.PutUint64(b[44:], h.minSeq)
	le.PutUint64(b[52:], h.maxSeq)
	le.PutUint64(b[60:], uint64(h.ingested))
	crc := crc32.Update(crc32.Checksum(b[8:headerSize], castagnoli), castagnoli, payload)
	le.PutUint32(b[4:], crc)
}

func (h *header) get(b []byte) error {
	le := binary.LittleEndian
	if len(b) < headerSize || le.Uint32(b) != magic {
		return errTorn
	}
	*h = header{size: le.Uint32(b[8:]), raw: le.Uint32(b[12:]), stream: le.Uint32(b[16:]), count: le.Uint32(b[20:]), flags: le.Uint32(b[24:]),
		minTime: int64(le.Uint64(b[28:])), maxTime: int64(le.Uint64(b[36:])), minSeq: le.Uint64(b[44:]), maxSeq: le.Uint64(b[52:]), ingested: int64(le.Uint64(b[60:]))}
	if h.size > maxBlock || h.raw > maxBlock || h.count > h.raw {
		return errTorn
	}
	return nil
}

// sound checks the block's CRC over header and payload.
func sound(head, payload []byte) bool {
	return crc32.Update(crc32.Checksum(head[8:headerSize], castagnoli), castagnoli, payload) == binary.LittleEndian.Uint32(head[4:])
}

// appendRecords encodes records, which are sorted, as a block behind buf.
func appendRecords(buf []byte, stream uint32, rs []Record, compress bool) ([]byte, header) {
	h := header{stream: stream, count: uint32(len(rs)), minTime: rs[0].Time, maxTime: rs[len(rs)-1].Time, minSeq: rs[0].Seq, maxSeq: rs[0].Seq, ingested: rs[0].Ingested}
	for i := range rs {
		h.minSeq, h.maxSeq, h.ingested = min(h.minSeq, rs[i].Seq), max(h.maxSeq, rs[i].Seq), max(h.ingested, rs[i].Ingested)
	}
	at := len(buf)
	buf = append(buf, make([]byte, headerSize)...)
	var raw []byte
	if compress {
		raw = make([]byte, 0, 256<<10)
	} else {
		raw = buf
	}
	start := len(raw)
	last := h.minTime
	for i := range rs {
		r := &rs[i]
		raw = binary.AppendUvarint(raw, uint64(r.Time-last))
		raw = binary.AppendUvarint(raw, r.Seq-h.minSeq)
		raw = binary.AppendUvarint(raw, uint64(h.ingested-r.Ingested))
		raw = binary.AppendUvarint(raw, uint64(len(r.Message)))
		raw = append(raw, r.Message...)
		last = r.Time
	}
	h.raw = uint32(len(raw) - start)
	if compress {
		buf = encoder().EncodeAll(raw, buf)
		h.flags = flagZstd
	} else {
		buf = raw
	}
	h.size = uint32(len(buf) - at - headerSize)
	h.put(buf[at:at+headerSize], buf[at+headerSize:])
	return buf, h
}

// decode reads a block's events from its decompressed payload.
func (h *header) decode(payload []byte) ([]Record, error) {
	text := string(payload) // one copy for all messages of the block
	rs := make([]Record, 0, h.count)
	at := 0
	next := func() uint64 {
		v, n := binary.Uvarint(payload[at:])
		if n <= 0 {
			at = len(payload) + 1
			return 0
		}
		at += n
		return v
	}
	for last := h.minTime; at < len(payload); {
		r := Record{Stream: h.stream}
		r.Time = last + int64(next())
		if at <= len(payload) {
			r.Seq = h.minSeq + next()
		}
		if at <= len(payload) {
			r.Ingested = h.ingested - int64(next())
		}
		var n uint64
		if at <= len(payload) {
			n = next()
		}
		if at > len(payload) || n > uint64(len(payload)-at) {
			return nil, errTorn
		}
		r.Message = text[at : at+int(n)]
		at += int(n)
		last = r.Time
		rs = append(rs, r)
	}
	return rs, nil
}

var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			panic(err) // only for wrong options
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxBlock))
		if err != nil {
			panic(err) // only for wrong options
		}
		return d
	})
)
