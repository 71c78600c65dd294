package metricstore

import (
	"encoding/binary"
	"slices"
	"strings"
)

// Dimension is a name and a value.
type Dimension struct{ Name, Value string }

// Metric is what a metric is known by. Different dimension sets are different
// metrics.
type Metric struct {
	Account, Region, Namespace, Name string
	Dimensions                       []Dimension // ascending by name
}

// NewMetric sorts the dimensions into a copy.
func NewMetric(account, region, namespace, name string, dims ...Dimension) Metric {
	dims = slices.Clone(dims)
	slices.SortFunc(dims, func(a, b Dimension) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
	return Metric{account, region, namespace, name, dims}
}

// Key is the metric as a string, equal for equal metrics.
func (m *Metric) Key() string { return string(m.appendKey(nil)) }

func (m *Metric) appendKey(b []byte) []byte {
	b = appendString(b, m.Account)
	b = appendString(b, m.Region)
	b = appendString(b, m.Namespace)
	b = appendString(b, m.Name)
	b = binary.AppendUvarint(b, uint64(len(m.Dimensions)))
	for _, d := range m.Dimensions {
		b = appendString(b, d.Name)
		b = appendString(b, d.Value)
	}
	return b
}

func (r *reader) metric() Metric {
	m := Metric{Account: r.string(), Region: r.string(), Namespace: r.string(), Name: r.string()}
	n := r.uvarint()
	if n > 64 {
		r.fail()
		return Metric{}
	}
	for range n {
		m.Dimensions = append(m.Dimensions, Dimension{r.string(), r.string()})
	}
	return m
}

// Compare orders metrics by namespace, name and dimensions.
func (m *Metric) Compare(o *Metric) int {
	if c := strings.Compare(m.Namespace, o.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(m.Name, o.Name); c != 0 {
		return c
	}
	return slices.CompareFunc(m.Dimensions, o.Dimensions, func(a, b Dimension) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
}

// ParseKey reads what Key returned; its input may come from anywhere.
func ParseKey(key string) (Metric, error) {
	r := &reader{b: []byte(key)}
	m := r.metric()
	if r.bad || len(r.b) > 0 {
		return Metric{}, errDamaged
	}
	return m, nil
}
