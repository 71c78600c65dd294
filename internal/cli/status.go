package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func statusCommand(o *options) *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use: "status", Short: "Pipelines, deployments, instances by zone, targets, alarms: one screen", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			scr := newScreen(os.Stdout)
			if !watch {
				return showStatus(cmd.Context(), s, scr, asJSON)
			}
			return watchStatus(cmd.Context(), s, scr)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "keep showing it")
	return c
}

func showStatus(ctx context.Context, s *session, scr *screen, asJSON bool) error {
	ov, err := gather(ctx, s)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(ov)
	}
	for _, l := range ov.render(scr) {
		fmt.Fprintln(scr.out, l)
	}
	return nil
}

func watchStatus(ctx context.Context, s *session, scr *screen) error {
	for {
		ov, err := gather(ctx, s)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			scr.region([]string{scr.paint(red, err.Error())})
		} else {
			scr.region(ov.render(scr))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (ov *overview) render(s *screen) []string {
	lines := []string{s.paint(bold, "slipway") + "  " + ov.Endpoint}
	if ov.Trouble != "" {
		for _, l := range s.wrap(ov.Trouble, "  ") {
			lines = append(lines, s.paint(red, l))
		}
	}
	head := func(title string) { lines = append(lines, "", s.paint(bold, title)) }
	head("Pipelines")
	for _, p := range ov.Pipelines {
		line := fmt.Sprintf("  %s %-16s %-10s", s.mark(p.Status), p.Pipeline, p.Status)
		for _, st := range p.Stages {
			line += "  " + s.mark(st.Status) + " " + st.Name
		}
		lines = append(lines, line)
		for _, st := range p.Stages {
			if st.Summary != "" && st.Name == p.Stages[0].Name {
				lines = append(lines, "      "+s.paint(dim, strings.TrimSpace(st.Revision+" "+st.Summary)))
			}
			if st.Build != nil && st.Build.Status == "IN_PROGRESS" {
				lines = append(lines, "      "+s.paint(cyan, st.Build.Phase)+"  "+s.paint(dim, st.Build.LastLine))
			}
			if st.Deploy != nil && (st.Status == "InProgress" || st.Status == "Failed") {
				for _, t := range st.Deploy.Targets {
					lines = append(lines, t.render(s))
				}
			}
			if st.Error != "" {
				for l := range strings.Lines(st.Error) {
					lines = append(lines, "      "+s.paint(red, strings.TrimRight(l, "\n")))
				}
			}
		}
	}
	head("Deployments")
	for _, r := range ov.Rollouts {
		lines = append(lines, fmt.Sprintf("  %s %s/%s  %s  %s  %s", s.mark(r.Status), r.Application, r.Group, r.ID, r.Status,
			s.paint(dim, "by "+r.Creator+", "+r.Created.Local().Format("Jan 2 15:04:05"))))
		if r.Status != "Succeeded" {
			for _, l := range s.wrap(r.Message, "      ") {
				lines = append(lines, s.paint(red, l))
			}
			lines = append(lines, "      "+s.paint(dim, "the last that succeeded: "+orDash(r.Succeeded)))
		}
	}
	head("Auto Scaling groups")
	for _, g := range ov.Groups {
		lines = append(lines, fmt.Sprintf("  %s  min %d, desired %d, max %d", g.Name, g.Min, g.Desired, g.Max))
		for _, i := range g.Instances {
			lines = append(lines, fmt.Sprintf("    %s %-12s %s  %-15s %-18s %-10s %s", s.mark(i.Lifecycle), i.Zone, i.ID, i.Address, i.Lifecycle, i.Health, s.paint(dim, "target "+orDash(i.Target))))
			lines = append(lines, s.hints(i.Why, "        ")...)
		}
		lines = append(lines, s.hints(g.Why, "    ")...)
		if g.LastActivity != "" {
			lines = append(lines, "    "+s.paint(dim, g.LastActivity))
		}
	}
	head("Load balancers")
	for _, b := range ov.Balancers {
		lines = append(lines, fmt.Sprintf("  %s  %s  %s", b.Name, s.paint(cyan, b.URL), s.paint(red, b.Error)))
	}
	head("Alarms")
	name := 0
	for _, a := range ov.Alarms {
		name = min(max(name, len(a.Name)), 40)
	}
	for _, a := range ov.Alarms {
		lines = append(lines, strings.TrimRight(fmt.Sprintf("  %s %-*s  %s", s.mark(a.State), name, shorten(a.Name, name), a.State), " "))
		if a.State == "ALARM" {
			for _, l := range s.wrap(a.Reason, "      ") {
				lines = append(lines, s.paint(red, l))
			}
		}
		lines = append(lines, s.hints(a.Hints, "      ")...)
	}
	return lines
}

// hints are lines that say why something is as it is.
func (s *screen) hints(texts []string, indent string) (lines []string) {
	for _, t := range texts {
		for _, l := range s.wrap(t, indent) {
			lines = append(lines, s.paint(yellow, l))
		}
	}
	return lines
}

// shorten cuts a name at its end: that of a scaling policy's alarm is a random
// id.
func shorten(name string, width int) string {
	if len(name) <= width {
		return name
	}
	return name[:width-1] + "…"
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
