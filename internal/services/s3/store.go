package s3

import (
	"context"
	"errors"

	"slipway/internal/aws/ptr"
	"slipway/internal/blob"
	"slipway/internal/store"
)

// current reads the newest version of a key, or nil.
func current(r store.Reader, b *bucket, key string) (*store.Row[version], error) {
	row, err := objects.Get(r, b.Account, b.Region, objectID(b.Name, key))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return row, err
}

// olderVersion finds a version behind the newest, or nil.
func olderVersion(r store.Reader, b *bucket, key, id string) (*store.Row[version], error) {
	if id != nullVersion {
		if len(id) != 32 {
			return nil, nil
		}
		row, err := versions.Get(r, b.Account, b.Region, versionPrefix(b.Name, key)+id[:16]+id)
		if errors.Is(err, store.ErrNotFound) {
			return nil, nil
		}
		return row, err
	}
	rows, err := versions.List(r, store.Query{Account: b.Account, Region: b.Region, Prefix: versionPrefix(b.Name, key)})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Doc.ID == nullVersion {
			return row, nil
		}
	}
	return nil, nil
}

// find reads a version (the newest where id is nil) with its bucket, and
// answers as GET does where there is none.
func (s *Service) find(ctx context.Context, name, key, id, owner *string) (b *bucket, v *version, err error) {
	err = s.Store.View(ctx, func(r store.Reader) error {
		row, err := bucketIn(ctx, r, name, owner)
		if err != nil {
			return err
		}
		b = &row.Doc
		v, err = findIn(r, b, ptr.Value(key), id)
		return err
	})
	return b, v, err
}

func findIn(r store.Reader, b *bucket, key string, id *string) (*version, error) {
	cur, err := current(r, b, key)
	if err != nil {
		return nil, err
	}
	if id == nil || *id == "" {
		if cur == nil {
			return nil, noKey(key)
		}
		if cur.Doc.Marker {
			return nil, markerError(noKey(key), &cur.Doc)
		}
		return &cur.Doc, nil
	}
	if cur != nil && cur.Doc.ID == *id {
		return &cur.Doc, nil
	}
	old, err := olderVersion(r, b, key, *id)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return nil, noVersion(key, *id)
	}
	return &old.Doc, nil
}

// count changes how many versions and parts use the blobs, and returns those
// that nobody uses any more.
func count(tx store.Tx, refs []blob.Ref, delta int64) (freed []string, err error) {
	for _, ref := range refs {
		n, err := tx.Counter(blobRefs(ref.Hash), delta)
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			freed = append(freed, ref.Hash)
		}
	}
	return freed, nil
}

// put makes v the newest version of its key. The caller has counted v's blobs.
func (s *Service) put(tx store.Tx, b *bucket, v *version) (freed []string, err error) {
	v.Seq = s.nextSeq()
	v.ID = nullVersion
	if b.Versioning == "Enabled" {
		v.ID = newVersionID(v.Seq)
	}
	event := "Created"
	if v.Marker {
		event = "DeleteMarkerCreated"
	}
	cur, err := current(tx, b, v.Key)
	if err != nil {
		return nil, err
	}
	if cur == nil {
		_, err = objects.Insert(tx, b.Account, b.Region, objectID(b.Name, v.Key), *v, event, nil)
		return nil, err
	}
	v.Older = cur.Doc.Older
	if v.ID == nullVersion && v.Older && cur.Doc.ID != nullVersion { // one null version per key
		old, err := olderVersion(tx, b, v.Key, nullVersion)
		if err != nil {
			return nil, err
		}
		if old != nil {
			if freed, err = s.drop(tx, old); err != nil {
				return nil, err
			}
		}
	}
	if v.ID == nullVersion && cur.Doc.ID == nullVersion {
		if freed, err = count(tx, cur.Doc.Blobs, -1); err != nil {
			return nil, err
		}
	} else {
		old := cur.Doc
		old.Older = false
		if _, err := versions.Insert(tx, b.Account, b.Region, old.rowID(), old, "Superseded", nil); err != nil {
			return nil, err
		}
		v.Older = true
	}
	cur.Doc = *v
	return freed, objects.Save(tx, cur, event, nil)
}

// drop deletes an older version.
func (s *Service) drop(tx store.Tx, row *store.Row[version]) ([]string, error) {
	freed, err := count(tx, row.Doc.Blobs, -1)
	if err != nil {
		return nil, err
	}
	return freed, versions.Delete(tx, row, "Deleted", nil)
}

// deleted is what a deletion did.
type deleted struct {
	marker bool   // a delete marker was made or removed
	id     string // its version id, or the deleted version's
	freed  []string
}

// remove deletes the version id for good, or, where id is "", does what the
// bucket's versioning asks for: a marker, or real deletion.
func (s *Service) remove(tx store.Tx, b *bucket, key, id string) (d deleted, err error) {
	cur, err := current(tx, b, key)
	if err != nil {
		return d, err
	}
	if id == "" && b.Versioning != "" {
		v := &version{Bucket: b.Name, Key: key, Marker: true, Modified: s.now()}
		d.freed, err = s.put(tx, b, v)
		d.marker, d.id = true, v.ID
		return d, err
	}
	if cur != nil && (id == "" || cur.Doc.ID == id) {
		d.marker = cur.Doc.Marker
		if id != "" {
			d.id = id
		}
		d.freed, err = s.removeCurrent(tx, b, cur)
		return d, err
	}
	if id == "" {
		return d, nil
	}
	d.id = id
	old, err := olderVersion(tx, b, key, id)
	if err != nil || old == nil { // deleting what is not there succeeds
		return d, err
	}
	d.marker = old.Doc.Marker
	d.freed, err = s.drop(tx, old)
	return d, err
}

// removeCurrent deletes the newest version; the one behind it takes its place.
func (s *Service) removeCurrent(tx store.Tx, b *bucket, cur *store.Row[version]) ([]string, error) {
	freed, err := count(tx, cur.Doc.Blobs, -1)
	if err != nil {
		return nil, err
	}
	var next []*store.Row[version]
	if cur.Doc.Older {
		q := store.Query{Account: b.Account, Region: b.Region, Prefix: versionPrefix(b.Name, cur.Doc.Key), Limit: 2}
		if next, err = versions.List(tx, q); err != nil {
			return nil, err
		}
	}
	if len(next) == 0 {
		return freed, objects.Delete(tx, cur, "Deleted", nil)
	}
	if err := versions.Delete(tx, next[0], "Promoted", nil); err != nil {
		return nil, err
	}
	cur.Doc = next[0].Doc
	cur.Doc.Older = len(next) > 1
	return freed, objects.Save(tx, cur, "Promoted", nil)
}
