// Package store keeps Slipway's state: every resource is a row with a
// version and a JSON document, every transition of a row is an event written
// in the same transaction, and whoever subscribes hears of it right after
// the commit. State rows are the only queue there is: a controller that was
// killed finds its work by listing them.
//
// A service declares one Table per kind of resource:
//
//	var instances = store.NewTable("ec2:instance", func(i *Instance) (parent, state string) {
//		return i.GroupName, i.State
//	})
//
//	err := st.Update(ctx, func(tx store.Tx) error {
//		row, err := instances.Get(tx, account, region, id)
//		if err != nil {
//			return err
//		}
//		row.Doc.State = StateRunning
//		return instances.Save(tx, row, "Running", nil)
//	})
//
// Update returns when the write is durable (SQLite, WAL, synchronous=FULL).
// Updates that wait at the same moment share one commit, so many small ones
// cost few fsyncs. The function given to Update runs alone: it must be quick
// and must not do I/O.
package store
