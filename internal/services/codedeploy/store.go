package codedeploy

import (
	"context"
	"errors"
	"slices"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/store"
)

// The rows of this service. Others may watch "codedeploy:deployment" (State
// is the status, Parent is "application/group").
var (
	applications = store.NewTable[Application]("codedeploy:application", nil)
	groups       = store.NewTable("codedeploy:group", func(g *Group) (string, string) { return g.Application, "" })
	configs      = store.NewTable[Config]("codedeploy:config", nil)
	revisions    = store.NewTable("codedeploy:revision", func(r *Revision) (string, string) { return r.Application, "" })
	deployments  = store.NewTable("codedeploy:deployment", func(d *Deployment) (string, string) { return d.parent(), d.Status })
	targets      = store.NewTable("codedeploy:target", func(t *Target) (string, string) { return t.Instance, t.Status })
	hosts        = store.NewTable("codedeploy:host", func(h *Host) (string, string) { return h.GroupID, "" })
	onPremises   = store.NewTable[OnPremises]("codedeploy:onpremises", nil)
	cursors      = store.NewTable[cursor]("codedeploy:cursor", nil)
)

// Names of applications and groups hold no slash (see validate.go), so the
// separator is unambiguous.
func groupRowID(app, group string) string            { return app + "/" + group }
func targetRowID(deployment, instance string) string { return deployment + "/" + instance }
func hostRowID(groupID, instance string) string      { return groupID + "/" + instance }

type (
	deploymentRow = store.Row[Deployment]
	targetRow     = store.Row[Target]
	groupRow      = store.Row[Group]
)

// targetsOf lists the targets of a deployment, by instance id.
func targetsOf(r store.Reader, account, region, deployment string) ([]*targetRow, error) {
	return targets.List(r, store.Query{Account: account, Region: region, Prefix: deployment + "/"})
}

// activeTargets lists the targets under way on an instance.
func activeTargets(r store.Reader, account, region, instance string) ([]*targetRow, error) {
	return targets.List(r, store.Query{Account: account, Region: region, Parent: instance, State: api.TargetStatusInProgress})
}

// saveHost notes how a deployment left an instance.
func saveHost(tx store.Tx, account, region string, h Host) error {
	id := hostRowID(h.GroupID, h.Instance)
	row, err := hosts.Get(tx, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		_, err = hosts.Insert(tx, account, region, id, h, "Noted", nil)
		return err
	}
	if err != nil {
		return err
	}
	if h.RevisionKey == "" { // a failure: what runs there is not known to be anything else
		h.RevisionKey = row.Doc.RevisionKey
	}
	row.Doc = h
	return hosts.Save(tx, row, "Noted", nil)
}

func hostsOf(r store.Reader, account, region, groupID string) (map[string]Host, error) {
	rows, err := hosts.List(r, store.Query{Account: account, Region: region, Parent: groupID})
	if err != nil {
		return nil, err
	}
	m := make(map[string]Host, len(rows))
	for _, row := range rows {
		m[row.Doc.Instance] = row.Doc
	}
	return m, nil
}

// groupByID finds a group by its UUID among those of an application; a group
// may have been renamed since a deployment was made.
func groupByID(r store.Reader, account, region, app, id string) (*groupRow, error) {
	rows, err := groups.List(r, store.Query{Account: account, Region: region, Parent: app})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(rows, func(g *groupRow) bool { return g.Doc.ID == id })
	if i < 0 {
		return nil, store.ErrNotFound
	}
	return rows[i], nil
}

func find[T any](ctx context.Context, s store.Store, fn func(store.Reader) (T, error)) (T, error) {
	var v T
	err := s.View(ctx, func(r store.Reader) (err error) {
		v, err = fn(r)
		return err
	})
	return v, err
}
