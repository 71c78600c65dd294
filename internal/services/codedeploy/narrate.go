package codedeploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/store"
)

// cursor is how far the narrator has read the event stream. After a crash it
// goes on from there: a notification is sent at least once.
type cursor struct{ Seq int64 }

const (
	narratorBatch = 256
	// cursorEvery is how long the cursor may lag behind, so that its writes
	// do not stand in the way of deployments.
	cursorEvery = time.Second
)

// logGroup is where the story of a deployment is told, in a stream named
// after the deployment.
func logGroup(d *Deployment) string { return "/aws/codedeploy/" + d.Application + "/" + d.Group }

// narrate turns the events of deployments and targets into log lines and SNS
// notifications. A deployment never waits for it, and its failures never
// become the deployment's.
func (s *Service) narrate(ctx context.Context) error {
	sub := s.store.Subscribe(deployments.Kind, targets.Kind)
	defer sub.Close()
	row, err := s.loadCursor(ctx)
	if err != nil {
		return err
	}
	saved := row.Doc.Seq
	for ctx.Err() == nil {
		n, err := s.tell(ctx, row)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		if n == narratorBatch {
			continue
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		if row.Doc.Seq != saved {
			wait, cancel = context.WithTimeout(ctx, cursorEvery)
		}
		_, err = sub.Next(wait)
		cancel()
		switch {
		case err == nil, errors.Is(err, store.ErrLagged):
		case ctx.Err() != nil:
		case errors.Is(err, context.DeadlineExceeded):
			if err := s.saveCursor(ctx, row); err != nil && ctx.Err() == nil {
				return err
			}
			saved = row.Doc.Seq
		default:
			return err
		}
	}
	if row.Doc.Seq == saved {
		return nil
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cursorEvery)
	defer cancel()
	if err := s.saveCursor(last, row); err != nil && !errors.Is(err, store.ErrClosed) {
		s.log.Warn("deployment log cursor not saved", "error", err)
	}
	return nil
}

func (s *Service) loadCursor(ctx context.Context) (*store.Row[cursor], error) {
	row, err := cursors.Find(ctx, s.store, "", "", "narrator")
	if !errors.Is(err, store.ErrNotFound) {
		return row, err
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		row, err = cursors.Insert(tx, "", "", "narrator", cursor{}, "Created", nil)
		return err
	})
	return row, err
}

func (s *Service) saveCursor(ctx context.Context, row *store.Row[cursor]) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		fresh, err := cursors.Get(tx, "", "", row.ID)
		if errors.Is(err, store.ErrNotFound) { // the store was reset
			_, err := cursors.Insert(tx, "", "", row.ID, row.Doc, "Created", nil)
			return err
		}
		if err != nil {
			return err
		}
		fresh.Doc = row.Doc
		return cursors.Save(tx, fresh, "Moved", nil)
	})
}

// tell works off the next events and returns how many there were.
func (s *Service) tell(ctx context.Context, row *store.Row[cursor]) (int, error) {
	var evs []store.Event
	known := map[store.Key]*Deployment{}
	err := s.store.View(ctx, func(r store.Reader) (err error) {
		if evs, err = r.Events(row.Doc.Seq, narratorBatch, deployments.Kind, targets.Kind); err != nil {
			return err
		}
		for _, ev := range evs {
			id, _, _ := cutTargetID(ev.Key.ID)
			key := deployments.Key(ev.Key.Account, ev.Key.Region, id)
			if known[key] != nil {
				continue
			}
			d, err := deployments.Get(r, key.Account, key.Region, key.ID)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			known[key] = &d.Doc
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	lines := map[store.Key][]logs.InputLogEvent{}
	for _, ev := range evs {
		id, _, _ := cutTargetID(ev.Key.ID)
		key := deployments.Key(ev.Key.Account, ev.Key.Region, id)
		if d := known[key]; d != nil {
			for _, line := range describeEvent(d, ev) {
				lines[key] = append(lines[key], logs.InputLogEvent{Timestamp: new(ev.At.UnixMilli()), Message: new(line)})
			}
			s.notify(ctx, key, d, ev)
		}
		row.Doc.Seq = ev.Seq
	}
	for key, batch := range lines {
		s.writeLog(ctx, key, known[key], batch)
	}
	return len(evs), nil
}

// describeEvent says what happened, for the deployment's log.
func describeEvent(d *Deployment, ev store.Event) []string {
	if ev.Key.Kind == deployments.Kind {
		return describeDeployment(d, ev)
	}
	var detail targetDetail
	_ = json.Unmarshal(ev.Detail, &detail) // our own; an empty one says less
	instance := ev.Parent
	var lines []string
	switch {
	case ev.Type == typeAcknowledged:
		return nil
	case ev.Type == typeBegan:
		return []string{instance + " deployment begins"}
	case detail.Event != "":
		took := time.Duration(detail.Millis) * time.Millisecond
		lines = append(lines, fmt.Sprintf("%s %s %s (%s)", instance, detail.Event, detail.EventStatus, took))
		if g := detail.Diagnostics; g != nil {
			if detail.EventStatus == api.LifecycleEventStatusFailed {
				lines = append(lines, fmt.Sprintf("%s %s %s: %s%s", instance, detail.Event, g.ErrorCode, g.Message, inScript(g)))
			}
			for _, l := range strings.Split(strings.TrimRight(g.LogTail, "\n"), "\n") {
				if l != "" {
					lines = append(lines, instance+" "+detail.Event+" | "+l)
				}
			}
		}
	}
	switch ev.Type {
	case api.TargetStatusSucceeded, api.TargetStatusFailed, api.TargetStatusSkipped:
		line := instance + " deployment " + strings.ToLower(ev.Type)
		if detail.Message != "" && detail.Event == "" {
			line += ": " + detail.Message
		}
		lines = append(lines, line)
	}
	return lines
}

func inScript(g *Diagnostics) string {
	if g.Script == "" || strings.Contains(g.Message, g.Script) {
		return ""
	}
	return " (script " + g.Script + ")"
}

func describeDeployment(d *Deployment, ev store.Event) []string {
	switch ev.Type {
	case api.DeploymentStatusCreated:
		line := fmt.Sprintf("deployment %s to group %s of application %s created by %s", d.ID, d.Group, d.Application, d.Creator)
		if d.Description != "" {
			line += ": " + d.Description
		}
		return []string{line}
	case api.DeploymentStatusInProgress:
		return []string{fmt.Sprintf("deployment %s begins with %s", d.ID, d.ConfigName)}
	case "StopRequested":
		if d.Stop != nil {
			return []string{d.Stop.Cause.Message}
		}
	case api.DeploymentStatusSucceeded, api.DeploymentStatusFailed, api.DeploymentStatusStopped:
		lines := []string{fmt.Sprintf("deployment %s %s", d.ID, strings.ToLower(ev.Type))}
		if d.Error != nil {
			lines = append(lines, strings.Split(d.Error.Code+": "+d.Error.Message, "\n")...)
		}
		if d.RollbackMessage != "" {
			lines = append(lines, d.RollbackMessage)
		}
		return lines
	}
	return nil
}

// writeLog puts lines into the deployment's stream, which it makes when it
// is missing.
func (s *Service) writeLog(ctx context.Context, key store.Key, d *Deployment, batch []logs.InputLogEvent) {
	own := s.as(ctx, key.Account, key.Region)
	slices.SortStableFunc(batch, func(a, b logs.InputLogEvent) int { return int(*a.Timestamp - *b.Timestamp) })
	group, stream := logGroup(d), d.ID
	put := func() error {
		_, err := dispatch.Call(own, s.mux, logs.OpPutLogEvents, &logs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream, LogEvents: batch})
		return err
	}
	err := put()
	if awserr.Is(err, "ResourceNotFoundException") {
		if err = s.makeLog(own, group, stream); err == nil {
			err = put()
		}
	}
	if err != nil && ctx.Err() == nil {
		s.log.Debug("deployment log not written", "deployment", d.ID, "error", err)
	}
}

func (s *Service) makeLog(ctx context.Context, group, stream string) error {
	_, err := dispatch.Call(ctx, s.mux, logs.OpCreateLogGroup, &logs.CreateLogGroupInput{LogGroupName: &group})
	if err != nil && !awserr.Is(err, "ResourceAlreadyExistsException") {
		return err
	}
	_, err = dispatch.Call(ctx, s.mux, logs.OpCreateLogStream, &logs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
	if err != nil && !awserr.Is(err, "ResourceAlreadyExistsException") {
		return err
	}
	return nil
}
