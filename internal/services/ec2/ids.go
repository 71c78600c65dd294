package ec2

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"slipway/internal/aws/awserr"
	"slipway/internal/lazyre"
)

// newID makes an id like "i-0123456789abcdef0": AWS's long format, seventeen
// hexadecimal digits of which the first is 0.
func newID(prefix string) string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return prefix + "-0" + hex.EncodeToString(b[:])
}

// derivedID is an id that follows from its parts, for what exists without a row.
func derivedID(prefix string, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return prefix + "-0" + hex.EncodeToString(h.Sum(nil)[:8])
}

// newMAC is a locally administered unicast address, 02 or 0e or 0a first as on EC2.
func newMAC() string {
	var b [5]byte
	rand.Read(b[:])
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4])
}

var idPattern = lazyre.New(`^[a-z]+(-[a-z]+)*-([0-9a-f]{8}|[0-9a-f]{17})$`)

// checkID refuses what does not look like an id of this prefix; code is the
// service's "Malformed" error.
func checkID(prefix, id, code string) error {
	if len(id) <= len(prefix) || id[:len(prefix)+1] != prefix+"-" || !idPattern.MatchString(id) {
		return awserr.New(code, `Invalid id: "%s" (expecting "%s-...")`, id, prefix)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// orNil is nil for the zero value: absent on the wire.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
