package ec2

import (
	"errors"
	"time"

	api "slipway/internal/api/ec2"
	"slipway/internal/store"
)

// The tables of this service. Ids are AWS's own except where noted.
var (
	instances = store.NewTable[Instance]("ec2:instance", (*Instance).index)
	// addresses has one row per private address in use, without account and
	// region: all regions share one network. The parent is the instance.
	addresses = store.NewTable[address]("ec2:address", func(a *address) (string, string) { return a.Instance, "" })
	// tags holds the tags of one resource of any type; the parent is its type.
	tagSets = store.NewTable[tagSet]("ec2:tags", func(t *tagSet) (string, string) { return t.Type, "" })
	// tokens remembers client tokens; the id is "operation/token".
	tokens = store.NewTable[token]("ec2:client-token", nil)

	templates = store.NewTable[template]("ec2:launch-template", nil)
	// templateNames maps a name to its template's id.
	templateNames = store.NewTable[nameOf]("ec2:launch-template-name", nil)
	// templateVersions has ids "lt-.../00000001"; the parent is the template.
	templateVersions = store.NewTable[templateVersion]("ec2:launch-template-version",
		func(v *templateVersion) (string, string) { return v.Template, "" })

	images   = store.NewTable[image]("ec2:image", func(i *image) (string, string) { return "", i.State })
	keyPairs = store.NewTable[keyPair]("ec2:key-pair", nil) // id: the name
	groups   = store.NewTable[securityGroup]("ec2:security-group", func(g *securityGroup) (string, string) { return g.VPC, "" })
)

type address struct {
	Instance        string
	Account, Region string
}

type nameOf struct{ ID string }

// tagSet are the tags of one resource; Type is EC2's ("instance", "vpc", ...).
type tagSet struct {
	Type string
	Tags map[string]string
}

// token is a client token's memory: what was asked (a hash) and what came of it.
type token struct {
	Hash   string
	Result string
	At     time.Time
}

// putTags adds tags to a resource inside tx; the newest value of a key wins.
func putTags(tx store.Tx, account, region, id, kind string, add map[string]string) error {
	if len(add) == 0 {
		return nil
	}
	row, err := tagSets.Get(tx, account, region, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err = tagSets.Insert(tx, account, region, id, tagSet{Type: kind, Tags: add}, "Tagged", nil)
		return err
	case err != nil:
		return err
	}
	if row.Doc.Tags == nil {
		row.Doc.Tags = map[string]string{}
	}
	for k, v := range add {
		row.Doc.Tags[k] = v
	}
	return tagSets.Save(tx, row, "Tagged", nil)
}

// dropTags removes a resource's tag row.
func dropTags(tx store.Tx, account, region, id string) error {
	row, err := tagSets.Get(tx, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return tagSets.Delete(tx, row, "Untagged", nil)
}

// tagsOf reads one resource's tags; nil where it has none.
func tagsOf(r store.Reader, account, region, id string) (map[string]string, error) {
	row, err := tagSets.Get(r, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return row.Doc.Tags, nil
}

// allTags reads the tags of every resource of a region, of one type where kind is set.
func allTags(r store.Reader, account, region, kind string) (map[string]map[string]string, error) {
	rows, err := tagSets.List(r, store.Query{Account: account, Region: region, Parent: kind})
	if err != nil {
		return nil, err
	}
	all := make(map[string]map[string]string, len(rows))
	for _, row := range rows {
		all[row.ID] = row.Doc.Tags
	}
	return all, nil
}

// apiTags writes tags in EC2's shape, ordered by key; absent where there are none.
func apiTags(tags map[string]string) []api.Tag {
	if len(tags) == 0 {
		return nil
	}
	out := make([]api.Tag, 0, len(tags))
	for _, k := range sortedKeys(tags) {
		out = append(out, api.Tag{Key: new(k), Value: new(tags[k])})
	}
	return out
}
