package metricstore

import (
	"encoding/binary"
	"errors"
	"math"
)

// errDamaged says that bytes are not what this package wrote.
var errDamaged = errors.New("metricstore: damaged data")

const (
	flagForm  = 0x03
	flagAlike = 0x04 // Min == Max
	flagWhole = 0x08 // all counts are whole numbers
	flagOne   = 0x10 // one sample
)

// appendSet writes a set: one sample in 9 bytes, many in what they need.
func appendSet(b []byte, s *Set) []byte {
	flags := s.form
	if s.Min == s.Max {
		flags |= flagAlike
		if s.Count == 1 && s.Sum == s.Min {
			return appendFloat(append(b, flags|flagOne), s.Min)
		}
	}
	whole := isWhole(s.Count)
	for _, x := range s.bins {
		whole = whole && isWhole(x.Count)
	}
	if whole {
		flags |= flagWhole
	}
	b = append(b, flags)
	b = appendCount(b, s.Count, whole)
	b = appendFloat(b, s.Sum)
	b = appendFloat(b, s.Min)
	if s.Min != s.Max {
		b = appendFloat(b, s.Max)
	}
	b = binary.AppendUvarint(b, uint64(len(s.bins)))
	for _, x := range s.bins {
		b = appendFloat(b, x.Value)
		b = appendCount(b, x.Count, whole)
	}
	return b
}

func isWhole(f float64) bool { return f >= 0 && f < 1<<53 && f == math.Trunc(f) }

func appendFloat(b []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

func appendCount(b []byte, f float64, whole bool) []byte {
	if whole {
		return binary.AppendUvarint(b, uint64(f))
	}
	return appendFloat(b, f)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes apart what the append functions wrote. After bytes that they
// cannot have written, bad is set and everything else is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) float() float64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
	r.b = r.b[8:]
	return v
}

func (r *reader) count(whole bool) float64 {
	if whole {
		return float64(r.uvarint())
	}
	return r.float()
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) set() Set {
	flags := r.byte()
	s := Set{form: flags & flagForm}
	if flags&flagOne != 0 {
		v := r.float()
		s.Count, s.Sum, s.Min, s.Max = 1, v, v, v
		return s
	}
	whole := flags&flagWhole != 0
	s.Count = r.count(whole)
	s.Sum = r.float()
	s.Min = r.float()
	if s.Max = s.Min; flags&flagAlike == 0 {
		s.Max = r.float()
	}
	n := r.uvarint()
	if n > maxBins || n*9 > uint64(len(r.b)) {
		r.fail()
		return Set{}
	}
	if n > 0 {
		s.bins = make([]Bin, n)
	}
	for i := range s.bins {
		s.bins[i] = Bin{r.float(), r.count(whole)}
	}
	return s
}
