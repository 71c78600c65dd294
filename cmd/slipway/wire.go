package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"

	"slipway/internal/admin"
	apicloudformation "slipway/internal/api/cloudformation"
	"slipway/internal/aws/dispatch"
	"slipway/internal/blob"
	"slipway/internal/hostinfo"
	"slipway/internal/keyring"
	"slipway/internal/mail"
	"slipway/internal/services/autoscaling"
	"slipway/internal/services/cloudwatch"
	"slipway/internal/services/codebuild"
	"slipway/internal/services/codecommit"
	"slipway/internal/services/codedeploy"
	"slipway/internal/services/codepipeline"
	"slipway/internal/services/codestarnotifications"
	"slipway/internal/services/ec2"
	"slipway/internal/services/elbv2"
	"slipway/internal/services/iam"
	"slipway/internal/services/logs"
	"slipway/internal/services/s3"
	"slipway/internal/services/sns"
	"slipway/internal/services/ssm"
	"slipway/internal/services/sts"
	"slipway/internal/store"
)

// services are the ones that others ask for by more than their API.
type services struct {
	logs       *logs.Service
	iam        *iam.Service
	codecommit *codecommit.Service
	elbv2      *elbv2.Service
	scaling    *autoscaling.Service
	sns        *sns.Service
	mail       *mail.Service
	memory     string // directory of an ephemeral server's bytes
	closers    []func() error
}

func (s *services) close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// service is what all services have in common.
type service interface {
	Register(*dispatch.Mux)
	Run(context.Context) error
}

func (s *server) add(name string, svc service) {
	svc.Register(s.mux)
	s.runners = append(s.runners, runner{name, svc.Run})
}

// wire makes the services and hands each what it needs.
func (s *server) wire() error {
	s.mux.Declare(apicloudformation.Service)
	ring, err := keyring.Open(s.opts.DataDir)
	if err != nil {
		return err
	}
	root, err := iam.OpenRoot(s.opts.DataDir)
	if err != nil {
		return err
	}
	s.iam = iam.New(iam.Deps{Store: s.store, Clock: s.clock, Ring: ring, Root: root, Account: s.opts.Account, Log: s.log})
	s.add("IAM", s.iam)
	s.add("STS", sts.New(sts.Deps{Mux: s.mux, Ring: ring}))
	s.add("SSM", ssm.New(ssm.Deps{Store: s.store, Clock: s.clock, Ring: ring, DefaultImage: ec2.DefaultImage, Log: s.log}))
	if err := s.wireStorage(); err != nil {
		return err
	}
	if err := s.wireInstances(); err != nil {
		return err
	}
	if err := s.wireWatching(); err != nil {
		return err
	}
	return s.wireDelivery()
}

// bytesDir is where services keep bytes of their own: the data directory, or
// memory for an ephemeral server.
func (s *server) bytesDir() (string, error) {
	if !s.opts.Ephemeral {
		return s.opts.DataDir, nil
	}
	if s.memory != "" {
		return s.memory, nil
	}
	tmp, err := os.MkdirTemp("/dev/shm", "slipway-bytes-")
	if err != nil {
		return "", fmt.Errorf("a directory in memory: %w", err)
	}
	s.memory = tmp
	s.closers = append(s.closers, func() error { return os.RemoveAll(tmp) })
	return tmp, nil
}

// wireStorage makes what keeps bytes: S3 and log events.
func (s *server) wireStorage() error {
	dir, err := s.bytesDir()
	if err != nil {
		return err
	}
	blobs, err := blob.OpenDir(filepath.Join(dir, "blobs"), !s.opts.Ephemeral)
	if err != nil {
		return err
	}
	s.add("S3", s3.New(s3.Deps{Store: s.store, Blobs: blobs, Clock: s.clock, Log: s.log}))
	s.logs = logs.New(logs.Deps{Store: s.store, Clock: s.clock, Dir: filepath.Join(dir, "logs"), Durable: !s.opts.Ephemeral, Log: s.log})
	s.add("Logs", s.logs)
	return nil
}

// wireWatching makes metrics and alarms, topics, and the mail they send.
func (s *server) wireWatching() (err error) {
	if s.mail, err = mail.Open(mail.Deps{Store: s.store, Clock: s.clock, Log: s.log, Dir: s.opts.DataDir}); err != nil {
		return err
	}
	dir, err := s.bytesDir()
	if err != nil {
		return err
	}
	cw, err := cloudwatch.New(cloudwatch.Deps{
		Store: s.store, Clock: s.clock, Mux: s.mux, Log: s.log, Dir: filepath.Join(dir, "metrics"), Ephemeral: s.opts.Ephemeral,
		Machines: s.driver, Balancers: s.elbv2, Policies: s.scaling,
	})
	if err != nil {
		return err
	}
	// Closed first of all, with whatever was measured last.
	s.closers = append([]func() error{cw.Close}, s.closers...)
	s.add("CloudWatch", cw)
	s.logs.SetMetrics(cw)
	s.resets = append(s.resets, cw.Reset)
	s.sns, err = sns.New(sns.Deps{
		Store: s.store, Clock: s.clock, Log: s.log, Mail: s.mail, Dir: s.opts.DataDir, DialVPC: s.driver.DialVPC,
		Endpoint: func() string { return s.endpoint }, VPCEndpoint: "http://" + vpcEndpoint,
		Measure: func(account, region, topic, metric string, value float64) {
			cw.Record(account, region, "AWS/SNS", cloudwatch.Datum{Name: metric, Dimensions: map[string]string{"TopicName": topic}, Value: value})
		},
	})
	if err != nil {
		return err
	}
	s.add("SNS", s.sns)
	return nil
}

func (s *server) wireInstances() error {
	s.add("EC2", ec2.New(ec2.Deps{Store: s.store, Clock: s.clock, Mux: s.mux, Machines: s.driver, Log: s.log, StrictImages: s.opts.StrictImages, Endpoint: "http://" + vpcEndpoint}))
	s.scaling = autoscaling.New(autoscaling.Deps{Store: s.store, Clock: s.clock, Mux: s.mux, Log: s.log})
	s.add("Auto Scaling", s.scaling)
	d := elbv2.Deps{Store: s.store, Clock: s.clock, Log: s.log, Mux: s.mux, Address: s.opts.LBAddress, PortShift: int64(s.opts.PortShift)}
	if s.balancer != nil {
		d.LB = s.balancer.client
	}
	s.elbv2 = elbv2.New(d)
	if s.balancer != nil {
		s.balancer.restarted = s.elbv2.Resync
	}
	s.add("Elastic Load Balancing", s.elbv2)
	return nil
}

func (s *server) wireDelivery() error {
	dir := s.dir("git")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory of the repositories: %w", err)
	}
	s.codecommit = codecommit.New(codecommit.Deps{
		Store: s.store, Clock: s.clock, Log: s.log, Dir: dir, Account: s.opts.Account, Region: s.opts.Region,
		AnyCredentials: s.opts.Auth == "any", CloneURL: func() string { return s.endpoint },
		Lookup: func(ctx context.Context, id, token string) (codecommit.Credential, error) {
			c, err := s.iam.Lookup(ctx, id, token)
			return codecommit.Credential{Secret: c.Secret, Account: c.Account}, err
		},
	})
	s.add("CodeCommit", s.codecommit)
	s.add("CodeBuild", codebuild.New(codebuild.Deps{Store: s.store, Clock: s.clock, Mux: s.mux, Machines: s.driver, Repositories: s.codecommit, Log: s.log, Endpoint: "http://" + vpcEndpoint, MaxBuilds: runtime.NumCPU(),
		Free: func() (uint64, bool) { return hostinfo.Free(s.opts.DataDir) }}))
	cd, err := codedeploy.New(codedeploy.Deps{Store: s.store, Mux: s.mux, Clock: s.clock, Dir: s.dir("codedeploy"), Log: s.log, AnyHost: s.opts.Auth == "any"})
	if err != nil {
		return err
	}
	s.add("CodeDeploy", cd)
	s.add("CodePipeline", codepipeline.New(codepipeline.Deps{Store: s.store, Clock: s.clock, Mux: s.mux, Repositories: s.codecommit, Log: s.log}))
	s.add("CodeStar Notifications", codestarnotifications.New(codestarnotifications.Deps{Store: s.store, Clock: s.clock, Mux: s.mux, Log: s.log}))
	return nil
}

// routes adds what services serve below /_slipway/.
func (s *server) routes(h *admin.Handler) {
	h.Handle("GET "+admin.Prefix+"mailbox", s.mail.HandleList)
	h.Handle("DELETE "+admin.Prefix+"mailbox", s.mail.HandleClear)
	h.Handle("DELETE "+admin.Prefix+"mailbox/{id}", s.mail.HandleClear)
	h.Handle("GET "+admin.Prefix+"autoscaling/{name}/why", s.why)
}

// why serves what an Auto Scaling group of ?region= waits for.
func (s *server) why(w http.ResponseWriter, r *http.Request) {
	out, err := s.scaling.Explain(r.Context(), s.opts.Account, r.URL.Query().Get("region"), r.PathValue("name"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		http.Error(w, "there is no Auto Scaling group "+r.PathValue("name")+" in the region "+r.URL.Query().Get("region"), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		admin.JSON(w, out)
	}
}

// built lists the services that have operations, by package name.
func (s *server) built() []string {
	var out []string
	for _, name := range []string{"s3", "iam", "sts", "ssm", "ec2", "autoscaling", "elbv2", "codecommit", "codebuild", "codedeploy", "codepipeline", "codestarnotifications", "cloudwatch", "logs", "sns"} {
		if len(s.mux.Built(name)) > 0 {
			out = append(out, name)
		}
	}
	return out
}
