package segment

import (
	"bytes"
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
)

// Query selects events.
type Query struct {
	// Streams are the wanted ones; nil: all.
	Streams map[uint32]bool
	// From and To bound the time, in milliseconds: From <= time < To.
	From, To int64
	// After, where set, is the position behind which to begin (before which,
	// when Backward).
	After    *Pos
	Backward bool
	// Since and Until bound the sequence number: Since <= seq < Until. An
	// Until of 0 is no bound.
	Since, Until uint64
	// Literal, where set, is a text that wanted events hold: blocks without
	// it are passed over. Events without it may still be given.
	Literal string
}

func (q *Query) wants(b *block) bool {
	if b.maxSeq < q.Since || q.Until != 0 && b.minSeq >= q.Until {
		return false
	}
	if b.maxTime < q.From || b.minTime >= q.To || q.Streams != nil && !q.Streams[b.stream] {
		return false
	}
	switch {
	case q.After == nil:
		return true
	case q.Backward:
		return b.minTime <= q.After.Time
	}
	return b.maxTime >= q.After.Time
}

func (q *Query) has(r *Record) bool {
	if r.Time < q.From || r.Time >= q.To || r.Seq < q.Since || q.Until != 0 && r.Seq >= q.Until {
		return false
	}
	switch {
	case q.After == nil:
		return true
	case q.Backward:
		return r.pos().less(*q.After)
	}
	return q.After.less(r.pos())
}

// candidate is a block that may hold wanted events.
type candidate struct {
	f *file
	b block
	n int // of the block in its file
}

// run is an open block: its events in the order of the scan.
type run struct {
	rs []Record
	i  int
}

type runs struct {
	list     []*run
	backward bool
}

func (r *runs) Len() int { return len(r.list) }
func (r *runs) Less(i, j int) bool {
	a, b := r.list[i].head().pos(), r.list[j].head().pos()
	if r.backward {
		return b.less(a)
	}
	return a.less(b)
}
func (r *runs) Swap(i, j int) { r.list[i], r.list[j] = r.list[j], r.list[i] }
func (r *runs) Push(x any)    { r.list = append(r.list, x.(*run)) }
func (r *runs) Pop() any {
	n := len(r.list) - 1
	x := r.list[n]
	r.list = r.list[:n]
	return x
}
func (r *run) head() *Record { return &r.rs[r.i] }

// Scan calls fn for the wanted events in order (time, then sequence; the
// other way round when Backward) until fn returns false. Blocks are opened
// only when the scan reaches their time.
func (l *Log) Scan(ctx context.Context, q Query, fn func(*Record) bool) error {
	cands, held, err := l.candidates(&q)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range held {
			l.release(f)
		}
	}()
	sort.SliceStable(cands, func(i, j int) bool {
		if q.Backward {
			return cands[i].b.maxTime > cands[j].b.maxTime
		}
		return cands[i].b.minTime < cands[j].b.minTime
	})
	open := &runs{backward: q.Backward}
	for next := 0; ; {
		for next < len(cands) && (open.Len() == 0 || reaches(&cands[next].b, open.list[0].head().Time, q.Backward)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := cands[next].open(&q)
			if err != nil {
				return err
			}
			if len(r.rs) > 0 {
				heap.Push(open, r)
			}
			next++
		}
		if open.Len() == 0 {
			return nil
		}
		top := open.list[0]
		if !fn(top.head()) {
			return nil
		}
		if top.i++; top.i == len(top.rs) {
			heap.Pop(open)
		} else {
			heap.Fix(open, 0)
		}
	}
}

// reaches reports whether a block may hold an event that comes before or with
// one of the given time.
func reaches(b *block, at int64, backward bool) bool {
	if backward {
		return b.maxTime >= at
	}
	return b.minTime <= at
}

func (l *Log) candidates(q *Query) (cands []candidate, held []*file, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, ErrClosed
	}
	for _, f := range l.files {
		used := false
		for i := range f.blocks {
			if q.wants(&f.blocks[i]) {
				cands = append(cands, candidate{f, f.blocks[i], i})
				used = true
			}
		}
		if used {
			f.refs++
			held = append(held, f)
		}
	}
	return cands, held, nil
}

// load reads and verifies a block. Without the literal in it there is nothing.
func (c *candidate) load(literal string) ([]Record, error) {
	space := buffers.Get().(*buffer)
	defer buffers.Put(space)
	if literal != "" && !c.f.may(c.n, literal, space.entry[:]) {
		return nil, nil
	}
	space.stored = slices.Grow(space.stored[:0], headerSize+int(c.b.size))[:headerSize+int(c.b.size)]
	buf := space.stored
	if _, err := c.f.f.ReadAt(buf, c.b.offset); err != nil {
		return nil, fmt.Errorf("segment: %s at %d: %w", c.f.path, c.b.offset, err)
	}
	if !sound(buf[:headerSize], buf[headerSize:]) {
		return nil, fmt.Errorf("segment: %s at %d: %w", c.f.path, c.b.offset, errTorn)
	}
	payload := buf[headerSize:]
	if c.b.flags&flagZstd != 0 {
		var err error
		if space.raw, err = decoder().DecodeAll(payload, space.raw[:0]); err != nil {
			return nil, fmt.Errorf("segment: %s at %d: %w", c.f.path, c.b.offset, err)
		}
		payload = space.raw
	}
	if literal != "" && !bytes.Contains(payload, []byte(literal)) {
		return nil, nil
	}
	return c.b.decode(payload)
}

// buffer is the space for a block as stored and decompressed.
type buffer struct {
	stored, raw []byte
	entry       [bloomEntry]byte // of the index
}

var buffers = sync.Pool{New: func() any { return &buffer{} }}

// open reads a block's wanted events in the order of the scan.
func (c *candidate) open(q *Query) (*run, error) {
	all, err := c.load(q.Literal)
	if err != nil {
		return nil, err
	}
	rs := all[:0]
	for i := range all {
		if q.has(&all[i]) {
			rs = append(rs, all[i])
		}
	}
	if q.Backward {
		for i, j := 0, len(rs)-1; i < j; i, j = i+1, j-1 {
			rs[i], rs[j] = rs[j], rs[i]
		}
	}
	return &run{rs: rs}, nil
}
