package sns

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/mail"
	"slipway/internal/reconcile"
	"slipway/internal/store"
)

// Mailer is the part of the mail service that topics need.
type Mailer interface {
	Send(ctx context.Context, m mail.Message) error
	// UsesSMTP says that mails leave this machine.
	UsesSMTP() bool
	// From is the sender's address.
	From() string
	// Links is the URL that links in mails begin with, "" for the endpoint.
	Links() string
}

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Clock clock.Clock  // nil: clock.Real
	Log   *slog.Logger // nil: slog.Default
	Mail  Mailer
	// Dir is where the signing key is kept (sns-signing.pem, mode 0600).
	Dir string
	// Endpoint is the URL at which people and programs on this machine reach
	// the API; links in messages lead there.
	Endpoint func() string
	// VPCEndpoint is the same for programs in instances; "" is Endpoint.
	VPCEndpoint string
	// CertBase replaces the endpoint in SigningCertURL, for verifiers that
	// insist on AWS's host names and machines whose DNS leads these here.
	CertBase string
	// DialVPC reaches addresses in the VPC; nil refuses them.
	DialVPC func(ctx context.Context, network, addr string) (net.Conn, error)
	// Roots are the authorities for https endpoints; nil: the system's.
	Roots *x509.CertPool
	// Measure, if set, hears of AWS/SNS metrics. It must not block.
	Measure func(account, region, topic, metric string, value float64)
}

// Service is SNS. All methods are safe for concurrent use.
type Service struct {
	Deps
	signer *signer
	http   *http.Client
	mails  *reconcile.Controller
	posts  *reconcile.Controller
	gate   gate
	once   sync.Once
}

// New makes the service and, at its first start, the signing key.
func New(d Deps) (*Service, error) {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Measure == nil {
		d.Measure = func(string, string, string, string, float64) {}
	}
	sg, err := openSigner(d.Dir)
	if err != nil {
		return nil, err
	}
	s := &Service{Deps: d, signer: sg, gate: gate{busy: map[string]int{}, waiting: map[string][]store.Key{}}}
	s.http = s.newClient()
	s.mails = &reconcile.Controller{Name: "sns:mail", Store: d.Store, Clock: d.Clock, Kind: mailings.Kind, Workers: 4, Reconcile: s.work(mailings), Log: d.Log}
	s.posts = &reconcile.Controller{Name: "sns:post", Store: d.Store, Clock: d.Clock, Kind: posts.Kind, Workers: 32, Reconcile: s.work(posts), Log: d.Log}
	return s, nil
}

// Run delivers until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.http.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.mails.Run(ctx) })
	g.Go(func() error { return s.posts.Run(ctx) })
	g.Go(func() error { return s.sweep(ctx) })
	return g.Wait()
}

// Register serves this service's operations on mux. What is not listed here
// answers 501 by name.
func (s *Service) Register(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpCreateTopic, s.createTopic)
	dispatch.Register(mux, api.OpDeleteTopic, s.deleteTopic)
	dispatch.Register(mux, api.OpListTopics, s.listTopics)
	dispatch.Register(mux, api.OpGetTopicAttributes, s.getTopicAttributes)
	dispatch.Register(mux, api.OpSetTopicAttributes, s.setTopicAttributes)
	dispatch.Register(mux, api.OpAddPermission, s.addPermission)
	dispatch.Register(mux, api.OpRemovePermission, s.removePermission)
	dispatch.Register(mux, api.OpTagResource, s.tagResource)
	dispatch.Register(mux, api.OpUntagResource, s.untagResource)
	dispatch.Register(mux, api.OpListTagsForResource, s.listTags)
	dispatch.Register(mux, api.OpSubscribe, s.subscribe)
	dispatch.Register(mux, api.OpConfirmSubscription, s.confirmSubscription)
	dispatch.Register(mux, api.OpUnsubscribe, s.unsubscribe)
	dispatch.Register(mux, api.OpListSubscriptions, s.listSubscriptions)
	dispatch.Register(mux, api.OpListSubscriptionsByTopic, s.listSubscriptionsByTopic)
	dispatch.Register(mux, api.OpGetSubscriptionAttributes, s.getSubscriptionAttributes)
	dispatch.Register(mux, api.OpSetSubscriptionAttributes, s.setSubscriptionAttributes)
	dispatch.Register(mux, api.OpPublish, s.publish)
	dispatch.Register(mux, api.OpPublishBatch, s.publishBatch)
}

// invalid is SNS's answer to most of what a caller gets wrong.
func invalid(format string, args ...any) error {
	return awserr.New(api.ErrCodeInvalidParameterException, "Invalid parameter: "+format, args...)
}

// arn is a topic's or subscription's ARN in parts.
type arn struct{ region, account, topic, sub string }

func (a arn) topicARN() string { return "arn:aws:sns:" + a.region + ":" + a.account + ":" + a.topic }

// String is the ARN again.
func (a arn) String() string {
	if a.sub == "" {
		return a.topicARN()
	}
	return a.topicARN() + ":" + a.sub
}

// parseARN reads an ARN given as the parameter field.
func parseARN(field, s string, subscription bool) (arn, error) {
	p := strings.Split(s, ":")
	switch n := len(p); {
	case n < 6:
		return arn{}, invalid("%s Reason: An ARN must have at least 6 elements, not %d", field, n)
	case p[0] != "arn" || !strings.HasPrefix(p[1], "aws") || p[2] != "sns" || p[3] == "" || len(p[4]) != 12 || p[5] == "":
		return arn{}, invalid("%s", field)
	case subscription && (n != 7 || p[6] == ""), !subscription && n != 6:
		return arn{}, invalid("%s", field)
	}
	a := arn{region: p[3], account: p[4], topic: p[5]}
	if subscription {
		a.sub = p[6]
	}
	return a, nil
}

// topicOf reads a topic ARN and says whether the caller may do action there.
// Who calls without credentials is judged by the token he brings, not here.
func (s *Service) topicOf(ctx context.Context, r store.Reader, field, value, action string) (*store.Row[Topic], error) {
	a, err := parseARN(field, value, false)
	if err != nil {
		return nil, err
	}
	who := caller.From(ctx)
	if who.Region != a.region {
		return nil, invalid("%s", field)
	}
	row, err := getTopic(r, a)
	if err != nil {
		return nil, err
	}
	if isGuest(who) {
		if !row.Doc.admits(who, action) {
			return nil, denied(who, action, a.topicARN())
		}
		return row, nil
	}
	if who.Account != a.account && !row.Doc.allows(who.Account, action) {
		return nil, denied(who, action, a.topicARN())
	}
	return row, nil
}

func denied(who caller.Identity, action, resource string) error {
	principal := who.PrincipalARN
	if principal == "" {
		principal = "anonymous"
	}
	return awserr.New(api.ErrCodeAuthorizationErrorException, "User: %s is not authorized to perform: SNS:%s on resource: %s", principal, action, resource)
}

// base is the URL of the API as the receiver of a message sees it.
func (s *Service) base(host string) string {
	if s.VPCEndpoint != "" && inVPC(host) {
		return strings.TrimSuffix(s.VPCEndpoint, "/")
	}
	if s.Endpoint == nil {
		return "http://127.0.0.1:4566"
	}
	return strings.TrimSuffix(s.Endpoint(), "/")
}

var errNoMail = fmt.Errorf("sns: no mailer")
