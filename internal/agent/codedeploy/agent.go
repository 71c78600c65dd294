// Package codedeploy is the CodeDeploy host agent: it runs inside an instance (`slipway agent codedeploy`),
// takes one lifecycle event after the other from the service over AWS's host-agent protocol, and carries it out:
// download, install, hook scripts. Start reading at Agent.Run, then executor.
package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"slipway/internal/agent/awscall"
	"slipway/internal/lean"
)

// maxCommands is how many commands run at once (of different deployment groups), as in AWS's agent.
const maxCommands = 16

// Agent polls and executes. Make it with New, call Run once.
type Agent struct {
	cfg   Config
	track tracker
	exec  *executor

	mu      sync.Mutex
	flying  map[string]bool // commands being worked on, by execution and event
	slots   chan struct{}
	workers sync.WaitGroup
}

// New makes an agent.
func New(cfg Config) *Agent {
	cfg = cfg.withDefaults()
	l := layout{root: cfg.Root}
	return &Agent{cfg: cfg, track: tracker{l: l}, exec: newExecutor(cfg, l),
		flying: map[string]bool{}, slots: make(chan struct{}, maxCommands)}
}

// Run works until ctx ends. Running scripts are then stopped like timed-out ones; their events are
// reported with code 7 by the next run. It returns an error only if the deployment root is unusable.
func (a *Agent) Run(ctx context.Context) error {
	left, err := a.track.recover(time.Now())
	if err != nil {
		return fmt.Errorf("deployment root %s: %w", a.cfg.Root, err)
	}
	defer a.workers.Wait()
	for _, c := range left {
		a.workers.Go(func() { a.deliver(ctx, c) })
	}
	a.cfg.Log.Info("polling for commands", "host", a.cfg.Host, "version", Version)
	back := backoff{max: a.cfg.MaxBackoff}
	for ctx.Err() == nil {
		select { // no poll without a free slot
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		lean.Worked() // a poll mostly waits; what came before it and its sending are over soon
		started := time.Now()
		cmd, err := a.poll(ctx)
		switch {
		case err != nil:
			<-a.slots
			if ctx.Err() == nil {
				back.failed(ctx, a, "PollHostCommand", err)
			}
		case cmd == nil:
			<-a.slots
			back.reset(a)
			if time.Since(started) < time.Second { // the service does not hold polls open
				pause(ctx, time.Second)
			}
		default:
			back.reset(a)
			a.start(ctx, cmd)
		}
	}
	return nil
}

// start works on a command in the background and gives its slot back.
func (a *Agent) start(ctx context.Context, c *hostCommand) {
	if err := a.checkCommand(c); err != nil {
		<-a.slots
		a.cfg.Log.Error("ignoring a command", "err", err)
		pause(ctx, time.Second)
		return
	}
	key := c.DeploymentExecutionId + " " + c.CommandName // the identifier may differ from one delivery to the next
	if !a.fly(key) {                                     // offered again although it is being worked on
		<-a.slots
		pause(ctx, 100*time.Millisecond)
		return
	}
	taken := make(chan struct{})
	f := flight{hostCommand: c, taken: sync.OnceFunc(func() { close(taken) }), land: sync.OnceFunc(func() { a.land(key) })}
	a.workers.Go(func() {
		defer lean.Worked()
		defer f.taken()
		defer func() { <-a.slots }()
		defer f.land()
		a.work(ctx, f)
	})
	<-taken // a poll before the acknowledgement would be offered the same command again
}

// flight is a command being worked on. taken is called when the service knows that this host has it, land when
// it has been carried out: the same event may then come again.
type flight struct {
	*hostCommand
	taken, land func()
}

func (a *Agent) fly(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flying[id] {
		return false
	}
	a.flying[id] = true
	return true
}

func (a *Agent) land(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flying, id)
}

func (a *Agent) checkCommand(c *hostCommand) error {
	switch {
	case c.HostCommandIdentifier == "" || c.DeploymentExecutionId == "" || c.CommandName == "":
		return errors.New("the command lacks HostCommandIdentifier, DeploymentExecutionId or CommandName")
	case c.HostIdentifier == "" || !strings.Contains(a.cfg.Host, c.HostIdentifier):
		return fmt.Errorf("the command is for host %q, this is %q", c.HostIdentifier, a.cfg.Host)
	}
	return nil
}

// work takes one command from its specification to its delivered result.
func (a *Agent) work(ctx context.Context, c flight) {
	log := a.cfg.Log.With("command", c.CommandName, "execution", c.DeploymentExecutionId)
	var env envelope
	if !a.retry(ctx, "GetDeploymentSpecification", func() (err error) {
		env, err = a.getSpecification(ctx, c.hostCommand)
		return err
	}) {
		pause(ctx, time.Second) // refused for good: the service may go on offering it
		return
	}
	spec, noop, err := a.probe(env, c.CommandName)
	if err != nil { // completed without acknowledgement, as AWS's agent does
		log.Error("the command cannot be run", "err", err)
		a.finish(ctx, c, "", diagnosticsOf(err))
		return
	}
	log = log.With("deployment", spec.DeploymentId)
	if err := a.track.begin(spec.DeploymentId, c.HostCommandIdentifier); err != nil {
		a.finish(ctx, c, "", diagnosticsOf(err))
		return
	}
	var status string
	acked := a.retry(ctx, "PutHostCommandAcknowledgement", func() (err error) {
		status, err = a.acknowledge(ctx, c.HostCommandIdentifier, noop)
		return err
	})
	if !acked && ctx.Err() != nil {
		return // the note stays: the next run reports it
	}
	if !acked || status == statusSucceeded || status == statusFailed {
		log.Info("skipping the command", "status", status)
		if status == statusFailed && noop {
			a.finish(ctx, c, spec.DeploymentId, diagnostics{Message: "CompletedNoopCommand"})
			return
		}
		if err := a.track.end(spec.DeploymentId); err != nil {
			log.Error("removing the note of the ongoing command", "err", err)
		}
		return
	}
	c.taken()
	started := time.Now()
	err = a.exec.run(ctx, spec, c.CommandName)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return // stopped amid the event: the note stays and the next run reports code 7
	}
	d := diagnosticsOf(err)
	log.Info("lifecycle event done", "code", d.ErrorCode, "noop", noop, "took", time.Since(started).Round(time.Millisecond))
	a.finish(ctx, c, spec.DeploymentId, d)
}

// probe reads the specification and tells whether the command has anything to do.
func (a *Agent) probe(env envelope, command string) (*specification, bool, error) {
	spec, err := decodeSpecification(env, a.cfg.Developer)
	if err != nil {
		return nil, false, err
	}
	noop, err := a.exec.noop(spec, command)
	return spec, noop, err
}

// finish keeps the result on disk before the first attempt to deliver it, then drops the note of the command.
func (a *Agent) finish(ctx context.Context, c flight, deployment string, d diagnostics) {
	done := complete(c.HostCommandIdentifier, d)
	if err := a.track.keep(done); err != nil {
		a.cfg.Log.Error("the result could not be kept on disk; delivering it anyway", "err", err)
	}
	if deployment != "" {
		if err := a.track.end(deployment); err != nil {
			a.cfg.Log.Error("removing the note of the ongoing command", "err", err)
		}
	}
	c.land()
	a.deliver(ctx, done)
}

// deliver tries until the service has taken or refused the result.
func (a *Agent) deliver(ctx context.Context, c completion) {
	if !a.retry(ctx, "PutHostCommandComplete", func() error { return a.putComplete(ctx, c) }) && ctx.Err() != nil {
		return // stays on disk for the next run
	}
	if err := a.track.delivered(c.HostCommandIdentifier); err != nil {
		a.cfg.Log.Error("removing a delivered result", "err", err)
	}
}

// retry calls f until it succeeds (true), is refused for good, or ctx ends (false).
func (a *Agent) retry(ctx context.Context, what string, f func() error) bool {
	back := backoff{max: a.cfg.MaxBackoff}
	for ctx.Err() == nil {
		err := f()
		if err == nil {
			return true
		}
		if !awscall.Temporary(err) {
			a.cfg.Log.Error("the service refused", "call", what, "err", err)
			return false
		}
		if ctx.Err() == nil {
			back.failed(ctx, a, what, err)
		}
	}
	return false
}

// backoff waits longer after each failure, up to max, with jitter.
type backoff struct {
	max      time.Duration
	failures int
}

// failed logs (the first failure of a row, then one in sixty) and waits.
func (b *backoff) failed(ctx context.Context, a *Agent, what string, err error) {
	if b.failures%60 == 0 {
		a.cfg.Log.Warn("the service does not answer; trying again", "call", what, "failures", b.failures+1, "err", err)
	}
	d := min(20*time.Millisecond<<min(b.failures, 10), b.max)
	b.failures++
	pause(ctx, d/2+rand.N(d/2+1))
}

func (b *backoff) reset(a *Agent) {
	if b.failures > 0 {
		a.cfg.Log.Info("the service answers again", "failures", b.failures)
	}
	b.failures = 0
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
