package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/cli/stack"
)

type upOptions struct {
	*options
	server     ServerOptions
	alertEmail string
	branch     string
	noWait     bool
}

func upCommand(o *options) *cobra.Command {
	u := &upOptions{options: o}
	c := &cobra.Command{
		Use:   "up [DIR]",
		Short: "Deploy the application in DIR: make everything it needs, push it, and watch it roll out",
		Long: "Starts a server if none runs, makes a network, an image, an Auto Scaling group behind a load balancer,\n" +
			"a repository, and a pipeline, through the public API; pushes DIR and shows it being built and deployed.\n" +
			"Running it again changes nothing that is as it should be.",
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			return u.run(cmd.Context(), dir)
		},
	}
	u.server.flags(c.Flags())
	c.Flags().StringVar(&u.alertEmail, "alert-email", "", "where alarms go by mail (default: the mailbox that slipway mail shows)")
	c.Flags().StringVar(&u.branch, "branch", "main", "branch that the pipeline follows")
	c.Flags().BoolVar(&u.noWait, "no-wait", false, "return once everything is made, before it is deployed")
	return c
}

func (u *upOptions) run(ctx context.Context, dir string) error {
	started := time.Now()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := checkApplication(dir); err != nil {
		return err
	}
	app, err := readSettings(dir)
	if err != nil {
		return err
	}
	scr := newScreen(os.Stdout)
	s, err := u.ensureServer(ctx, scr)
	if err != nil {
		return err
	}
	before := ""
	if v, err := observe(ctx, s, app.Name); err == nil {
		before = v.Execution
	}
	pushed := false
	st := stack.New(s.client, stack.Config{
		Name: app.Name, Account: account, Region: s.region, Branch: u.branch, HealthCheckPath: app.HealthCheckPath,
		VolumePath: app.VolumePath, InstanceType: app.InstanceType, AlertEmail: u.alertEmail, SourceDir: dir,
		Push: func(ctx context.Context, url string) (bool, error) {
			var err error
			pushed, err = s.push(ctx, dir, url, u.branch)
			return pushed, err
		},
		Step: func(what string, made bool) {
			if made {
				scr.say(scr.mark("OK") + " " + what)
			} else {
				scr.say(scr.paint(dim, "· "+what+" (there already)"))
			}
		},
	})
	if err := st.Ensure(ctx); err != nil {
		return err
	}
	if u.noWait {
		return nil
	}
	if !pushed {
		before = "" // nothing new is coming: show how the last execution goes on or ended
	}
	v, err := observe(ctx, s, app.Name)
	if err != nil {
		return err
	}
	if !pushed && v.ended() {
		scr.say(scr.mark(v.Status) + " nothing new to deploy: execution " + v.Execution + " " + v.Status)
	} else if v, err = follow(ctx, s, scr, app.Name, before, started); err != nil {
		return err
	}
	if v.Status != "Succeeded" {
		return fmt.Errorf("%w: execution %s is %s; slipway logs --build or --deploy shows everything", errPipelineFailed, v.Execution, v.Status)
	}
	return u.greet(ctx, s, scr, st, app, started)
}

// greet waits until the load balancer serves the application, and says where.
func (u *upOptions) greet(ctx context.Context, s *session, scr *screen, st *stack.Stack, app settings, started time.Time) error {
	url, err := s.listenerURL(ctx, st.LoadBalancerARN)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+app.HealthCheckPath, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode < 400 {
				break
			}
			err = fmt.Errorf("%s answers %s", url, res.Status)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("deployed, but %w; slipway status shows the targets", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	me := command(u.dataDir)
	scr.print("")
	scr.print(scr.paint(bold, app.Name+" is up: ") + scr.paint(cyan, url+"/") + scr.paint(dim, "  ("+short(time.Since(started))+")"))
	scr.print("")
	hints := [][2]string{
		{"curl " + url + "/", "see it; again, and the other instance answers"},
		{me + " status", "pipeline, instances by zone, targets, alarms"},
		{me + " clone " + app.Name, "clone it, change it, git push: the pipeline starts by itself"},
		{me + " kill i-...", "pull the plug on an instance and see it replaced"},
		{`eval "$(` + me + ` env)"`, "then aws, boto3, Terraform and CDK talk to this server"},
		{me + " down", "stop everything"},
	}
	column := 34
	for _, l := range hints {
		column = max(column, len(l[0])+1)
	}
	for _, l := range hints {
		scr.print(fmt.Sprintf("  %-*s %s", column, l[0], scr.paint(dim, l[1])))
	}
	return nil
}

// account is the one that a server uses unless told otherwise.
const account = "123456789012"
