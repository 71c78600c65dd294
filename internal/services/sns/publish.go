package sns

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

// maxMessage is the longest message with its attributes, in bytes; also the
// longest batch.
const maxMessage = 262144

func (s *Service) publish(ctx context.Context, in *api.PublishInput) (*api.PublishOutput, error) {
	target := ptr.Value(in.TopicArn)
	switch {
	case ptr.Value(in.PhoneNumber) != "":
		return nil, awserr.New("NotImplemented", "Slipway does not send text messages to phones.").WithStatus(501)
	case target != "" && ptr.Value(in.TargetArn) != "":
		return nil, invalid("TopicArn or TargetArn Reason: only one of them can be given")
	case target == "":
		target = ptr.Value(in.TargetArn)
	}
	if target == "" {
		return nil, invalid("TopicArn or TargetArn Reason: no value for required parameter")
	}
	if strings.Contains(target, ":endpoint/") {
		return nil, awserr.New("NotImplemented", "Slipway does not send push notifications to mobile applications.").WithStatus(501)
	}
	e := &api.PublishBatchRequestEntry{Message: in.Message, Subject: in.Subject, MessageStructure: in.MessageStructure, MessageAttributes: in.MessageAttributes,
		MessageDeduplicationId: in.MessageDeduplicationId, MessageGroupId: in.MessageGroupId}
	var done receipt
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		t, err := s.topicOf(ctx, tx, "TopicArn", target, "Publish")
		if err != nil {
			return err
		}
		done, err = s.publishTx(tx, t, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.count(done)
	return &api.PublishOutput{MessageId: &done.id, SequenceNumber: done.sequence}, nil
}

// receipt is what became of one published message.
type receipt struct {
	topic                  store.Key
	id                     string
	sequence               *string
	size, queued           int
	filtered, unattributed int
}

func (s *Service) count(r receipt) {
	for metric, n := range map[string]int{"NumberOfMessagesPublished": 1, "PublishSize": r.size, "NumberOfNotificationsFilteredOut": r.filtered,
		"NumberOfNotificationsFilteredOut-NoMessageAttributes": r.unattributed} {
		if n > 0 {
			s.Measure(r.topic.Account, r.topic.Region, r.topic.ID, metric, float64(n))
		}
	}
}

// publishTx writes a message and a delivery for each subscription that wants
// it; nothing where nobody does.
func (s *Service) publishTx(tx store.Tx, t *store.Row[Topic], e *api.PublishBatchRequestEntry) (receipt, error) {
	out := receipt{topic: t.Key}
	m, err := messageOf(e)
	if err != nil {
		return out, err
	}
	m.ID, m.TopicARN, m.At = uuid.NewString(), t.Doc.ARN, s.Clock.Now()
	out.id, out.size = m.ID, len(ptr.Value(e.Message))
	old, err := s.sequence(tx, t, e, m, &out)
	if err != nil || old {
		return out, err
	}
	subs, err := subscriptions.List(tx, store.Query{Account: t.Account, Region: t.Region, Parent: t.ID, State: stateConfirmed})
	if err != nil {
		return out, err
	}
	for _, sub := range subs {
		if text := sub.Doc.Attributes["FilterPolicy"]; text != "" && !wanted(text, &sub.Doc, m) {
			out.filtered++
			if len(m.Attributes) == 0 && sub.Doc.Attributes["FilterPolicyScope"] != "MessageBody" {
				out.unattributed++
			}
			continue
		}
		if out.queued == 0 {
			if _, err := messages.Insert(tx, t.Account, t.Region, m.ID, *m, "Published", nil); err != nil {
				return out, err
			}
		}
		if err := enqueue(tx, sub, m.ID, *m); err != nil {
			return out, err
		}
		out.queued++
	}
	return out, nil
}

func wanted(text string, sub *Subscription, m *message) bool {
	f, err := parseFilter(text, sub.Attributes["FilterPolicyScope"])
	if err != nil {
		return false // it was checked when it was set
	}
	if sub.Attributes["FilterPolicyScope"] == "MessageBody" {
		return f.matchBody(m.body(sub.Protocol))
	}
	return f.matchAttributes(m.Attributes)
}

var fifoID = lazyre.New("^[A-Za-z0-9!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]{1,128}$")

// sequence does what FIFO topics add: a number for each message, and the
// first answer again for a message that came within five minutes.
func (s *Service) sequence(tx store.Tx, t *store.Row[Topic], e *api.PublishBatchRequestEntry, m *message, out *receipt) (old bool, err error) {
	group, dedup := ptr.Value(e.MessageGroupId), ptr.Value(e.MessageDeduplicationId)
	if !t.Doc.fifo() {
		if dedup != "" {
			return false, invalid("MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter that is not valid for this topic type")
		}
		if group != "" && !fifoID.MatchString(group) {
			return false, invalid("MessageGroupId Reason: it can include alphanumeric and punctuation characters, 1 to 128")
		}
		return false, nil
	}
	switch {
	case group == "":
		return false, invalid("The MessageGroupId parameter is required for FIFO topics")
	case !fifoID.MatchString(group):
		return false, invalid("MessageGroupId Reason: it can include alphanumeric and punctuation characters, 1 to 128")
	case dedup != "" && !fifoID.MatchString(dedup):
		return false, invalid("MessageDeduplicationId Reason: it can include alphanumeric and punctuation characters, 1 to 128")
	case dedup == "" && t.Doc.Attributes["ContentBasedDeduplication"] != "true":
		return false, invalid("The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
	case dedup == "":
		sum := sha256.Sum256([]byte(ptr.Value(e.Message)))
		dedup = hex.EncodeToString(sum[:])
	}
	scope := dedup
	if t.Doc.Attributes["FifoThroughputScope"] == "MessageGroup" {
		scope = group + "\x00" + dedup
	}
	sum := sha256.Sum256([]byte(scope))
	id := t.ID + "/" + hex.EncodeToString(sum[:])
	row, err := dedups.Get(tx, t.Account, t.Region, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	if err == nil && m.At.Sub(row.Doc.At) < dedupWindow {
		out.id, out.sequence = row.Doc.MessageID, &row.Doc.Sequence
		return true, nil
	}
	n, err2 := tx.Counter(store.Key{Kind: topics.Kind, Account: t.Account, Region: t.Region, ID: t.ID}, 1)
	if err2 != nil {
		return false, err2
	}
	doc := seen{MessageID: m.ID, Sequence: fmt.Sprintf("1%019d", n), At: m.At}
	out.sequence = &doc.Sequence
	if err == nil {
		row.Doc = doc
		return false, dedups.Save(tx, row, "Published", nil)
	}
	_, err = dedups.Insert(tx, t.Account, t.Region, id, doc, "Published", nil)
	return false, err
}

// messageOf checks a message and takes it apart.
func messageOf(e *api.PublishBatchRequestEntry) (*message, error) {
	m := &message{Type: typeNotification, Body: ptr.Value(e.Message)}
	switch size := len(m.Body); {
	case size == 0:
		return nil, invalid("Empty message")
	case !utf8.ValidString(m.Body):
		return nil, invalid("Message Reason: it is not UTF-8")
	case size+attributeSize(e.MessageAttributes) > maxMessage:
		return nil, invalid("Message too long")
	}
	if e.Subject != nil {
		if !goodSubject(*e.Subject) {
			return nil, invalid("Subject")
		}
		m.Subject = *e.Subject
	}
	switch structure := ptr.Value(e.MessageStructure); structure {
	case "":
	case "json":
		if err := m.structure(); err != nil {
			return nil, err
		}
	default:
		return nil, invalid("MessageStructure Reason: Invalid message structure parameter: %.60s", structure)
	}
	for name, a := range e.MessageAttributes {
		v, err := attributeOf(name, a)
		if err != nil {
			return nil, err
		}
		if m.Attributes == nil {
			m.Attributes = map[string]attribute{}
		}
		m.Attributes[name] = v
	}
	return m, nil
}

// goodSubject: up to 100 printable ASCII characters (API reference, Publish);
// AWS takes other printable characters as well.
func goodSubject(s string) bool {
	if s == "" || utf8.RuneCountInString(s) > 100 || !utf8.ValidString(s) || s[0] == ' ' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 })
}

// structure reads MessageStructure json: an object of texts by protocol.
func (m *message) structure() error {
	var by map[string]json.RawMessage
	if err := json.Unmarshal([]byte(m.Body), &by); err != nil {
		return invalid("Message Structure - JSON message body failed to parse")
	}
	m.Per = map[string]string{}
	for protocol, raw := range by {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			continue // AWS ignores what is not text
		}
		m.Per[protocol] = text
	}
	text, ok := m.Per["default"]
	if !ok {
		return invalid("Message Structure - No default entry in JSON message body")
	}
	m.Body = text
	return nil
}

var attributeName = lazyre.New(`^[A-Za-z0-9_.-]{1,256}$`)

func attributeSize(attrs map[string]api.MessageAttributeValue) (n int) {
	for name, a := range attrs {
		n += len(name) + len(ptr.Value(a.DataType)) + len(ptr.Value(a.StringValue)) + len(a.BinaryValue)
	}
	return n
}

func attributeOf(name string, a api.MessageAttributeValue) (attribute, error) {
	bad := func(format string, args ...any) (attribute, error) {
		return attribute{}, awserr.New(api.ErrCodeInvalidParameterValueException, format, args...)
	}
	kind := ptr.Value(a.DataType)
	base, _, _ := strings.Cut(kind, ".")
	lower := strings.ToLower(name)
	switch {
	case !attributeName.MatchString(name) || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."),
		strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon."):
		return bad("The message attribute name '%.256s' is invalid.", name)
	case kind == "":
		return bad("The message attribute '%s' must contain non-empty message attribute type.", name)
	case base == "Binary":
		if len(a.BinaryValue) == 0 {
			return bad("The message attribute '%s' must contain non-empty message attribute value for message attribute type '%s'.", name, kind)
		}
		return attribute{kind, base64.StdEncoding.EncodeToString(a.BinaryValue)}, nil
	case base != "String" && base != "Number":
		return bad("The message attribute '%s' has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.", name)
	case ptr.Value(a.StringValue) == "":
		return bad("The message attribute '%s' must contain non-empty message attribute value for message attribute type '%s'.", name, kind)
	case base == "Number":
		if _, err := strconv.ParseFloat(*a.StringValue, 64); err != nil {
			return bad("Could not cast message attribute '%s' value to number.", name)
		}
	}
	return attribute{kind, *a.StringValue}, nil
}

var batchID = lazyre.New(`^[A-Za-z0-9_-]{1,80}$`)

func (s *Service) publishBatch(ctx context.Context, in *api.PublishBatchInput) (*api.PublishBatchOutput, error) {
	entries := in.PublishBatchRequestEntries
	if err := checkBatch(entries); err != nil {
		return nil, err
	}
	out := &api.PublishBatchOutput{Successful: []api.PublishBatchResultEntry{}, Failed: []api.BatchResultErrorEntry{}}
	var receipts []receipt
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		t, err := s.topicOf(ctx, tx, "TopicArn", ptr.Value(in.TopicArn), "Publish")
		if err != nil {
			return err
		}
		for n := range entries {
			e := &entries[n]
			r, err := s.publishTx(tx, t, e)
			if aws := awserr.As(err); aws != nil {
				out.Failed = append(out.Failed, api.BatchResultErrorEntry{Id: e.Id, Code: &aws.Code, Message: &aws.Message, SenderFault: new(true)})
				continue
			}
			if err != nil {
				return err
			}
			out.Successful = append(out.Successful, api.PublishBatchResultEntry{Id: e.Id, MessageId: &r.id, SequenceNumber: r.sequence})
			receipts = append(receipts, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range receipts {
		s.count(r)
	}
	return out, nil
}

func checkBatch(entries []api.PublishBatchRequestEntry) error {
	if len(entries) == 0 {
		return awserr.New(api.ErrCodeEmptyBatchRequestException, "The batch request doesn't contain any entries.")
	}
	if len(entries) > 10 {
		return awserr.New(api.ErrCodeTooManyEntriesInBatchRequestException, "The batch request contains more entries than permissible.")
	}
	ids, size := map[string]bool{}, 0
	for _, e := range entries {
		id := ptr.Value(e.Id)
		if !batchID.MatchString(id) {
			return awserr.New(api.ErrCodeInvalidBatchEntryIdException, "The Id of a batch entry in a batch request doesn't abide by the specification.")
		}
		if ids[id] {
			return awserr.New(api.ErrCodeBatchEntryIdsNotDistinctException, "Two or more batch entries in the request have the same Id.")
		}
		ids[id] = true
		size += len(ptr.Value(e.Message)) + attributeSize(e.MessageAttributes)
	}
	if size > maxMessage {
		return awserr.New(api.ErrCodeBatchRequestTooLongException, "The length of all the batch messages put together is more than the limit.")
	}
	return nil
}
