package s3

import (
	"context"
	"encoding/base64"
	"net/url"
	"strings"

	"slipway/internal/api/s3"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

const maxKeys = 1000

func (s *Service) registerLists(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpListObjectsV2, s.listV2)
	dispatch.Register(m, s3.OpListObjects, s.listV1)
	dispatch.Register(m, s3.OpListObjectVersions, s.listVersions)
}

// beyond sorts behind every key that begins with prefix: no UTF-8 has this byte.
func beyond(prefix string) string { return prefix + "\xff" }

// roll returns the common prefix that key belongs to, or "".
func roll(key, prefix, delimiter string) string {
	if delimiter == "" {
		return ""
	}
	if i := strings.Index(key[len(prefix):], delimiter); i >= 0 {
		return key[:len(prefix)+i+len(delimiter)]
	}
	return ""
}

// walkSpec says which keys a listing wants.
type walkSpec struct {
	b                        *bucket
	prefix, delimiter, after string
	max                      int
	state                    string // stateLive, or "" with markers
}

// walk visits keys in order until max of them and of common prefixes were
// taken. It says whether there is more, and behind what to go on. Whole
// common prefixes are skipped without reading the keys in them.
func walk(r store.Reader, w walkSpec, key func(*version) (took int, err error), common func(string)) (more bool, next string, err error) {
	after := w.after
	if cp := ""; strings.HasPrefix(after, w.prefix) {
		if cp = roll(after, w.prefix, w.delimiter); cp == after && cp != "" {
			after = beyond(cp) // a listing that stopped at a common prefix
		}
	}
	base, left, last := w.b.Name+"/", w.max, ""
	for {
		q := store.Query{Account: w.b.Account, Region: w.b.Region, Prefix: base + w.prefix, State: w.state, Limit: left + 1}
		if w.delimiter != "" {
			q.Limit = min(q.Limit, 100) // most of what is read may be skipped
		}
		if after != "" {
			q.After = base + after
		}
		rows, err := objects.List(r, q)
		if err != nil {
			return false, "", err
		}
		jumped := false
		for _, row := range rows {
			v := &row.Doc
			cp := roll(v.Key, w.prefix, w.delimiter)
			if left <= 0 {
				return true, last, nil
			}
			if cp != "" {
				common(cp)
				left--
				after, last, jumped = beyond(cp), cp, true
				break
			}
			n, err := key(v)
			if err != nil {
				return false, "", err
			}
			left -= n
			after, last = v.Key, v.Key
		}
		if !jumped && len(rows) < q.Limit {
			return false, "", nil
		}
	}
}

// encoder writes keys as encoding-type=url has them.
func encoder(encoding *string) (func(string) *string, error) {
	switch ptr.Value(encoding) {
	case "":
		return func(s string) *string { return &s }, nil
	case "url":
		return func(s string) *string {
			return new(strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(s)))
		}, nil
	}
	return nil, invalidArgument("encoding-type", *encoding, "Invalid Encoding Method specified in Request")
}

func pageSize(n *int64, name string) (int, error) {
	if n == nil {
		return maxKeys, nil
	}
	if *n < 0 || *n > 1<<31-1 {
		return 0, invalidArgument(name, "", "Argument %s must be an integer between 0 and 2147483647", name)
	}
	return int(min(*n, maxKeys)), nil
}

func object(v *version, enc func(string) *string) s3.Object {
	o := s3.Object{Key: enc(v.Key), LastModified: &v.Modified, ETag: v.quoted(), Size: &v.Size, StorageClass: v.class(), ChecksumType: ptr.NonZero(v.ChecksumType)}
	for a := range v.Checksums {
		o.ChecksumAlgorithm = append(o.ChecksumAlgorithm, a)
	}
	return o
}

func (s *Service) listV2(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	enc, err := encoder(in.EncodingType)
	if err != nil {
		return nil, err
	}
	max, err := pageSize(in.MaxKeys, "max-keys")
	if err != nil {
		return nil, err
	}
	after := ptr.Value(in.StartAfter)
	if in.ContinuationToken != nil {
		b, err := base64.URLEncoding.DecodeString(*in.ContinuationToken)
		if err != nil || len(b) == 0 {
			return nil, invalidArgument("continuation-token", *in.ContinuationToken, "The continuation token provided is incorrect")
		}
		after = string(b)
	}
	out := &s3.ListObjectsV2Output{Name: in.Bucket, Prefix: enc(ptr.Value(in.Prefix)), Delimiter: in.Delimiter, MaxKeys: new(int64(max)),
		EncodingType: in.EncodingType, ContinuationToken: in.ContinuationToken, StartAfter: in.StartAfter, IsTruncated: new(false)}
	if in.Delimiter != nil {
		out.Delimiter = enc(*in.Delimiter)
	}
	if in.StartAfter != nil {
		out.StartAfter = enc(*in.StartAfter)
	}
	err = s.Store.View(ctx, func(r store.Reader) error {
		row, err := bucketIn(ctx, r, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		more, next, err := walk(r, walkSpec{&row.Doc, ptr.Value(in.Prefix), ptr.Value(in.Delimiter), after, max, stateLive}, func(v *version) (int, error) {
			o := object(v, enc)
			if ptr.Value(in.FetchOwner) {
				o.Owner = owner(row.Doc.Account)
			}
			out.Contents = append(out.Contents, o)
			return 1, nil
		}, func(p string) { out.CommonPrefixes = append(out.CommonPrefixes, s3.CommonPrefix{Prefix: enc(p)}) })
		if more && max > 0 {
			out.IsTruncated, out.NextContinuationToken = new(true), new(base64.URLEncoding.EncodeToString([]byte(next)))
		}
		return err
	})
	out.KeyCount = new(int64(len(out.Contents) + len(out.CommonPrefixes)))
	return out, err
}

func (s *Service) listV1(ctx context.Context, in *s3.ListObjectsInput) (*s3.ListObjectsOutput, error) {
	enc, err := encoder(in.EncodingType)
	if err != nil {
		return nil, err
	}
	max, err := pageSize(in.MaxKeys, "max-keys")
	if err != nil {
		return nil, err
	}
	out := &s3.ListObjectsOutput{Name: in.Bucket, Prefix: enc(ptr.Value(in.Prefix)), Marker: enc(ptr.Value(in.Marker)), MaxKeys: new(int64(max)),
		EncodingType: in.EncodingType, IsTruncated: new(false)}
	if in.Delimiter != nil {
		out.Delimiter = enc(*in.Delimiter)
	}
	err = s.Store.View(ctx, func(r store.Reader) error {
		row, err := bucketIn(ctx, r, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		more, next, err := walk(r, walkSpec{&row.Doc, ptr.Value(in.Prefix), ptr.Value(in.Delimiter), ptr.Value(in.Marker), max, stateLive}, func(v *version) (int, error) {
			o := object(v, enc)
			o.Owner = owner(row.Doc.Account)
			out.Contents = append(out.Contents, o)
			return 1, nil
		}, func(p string) { out.CommonPrefixes = append(out.CommonPrefixes, s3.CommonPrefix{Prefix: enc(p)}) })
		if more && max > 0 {
			out.IsTruncated = new(true)
			if in.Delimiter != nil {
				out.NextMarker = enc(next)
			}
		}
		return err
	})
	return out, err
}

// versionLister collects ListObjectVersions' answer: a page can end within
// the versions of one key.
type versionLister struct {
	r         store.Reader
	b         *bucket
	enc       func(string) *string
	keyMarker string // go on within this key,
	seen      bool   // false until its version marker went by
	marker    string
	left      int
	out       *s3.ListObjectVersionsOutput
	last      *version
	cut       bool // more versions of the last key are left
}

func (l *versionLister) add(v *version, latest bool) {
	l.last = v
	l.left--
	if v.Marker {
		l.out.DeleteMarkers = append(l.out.DeleteMarkers, s3.DeleteMarkerEntry{Owner: owner(l.b.Account), Key: l.enc(v.Key), VersionId: &v.ID, IsLatest: &latest, LastModified: &v.Modified})
		return
	}
	o := s3.ObjectVersion{ETag: v.quoted(), Size: &v.Size, StorageClass: v.class(), Key: l.enc(v.Key), VersionId: &v.ID, IsLatest: &latest,
		LastModified: &v.Modified, Owner: owner(l.b.Account), ChecksumType: ptr.NonZero(v.ChecksumType)}
	for a := range v.Checksums {
		o.ChecksumAlgorithm = append(o.ChecksumAlgorithm, a)
	}
	l.out.Versions = append(l.out.Versions, o)
}

// key adds all versions of a key, as far as there is room.
func (l *versionLister) key(v *version) (int, error) {
	before, skip := l.left, l.marker != "" && v.Key == l.keyMarker
	if skip {
		skip = v.ID != l.marker
	} else {
		l.add(v, true)
	}
	if !v.Older {
		return before - l.left, nil
	}
	rows, err := versions.List(l.r, store.Query{Account: l.b.Account, Region: l.b.Region, Prefix: versionPrefix(l.b.Name, v.Key)})
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		if skip {
			skip = row.Doc.ID != l.marker
			continue
		}
		if l.left <= 0 {
			l.cut = true
			break
		}
		l.add(&row.Doc, false)
	}
	return before - l.left, nil
}

func (s *Service) listVersions(ctx context.Context, in *s3.ListObjectVersionsInput) (*s3.ListObjectVersionsOutput, error) {
	enc, err := encoder(in.EncodingType)
	if err != nil {
		return nil, err
	}
	max, err := pageSize(in.MaxKeys, "max-keys")
	if err != nil {
		return nil, err
	}
	if in.VersionIdMarker != nil && ptr.Value(in.KeyMarker) == "" {
		return nil, invalidArgument("version-id-marker", *in.VersionIdMarker, "A version-id marker cannot be specified without a key marker.")
	}
	out := &s3.ListObjectVersionsOutput{Name: in.Bucket, Prefix: enc(ptr.Value(in.Prefix)), KeyMarker: enc(ptr.Value(in.KeyMarker)), VersionIdMarker: new(ptr.Value(in.VersionIdMarker)),
		MaxKeys: new(int64(max)), EncodingType: in.EncodingType, IsTruncated: new(false)}
	if in.Delimiter != nil {
		out.Delimiter = enc(*in.Delimiter)
	}
	err = s.Store.View(ctx, func(r store.Reader) error {
		row, err := bucketIn(ctx, r, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		l := &versionLister{r: r, b: &row.Doc, enc: enc, keyMarker: ptr.Value(in.KeyMarker), marker: ptr.Value(in.VersionIdMarker), left: max, out: out}
		if l.marker != "" { // the rest of that key's versions first
			cur, err := current(r, l.b, l.keyMarker)
			if err != nil {
				return err
			}
			if cur != nil && strings.HasPrefix(l.keyMarker, ptr.Value(in.Prefix)) && roll(l.keyMarker, ptr.Value(in.Prefix), ptr.Value(in.Delimiter)) == "" {
				if _, err := l.key(&cur.Doc); err != nil {
					return err
				}
			}
		}
		more, next := l.cut, ""
		if !l.cut {
			taken := ""
			more, next, err = walk(r, walkSpec{l.b, ptr.Value(in.Prefix), ptr.Value(in.Delimiter), l.keyMarker, l.left, ""}, l.key,
				func(p string) {
					out.CommonPrefixes = append(out.CommonPrefixes, s3.CommonPrefix{Prefix: enc(p)})
					l.left, taken = l.left-1, p
				})
			if taken != "" && taken == next {
				l.last = nil
			}
		}
		if (more || l.cut) && max > 0 {
			out.IsTruncated = new(true)
			if l.last != nil {
				out.NextKeyMarker, out.NextVersionIdMarker = enc(l.last.Key), &l.last.ID
			} else {
				out.NextKeyMarker = enc(next)
			}
		}
		return err
	})
	return out, err
}
