package build

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

func TestDeflaterMakesOneStream(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, deflateChunk - 1, deflateChunk, deflateChunk + 1, 3*deflateChunk + 17} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(random.IntN(4)) // compressible
		}
		var out bytes.Buffer
		d, err := newDeflater(&out)
		if err != nil {
			t.Fatal(err)
		}
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(700_000))
			if _, err := d.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		packed := out.Len()
		got, err := io.ReadAll(flate.NewReader(&out))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d: %v", size, len(got), err)
		}
		if size > deflateChunk && packed > size/2 {
			t.Errorf("%d bytes were packed into %d", size, packed)
		}
	}
}

type fullDisk struct{ room int }

var errFull = errors.New("full")

func (f *fullDisk) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestDeflaterTellsWhatFailed(t *testing.T) {
	noise := make([]byte, 4*deflateChunk)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	d, err := newDeflater(&fullDisk{room: deflateChunk})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write(noise); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}
