package codedeploy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	api "slipway/internal/api/codedeploy"
	cmds "slipway/internal/api/codedeploycommands"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/store"
)

// pollTime is how long a poll without work is held open (as AWS does; the
// agents give up reading after 80 s). It is the machine's time.
const pollTime = 60 * time.Second

func (s *Service) registerAgentAPI(m *dispatch.Mux) {
	dispatch.Register(m, cmds.OpPollHostCommand, s.pollHostCommand)
	dispatch.Register(m, cmds.OpGetDeploymentSpecification, s.getDeploymentSpecification)
	dispatch.Register(m, cmds.OpPutHostCommandAcknowledgement, s.putHostCommandAcknowledgement)
	dispatch.Register(m, cmds.OpPutHostCommandComplete, s.putHostCommandComplete)
	dispatch.Register(m, cmds.OpPostHostCommandUpdate, s.postHostCommandUpdate)
}

// hostRef is an instance as its agent names it.
type hostRef struct{ account, region, instance string }

func (h hostRef) key() string { return hostKey(h.account, h.region, h.instance) }

func clientError(format string, args ...any) error {
	return awserr.New("ClientException", format, args...)
}

func accessDenied(format string, args ...any) error {
	return awserr.New("AccessDeniedException", format, args...).WithStatus(400)
}

// host resolves a host identifier and makes sure that the caller is that
// host: an instance calls with its role's credentials, whose session is
// named after it; an on-premises instance calls as the user or session that
// it was registered with.
func (s *Service) host(ctx context.Context, identifier string) (hostRef, error) {
	id := caller.From(ctx)
	h := hostRef{account: id.Account, region: id.Region}
	parts := strings.SplitN(identifier, ":", 6)
	if len(identifier) > 1024 || len(parts) != 6 || parts[0] != "arn" {
		return h, clientError("HostIdentifier is not the ARN of an instance.")
	}
	if parts[2] != "ec2" {
		row, err := find(ctx, s.store, func(r store.Reader) (*store.Row[OnPremises], error) {
			return onPremisesByPrincipal(r, id.Account, id.Region, identifier)
		})
		if errors.Is(err, store.ErrNotFound) {
			return h, clientError("HostIdentifier %q is not registered as an on-premises instance.", identifier)
		}
		if err != nil {
			return h, err
		}
		if !s.anyHost && id.PrincipalARN != identifier {
			return h, accessDenied("The caller %s may not act for %s.", id.PrincipalARN, identifier)
		}
		h.instance = row.Doc.Name
		return h, nil
	}
	name, ok := strings.CutPrefix(parts[5], "instance/")
	if !ok || !validInstanceID(name) {
		return h, clientError("HostIdentifier is not the ARN of an instance.")
	}
	h.instance = name
	if parts[3] != id.Region || parts[4] != id.Account {
		return h, accessDenied("The instance %s is not of the caller's account and region.", identifier)
	}
	return h, s.mayActFor(id, name)
}

func (s *Service) mayActFor(id caller.Identity, instance string) error {
	if s.anyHost {
		return nil
	}
	// arn:aws:sts::123456789012:assumed-role/NAME/SESSION
	_, role, assumed := strings.Cut(id.PrincipalARN, ":assumed-role/")
	if session := role[strings.LastIndexByte(role, '/')+1:]; assumed && session == instance {
		return nil
	}
	return accessDenied("The caller %s may not act for instance %s.", id.PrincipalARN, instance)
}

func validInstanceID(id string) bool {
	hex, ok := strings.CutPrefix(id, "i-")
	if !ok || len(hex) < 8 || len(hex) > 17 {
		return false
	}
	for _, c := range hex {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// commandID is what HostCommandIdentifier holds: opaque to the agent, and
// never trusted here but as a name to look up.
type commandID struct {
	Deployment string `json:"d"`
	Instance   string `json:"i"`
	Event      string `json:"e"`
	Delivery   string `json:"n"`
}

func (c commandID) String() string {
	b, _ := json.Marshal(c) // four strings: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCommandID(text string) (commandID, error) {
	var c commandID
	if len(text) > 2048 {
		return c, clientError("HostCommandIdentifier is too long.")
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Deployment == "" || c.Instance == "" || c.Event == "" {
		return c, clientError("HostCommandIdentifier %.64q is not one that this service gave out.", text)
	}
	return c, nil
}

// executionID is the DeploymentExecutionId of a deployment; AWS's agents
// demand four parts between slashes and at most 129 characters.
func executionID(account, region, deployment string) string {
	return "CodeDeploy/" + region + "/prod/" + deploymentARN(account, region, deployment)
}

func deploymentARN(account, region, deployment string) string {
	return "arn:aws:codedeploy:" + region + ":" + account + ":deployment/" + deployment
}

func (s *Service) pollHostCommand(ctx context.Context, in *cmds.PollHostCommandInput) (*cmds.PollHostCommandOutput, error) {
	h, err := s.host(ctx, ptr.Value(in.HostIdentifier))
	if err != nil {
		return nil, err
	}
	wake, release := s.hub.wait(h.key())
	defer release()
	end := clock.Real.NewTimer(pollTime)
	defer end.Stop()
	for {
		s.hub.heard(h.key(), s.realNow())
		cmd, recheck, err := s.nextCommand(ctx, h)
		if err != nil {
			return nil, err
		}
		if cmd != nil {
			cmd.HostIdentifier = in.HostIdentifier
			return &cmds.PollHostCommandOutput{HostCommand: cmd}, nil
		}
		var again <-chan time.Time
		if recheck > 0 {
			again = clock.Real.After(recheck)
		}
		select {
		case <-wake:
		case <-again:
		case <-end.C:
			return &cmds.PollHostCommandOutput{}, nil
		case <-s.hub.closing: // the agent comes back at once, an empty answer would let it rest
			return nil, awserr.New("ServerException", "The service is shutting down.").WithStatus(503)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// realNow is the machine's time: agents live in it.
func (s *Service) realNow() time.Time { return clock.Real.Now() }
func (c *change) realNow() time.Time  { return c.s.realNow() }

// nextCommand is a command that is ready for the host and not in an agent's
// hands, or after which time one that is must be handed out again.
func (s *Service) nextCommand(ctx context.Context, h hostRef) (*cmds.HostCommandInstance, time.Duration, error) {
	rows, err := find(ctx, s.store, func(r store.Reader) ([]*targetRow, error) {
		return activeTargets(r, h.account, h.region, h.instance)
	})
	if err != nil {
		return nil, 0, err
	}
	var recheck time.Duration
	for _, row := range rows {
		e := row.Doc.current()
		if e == nil || serverSide(e.Name) || !e.AckedAt.IsZero() {
			continue
		}
		ok, after := s.hub.hand(row.ID+"/"+e.Name, s.realNow())
		if !ok {
			if recheck == 0 || after < recheck {
				recheck = after
			}
			continue
		}
		id := commandID{Deployment: row.Doc.Deployment, Instance: h.instance, Event: e.Name, Delivery: rand.Text()[:12]}
		return &cmds.HostCommandInstance{
			HostCommandIdentifier: new(id.String()), CommandName: new(e.Name), Nonce: new(int64(0)),
			DeploymentExecutionId: new(executionID(h.account, h.region, row.Doc.Deployment)),
		}, 0, nil
	}
	return nil, recheck, nil
}

func (s *Service) getDeploymentSpecification(ctx context.Context, in *cmds.GetDeploymentSpecificationInput) (*cmds.GetDeploymentSpecificationOutput, error) {
	h, err := s.host(ctx, ptr.Value(in.HostIdentifier))
	if err != nil {
		return nil, err
	}
	prefix := executionID(h.account, h.region, "")
	id, ok := strings.CutPrefix(ptr.Value(in.DeploymentExecutionId), prefix)
	if !ok {
		return nil, clientError("DeploymentExecutionId %.129q is not of this account and region.", ptr.Value(in.DeploymentExecutionId))
	}
	d, err := find(ctx, s.store, func(r store.Reader) (*deploymentRow, error) {
		if _, err := targets.Get(r, h.account, h.region, targetRowID(id, h.instance)); err != nil {
			return nil, err
		}
		return deployments.Get(r, h.account, h.region, id)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, clientError("Deployment %.40q has no target %s.", id, h.instance)
	}
	if err != nil {
		return nil, err
	}
	payload, err := s.signer.seal(specificationOf(&d.Doc))
	if err != nil {
		return nil, clientError("%v", err)
	}
	return &cmds.GetDeploymentSpecificationOutput{
		DeploymentSystem: new("CodeDeploy"),
		DeploymentSpecification: &cmds.DeploymentSpecification{
			GenericEnvelope: &cmds.Envelope{Format: new(envelopeFormat), Payload: &payload},
		},
	}, nil
}

// command finds the target and the event that a command is for, and makes
// sure that the caller is its host.
func (s *Service) command(ctx context.Context, tx store.Reader, identifier string) (commandID, *targetRow, *Event, error) {
	id, err := parseCommandID(identifier)
	if err != nil {
		return id, nil, nil, err
	}
	who := caller.From(ctx)
	row, err := targets.Get(tx, who.Account, who.Region, targetRowID(id.Deployment, id.Instance))
	if errors.Is(err, store.ErrNotFound) {
		return id, nil, nil, clientError("There is no such host command.")
	}
	if err != nil {
		return id, nil, nil, err
	}
	if strings.HasPrefix(row.Doc.HostARN, "arn:aws:ec2:") {
		err = s.mayActFor(who, id.Instance)
	} else if !s.anyHost && who.PrincipalARN != row.Doc.HostARN {
		err = accessDenied("The caller %s may not act for instance %s.", who.PrincipalARN, id.Instance)
	}
	if err != nil {
		return id, nil, nil, err
	}
	s.hub.heard(hostKey(who.Account, who.Region, id.Instance), s.realNow())
	for i := range row.Doc.Events {
		if row.Doc.Events[i].Name == id.Event && !serverSide(id.Event) {
			return id, row, &row.Doc.Events[i], nil
		}
	}
	return id, nil, nil, clientError("There is no such host command.")
}

// Answers to an acknowledgement. An agent takes commandGo as leave to run
// the command, and silently drops it on commandDrop.
const (
	commandGo   = "InProgress"
	commandDrop = "Succeeded"
)

func (s *Service) putHostCommandAcknowledgement(ctx context.Context, in *cmds.PutHostCommandAcknowledgementInput) (*cmds.PutHostCommandAcknowledgementOutput, error) {
	var note struct{ IsCommandNoop bool }
	if in.Diagnostics != nil {
		// A note that does not parse is no reason to refuse: it is a hint.
		_ = json.Unmarshal([]byte(ptr.Value(in.Diagnostics.Payload)), &note)
	}
	answer := commandGo
	err := s.store.Update(ctx, func(tx store.Tx) error {
		id, row, e, err := s.command(ctx, tx, ptr.Value(in.HostCommandIdentifier))
		if err != nil {
			return err
		}
		if row.Doc.current() != e {
			answer = commandDrop // it is over, or the target is
			return nil
		}
		first, proceed := row.Doc.acknowledge(e, id.Delivery, note.IsCommandNoop, s.clock.Now())
		if !proceed {
			answer = commandDrop
		}
		if !first {
			return nil
		}
		s.hub.forget(row.ID + "/" + e.Name)
		return targets.Save(tx, row, typeAcknowledged, targetDetail{Deployment: id.Deployment, Event: e.Name, EventStatus: e.Status})
	})
	if err != nil {
		return nil, err
	}
	return &cmds.PutHostCommandAcknowledgementOutput{CommandStatus: &answer}, nil
}

// putHostCommandComplete ends an event. The first answer wins: AWS's agent
// sends a second one after each failure. The next event is ready in the same
// transaction.
func (s *Service) putHostCommandComplete(ctx context.Context, in *cmds.PutHostCommandCompleteInput) (*cmds.PutHostCommandCompleteOutput, error) {
	failed := false
	switch ptr.Value(in.CommandStatus) {
	case "Succeeded":
	case "Failed":
		failed = true
	default:
		return nil, clientError("CommandStatus must be Succeeded or Failed, not %.20q.", ptr.Value(in.CommandStatus))
	}
	diag := parseDiagnostics(in.Diagnostics, failed)
	err := s.store.Update(ctx, func(tx store.Tx) error {
		id, row, e, err := s.command(ctx, tx, ptr.Value(in.HostCommandIdentifier))
		if err != nil {
			return err
		}
		t := &row.Doc
		if t.current() != e || !e.AckedAt.IsZero() && e.Delivery != id.Delivery {
			return nil
		}
		d, err := deployments.Get(tx, row.Account, row.Region, id.Deployment)
		if err != nil {
			return err
		}
		now := s.clock.Now()
		t.finish(failed, d.Doc.IgnoreStopFailures && ignorable(e.Name), diag, now)
		if next := t.current(); next != nil && d.Doc.Stop != nil {
			t.end(api.TargetStatusFailed, interrupted(t, next), now)
		}
		return saveTarget(tx, row, &d.Doc, move{moveKind(t), e})
	})
	if err != nil {
		return nil, err
	}
	return &cmds.PutHostCommandCompleteOutput{}, nil
}

// postHostCommandUpdate answers how the command stands; the limits of an
// event do not move by it.
func (s *Service) postHostCommandUpdate(ctx context.Context, in *cmds.PostHostCommandUpdateInput) (*cmds.PostHostCommandUpdateOutput, error) {
	status := ""
	err := s.store.View(ctx, func(r store.Reader) error {
		_, _, e, err := s.command(ctx, r, ptr.Value(in.HostCommandIdentifier))
		if err != nil {
			return err
		}
		switch e.Status {
		case api.LifecycleEventStatusSkipped:
			status = api.LifecycleEventStatusFailed
		default:
			status = e.Status
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &cmds.PostHostCommandUpdateOutput{CommandStatus: &status}, nil
}
