package collect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"slipway/internal/api/codebuild"
	"slipway/internal/store"
)

// group is what this package reads of an autoscaling:group row.
type group struct {
	Name              string
	Min, Max, Desired int64
	Metrics           []string // enabled ones
}

// reportGroups reports the groups whose metrics collection is enabled.
func (c *Collector) reportGroups(ctx context.Context, at time.Time) error {
	out := batch{}
	err := c.Store.View(ctx, func(r store.Reader) error {
		recs, err := r.List(store.Query{Kind: "autoscaling:group"})
		if err != nil {
			return err
		}
		for _, rec := range recs {
			var g group
			if err := json.Unmarshal(rec.Doc, &g); err != nil {
				return fmt.Errorf("row of group %s: %w", rec.ID, err)
			}
			if len(g.Metrics) == 0 {
				continue
			}
			members, err := r.List(store.Query{Kind: "autoscaling:instance", Account: rec.Account, Region: rec.Region, Parent: g.Name})
			if err != nil {
				return err
			}
			for name, v := range g.values(members) {
				if slices.Contains(g.Metrics, name) {
					out.add(owner{rec.Account, rec.Region}, at, name, "None", v, map[string]string{"AutoScalingGroupName": g.Name})
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.put(ctx, "AWS/AutoScaling", out)
}

// values are AWS's group metrics. Without weights, capacity counts instances.
func (g *group) values(members []*store.Record) map[string]float64 {
	v := map[string]float64{
		"GroupMinSize": float64(g.Min), "GroupMaxSize": float64(g.Max), "GroupDesiredCapacity": float64(g.Desired),
		"GroupInServiceInstances": 0, "GroupPendingInstances": 0, "GroupStandbyInstances": 0, "GroupTerminatingInstances": 0, "GroupTotalInstances": 0,
	}
	for _, m := range members {
		switch m.State {
		case "InService", "EnteringStandby", "Detaching":
			v["GroupInServiceInstances"]++
		case "Pending", "Pending:Wait", "Pending:Proceed":
			v["GroupPendingInstances"]++
		case "Standby":
			v["GroupStandbyInstances"]++
		case "Terminating", "Terminating:Wait", "Terminating:Proceed":
			v["GroupTerminatingInstances"]++
		default:
			continue
		}
		v["GroupTotalInstances"]++
	}
	for _, k := range []string{"InService", "Pending", "Standby", "Terminating", "Total"} {
		v["Group"+k+"Capacity"] = v["Group"+k+"Instances"]
	}
	return v
}

// phaseMetrics are the metrics of a build's phases.
var phaseMetrics = map[string]string{
	"SUBMITTED": "SubmittedDuration", "QUEUED": "QueuedDuration", "PROVISIONING": "ProvisioningDuration", "DOWNLOAD_SOURCE": "DownloadSourceDuration",
	"INSTALL": "InstallDuration", "PRE_BUILD": "PreBuildDuration", "BUILD": "BuildDuration", "POST_BUILD": "PostBuildDuration",
	"UPLOAD_ARTIFACTS": "UploadArtifactsDuration", "FINALIZING": "FinalizingDuration",
}

// cursor is how far the events of builds are reported; one row.
type cursor struct{ Seq int64 }

var cursors = store.NewTable[cursor]("cloudwatch:cursor", nil)

// followBuilds reports each build when it has ended, also one that ended
// while nobody looked.
func (c *Collector) followBuilds(ctx context.Context) {
	sub := c.Store.Subscribe("codebuild:build")
	defer sub.Close()
	for {
		if err := c.reportBuilds(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("metrics of builds are not reported", "error", err)
		}
		if _, err := sub.Next(ctx); err != nil && !errors.Is(err, store.ErrLagged) {
			return
		}
	}
}

const eventPage = 200

func (c *Collector) reportBuilds(ctx context.Context) error {
	for {
		var events []store.Event
		var at *store.Row[cursor]
		err := c.Store.View(ctx, func(r store.Reader) (err error) {
			if at, err = cursors.Get(r, "-", "-", "builds"); errors.Is(err, store.ErrNotFound) {
				at, err = &store.Row[cursor]{}, nil
			}
			if err == nil {
				events, err = r.Events(at.Doc.Seq, eventPage, "codebuild:build")
			}
			return err
		})
		if err != nil || len(events) == 0 {
			return err
		}
		for _, ev := range events {
			// A build has its final status once; later events tidy up.
			if ev.Deleted || ev.State == "IN_PROGRESS" || ev.Type == "Cleaned" {
				continue
			}
			if err := c.reportBuild(ctx, ev); err != nil {
				return err
			}
		}
		err = c.Store.Update(ctx, func(tx store.Tx) error {
			at.Doc.Seq = events[len(events)-1].Seq
			if at.Version == 0 {
				_, err := cursors.Insert(tx, "-", "-", "builds", at.Doc, "Moved", nil)
				return err
			}
			return cursors.Save(tx, at, "Moved", nil)
		})
		if err != nil {
			return err
		}
	}
}

func (c *Collector) reportBuild(ctx context.Context, ev store.Event) error {
	var doc struct{ API codebuild.Build }
	err := c.Store.View(ctx, func(r store.Reader) error {
		rec, err := r.Get(ev.Key)
		if err != nil {
			return err
		}
		return json.Unmarshal(rec.Doc, &doc)
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && (doc.API.BuildComplete == nil || !*doc.API.BuildComplete || doc.API.ProjectName == nil) {
		return nil
	}
	if err != nil {
		return err
	}
	b := &doc.API
	at := ev.At
	if b.EndTime != nil {
		at = *b.EndTime
	}
	dims := []map[string]string{{"ProjectName": *b.ProjectName}, {}}
	o, out := owner{ev.Key.Account, ev.Key.Region}, batch{}
	out.add(o, at, "Builds", "Count", 1, dims...)
	if *b.BuildStatus == "SUCCEEDED" {
		out.add(o, at, "SucceededBuilds", "Count", 1, dims...)
	} else if *b.BuildStatus != "STOPPED" {
		out.add(o, at, "FailedBuilds", "Count", 1, dims...)
	}
	if b.StartTime != nil && b.EndTime != nil {
		out.add(o, at, "Duration", "Seconds", b.EndTime.Sub(*b.StartTime).Seconds(), dims...)
	}
	for _, p := range b.Phases {
		if p.PhaseType != nil && p.StartTime != nil && p.EndTime != nil && phaseMetrics[*p.PhaseType] != "" {
			out.add(o, at, phaseMetrics[*p.PhaseType], "Seconds", p.EndTime.Sub(*p.StartTime).Seconds(), dims...)
		}
	}
	return c.put(ctx, "AWS/CodeBuild", out)
}
