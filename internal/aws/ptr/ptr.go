// Package ptr reads and makes the pointers of the generated shapes, in which
// nil is an absent member.
package ptr

// Value is what p points to, or the zero value if it is nil.
func Value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// NonZero points to v, or is nil if v is the zero value: an absent member, not
// an empty one.
func NonZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
