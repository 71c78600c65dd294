package cli

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

type logOptions struct {
	follow, build, deploy bool
	instance, filter      string
	since                 time.Duration
}

func logsCommand(o *options) *cobra.Command {
	var lo logOptions
	c := &cobra.Command{
		Use: "logs", Short: "Show what builds, deployments and instances write", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			return s.logs(cmd.Context(), lo)
		},
	}
	f := c.Flags()
	f.BoolVarP(&lo.follow, "follow", "f", false, "keep showing new lines")
	f.BoolVar(&lo.build, "build", false, "only builds")
	f.BoolVar(&lo.deploy, "deploy", false, "only deployments")
	f.StringVar(&lo.instance, "instance", "", "only this instance, its console included")
	f.StringVar(&lo.filter, "filter", "", "CloudWatch Logs filter pattern")
	f.DurationVar(&lo.since, "since", time.Hour, "how far to look back")
	return c
}

// logs shows the events of the wanted groups in order of time.
func (s *session) logs(ctx context.Context, lo logOptions) error {
	scr := newScreen(os.Stdout)
	if lo.instance != "" && !lo.follow {
		if err := s.console(ctx, lo.instance); err != nil {
			return err
		}
	}
	from := time.Now().Add(-lo.since).UnixMilli()
	seen := map[string]bool{} // ids of events at or after from
	for {
		groups, err := s.logGroups(ctx, lo)
		if err != nil {
			return err
		}
		newest := from
		type line struct {
			at   int64
			text string
		}
		var lines []line
		for _, g := range groups {
			events, err := s.events(ctx, g, from, lo)
			if err != nil {
				return err
			}
			for _, e := range events {
				if seen[g+ptr.Value(e.EventId)] {
					continue
				}
				seen[g+ptr.Value(e.EventId)] = true
				at := ptr.Value(e.Timestamp)
				newest = max(newest, at)
				where := scr.paint(dim, strings.TrimPrefix(g, "/aws/")+" "+shortStream(ptr.Value(e.LogStreamName)))
				lines = append(lines, line{at, where + " " + cut(strings.TrimRight(ptr.Value(e.Message), "\r\n"), 4000)})
			}
		}
		sort.SliceStable(lines, func(i, j int) bool { return lines[i].at < lines[j].at })
		for _, l := range lines {
			fmt.Println(l.text)
		}
		if !lo.follow {
			return nil
		}
		// A second of overlap: writers' clocks differ a little.
		from = max(from, newest-1000)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func shortStream(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	if len(name) > 20 {
		name = name[:8]
	}
	return name
}

func (s *session) logGroups(ctx context.Context, lo logOptions) ([]string, error) {
	var out []string
	in := &logs.DescribeLogGroupsInput{}
	for {
		page, err := call(ctx, s, logs.OpDescribeLogGroups, in)
		if err != nil {
			return nil, err
		}
		for _, g := range page.LogGroups {
			name := ptr.Value(g.LogGroupName)
			switch {
			case !lo.build && !lo.deploy, lo.build && strings.HasPrefix(name, "/aws/codebuild/"), lo.deploy && strings.HasPrefix(name, "/aws/codedeploy/"):
				out = append(out, name)
			}
		}
		if page.NextToken == nil {
			return out, nil
		}
		in.NextToken = page.NextToken
	}
}

func (s *session) events(ctx context.Context, group string, from int64, lo logOptions) ([]logs.FilteredLogEvent, error) {
	in := &logs.FilterLogEventsInput{LogGroupName: &group, StartTime: &from}
	if lo.filter != "" {
		in.FilterPattern = &lo.filter
	}
	if lo.instance != "" {
		in.LogStreamNamePrefix = &lo.instance
	}
	var out []logs.FilteredLogEvent
	for range 1000 {
		page, err := call(ctx, s, logs.OpFilterLogEvents, in)
		if awserr.Is(err, "ResourceNotFoundException") {
			return out, nil // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, page.Events...)
		if page.NextToken == nil {
			return out, nil
		}
		in.NextToken = page.NextToken
	}
	return out, fmt.Errorf("log group %s has more events than are shown; narrow it with --since or --filter", group)
}

// console prints what an instance wrote to its console.
func (s *session) console(ctx context.Context, id string) error {
	req, err := s.adminRaw(ctx, "instances/"+id+"/console")
	if err != nil {
		return err
	}
	fmt.Print(req)
	return nil
}
