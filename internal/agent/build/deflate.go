package build

import (
	"bytes"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

const (
	// deflateLevel: a bundle is read a few times and then forgotten, time
	// counts more than size.
	deflateLevel = 2
	// deflateChunk is compressed apart from what is before it, which costs
	// well under a percent of the size.
	deflateChunk = 1 << 20
)

// flaters keeps compressors: their tables are larger than most files.
var flaters = sync.Pool{New: func() any {
	z, err := flate.NewWriter(nil, deflateLevel)
	if err != nil {
		panic(err) // only the level can be wrong
	}
	return z
}}

// deflater compresses with all processors: pieces of the stream are deflated at
// once and written in their order. Each ends on a byte boundary by an empty
// stored block (RFC 1951, 3.2.4), so that they make one stream. Not safe for
// concurrent use; Close must be called.
type deflater struct {
	w     io.Writer
	chunk []byte
	queue chan chan piece // pieces in their order; its room bounds memory
	done  chan error      // the writer's end
}

type piece struct {
	data []byte
	err  error
}

func newDeflater(w io.Writer) (io.WriteCloser, error) {
	d := &deflater{w: w, queue: make(chan chan piece, runtime.GOMAXPROCS(0)), done: make(chan error, 1)}
	go d.drain()
	return d, nil
}

// drain writes pieces; after an error it only takes them, so that nobody waits.
func (d *deflater) drain() {
	var failed error
	for p := range d.queue {
		got := <-p
		if failed == nil {
			failed = got.err
		}
		if failed == nil {
			_, failed = d.w.Write(got.data)
		}
	}
	d.done <- failed
}

// Write never fails: Close tells.
func (d *deflater) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if d.chunk == nil {
			d.chunk = make([]byte, 0, deflateChunk)
		}
		take := min(len(b), deflateChunk-len(d.chunk))
		d.chunk, b = append(d.chunk, b[:take]...), b[take:]
		if len(d.chunk) == deflateChunk {
			d.send(false)
		}
	}
	return n, nil
}

func (d *deflater) send(last bool) {
	raw, out := d.chunk, make(chan piece, 1)
	d.chunk = nil
	d.queue <- out
	go func() {
		var buf bytes.Buffer
		z := flaters.Get().(*flate.Writer)
		z.Reset(&buf)
		_, err := z.Write(raw)
		switch {
		case err != nil:
		case last:
			err = z.Close()
		default:
			err = z.Flush()
		}
		flaters.Put(z)
		out <- piece{buf.Bytes(), err}
	}()
}

// Close ends the stream and tells whether all of it was written.
func (d *deflater) Close() error {
	d.send(true)
	close(d.queue)
	return <-d.done
}
