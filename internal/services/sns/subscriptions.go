package sns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	netmail "net/mail"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/mail"
	"slipway/internal/store"
)

// checkEndpoint judges protocol and endpoint of a subscription.
func checkEndpoint(protocol, endpoint string) error {
	switch protocol {
	case "email", "email-json":
		a, err := netmail.ParseAddress(endpoint)
		if err != nil || a.Address != endpoint || strings.ContainsAny(endpoint, "\r\n\" ") || len(endpoint) > 320 {
			return invalid("Email address")
		}
	case "http", "https":
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != protocol || u.Host == "" || u.Hostname() == "" || len(endpoint) > 2048 || strings.ContainsAny(endpoint, "\r\n ") {
			return invalid("Endpoint must match the specified protocol")
		}
	case "sqs", "lambda", "firehose", "sms", "application":
		return awserr.New("NotImplemented", "Slipway does not deliver to the protocol %s yet; it delivers to email, email-json, http and https.", protocol).WithStatus(501)
	default:
		return invalid("Amazon SNS does not support this protocol string: %.60s", protocol)
	}
	return nil
}

// setSubscriptionAttribute checks and sets one attribute.
func setSubscriptionAttribute(sub *Subscription, key, value string) (err error) {
	post := sub.Protocol == "http" || sub.Protocol == "https"
	switch key {
	case "DeliveryPolicy":
		if !post && value != "" {
			return invalid("DeliveryPolicy: Delivery protocol [%s] does not support delivery policies.", sub.Protocol)
		}
		err = checkSubDelivery(value)
	case "RawMessageDelivery":
		switch {
		case value != "true" && value != "false":
			return invalid("Attributes Reason: RawMessageDelivery: Invalid value [%.60s]. Must be true or false.", value)
		case value == "true" && !post:
			return invalid("Attributes Reason: RawMessageDelivery: Delivery protocol [%s] does not support raw message delivery.", sub.Protocol)
		}
	case "FilterPolicyScope":
		if value != "MessageAttributes" && value != "MessageBody" {
			return invalid("FilterPolicyScope: Invalid value [%.60s]. Please use either MessageBody or MessageAttributes", value)
		}
		if text := sub.Attributes["FilterPolicy"]; text != "" {
			_, err = parseFilter(text, value)
		}
	case "FilterPolicy":
		if value != "" && value != "{}" {
			_, err = parseFilter(value, sub.Attributes["FilterPolicyScope"])
		}
	case "RedrivePolicy":
		if value != "" {
			return awserr.New("NotImplemented", "Slipway has no SQS, so there are no dead-letter queues for subscriptions yet.").WithStatus(501)
		}
	case "ReplayPolicy":
		return awserr.New("NotImplemented", "Slipway does not implement message archives of FIFO topics yet.").WithStatus(501)
	case "SubscriptionRoleArn":
		return invalid("SubscriptionRoleArn is only for the protocol firehose")
	default:
		return invalid("AttributeName")
	}
	if err != nil {
		return err
	}
	if sub.Attributes == nil {
		sub.Attributes = map[string]string{}
	}
	if sub.Attributes[key] = value; value == "" || key == "FilterPolicy" && value == "{}" {
		delete(sub.Attributes, key)
	}
	return nil
}

// maxFilters is AWS's quota of filter policies on one topic.
const maxFilters = 200

func (s *Service) subscribe(ctx context.Context, in *api.SubscribeInput) (*api.SubscribeOutput, error) {
	who := caller.From(ctx)
	protocol, endpoint := ptr.Value(in.Protocol), ptr.Value(in.Endpoint)
	if err := checkEndpoint(protocol, endpoint); err != nil {
		return nil, err
	}
	id := uuid.NewString()
	now := s.Clock.Now()
	fresh := Subscription{UUID: id, Protocol: protocol, Endpoint: endpoint, Owner: who.Account, Principal: who.PrincipalARN, State: statePending, Token: newToken(), Until: now.Add(tokenLife)}
	// The scope first: a filter policy is judged by it.
	for _, key := range slices.SortedFunc(maps.Keys(in.Attributes), func(a, b string) int { return strings.Compare(b, a) }) {
		if err := setSubscriptionAttribute(&fresh, key, in.Attributes[key]); err != nil {
			return nil, err
		}
	}
	var sub *Subscription
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		t, err := s.topicOf(ctx, tx, "TopicArn", ptr.Value(in.TopicArn), "Subscribe")
		if err != nil {
			return err
		}
		if t.Doc.fifo() {
			return invalid("Invalid protocol type: %s. FIFO topics can only have SQS subscribers.", protocol)
		}
		sub, err = s.subscribeTx(tx, t, fresh)
		return err
	})
	if err != nil {
		return nil, err
	}
	shown := sub.ARN
	if sub.State == statePending && !ptr.Value(in.ReturnSubscriptionArn) {
		shown = "pending confirmation"
	}
	return &api.SubscribeOutput{SubscriptionArn: &shown}, nil
}

// subscribeTx finds the subscription of the endpoint, or adds it; one that is
// not confirmed gets its message again.
func (s *Service) subscribeTx(tx store.Tx, t *store.Row[Topic], fresh Subscription) (*Subscription, error) {
	rows, err := subscriptions.List(tx, store.Query{Account: t.Account, Region: t.Region, Parent: t.ID})
	if err != nil {
		return nil, err
	}
	filters := 0
	for _, row := range rows {
		if row.Doc.Attributes["FilterPolicy"] != "" {
			filters++
		}
		if row.Doc.Protocol != fresh.Protocol || row.Doc.Endpoint != fresh.Endpoint {
			continue
		}
		if row.Doc.State == stateDeleted {
			if err := subscriptions.Delete(tx, row, "Replaced", nil); err != nil {
				return nil, err
			}
			continue
		}
		if len(fresh.Attributes) > 0 && !maps.Equal(row.Doc.Attributes, fresh.Attributes) {
			return nil, invalid("Attributes Reason: Subscription already exists with different attributes")
		}
		if row.Doc.State == statePending {
			// The same token: the link of an earlier message stays good.
			row.Doc.Until = fresh.Until
			if err := subscriptions.Save(tx, row, "AskedAgain", nil); err != nil {
				return nil, err
			}
			return &row.Doc, s.tell(tx, row, typeSubscribe)
		}
		return &row.Doc, nil
	}
	if fresh.Attributes["FilterPolicy"] != "" && filters >= maxFilters {
		return nil, awserr.New(api.ErrCodeFilterPolicyLimitExceededException, "The topic has %d filter policies already.", filters)
	}
	fresh.Topic, fresh.TopicARN, fresh.ARN = t.ID, t.Doc.ARN, t.Doc.ARN+":"+fresh.UUID
	kind := typeSubscribe
	if strings.HasPrefix(fresh.Protocol, "email") && s.Mail != nil && !s.Mail.UsesSMTP() && mail.Local(fresh.Endpoint) {
		// The mailbox belongs to this server: nobody else's consent is needed.
		fresh.State, fresh.Token, fresh.ConfirmedBySystem, kind = stateConfirmed, "", true, typeWelcome
	}
	row, err := subscriptions.Insert(tx, t.Account, t.Region, t.ID+":"+fresh.UUID, fresh, "Created", nil)
	if err != nil {
		return nil, err
	}
	return &row.Doc, s.tell(tx, row, kind)
}

// newToken is what confirms a subscription; AWS's are long hexadecimal
// strings as well.
func newToken() string {
	raw := make([]byte, 64)
	rand.Read(raw) // does not fail
	return hex.EncodeToString(raw)
}

// tell sends a subscription a message about itself.
func (s *Service) tell(tx store.Tx, row *store.Row[Subscription], kind string) error {
	sub := &row.Doc
	m := message{ID: uuid.NewString(), TopicARN: sub.TopicARN, Type: kind, At: s.Clock.Now(), Token: sub.Token, SubARN: sub.ARN}
	switch kind {
	case typeSubscribe:
		m.Body = "You have chosen to subscribe to the topic " + sub.TopicARN + ".\nTo confirm the subscription, visit the SubscribeURL included in this message."
	case typeUnsubscribe:
		m.Body = "You have chosen to deactivate subscription " + sub.ARN + ".\nTo cancel this operation and restore the subscription, visit the SubscribeURL included in this message."
	case typeWelcome:
		m.Body = "You have chosen to subscribe to the topic:\n" + sub.TopicARN + "\n\nThe subscription was confirmed without a link, because " + sub.Endpoint +
			" is in the mailbox of this Slipway server.\nTo have mails sent to people, configure an SMTP server and subscribe their addresses."
	}
	if _, err := messages.Insert(tx, row.Account, row.Region, m.ID, m, kind, nil); err != nil {
		return err
	}
	return enqueue(tx, row, m.ID, m)
}

// enqueue adds a delivery of a stored message.
func enqueue(tx store.Tx, sub *store.Row[Subscription], id string, m message) error {
	d := delivery{Message: id, Subscription: sub.ID, Since: m.At}
	_, err := outbox(sub.Doc.Protocol).Insert(tx, sub.Account, sub.Region, id+"/"+sub.Doc.UUID, d, "Queued", nil)
	return err
}

// listed is a subscription as the lists show it.
func listed(sub *Subscription) api.Subscription {
	shown := sub.ARN
	switch sub.State {
	case statePending:
		shown = "PendingConfirmation"
	case stateDeleted:
		shown = "Deleted"
	}
	return api.Subscription{SubscriptionArn: &shown, Owner: &sub.Owner, Protocol: &sub.Protocol, Endpoint: &sub.Endpoint, TopicArn: &sub.TopicARN}
}

func (s *Service) listSubscriptions(ctx context.Context, in *api.ListSubscriptionsInput) (*api.ListSubscriptionsOutput, error) {
	who := caller.From(ctx)
	after, err := readToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	rows, err := subscriptions.Select(ctx, s.Store, store.Query{Account: who.Account, Region: who.Region, After: after, Limit: pageOfLists + 1})
	out := &api.ListSubscriptionsOutput{Subscriptions: []api.Subscription{}}
	rows, out.NextToken = cut(rows)
	for _, r := range rows {
		out.Subscriptions = append(out.Subscriptions, listed(&r.Doc))
	}
	return out, err
}

func (s *Service) listSubscriptionsByTopic(ctx context.Context, in *api.ListSubscriptionsByTopicInput) (*api.ListSubscriptionsByTopicOutput, error) {
	after, err := readToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &api.ListSubscriptionsByTopicOutput{Subscriptions: []api.Subscription{}}
	err = s.Store.View(ctx, func(r store.Reader) error {
		t, err := s.topicOf(ctx, r, "TopicArn", ptr.Value(in.TopicArn), "ListSubscriptionsByTopic")
		if err != nil {
			return err
		}
		rows, err := subscriptions.List(r, store.Query{Account: t.Account, Region: t.Region, Parent: t.ID, After: after, Limit: pageOfLists + 1})
		rows, out.NextToken = cut(rows)
		for _, row := range rows {
			out.Subscriptions = append(out.Subscriptions, listed(&row.Doc))
		}
		return err
	})
	return out, err
}

// subOf reads a subscription that the caller may look at and change.
func (s *Service) subOf(ctx context.Context, r store.Reader, value string) (*store.Row[Subscription], error) {
	a, err := parseARN("SubscriptionArn", value, true)
	if err != nil {
		return nil, err
	}
	who := caller.From(ctx)
	if who.Region != a.region {
		return nil, invalid("SubscriptionArn")
	}
	row, err := getSubscription(r, a)
	if err == nil && who.Account != a.account && who.Account != row.Doc.Owner {
		err = denied(who, "GetSubscriptionAttributes", a.topicARN())
	}
	if err == nil && row.Doc.State == stateDeleted {
		err = awserr.New(api.ErrCodeNotFoundException, "Subscription does not exist")
	}
	return row, err
}

func (s *Service) getSubscriptionAttributes(ctx context.Context, in *api.GetSubscriptionAttributesInput) (*api.GetSubscriptionAttributesOutput, error) {
	out := &api.GetSubscriptionAttributesOutput{}
	err := s.Store.View(ctx, func(r store.Reader) error {
		row, err := s.subOf(ctx, r, ptr.Value(in.SubscriptionArn))
		if err != nil {
			return err
		}
		sub := &row.Doc
		out.Attributes = map[string]string{"SubscriptionArn": sub.ARN, "TopicArn": sub.TopicARN, "Owner": sub.Owner, "Protocol": sub.Protocol, "Endpoint": sub.Endpoint,
			"PendingConfirmation": fmt.Sprint(sub.State == statePending), "ConfirmationWasAuthenticated": fmt.Sprint(sub.AuthConfirmed),
			"RawMessageDelivery": "false", "SubscriptionPrincipal": sub.Principal}
		maps.Copy(out.Attributes, sub.Attributes)
		if sub.Attributes["FilterPolicy"] != "" && sub.Attributes["FilterPolicyScope"] == "" {
			out.Attributes["FilterPolicyScope"] = "MessageAttributes"
		}
		if sub.Protocol == "http" || sub.Protocol == "https" {
			t, err := topics.Get(r, row.Account, row.Region, sub.Topic)
			if err != nil {
				return err
			}
			out.Attributes["EffectiveDeliveryPolicy"] = effectiveText(&t.Doc, sub)
		}
		return nil
	})
	return out, err
}

func (s *Service) setSubscriptionAttributes(ctx context.Context, in *api.SetSubscriptionAttributesInput) (*api.SetSubscriptionAttributesOutput, error) {
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := s.subOf(ctx, tx, ptr.Value(in.SubscriptionArn))
		if err != nil {
			return err
		}
		if err := setSubscriptionAttribute(&row.Doc, ptr.Value(in.AttributeName), ptr.Value(in.AttributeValue)); err != nil {
			return err
		}
		return subscriptions.Save(tx, row, "Changed", nil)
	})
	return &api.SetSubscriptionAttributesOutput{}, err
}
