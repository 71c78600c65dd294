package sns

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

var topicName = lazyre.New(`^[A-Za-z0-9_-]{1,256}$`)

const (
	maxTags     = 50
	maxTopics   = 100_000 // AWS's quota per account and region
	pageOfLists = 100     // AWS's page of every list
)

func (s *Service) createTopic(ctx context.Context, in *api.CreateTopicInput) (*api.CreateTopicOutput, error) {
	who := caller.From(ctx)
	t, err := newTopic(who, in)
	if err != nil {
		return nil, err
	}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		old, err := topics.Get(tx, who.Account, who.Region, t.Name)
		if err == nil {
			return sameTopic(&old.Doc, t)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		n, err := topics.Count(tx, store.Query{Account: who.Account, Region: who.Region})
		if err != nil {
			return err
		}
		if n >= maxTopics {
			return awserr.New(api.ErrCodeTopicLimitExceededException, "The account has %d topics already.", n)
		}
		_, err = topics.Insert(tx, who.Account, who.Region, t.Name, *t, "Created", nil)
		return err
	})
	return &api.CreateTopicOutput{TopicArn: &t.ARN}, err
}

func newTopic(who caller.Identity, in *api.CreateTopicInput) (*Topic, error) {
	name := ptr.Value(in.Name)
	fifo := in.Attributes["FifoTopic"] == "true"
	switch {
	case fifo && !strings.HasSuffix(name, ".fifo"):
		return nil, invalid("Fifo Topic names must end with .fifo and must be made up of only uppercase and lowercase ASCII letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters long.")
	case !topicName.MatchString(strings.TrimSuffix(name, ".fifo")) || len(name) > 256 || !fifo && strings.Contains(name, "."):
		return nil, invalid("Topic Name")
	}
	if ptr.Value(in.DataProtectionPolicy) != "" {
		return nil, awserr.New("NotImplemented", "Slipway does not implement data protection policies of SNS yet.").WithStatus(501)
	}
	t := &Topic{Name: name, ARN: arn{region: who.Region, account: who.Account, topic: name}.topicARN(), Owner: who.Account}
	for _, key := range slices.Sorted(maps.Keys(in.Attributes)) {
		if err := setTopicAttribute(t, key, in.Attributes[key], true); err != nil {
			return nil, err
		}
	}
	return t, mergeTags(t, in.Tags)
}

// sameTopic lets a repeated CreateTopic through: what it names must be as it is.
func sameTopic(old, t *Topic) error {
	for key, value := range t.Attributes {
		if old.shown()[key] != value {
			return invalid("Attributes Reason: Topic already exists with different attributes")
		}
	}
	if t.Policy != nil && t.policyText() != old.policyText() {
		return invalid("Attributes Reason: Topic already exists with different attributes")
	}
	if len(t.Tags) > 0 && !maps.Equal(old.Tags, t.Tags) {
		return invalid("Tags Reason: Topic already exists with different tags")
	}
	return nil
}

// feedback are the attributes about delivery status logging; they are kept
// and have no effect.
var feedback = lazyre.New(`^(HTTP|SQS|Lambda|Firehose|Application)(SuccessFeedbackRoleArn|FailureFeedbackRoleArn|SuccessFeedbackSampleRate)$`)

// setTopicAttribute checks and sets one attribute; create says that the topic
// is being made.
func setTopicAttribute(t *Topic, key, value string, create bool) (err error) {
	ok := true
	switch key {
	case "Policy":
		t.Policy = nil
		if value != "" {
			t.Policy, err = parsePolicy(value)
		}
		return err
	case "DisplayName":
		if ok = len(value) <= 100 && !strings.ContainsAny(value, "\r\n"); !ok {
			return invalid("DisplayName must be at most 100 characters long and one line")
		}
	case "DeliveryPolicy":
		err = checkTopicDelivery(value)
	case "SignatureVersion":
		ok = value == "" || value == "1" || value == "2"
	case "TracingConfig":
		ok = value == "" || value == "PassThrough" || value == "Active"
	case "KmsMasterKeyId":
	case "FifoTopic":
		ok = (value == "true" || value == "false") && create
	case "ContentBasedDeduplication":
		ok = (value == "true" || value == "false") && (t.fifo() || create)
	case "FifoThroughputScope":
		ok = value == "Topic" || value == "MessageGroup"
	case "ArchivePolicy":
		return awserr.New("NotImplemented", "Slipway does not implement message archives of FIFO topics yet.").WithStatus(501)
	default:
		ok = feedback.MatchString(key)
		if ok && strings.HasSuffix(key, "SampleRate") && value != "" {
			n, err := strconv.Atoi(value)
			ok = err == nil && n >= 0 && n <= 100
		}
		if !ok && !feedback.MatchString(key) {
			return invalid("AttributeName")
		}
	}
	switch {
	case err != nil:
		return err
	case !ok:
		return invalid("Attributes Reason: %s: Invalid value [%.100s]", key, value)
	case key == "FifoTopic" && value == "false":
		return nil
	}
	if t.Attributes == nil {
		t.Attributes = map[string]string{}
	}
	if t.Attributes[key] = value; value == "" {
		delete(t.Attributes, key)
	}
	return nil
}

// shown are the attributes as GetTopicAttributes gives them, without counts.
func (t *Topic) shown() map[string]string {
	out := maps.Clone(t.Attributes)
	if out == nil {
		out = map[string]string{}
	}
	out["TopicArn"], out["Owner"], out["Policy"] = t.ARN, t.Owner, t.policyText()
	if _, ok := out["DisplayName"]; !ok {
		out["DisplayName"] = ""
	}
	if _, ok := out["ContentBasedDeduplication"]; !ok && t.fifo() {
		out["ContentBasedDeduplication"] = "false"
	}
	var d topicDelivery
	_ = json.Unmarshal([]byte(t.Attributes["DeliveryPolicy"]), &d) // checked when it was set
	if d.HTTP.Retry == nil {
		p := defaultRetries()
		d.HTTP.Retry = &p
	}
	if d.HTTP.Request == nil {
		d.HTTP.Request = &requestPolicy{HeaderContentType: "text/plain; charset=UTF-8"}
	}
	raw, _ := json.Marshal(d) // plain values
	out["EffectiveDeliveryPolicy"] = string(raw)
	return out
}

func (s *Service) getTopicAttributes(ctx context.Context, in *api.GetTopicAttributesInput) (*api.GetTopicAttributesOutput, error) {
	out := &api.GetTopicAttributesOutput{}
	err := s.Store.View(ctx, func(r store.Reader) error {
		t, err := s.topicOf(ctx, r, "TopicArn", ptr.Value(in.TopicArn), "GetTopicAttributes")
		if err != nil {
			return err
		}
		out.Attributes = t.Doc.shown()
		for name, state := range map[string]string{"SubscriptionsConfirmed": stateConfirmed, "SubscriptionsPending": statePending, "SubscriptionsDeleted": stateDeleted} {
			n, err := subscriptions.Count(r, store.Query{Account: t.Account, Region: t.Region, Parent: t.ID, State: state})
			if err != nil {
				return err
			}
			out.Attributes[name] = strconv.Itoa(n)
		}
		return nil
	})
	return out, err
}

func (s *Service) setTopicAttributes(ctx context.Context, in *api.SetTopicAttributesInput) (*api.SetTopicAttributesOutput, error) {
	return &api.SetTopicAttributesOutput{}, s.changeTopic(ctx, ptr.Value(in.TopicArn), "SetTopicAttributes", "Changed", func(_ store.Tx, t *Topic) error {
		return setTopicAttribute(t, ptr.Value(in.AttributeName), ptr.Value(in.AttributeValue), false)
	})
}

// changeTopic lets fn change a topic that the caller may do action on.
func (s *Service) changeTopic(ctx context.Context, topic, action, event string, fn func(store.Tx, *Topic) error) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := s.topicOf(ctx, tx, "TopicArn", topic, action)
		if err != nil {
			return err
		}
		if err := fn(tx, &row.Doc); err != nil {
			return err
		}
		return topics.Save(tx, row, event, nil)
	})
}

// deleteTopic removes a topic with its subscriptions. Deliveries that are on
// their way are dropped by the controllers.
func (s *Service) deleteTopic(ctx context.Context, in *api.DeleteTopicInput) (*api.DeleteTopicOutput, error) {
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := s.topicOf(ctx, tx, "TopicArn", ptr.Value(in.TopicArn), "DeleteTopic")
		if awserr.Is(err, api.ErrCodeNotFoundException) {
			return nil
		}
		if err != nil {
			return err
		}
		subs, err := subscriptions.List(tx, store.Query{Account: row.Account, Region: row.Region, Parent: row.ID})
		if err != nil {
			return err
		}
		for _, sub := range subs {
			if err := subscriptions.Delete(tx, sub, "Deleted", nil); err != nil {
				return err
			}
		}
		return topics.Delete(tx, row, "Deleted", nil)
	})
	return &api.DeleteTopicOutput{}, err
}

func (s *Service) listTopics(ctx context.Context, in *api.ListTopicsInput) (*api.ListTopicsOutput, error) {
	who := caller.From(ctx)
	after, err := readToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	rows, err := topics.Select(ctx, s.Store, store.Query{Account: who.Account, Region: who.Region, After: after, Limit: pageOfLists + 1})
	out := &api.ListTopicsOutput{Topics: []api.Topic{}}
	rows, out.NextToken = cut(rows)
	for _, r := range rows {
		out.Topics = append(out.Topics, api.Topic{TopicArn: &r.Doc.ARN})
	}
	return out, err
}

// readToken and cut page lists by the id of the last row shown.
func readToken(token *string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(ptr.Value(token))
	if err != nil {
		return "", invalid("NextToken")
	}
	return string(raw), nil
}

func cut[T any](rows []*store.Row[T]) ([]*store.Row[T], *string) {
	if len(rows) <= pageOfLists {
		return rows, nil
	}
	rows = rows[:pageOfLists]
	return rows, new(base64.RawURLEncoding.EncodeToString([]byte(rows[pageOfLists-1].ID)))
}

func mergeTags(t *Topic, tags []api.Tag) error {
	if t.Tags == nil {
		t.Tags = map[string]string{}
	}
	for _, tag := range tags {
		key := ptr.Value(tag.Key)
		switch {
		case key == "" || len(key) > 128 || len(ptr.Value(tag.Value)) > 256:
			return invalid("Tags Reason: a key has 1 to 128 characters and a value at most 256")
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return invalid("Tags Reason: The tag key %s is reserved", key)
		}
		t.Tags[key] = ptr.Value(tag.Value)
	}
	if len(t.Tags) > maxTags {
		return awserr.New(api.ErrCodeTagLimitExceededException, "Could not complete request: tag quota of per resource exceeded")
	}
	return nil
}

// notThere gives the tag operations' own word for a missing topic.
func notThere(err error) error {
	if awserr.Is(err, api.ErrCodeNotFoundException) {
		return awserr.New(api.ErrCodeResourceNotFoundException, "Resource does not exist")
	}
	return err
}

func (s *Service) tagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	return &api.TagResourceOutput{}, notThere(s.changeTopic(ctx, ptr.Value(in.ResourceArn), "TagResource", "Tagged", func(_ store.Tx, t *Topic) error { return mergeTags(t, in.Tags) }))
}

func (s *Service) untagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return &api.UntagResourceOutput{}, notThere(s.changeTopic(ctx, ptr.Value(in.ResourceArn), "UntagResource", "Tagged", func(_ store.Tx, t *Topic) error {
		for _, k := range in.TagKeys {
			delete(t.Tags, k)
		}
		return nil
	}))
}

func (s *Service) listTags(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	out := &api.ListTagsForResourceOutput{Tags: []api.Tag{}}
	err := s.Store.View(ctx, func(r store.Reader) error {
		t, err := s.topicOf(ctx, r, "ResourceArn", ptr.Value(in.ResourceArn), "ListTagsForResource")
		if err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(t.Doc.Tags)) {
			out.Tags = append(out.Tags, api.Tag{Key: new(k), Value: new(t.Doc.Tags[k])})
		}
		return nil
	})
	return out, notThere(err)
}
