package sns

import (
	"errors"
	"time"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/store"
)

// States of a subscription; see the package comment.
const (
	statePending   = "Pending"
	stateConfirmed = "Confirmed"
	stateDeleted   = "Deleted"
)

// How long things are kept (AWS: "Confirm an Amazon SNS subscription";
// 72 hours: API reference, Unsubscribe).
const (
	tokenLife   = 48 * time.Hour
	deletedLife = 72 * time.Hour
	dedupWindow = 5 * time.Minute
)

// Topic is the document of an sns:topic row; its id is the name.
type Topic struct {
	Name, ARN, Owner string
	Attributes       map[string]string `json:",omitempty"` // as set; defaults are added when shown
	Tags             map[string]string `json:",omitempty"`
	Policy           *policy           `json:",omitempty"` // nil: the default one
}

func (t *Topic) fifo() bool { return t.Attributes["FifoTopic"] == "true" }

// Subscription is the document of an sns:subscription row; its id is
// "topic:uuid".
type Subscription struct {
	UUID, ARN         string
	Topic, TopicARN   string
	Protocol          string
	Endpoint          string
	Owner, Principal  string
	State             string
	Token             string            `json:",omitempty"`
	Until             time.Time         `json:",omitzero"` // of a state that ends by itself
	Attributes        map[string]string `json:",omitempty"`
	AuthUnsubscribe   bool              `json:",omitempty"` // unsubscribing needs credentials
	AuthConfirmed     bool              `json:",omitempty"` // confirmed with credentials
	ConfirmedBySystem bool              `json:",omitempty"` // the mailbox is ours: no link was needed
}

// Types of messages.
const (
	typeNotification = "Notification"
	typeSubscribe    = "SubscriptionConfirmation"
	typeUnsubscribe  = "UnsubscribeConfirmation"
	// typeWelcome tells an address of the own mailbox that it is subscribed.
	typeWelcome = "Welcome"
)

// attribute is a message attribute. Value is text, or base64 for Binary.
type attribute struct{ Type, Value string }

// message is the document of an sns:message row: what the deliveries that
// name it carry. It goes with the last of them.
type message struct {
	ID, TopicARN, Type string
	Subject, Body      string
	// Per are the bodies of MessageStructure json by protocol.
	Per        map[string]string    `json:",omitempty"`
	Attributes map[string]attribute `json:",omitempty"`
	At         time.Time
	Token      string `json:",omitempty"` // of the confirmations
	// SubARN is set in the confirmations: they are about one subscription.
	SubARN string `json:",omitempty"`
}

// body is what a protocol's subscribers get.
func (m *message) body(protocol string) string {
	if b, ok := m.Per[protocol]; ok {
		return b
	}
	return m.Body
}

// delivery is the document of a row of one of the two outboxes: one message
// to one subscription.
type delivery struct {
	Message      string // row id
	Subscription string // row id
	Attempts     int    `json:",omitempty"`
	// Next is when the next attempt may be made.
	Next  time.Time `json:",omitzero"`
	Since time.Time // of the first attempt's row
	Error string    `json:",omitempty"` // of the last attempt
}

// seen is a FIFO message that must not be published again.
type seen struct {
	MessageID, Sequence string
	At                  time.Time
}

func (d *delivery) index() (parent, state string) { return d.Message, "" }

// The tables of this service.
var (
	topics        = store.NewTable[Topic]("sns:topic", nil)
	subscriptions = store.NewTable[Subscription]("sns:subscription", func(s *Subscription) (string, string) { return s.Topic, s.State })
	messages      = store.NewTable[message]("sns:message", nil)
	mailings      = store.NewTable[delivery]("sns:mail", (*delivery).index)
	posts         = store.NewTable[delivery]("sns:post", (*delivery).index)
	// dedups have ids "topic/hash".
	dedups = store.NewTable[seen]("sns:seen", nil)
)

// outbox is where deliveries of a protocol wait.
func outbox(protocol string) store.Table[delivery] {
	if protocol == "http" || protocol == "https" {
		return posts
	}
	return mailings
}

func getTopic(r store.Reader, a arn) (*store.Row[Topic], error) {
	row, err := topics.Get(r, a.account, a.region, a.topic)
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New(api.ErrCodeNotFoundException, "Topic does not exist")
	}
	return row, err
}

func getSubscription(r store.Reader, a arn) (*store.Row[Subscription], error) {
	row, err := subscriptions.Get(r, a.account, a.region, a.topic+":"+a.sub)
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New(api.ErrCodeNotFoundException, "Subscription does not exist")
	}
	return row, err
}
