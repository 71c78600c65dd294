package codestarnotifications

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"slipway/internal/api/codebuild"
	"slipway/internal/api/codecommit"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codepipeline"
	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

// AWS's limits (Developer Tools console user guide, "Quotas for notifications").
const (
	maxRules      = 1000 // of an account in a region
	maxTargets    = 10   // of a rule
	maxEventTypes = 200  // of a rule (API reference, CreateNotificationRule)
	maxTags       = 50
)

func arnOf(key store.Key) string {
	return "arn:aws:codestar-notifications:" + key.Region + ":" + key.Account + ":notificationrule/" + key.ID
}

func invalid(format string, args ...any) error {
	return awserr.New(api.ErrCodeValidationException, format, args...)
}

// idOf is the row id in a rule's ARN; "" where it cannot be one of the caller's.
func idOf(who caller.Identity, arn *string) string {
	id, ok := strings.CutPrefix(ptr.Value(arn), arnOf(store.Key{Account: who.Account, Region: who.Region}))
	if !ok {
		return ""
	}
	return id
}

func noRule(arn *string) error {
	return awserr.New(api.ErrCodeResourceNotFoundException, "The notification rule %s does not exist.", ptr.Value(arn))
}

func getRule(r store.Reader, who caller.Identity, arn *string) (*ruleRow, error) {
	id := idOf(who, arn)
	if id == "" {
		return nil, noRule(arn)
	}
	row, err := rules.Get(r, who.Account, who.Region, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noRule(arn)
	}
	return row, err
}

// checkEvents finds what is wrong with event types for a resource of source.
func checkEvents(ids []string, source string) error {
	if len(ids) == 0 || len(ids) > maxEventTypes {
		return invalid("EventTypeIds must name 1 to %d event types, not %d.", maxEventTypes, len(ids))
	}
	for _, id := range ids {
		t, ok := known[id]
		if !ok {
			return invalid("EventTypeIds: there is no event type %q; list-event-types shows those that there are.", id)
		}
		if !strings.EqualFold(*t.ServiceName, source) {
			return invalid("EventTypeIds: %s is an event type of %s, and the Resource belongs to %s.", id, *t.ServiceName, source)
		}
	}
	return nil
}

// sourceOf is the service of a resource: "codepipeline".
func sourceOf(resource string) string { return strings.Split(resource+":::", ":")[2] }

// checkResource finds out whether the resource of a rule exists, where the
// caller is.
func (s *Service) checkResource(ctx context.Context, resource string) error {
	who := caller.From(ctx)
	p := strings.SplitN(resource, ":", 6)
	if len(p) < 6 || p[3] != who.Region || p[4] != who.Account {
		return invalid("Resource: %s is not a resource of account %s in region %s.", resource, who.Account, who.Region)
	}
	name, wrong := p[5], invalid("Resource: %s is not the ARN of a pipeline, a build project, a deployment application or a repository.", resource)
	var err error
	switch p[2] {
	case "codepipeline":
		_, err = dispatch.Call(ctx, s.deps.Mux, codepipeline.OpGetPipeline, &codepipeline.GetPipelineInput{Name: &name})
	case "codebuild":
		project, ok := strings.CutPrefix(name, "project/")
		if !ok {
			return wrong
		}
		var out *codebuild.BatchGetProjectsOutput
		out, err = dispatch.Call(ctx, s.deps.Mux, codebuild.OpBatchGetProjects, &codebuild.BatchGetProjectsInput{Names: []string{project}})
		if err == nil && len(out.Projects) == 0 {
			err = invalid("there is no project %s", project)
		}
	case "codedeploy":
		application, ok := strings.CutPrefix(name, "application:")
		if !ok {
			return wrong
		}
		_, err = dispatch.Call(ctx, s.deps.Mux, codedeploy.OpGetApplication, &codedeploy.GetApplicationInput{ApplicationName: &application})
	case "codecommit":
		_, err = dispatch.Call(ctx, s.deps.Mux, codecommit.OpGetRepository, &codecommit.GetRepositoryInput{RepositoryName: &name})
	default:
		return wrong
	}
	if e := awserr.As(err); e != nil && e.Status < 500 {
		return awserr.New(api.ErrCodeConfigurationException, "Resource: %s cannot be watched: %s", resource, e.Message)
	}
	return err
}

// checkTargets reads targets: SNS topics of the caller's region.
func checkTargets(who caller.Identity, in []api.Target) ([]string, error) {
	if len(in) > maxTargets {
		return nil, invalid("Targets: a notification rule has at most %d targets, not %d.", maxTargets, len(in))
	}
	var out []string
	for i := range in {
		kind, address := ptr.Value(in[i].TargetType), ptr.Value(in[i].TargetAddress)
		if strings.HasPrefix(kind, "AWSChatbot") {
			return nil, awserr.New("NotImplemented", "Slipway does not implement targets of the type %s: notifications go to SNS topics.", kind).WithStatus(501)
		}
		if kind != "" && kind != "SNS" {
			return nil, invalid("TargetType: %q is none of SNS, AWSChatbotSlack, AWSChatbotMicrosoftTeams.", kind)
		}
		if m := topicARN.FindStringSubmatch(address); m == nil || m[1] != who.Region {
			return nil, invalid("TargetAddress: %q is not the ARN of an SNS topic in %s.", address, who.Region)
		}
		if slices.Contains(out, address) {
			return nil, invalid("Targets: %s is there twice.", address)
		}
		out = append(out, address)
	}
	return out, nil
}

var topicARN = lazyre.New(`^arn:aws[^:\s]*:sns:([^:\s]+):[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$`)

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return awserr.New(api.ErrCodeLimitExceededException, "A notification rule has at most %d tags, not %d.", maxTags, len(tags))
	}
	for k := range tags {
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return invalid("Tags: the key %q begins with aws:, which is reserved.", k)
		}
	}
	return nil
}

// nameTaken finds another rule of that name.
func nameTaken(all []*ruleRow, name, id string) bool {
	return slices.ContainsFunc(all, func(r *ruleRow) bool { return r.Doc.Name == name && r.ID != id })
}

func allRules(r store.Reader, who caller.Identity) ([]*ruleRow, error) {
	return rules.List(r, store.Query{Account: who.Account, Region: who.Region})
}

// keepTargets makes sure that the targets of a rule are rows.
func keepTargets(tx store.Tx, who caller.Identity, addresses []string) error {
	for _, a := range addresses {
		_, err := targets.Insert(tx, who.Account, who.Region, a, Target{Type: "SNS", Status: api.TargetStatusActive}, "Created", nil)
		if err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
	}
	return nil
}

func (s *Service) createRule(ctx context.Context, in *api.CreateNotificationRuleInput) (*api.CreateNotificationRuleOutput, error) {
	who := caller.From(ctx)
	token := ptr.Value(in.ClientRequestToken)
	request := *in
	request.ClientRequestToken = nil
	raw, err := json.Marshal(&request)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	now := s.deps.Clock.Now()
	rule := Rule{Name: ptr.Value(in.Name), Resource: ptr.Value(in.Resource), DetailType: ptr.Value(in.DetailType), Status: ptr.Value(in.Status), EventTypes: in.EventTypeIds,
		CreatedBy: who.PrincipalARN, Created: now, Modified: now, Tags: maps.Clone(in.Tags), Token: token, Asked: hex.EncodeToString(sum[:])}
	if rule.Status == "" {
		rule.Status = api.NotificationRuleStatusEnabled
	}
	if rule.Targets, err = checkTargets(who, in.Targets); err != nil {
		return nil, err
	}
	// What a repeated request says was true when it came first.
	if arn, err := s.repeated(ctx, who, &rule); err != nil || arn != "" {
		return &api.CreateNotificationRuleOutput{Arn: &arn}, err
	}
	if err := s.checkResource(ctx, rule.Resource); err != nil {
		return nil, err
	}
	if err := checkEvents(rule.EventTypes, sourceOf(rule.Resource)); err != nil {
		return nil, err
	}
	if err := checkTags(rule.Tags); err != nil {
		return nil, err
	}
	key := rules.Key(who.Account, who.Region, newID())
	err = s.deps.Store.Update(ctx, func(tx store.Tx) error {
		all, err := allRules(tx, who)
		if err != nil {
			return err
		}
		if old, err := repeats(all, &rule); err != nil || old != nil {
			if old != nil {
				key = old.Key
			}
			return err
		}
		if nameTaken(all, rule.Name, "") {
			return awserr.New(api.ErrCodeResourceAlreadyExistsException, "A notification rule with the Name %s exists already.", rule.Name)
		}
		if len(all) >= maxRules {
			return awserr.New(api.ErrCodeLimitExceededException, "An account has at most %d notification rules in a region.", maxRules)
		}
		if err := keepTargets(tx, who, rule.Targets); err != nil {
			return err
		}
		_, err = rules.Insert(tx, key.Account, key.Region, key.ID, rule, "Created", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateNotificationRuleOutput{Arn: new(arnOf(key))}, nil
}

// newID is 40 hexadecimal digits, as AWS's are.
func newID() string {
	var b [20]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// repeated is the ARN of the rule that the same request has made, or "".
func (s *Service) repeated(ctx context.Context, who caller.Identity, rule *Rule) (string, error) {
	var all []*ruleRow
	err := s.deps.Store.View(ctx, func(r store.Reader) (err error) {
		all, err = allRules(r, who)
		return err
	})
	if err != nil {
		return "", err
	}
	old, err := repeats(all, rule)
	if err != nil || old == nil {
		return "", err
	}
	return arnOf(old.Key), nil
}

func repeats(all []*ruleRow, rule *Rule) (*ruleRow, error) {
	i := slices.IndexFunc(all, func(r *ruleRow) bool { return rule.Token != "" && r.Doc.Token == rule.Token })
	switch {
	case i < 0:
		return nil, nil
	case all[i].Doc.Asked != rule.Asked:
		return nil, invalid("ClientRequestToken: another request with other parameters came with this token.")
	}
	return all[i], nil
}

func (s *Service) describeRule(ctx context.Context, in *api.DescribeNotificationRuleInput) (*api.DescribeNotificationRuleOutput, error) {
	who := caller.From(ctx)
	var out *api.DescribeNotificationRuleOutput
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		row, err := getRule(r, who, in.Arn)
		if err != nil {
			return err
		}
		d := &row.Doc
		out = &api.DescribeNotificationRuleOutput{Arn: new(arnOf(row.Key)), Name: &d.Name, EventTypes: []api.EventTypeSummary{}, Resource: &d.Resource, Targets: []api.TargetSummary{},
			DetailType: &d.DetailType, CreatedBy: ptr.NonZero(d.CreatedBy), Status: &d.Status, CreatedTimestamp: &d.Created, LastModifiedTimestamp: &d.Modified, Tags: d.Tags}
		for _, id := range d.EventTypes {
			out.EventTypes = append(out.EventTypes, known[id])
		}
		for _, address := range d.Targets {
			t, err := targets.Get(r, who.Account, who.Region, address)
			if err != nil {
				return err
			}
			out.Targets = append(out.Targets, summary(t))
		}
		return nil
	})
	return out, err
}

func summary(t *store.Row[Target]) api.TargetSummary {
	return api.TargetSummary{TargetAddress: &t.ID, TargetType: &t.Doc.Type, TargetStatus: &t.Doc.Status}
}

func (s *Service) updateRule(ctx context.Context, in *api.UpdateNotificationRuleInput) (*api.UpdateNotificationRuleOutput, error) {
	who := caller.From(ctx)
	to, err := checkTargets(who, in.Targets)
	if err != nil {
		return nil, err
	}
	return nil, s.changeRule(ctx, in.Arn, "Updated", func(tx store.Tx, row *ruleRow) error {
		d := &row.Doc
		if in.EventTypeIds != nil {
			if err := checkEvents(in.EventTypeIds, sourceOf(d.Resource)); err != nil {
				return err
			}
			d.EventTypes = in.EventTypeIds
		}
		if in.Name != nil {
			all, err := allRules(tx, who)
			if err != nil {
				return err
			}
			if nameTaken(all, *in.Name, row.ID) {
				return awserr.New(api.ErrCodeConfigurationException, "Another notification rule has the Name %s.", *in.Name)
			}
			d.Name = *in.Name
		}
		if in.Targets != nil {
			d.Targets = to
		}
		if in.Status != nil {
			d.Status = *in.Status
		}
		if in.DetailType != nil {
			d.DetailType = *in.DetailType
		}
		return keepTargets(tx, who, d.Targets)
	})
}

// changeRule saves what fn does to a rule.
func (s *Service) changeRule(ctx context.Context, arn *string, event string, fn func(tx store.Tx, row *ruleRow) error) error {
	who := caller.From(ctx)
	return s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getRule(tx, who, arn)
		if err != nil {
			return err
		}
		if err := fn(tx, row); err != nil {
			return err
		}
		row.Doc.Modified = s.deps.Clock.Now()
		return rules.Save(tx, row, event, nil)
	})
}

// deleteRule answers the same for a rule that is gone already, as AWS does.
func (s *Service) deleteRule(ctx context.Context, in *api.DeleteNotificationRuleInput) (*api.DeleteNotificationRuleOutput, error) {
	who := caller.From(ctx)
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getRule(tx, who, in.Arn)
		if awserr.Is(err, api.ErrCodeResourceNotFoundException) {
			return nil
		}
		if err != nil {
			return err
		}
		return rules.Delete(tx, row, "Deleted", nil)
	})
	return &api.DeleteNotificationRuleOutput{Arn: in.Arn}, err
}
