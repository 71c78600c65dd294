package sns

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/model"
	"slipway/internal/clock"
	"slipway/internal/mail"
	"slipway/internal/store"
)

const (
	account = "123456789012"
	region  = "us-east-1"
)

// rig is the service with a store, a mailbox and an HTTP door of its own.
type rig struct {
	t    *testing.T
	svc  *Service
	box  *mail.Service
	mux  *dispatch.Mux
	st   store.Store
	door *httptest.Server
	stop func()
}

func newRig(t *testing.T, change func(*Deps)) *rig {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return rigOn(t, st, dir, change)
}

func rigOn(t *testing.T, st store.Store, dir string, change func(*Deps)) *rig {
	t.Helper()
	r := &rig{t: t, st: st, mux: dispatch.New()}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	box, err := mail.Open(mail.Deps{Store: st, Dir: dir, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	d := Deps{Store: st, Clock: clock.Scaled(100, time.Time{}), Log: quiet, Mail: box, Dir: dir, Endpoint: func() string { return r.door.URL }}
	if change != nil {
		change(&d)
	}
	if r.svc, err = New(d); err != nil {
		t.Fatal(err)
	}
	r.box = box
	r.svc.Register(r.mux)
	apiHandler := r.mux.Handler(dispatch.Config{AuthAny: false, Now: time.Now, Log: quiet})
	pages := r.svc.Pages()
	r.door = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.URL.Path, PagesPrefix) {
			pages.ServeHTTP(w, q)
			return
		}
		apiHandler.ServeHTTP(w, q)
	}))
	t.Cleanup(r.door.Close)
	r.run()
	return r
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.svc.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}
	r.t.Cleanup(r.stop)
}

func (r *rig) ctx() context.Context {
	return caller.With(r.t.Context(), caller.Identity{Account: account, Region: region, PrincipalARN: "arn:aws:iam::" + account + ":root"})
}

// call makes a call that must succeed.
func call[I, O any](r *rig, op *model.Op[I, O], in *I) *O {
	r.t.Helper()
	out, err := dispatch.Call(r.ctx(), r.mux, op, in)
	if err != nil {
		r.t.Fatalf("%s: %v", op.Name, err)
	}
	return out
}

func (r *rig) topic(name string, attrs map[string]string) string {
	r.t.Helper()
	return *call(r, api.OpCreateTopic, &api.CreateTopicInput{Name: &name, Attributes: attrs}).TopicArn
}

// mails waits until the mailbox has n mails.
func (r *rig) mails(n int) []mail.Message {
	r.t.Helper()
	var box []mail.Message
	await(r.t, "mails", func() bool {
		var err error
		if box, err = r.box.List(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		return len(box) >= n
	})
	return box
}

// await looks until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// idle waits until no delivery is left, and checks that no message is.
func (r *rig) idle() {
	r.t.Helper()
	await(r.t, "an empty outbox", func() bool {
		n := 0
		err := r.st.View(r.t.Context(), func(rd store.Reader) error {
			for _, kind := range []string{mailings.Kind, posts.Kind, messages.Kind} {
				c, err := rd.Count(store.Query{Kind: kind})
				if err != nil {
					return err
				}
				n += c
			}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
		return n == 0
	})
}

func get(t *testing.T, link string) (int, string) {
	t.Helper()
	res, err := http.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

var link = regexp.MustCompile(`http://\S+`)

func TestMailSubscriptionByLink(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("alerts", map[string]string{"DisplayName": "Todo alerts"})
	out := call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("email"), Endpoint: new("ann@example.com")})
	if *out.SubscriptionArn != "pending confirmation" {
		t.Errorf("an unconfirmed subscription is shown as %q", *out.SubscriptionArn)
	}
	listed := call(r, api.OpListSubscriptionsByTopic, &api.ListSubscriptionsByTopicInput{TopicArn: &topic})
	if len(listed.Subscriptions) != 1 || *listed.Subscriptions[0].SubscriptionArn != "PendingConfirmation" {
		t.Errorf("listed: %+v", listed.Subscriptions)
	}
	call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: new("too early")})
	first := r.mails(1)[0]
	if first.Subject != "AWS Notification - Subscription Confirmation" || !strings.Contains(first.Body, topic) || first.From != `"Todo alerts" <no-reply@sns.amazonaws.com>` {
		t.Fatalf("confirmation mail: %+v", first)
	}
	status, body := get(t, link.FindString(first.Body))
	if status != 200 || !strings.Contains(body, "Subscription confirmed!") {
		t.Fatalf("confirmation page: %d %s", status, body)
	}
	call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Subject: new("Hello"), Message: new("line one\nline two")})
	call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: new("no subject")})
	box := r.mails(3)
	subjects := map[string]string{}
	for _, m := range box[1:] {
		subjects[m.Subject] = m.Body
	}
	if !strings.HasPrefix(subjects["Hello"], "line one\nline two\n\n--\nIf you wish to stop receiving") || subjects["AWS Notification Message"] == "" {
		t.Errorf("mails: %+v", box[1:])
	}
	// A scanner that follows the link changes nothing; the button does.
	unsub := link.FindString(subjects["Hello"])
	if status, body := get(t, unsub); status != 200 || !strings.Contains(body, "<button>Unsubscribe") {
		t.Errorf("unsubscribe page: %d %s", status, body)
	}
	if n := r.confirmed(topic); n != "1" {
		t.Errorf("looking at the page left %s subscriptions", n)
	}
	u, _ := url.Parse(unsub)
	res, err := http.PostForm(strings.SplitN(unsub, "?", 2)[0], url.Values{"SubscriptionArn": {u.Query().Get("SubscriptionArn")}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if n := r.confirmed(topic); res.StatusCode != 200 || n != "0" {
		t.Errorf("after the click %d: %s subscriptions", res.StatusCode, n)
	}
	r.idle()
}

func (r *rig) confirmed(topic string) string {
	return call(r, api.OpGetTopicAttributes, &api.GetTopicAttributesInput{TopicArn: &topic}).Attributes["SubscriptionsConfirmed"]
}

func TestOwnMailboxNeedsNoLink(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("own", nil)
	out := call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("email"), Endpoint: new("alerts@slipway.local")})
	if !strings.HasPrefix(*out.SubscriptionArn, topic+":") {
		t.Errorf("subscription: %s", *out.SubscriptionArn)
	}
	if m := r.mails(1)[0]; !strings.Contains(m.Body, "confirmed without a link") {
		t.Errorf("welcome: %s", m.Body)
	}
	again := call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("email"), Endpoint: new("alerts@slipway.local")})
	if *again.SubscriptionArn != *out.SubscriptionArn {
		t.Error("subscribing twice made two subscriptions")
	}
	call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: new(`{"default":"d","email":"for mail"}`), MessageStructure: new("json")})
	if m := r.mails(2)[1]; !strings.HasPrefix(m.Body, "for mail\n") {
		t.Errorf("mail: %q", m.Body)
	}
	r.idle()
}

// post is a notification as an endpoint got it.
type post struct {
	header http.Header
	body   string
	fields map[string]any
}

// endpoint is a subscriber that answers what it is told.
func endpoint(t *testing.T, answer func(n int) int) (string, chan post) {
	t.Helper()
	got := make(chan post, 100)
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		p := post{header: q.Header.Clone(), body: string(b)}
		_ = json.Unmarshal(b, &p.fields)
		n++
		w.WriteHeader(answer(n))
		got <- p
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/hook", got
}

func take(t *testing.T, c chan post) post {
	t.Helper()
	select {
	case p := <-c:
		return p
	case <-time.After(time.Minute):
		t.Fatal("nothing was posted")
		return post{}
	}
}

// verify checks a signature as a subscriber would.
func verify(t *testing.T, p post) {
	t.Helper()
	status, text := get(t, p.fields["SigningCertURL"].(string))
	block, _ := pem.Decode([]byte(text))
	if status != 200 || block == nil {
		t.Fatalf("certificate: %d %q", status, text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	if p.fields["Type"] != "Notification" {
		keys = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	}
	var b strings.Builder
	for _, k := range keys {
		if v, ok := p.fields[k].(string); ok {
			b.WriteString(k + "\n" + v + "\n")
		}
	}
	sig, err := base64.StdEncoding.DecodeString(p.fields["Signature"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if p.fields["SignatureVersion"] == "2" {
		sum := sha256.Sum256([]byte(b.String()))
		err = rsa.VerifyPKCS1v15(cert.PublicKey.(*rsa.PublicKey), crypto.SHA256, sum[:], sig)
	} else {
		sum := sha1.Sum([]byte(b.String()))
		err = rsa.VerifyPKCS1v15(cert.PublicKey.(*rsa.PublicKey), crypto.SHA1, sum[:], sig)
	}
	if err != nil {
		t.Errorf("signature of %s: %v", p.body, err)
	}
}

func TestHTTPSubscription(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		t.Run("signature version "+version, func(t *testing.T) {
			r := newRig(t, nil)
			topic := r.topic("hooks", map[string]string{"SignatureVersion": version})
			hook, got := endpoint(t, func(int) int { return 200 })
			call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("http"), Endpoint: &hook})
			ask := take(t, got)
			verify(t, ask)
			h := ask.header
			if h.Get("X-Amz-Sns-Message-Type") != "SubscriptionConfirmation" || h.Get("X-Amz-Sns-Subscription-Arn") != "" || h.Get("Content-Type") != "text/plain; charset=UTF-8" || h.Get("User-Agent") != "Amazon Simple Notification Service Agent" {
				t.Errorf("headers: %v", h)
			}
			status, answer := get(t, ask.fields["SubscribeURL"].(string))
			if status != 200 || !strings.Contains(answer, "<ConfirmSubscriptionResult><SubscriptionArn>"+topic+":") {
				t.Fatalf("SubscribeURL: %d %s", status, answer)
			}
			id := *call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Subject: new("S <&>"), Message: new("m <b>&\u2028"), MessageAttributes: map[string]api.MessageAttributeValue{
				"n": {DataType: new("Number"), StringValue: new("7")}, "b": {DataType: new("Binary"), BinaryValue: []byte{0, 255}}}}).MessageId
			note := take(t, got)
			verify(t, note)
			attrs, _ := json.Marshal(note.fields["MessageAttributes"])
			if note.fields["MessageId"] != id || string(attrs) != `{"b":{"Type":"Binary","Value":"AP8="},"n":{"Type":"Number","Value":"7"}}` || !strings.Contains(note.body, "m <b>&") {
				t.Errorf("notification: %s", note.body)
			}
			order := regexp.MustCompile(`(?s)"Type".*"MessageId".*"TopicArn".*"Subject".*"Message".*"Timestamp".*"SignatureVersion".*"Signature".*"SigningCertURL".*"UnsubscribeURL"`)
			if !order.MatchString(note.body) {
				t.Errorf("order of members: %s", note.body)
			}
			if status, _ := get(t, note.fields["UnsubscribeURL"].(string)); status != 200 {
				t.Errorf("UnsubscribeURL answered %d", status)
			}
			bye := take(t, got)
			verify(t, bye)
			if bye.fields["Type"] != "UnsubscribeConfirmation" {
				t.Errorf("after unsubscribing: %s", bye.body)
			}
			call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: new("nobody")})
			if status, _ := get(t, bye.fields["SubscribeURL"].(string)); status != 200 || r.confirmed(topic) != "1" {
				t.Errorf("coming back: %d, %s confirmed", status, r.confirmed(topic))
			}
			r.idle()
			if len(got) != 0 {
				t.Errorf("an ended subscription got %s", (<-got).body)
			}
		})
	}
}

// confirmedHook subscribes an endpoint and confirms it.
func (r *rig) confirmedHook(topic, hook string, got chan post, attrs map[string]string) string {
	r.t.Helper()
	arn := *call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("http"), Endpoint: &hook, Attributes: attrs, ReturnSubscriptionArn: new(true)}).SubscriptionArn
	ask := take(r.t, got)
	call(r, api.OpConfirmSubscription, &api.ConfirmSubscriptionInput{TopicArn: &topic, Token: new(ask.fields["Token"].(string))})
	return arn
}

func TestRawDeliveryRetriesAndRefusals(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("retries", nil)
	answers := map[int]int{1: 200, 2: 500, 3: 429, 4: 200, 5: 404, 6: 200}
	hook, got := endpoint(t, func(n int) int { return answers[n] })
	arn := r.confirmedHook(topic, hook, got, map[string]string{"RawMessageDelivery": "true",
		"DeliveryPolicy": `{"healthyRetryPolicy":{"numRetries":4,"minDelayTarget":1,"maxDelayTarget":2,"backoffFunction":"exponential"}}`})
	call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: new("raw")})
	var ids []string
	for range 3 { // 500, 429, 200
		p := take(t, got)
		if p.body != "raw" || p.header.Get("X-Amz-Sns-Rawdelivery") != "true" || p.header.Get("X-Amz-Sns-Subscription-Arn") != arn {
			t.Fatalf("raw delivery: %+v", p)
		}
		ids = append(ids, p.header.Get("X-Amz-Sns-Message-Id"))
	}
	if ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("the message id changed: %v", ids)
	}
	r.idle()
	call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: new("refused")})
	take(t, got) // 404: for good
	r.idle()
	if len(got) != 0 {
		t.Error("a refused notification was sent again")
	}
}

func TestFilters(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("filters", nil)
	hook, got := endpoint(t, func(int) int { return 200 })
	arn := r.confirmedHook(topic, hook, got, map[string]string{"RawMessageDelivery": "true", "FilterPolicy": `{"store":["shop"]}`})
	send := func(body, store string) {
		call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: &body, MessageAttributes: map[string]api.MessageAttributeValue{"store": {DataType: new("String"), StringValue: &store}}})
	}
	send("no", "other")
	send("yes", "shop")
	if p := take(t, got); p.body != "yes" {
		t.Errorf("got %q", p.body)
	}
	call(r, api.OpSetSubscriptionAttributes, &api.SetSubscriptionAttributesInput{SubscriptionArn: &arn, AttributeName: new("FilterPolicyScope"), AttributeValue: new("MessageBody")})
	send("no json", "shop")
	send(`{"store":"shop"}`, "other")
	if p := take(t, got); p.body != `{"store":"shop"}` {
		t.Errorf("got %q", p.body)
	}
	r.idle()
}

func TestNothingIsLostOverARestart(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	r := rigOn(t, st, dir, nil)
	topic := r.topic("restart", nil)
	call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("email"), Endpoint: new("a@slipway.local")})
	r.mails(1)
	r.stop() // nobody delivers now
	for range 20 {
		call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: new("kept")})
	}
	st.Close()
	st2, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st2.Close() })
	r2 := rigOn(t, st2, dir, nil)
	r2.mails(21)
	r2.idle()
	if n := len(r2.mails(21)); n != 21 {
		t.Errorf("%d mails, want 21: some were doubled", n)
	}
	if string(r.svc.signer.pem) != string(r2.svc.signer.pem) {
		t.Error("the certificate changed over a restart")
	}
}

func TestSigningKeyIsSecret(t *testing.T) {
	dir := t.TempDir()
	if _, err := openSigner(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := openSigner(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
}

func TestErrors(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("errors", nil)
	fifo := r.topic("errors.fifo", map[string]string{"FifoTopic": "true"})
	long := strings.Repeat("x", maxMessage+1)
	do := func(in *api.PublishInput) error {
		_, err := dispatch.Call(r.ctx(), r.mux, api.OpPublish, in)
		return err
	}
	sub := func(protocol, endpoint string, attrs map[string]string) error {
		_, err := dispatch.Call(r.ctx(), r.mux, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: &protocol, Endpoint: &endpoint, Attributes: attrs})
		return err
	}
	create := func(name string, attrs map[string]string) error {
		_, err := dispatch.Call(r.ctx(), r.mux, api.OpCreateTopic, &api.CreateTopicInput{Name: &name, Attributes: attrs})
		return err
	}
	for name, c := range map[string]struct {
		err        error
		code, text string
	}{
		"missing topic":      {do(&api.PublishInput{TopicArn: new(topic + "x"), Message: new("m")}), "NotFound", "Topic does not exist"},
		"short ARN":          {do(&api.PublishInput{TopicArn: new("alerts"), Message: new("m")}), "InvalidParameter", "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not 1"},
		"other region":       {do(&api.PublishInput{TopicArn: new("arn:aws:sns:eu-west-1:123456789012:errors"), Message: new("m")}), "InvalidParameter", "Invalid parameter: TopicArn"},
		"empty":              {do(&api.PublishInput{TopicArn: &topic, Message: new("")}), "InvalidParameter", "Invalid parameter: Empty message"},
		"too long":           {do(&api.PublishInput{TopicArn: &topic, Message: &long}), "InvalidParameter", "Invalid parameter: Message too long"},
		"subject of lines":   {do(&api.PublishInput{TopicArn: &topic, Message: new("m"), Subject: new("a\nBcc: b")}), "InvalidParameter", "Invalid parameter: Subject"},
		"long subject":       {do(&api.PublishInput{TopicArn: &topic, Message: new("m"), Subject: new(strings.Repeat("s", 101))}), "InvalidParameter", "Invalid parameter: Subject"},
		"structure":          {do(&api.PublishInput{TopicArn: &topic, Message: new("{}"), MessageStructure: new("json")}), "InvalidParameter", "No default entry"},
		"structure no JSON":  {do(&api.PublishInput{TopicArn: &topic, Message: new("{"), MessageStructure: new("json")}), "InvalidParameter", "failed to parse"},
		"phone":              {do(&api.PublishInput{PhoneNumber: new("+491"), Message: new("m")}), "NotImplemented", "phones"},
		"attribute type":     {do(&api.PublishInput{TopicArn: &topic, Message: new("m"), MessageAttributes: map[string]api.MessageAttributeValue{"a": {DataType: new("Bool"), StringValue: new("x")}}}), "ParameterValueInvalid", "'a'"},
		"attribute number":   {do(&api.PublishInput{TopicArn: &topic, Message: new("m"), MessageAttributes: map[string]api.MessageAttributeValue{"a": {DataType: new("Number"), StringValue: new("x")}}}), "ParameterValueInvalid", "'a'"},
		"group on FIFO":      {do(&api.PublishInput{TopicArn: &fifo, Message: new("m")}), "InvalidParameter", "MessageGroupId"},
		"dedup on FIFO":      {do(&api.PublishInput{TopicArn: &fifo, Message: new("m"), MessageGroupId: new("g")}), "InvalidParameter", "ContentBasedDeduplication"},
		"dedup on standard":  {do(&api.PublishInput{TopicArn: &topic, Message: new("m"), MessageDeduplicationId: new("d")}), "InvalidParameter", "MessageDeduplicationId"},
		"sqs":                {sub("sqs", "arn:aws:sqs:us-east-1:123456789012:q", nil), "NotImplemented", "sqs"},
		"unknown protocol":   {sub("carrier-pigeon", "x", nil), "InvalidParameter", "carrier-pigeon"},
		"no mail address":    {sub("email", "nobody", nil), "InvalidParameter", "Email address"},
		"header in address":  {sub("email", "a@b.c\r\nBcc: x@y.z", nil), "InvalidParameter", "Email address"},
		"https for http":     {sub("http", "https://example.com/", nil), "InvalidParameter", "Endpoint must match"},
		"raw mail":           {sub("email", "a@b.c", map[string]string{"RawMessageDelivery": "true"}), "InvalidParameter", "does not support raw"},
		"bad filter":         {sub("email", "a@b.c", map[string]string{"FilterPolicy": `{"a":1}`}), "InvalidParameter", `"a" must be an object or an array`},
		"nested filter":      {sub("email", "a@b.c", map[string]string{"FilterPolicy": `{"a":{"b":[1]}}`}), "InvalidParameter", "nested"},
		"redrive":            {sub("email", "a@b.c", map[string]string{"RedrivePolicy": `{}`}), "NotImplemented", "SQS"},
		"retries too long":   {sub("http", "http://127.0.0.1/", map[string]string{"DeliveryPolicy": `{"healthyRetryPolicy":{"numRetries":100,"minDelayTarget":60,"maxDelayTarget":60}}`}), "InvalidParameter", "3600"},
		"unknown retry":      {sub("http", "http://127.0.0.1/", map[string]string{"DeliveryPolicy": `{"healthyRetryPolicy":{"numRetrys":1}}`}), "InvalidParameter", "numRetrys"},
		"topic name":         {create("a b", nil), "InvalidParameter", "Topic Name"},
		"FIFO name":          {create("a", map[string]string{"FifoTopic": "true"}), "InvalidParameter", ".fifo"},
		"attribute":          {create("a", map[string]string{"Colour": "red"}), "InvalidParameter", "AttributeName"},
		"other attributes":   {create("errors", map[string]string{"DisplayName": "x"}), "InvalidParameter", "already exists with different attributes"},
		"signature version":  {create("a", map[string]string{"SignatureVersion": "3"}), "InvalidParameter", "SignatureVersion"},
		"policy is not JSON": {create("a", map[string]string{"Policy": "x"}), "InvalidParameter", "Policy"},
	} {
		t.Run(name, func(t *testing.T) {
			if e := awserr.As(c.err); e == nil || e.Code != c.code || !strings.Contains(e.Message, c.text) {
				t.Errorf("got %v, want %s with %q", c.err, c.code, c.text)
			}
		})
	}
	if err := create("errors", nil); err != nil {
		t.Errorf("making it again: %v", err)
	}
}

func TestFIFODeduplicates(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("orders.fifo", map[string]string{"FifoTopic": "true", "ContentBasedDeduplication": "true"})
	send := func(body string) *api.PublishOutput {
		return call(r, api.OpPublish, &api.PublishInput{TopicArn: &topic, Message: &body, MessageGroupId: new("g")})
	}
	a, b, c := send("one"), send("one"), send("two")
	if *a.MessageId != *b.MessageId || *a.SequenceNumber != *b.SequenceNumber {
		t.Errorf("the same message twice: %v %v", a, b)
	}
	if *c.MessageId == *a.MessageId || *c.SequenceNumber <= *a.SequenceNumber || len(*a.SequenceNumber) != 20 {
		t.Errorf("another message: %s after %s", *c.SequenceNumber, *a.SequenceNumber)
	}
}

func TestBatch(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("batch", nil)
	entry := func(id, body string) api.PublishBatchRequestEntry {
		return api.PublishBatchRequestEntry{Id: &id, Message: &body}
	}
	out := call(r, api.OpPublishBatch, &api.PublishBatchInput{TopicArn: &topic, PublishBatchRequestEntries: []api.PublishBatchRequestEntry{entry("a", "x"), entry("b", "")}})
	if len(out.Successful) != 1 || len(out.Failed) != 1 || *out.Failed[0].Id != "b" || *out.Failed[0].Code != "InvalidParameter" {
		t.Errorf("batch: %+v", out)
	}
	for code, entries := range map[string][]api.PublishBatchRequestEntry{
		"EmptyBatchRequest": {}, "BatchEntryIdsNotDistinct": {entry("a", "x"), entry("a", "y")}, "InvalidBatchEntryId": {entry("a b", "x")},
		"TooManyEntriesInBatchRequest": make([]api.PublishBatchRequestEntry, 0, 11),
	} {
		if code == "TooManyEntriesInBatchRequest" {
			for n := range 11 {
				entries = append(entries, entry(string(rune('a'+n)), "x"))
			}
		}
		if _, err := r.svc.publishBatch(r.ctx(), &api.PublishBatchInput{TopicArn: &topic, PublishBatchRequestEntries: entries}); !awserr.Is(err, code) {
			t.Errorf("%s: got %v", code, err)
		}
	}
}

func TestUnsubscribing(t *testing.T) {
	r := newRig(t, nil)
	topic := r.topic("leave", nil)
	hook, got := endpoint(t, func(int) int { return 200 })
	pendingARN := *call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("email"), Endpoint: new("p@example.com"), ReturnSubscriptionArn: new(true)}).SubscriptionArn
	if _, err := dispatch.Call(r.ctx(), r.mux, api.OpUnsubscribe, &api.UnsubscribeInput{SubscriptionArn: &pendingARN}); !awserr.Is(err, "InvalidParameter") || !strings.Contains(err.Error(), "pending confirmation") {
		t.Errorf("a pending one: %v", err)
	}
	if _, err := dispatch.Call(r.ctx(), r.mux, api.OpUnsubscribe, &api.UnsubscribeInput{SubscriptionArn: new("PendingConfirmation")}); !awserr.Is(err, "InvalidParameter") {
		t.Errorf("by the word of the list: %v", err)
	}
	hookARN := *call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("http"), Endpoint: &hook, ReturnSubscriptionArn: new(true)}).SubscriptionArn
	ask := take(t, got)
	call(r, api.OpConfirmSubscription, &api.ConfirmSubscriptionInput{TopicArn: &topic, Token: new(ask.fields["Token"].(string)), AuthenticateOnUnsubscribe: new("true")})
	if status, body := get(t, unsubscribeURL(r.door.URL, hookARN)); status != 403 || !strings.Contains(body, "AuthorizationError") {
		t.Errorf("unsigned, where credentials are needed: %d %s", status, body)
	}
	call(r, api.OpUnsubscribe, &api.UnsubscribeInput{SubscriptionArn: &hookARN})
	call(r, api.OpUnsubscribe, &api.UnsubscribeInput{SubscriptionArn: &hookARN})
	if status, body := get(t, confirmURL(r.door.URL, topic, "00")); status != 400 || !strings.Contains(body, "Token") {
		t.Errorf("a token of nobody: %d %s", status, body)
	}
	if status, _ := get(t, r.door.URL+"/?Action=Publish&Version=2010-03-31&Message=x&TopicArn="+url.QueryEscape(topic)); status != 403 && status != 400 {
		t.Errorf("publishing without credentials answered %d", status)
	}
}

func TestForeignNetworksAreNotDialled(t *testing.T) {
	var asked []string
	r := newRig(t, func(d *Deps) {
		d.DialVPC = nil
	})
	for _, host := range []string{"172.31.16.5", "169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::ac1f:1005]", "[2002:a9fe:a9fe::1]", "0.0.0.0", "224.0.0.1", "ip-172-31-16-5.ec2.internal", "[fd00:ec2::254]"} {
		_, err := r.svc.http.Get("http://" + host + ":9/")
		if !errors.Is(err, errForbidden) {
			t.Errorf("%s: %v", host, err)
		}
	}
	r.svc.DialVPC = (&dialer{&asked}).dial
	_, err := r.svc.http.Get("http://172.31.16.5:9/")
	if err == nil || len(asked) != 1 || asked[0] != "172.31.16.5:9" {
		t.Errorf("into the VPC: %v, asked %v", err, asked)
	}
}

func TestWhatExpires(t *testing.T) {
	var clk clock.Clock
	r := newRig(t, func(d *Deps) { d.Clock = clock.Scaled(100_000, time.Time{}); clk = d.Clock })
	topic := r.topic("old", nil)
	fifo := r.topic("old.fifo", map[string]string{"FifoTopic": "true", "ContentBasedDeduplication": "true"})
	first := call(r, api.OpPublish, &api.PublishInput{TopicArn: &fifo, Message: new("m"), MessageGroupId: new("g")})
	start := clk.Now()
	call(r, api.OpSubscribe, &api.SubscribeInput{TopicArn: &topic, Protocol: new("email"), Endpoint: new("slow@example.com")})
	mail := r.mails(1)[0]
	await(t, "the end of the subscription", func() bool {
		return len(call(r, api.OpListSubscriptions, &api.ListSubscriptionsInput{}).Subscriptions) == 0
	})
	if d := clk.Since(start); d < tokenLife {
		t.Errorf("it ended after %v", d)
	}
	if status, body := get(t, link.FindString(mail.Body)); status != 400 {
		t.Errorf("an expired link: %d %s", status, body)
	}
	again := call(r, api.OpPublish, &api.PublishInput{TopicArn: &fifo, Message: new("m"), MessageGroupId: new("g")})
	if *again.MessageId == *first.MessageId {
		t.Error("a message was taken for one of two days ago")
	}
}

func TestEndpointsInTheVPCGetItsAddress(t *testing.T) {
	r := newRig(t, func(d *Deps) { d.VPCEndpoint = "http://172.31.0.2:4566" })
	for host, want := range map[string]string{"172.31.16.9": "http://172.31.0.2:4566", "ip-172-31-16-9.ec2.internal": "http://172.31.0.2:4566", "ip-172-31-16-9": "http://172.31.0.2:4566",
		"172.32.0.1": r.door.URL, "example.com": r.door.URL, "ip-172-31-16-9.example.com": r.door.URL, "": r.door.URL} {
		if got := r.svc.base(host); got != want {
			t.Errorf("%q is told %s, want %s", host, got, want)
		}
	}
}
