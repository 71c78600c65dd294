package s3

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"slipway/internal/blob"
	"slipway/internal/store"
)

// bucket is a bucket and its settings.
type bucket struct {
	Name, Account, Region string
	Created               time.Time
	Versioning            string // "", "Enabled" or "Suspended"
	// Settings are the sub-resources as they were put, by name.
	Settings map[string]json.RawMessage `json:",omitempty"`
}

var buckets = store.NewTable("s3:bucket", func(b *bucket) (string, string) { return b.Account, "" })

// States of an s3:object row.
const (
	stateLive   = "Live"   // the key has an object; entered by every put
	stateMarker = "Marker" // its newest version is a delete marker
)

// nullVersion is the id of a version written while versioning was not on.
const nullVersion = "null"

// version is one version of an object, or a delete marker.
type version struct {
	Bucket, Key string
	ID          string // version id, or "null"
	Seq         int64  // orders the versions of a key
	Marker      bool   `json:",omitempty"`
	Older       bool   `json:",omitempty"` // there may be s3:version rows (newest row only)
	Modified    time.Time
	Size        int64
	ETag        string // without quotes
	Blobs       []blob.Ref
	Parts       []part            `json:",omitempty"` // of a multipart upload
	Headers     headers           `json:",omitzero"`
	Meta        map[string]string `json:",omitempty"`
	Tags        map[string]string `json:",omitempty"`
	Class       string            `json:",omitempty"` // storage class, "" is STANDARD
	// Checksums by algorithm in capitals, base64; Type is FULL_OBJECT or COMPOSITE.
	Checksums    map[string]string `json:",omitempty"`
	ChecksumType string            `json:",omitempty"`
}

// headers are what a GET gives back as it was put.
type headers struct {
	Type, Encoding, Language, Disposition, Cache, Expires, Redirect string
}

// part is one part of a multipart upload, while it lasts and afterwards.
type part struct {
	Number    int64
	Size      int64
	ETag      string
	Modified  time.Time
	Blob      blob.Ref          `json:",omitzero"`
	Checksums map[string]string `json:",omitempty"`
}

func versionIndex(v *version) (string, string) {
	if v.Marker {
		return v.Bucket, stateMarker
	}
	return v.Bucket, stateLive
}

var (
	objects  = store.NewTable("s3:object", versionIndex)
	versions = store.NewTable("s3:version", versionIndex)
	uploads  = store.NewTable("s3:upload", func(u *upload) (string, string) { return u.Bucket, "" })
	parts    = store.NewTable("s3:part", func(p *uploadedPart) (string, string) { return p.Upload, "" })
)

func objectID(bucket, key string) string { return bucket + "/" + key }

// versionPrefix begins the ids of a key's older versions. No key contains a
// zero byte, so that no other key's versions begin with it.
func versionPrefix(bucket, key string) string { return bucket + "/" + key + "\x00" }

// seqText sorts newest first.
func seqText(seq int64) string { return fmt.Sprintf("%016x", ^uint64(seq)) }

func (v *version) rowID() string {
	return versionPrefix(v.Bucket, v.Key) + seqText(v.Seq) + v.ID
}

const idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._"

func randomText(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = idAlphabet[rand.IntN(len(idAlphabet))]
	}
	return string(b)
}

// newVersionID is 32 characters that begin with the sequence, so that a
// version's row is found from its id.
func newVersionID(seq int64) string { return seqText(seq) + randomText(16) }

func (v *version) quoted() *string { return new(`"` + v.ETag + `"`) }

func (v *version) class() *string {
	if v.Class == "" {
		return new("STANDARD")
	}
	return &v.Class
}
