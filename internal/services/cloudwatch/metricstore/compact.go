package metricstore

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// maxPerWindow is how many blocks one stretch of time may have before they
// become one.
const maxPerWindow = 4

// stretch is what one block covers.
type stretch struct {
	tier   int
	window int64
}

// checkpoint begins to turn the head into blocks and to tidy up what is old.
// The work is done beside the writer, which goes on with a new log. Without
// full it is skipped where there is nothing to do.
func (s *Store) checkpoint(full bool) {
	if s.pending != nil || (!full && s.log.size == 0 && !s.due()) {
		return
	}
	old := s.log
	if err := s.beginLog(); err != nil {
		s.opts.Log.Error("metrics cannot begin a new log", "error", err)
		return
	}
	if err := old.close(); err != nil {
		s.opts.Log.Warn("metric log did not close", "error", err)
	}
	s.mu.Lock()
	for _, m := range s.metrics {
		for _, x := range m.series {
			x.frozen, x.head = x.head, [headTiers][]bucket{}
		}
	}
	s.mu.Unlock()
	s.pending = make(chan error, 1)
	j := &job{store: s, number: s.log.number, now: s.opts.Clock.Now().Unix()}
	go func() { s.pending <- j.run() }()
}

// due says whether blocks are to be rolled up, merged or dropped.
func (s *Store) due() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.opts.Clock.Now().Unix()
	for _, b := range s.blocks {
		if b.expired(now) {
			return true
		}
	}
	return false
}

func (b *block) expired(now int64) bool {
	t := tiers[b.tier]
	return b.window+t.window+t.keep < now
}

// settled takes the end of a checkpoint. After a failure the head has its
// points again, and the logs stay.
func (s *Store) settled(err error) {
	s.pending = nil
	if err == nil {
		return
	}
	s.opts.Log.Error("metrics could not be written to blocks, will try again", "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.metrics {
		for _, x := range m.series {
			for t, list := range x.frozen {
				for _, b := range list {
					x.head[t] = mergeBucket(x.head[t], b.start, b.set)
				}
			}
			x.frozen = [headTiers][]bucket{}
		}
	}
}

// job is one checkpoint. Until publish nothing of it is seen.
type job struct {
	store  *Store
	number uint64 // of the log that goes on
	now    int64
	seq    uint64

	added   map[*series][]chunk
	made    []*block
	dropped map[*block]bool
}

func (j *job) run() (err error) {
	j.added, j.dropped = map[*series][]chunk{}, map[*block]bool{}
	defer func() {
		if err != nil {
			for _, b := range j.made {
				b.file.Close()
				os.Remove(filepath.Join(j.store.opts.Dir, b.name))
			}
		}
	}()
	if err := j.flush(); err != nil {
		return err
	}
	if err := j.tidy(); err != nil {
		return err
	}
	return j.publish()
}

// flush writes what is frozen.
func (j *job) flush() error {
	groups := map[stretch][]piece{}
	j.store.mu.RLock() // frozen buckets do not change: only the map needs the lock
	for _, m := range j.store.metrics {
		for _, x := range m.series {
			for t, list := range x.frozen {
				split(groups, t, x, list)
			}
		}
	}
	j.store.mu.RUnlock()
	for where, pieces := range groups {
		if err := j.write(where, values(pieces)); err != nil {
			return err
		}
	}
	return nil
}

// split cuts ascending buckets at the bounds of their tier's windows.
func split(groups map[stretch][]piece, t int, x *series, list []bucket) {
	for len(list) > 0 {
		w := floor(list[0].start, tiers[t].window)
		n := searchBuckets(list, w+tiers[t].window)
		where := stretch{t, w}
		groups[where] = append(groups[where], piece{x, list[:n]})
		list = list[n:]
	}
}

func values(pieces []piece) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		for _, p := range pieces {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func (j *job) write(where stretch, pieces iter.Seq2[piece, error]) error {
	j.seq++
	name := blockName(where.tier, where.window, j.number<<20|j.seq)
	b, err := writeBlock(j.store.opts.Dir, name, where.tier, where.window, func(yield func(*series, []bucket) (chunk, error)) error {
		for p, err := range pieces {
			if err != nil {
				return err
			}
			c, err := yield(p.series, p.buckets)
			if err != nil {
				return err
			}
			j.added[p.series] = append(j.added[p.series], c)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("block %s: %w", name, err)
	}
	j.made = append(j.made, b)
	return nil
}

// tidy merges, rolls up and drops blocks.
func (j *job) tidy() error {
	groups := map[stretch][]*block{}
	j.store.mu.RLock()
	all := append(slices.Clone(j.store.blocks), j.made...)
	parts := map[*block]map[*series]chunk{}
	for _, m := range j.store.metrics {
		for _, x := range m.series {
			for _, c := range append(slices.Clone(x.chunks), j.added[x]...) {
				if parts[c.block] == nil {
					parts[c.block] = map[*series]chunk{}
				}
				parts[c.block][x] = c
			}
		}
	}
	j.store.mu.RUnlock()
	for _, b := range all {
		groups[stretch{b.tier, b.window}] = append(groups[stretch{b.tier, b.window}], b)
	}
	for where, blocks := range groups {
		t := tiers[where.tier]
		expired := blocks[0].expired(j.now)
		switch {
		case expired && t.into < 0:
		case expired:
			if err := j.rollUp(t.into, gather(parts, blocks)); err != nil {
				return err
			}
		case len(blocks) > maxPerWindow:
			if err := j.write(where, gather(parts, blocks)); err != nil {
				return err
			}
		default:
			continue
		}
		for _, b := range blocks {
			j.dropped[b] = true
		}
	}
	return nil
}

// gather reads the series of some blocks, one at a time and merged.
func gather(parts map[*block]map[*series]chunk, blocks []*block) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		seen := map[*series]bool{}
		for _, b := range blocks {
			for x := range parts[b] {
				if seen[x] {
					continue
				}
				seen[x] = true
				var merged []bucket
				for _, other := range blocks {
					c, ok := parts[other][x]
					if !ok {
						continue
					}
					list, err := c.read()
					if err != nil {
						yield(piece{}, err)
						return
					}
					for _, bk := range list {
						merged = mergeBucket(merged, bk.start, bk.set)
					}
				}
				if len(merged) > 0 && !yield(piece{x, merged}, nil) {
					return
				}
			}
		}
	}
}

// rollUp writes pieces into a coarser tier.
func (j *job) rollUp(into int, pieces iter.Seq2[piece, error]) error {
	groups := map[stretch][]piece{}
	for p, err := range pieces {
		if err != nil {
			return err
		}
		var coarse []bucket
		for _, b := range p.buckets {
			coarse = mergeBucket(coarse, floor(b.start, tiers[into].seconds), b.set)
		}
		split(groups, into, p.series, coarse)
	}
	for where, list := range groups {
		if err := j.write(where, values(list)); err != nil {
			return err
		}
	}
	return nil
}

// publish makes the job's blocks what counts, then removes what they replace.
func (j *job) publish() error {
	s := j.store
	var keep []*block
	s.mu.RLock()
	for _, b := range append(slices.Clone(s.blocks), j.made...) {
		if !j.dropped[b] {
			keep = append(keep, b)
		}
	}
	logs := slices.Clone(s.logs)
	m := manifest{FirstLog: j.number, Next: j.number + 1, Positions: maps.Clone(s.positions)}
	s.mu.RUnlock()
	for _, b := range keep {
		m.Blocks = append(m.Blocks, b.name)
	}
	if err := s.writeManifest(m); err != nil {
		return err
	}
	s.mu.Lock()
	for key, m := range s.metrics {
		for _, x := range m.series {
			x.frozen = [headTiers][]bucket{}
			x.chunks = slices.DeleteFunc(append(x.chunks, j.added[x]...), func(c chunk) bool { return j.dropped[c.block] })
		}
		m.series = slices.DeleteFunc(m.series, (*series).empty)
		if len(m.series) == 0 {
			delete(s.metrics, key)
			s.sorted = nil
		}
	}
	s.blocks = keep
	s.logs = slices.DeleteFunc(s.logs, func(n uint64) bool { return n < j.number })
	s.mu.Unlock()
	return j.remove(logs)
}

// empty says that nothing is left; a series that the open log defines stays,
// for points on their way.
func (x *series) empty() bool {
	return len(x.chunks) == 0 && len(x.head[0]) == 0 && len(x.head[1]) == 0
}

// remove deletes the files that nothing names; recover would do it too.
func (j *job) remove(logs []uint64) error {
	var errs []error
	for b := range j.dropped {
		b.release()
		errs = append(errs, os.Remove(filepath.Join(j.store.opts.Dir, b.name)))
	}
	for _, n := range logs {
		if n < j.number {
			errs = append(errs, os.Remove(logName(j.store.opts.Dir, n)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		j.store.opts.Log.Warn("metric files were not removed", "error", err)
	}
	return nil
}
