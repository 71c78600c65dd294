package codestarnotifications

import (
	"log/slog"
	"time"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/reconcile"
	"slipway/internal/store"
)

// Rule is a notification rule's row; its id is the last part of its ARN.
type Rule struct {
	Name, Resource     string
	DetailType, Status string
	EventTypes         []string
	Targets            []string // addresses
	CreatedBy          string
	Created, Modified  time.Time
	Tags               map[string]string `json:",omitempty"`
	// Token is the request token that made the rule, Asked a hash of what was
	// asked for with it.
	Token string `json:",omitempty"`
	Asked string `json:",omitempty"`
}

// Target is a target's row; its id is the address. It outlives the rules
// that send to it until DeleteTarget.
type Target struct{ Type, Status string }

// delivery is one message to one target. The row's id is made of the event,
// the change in it, the rule and the target.
type delivery struct {
	Rule    string // row id
	Target  string
	Message string
	At      time.Time
}

// cursor is how far the events have been read.
type cursor struct{ Seq int64 }

// The rows of this service.
var (
	rules      = store.NewTable("codestarnotifications:rule", func(r *Rule) (string, string) { return r.Resource, r.Status })
	targets    = store.NewTable("codestarnotifications:target", func(t *Target) (string, string) { return "", t.Status })
	deliveries = store.NewTable("codestarnotifications:delivery", func(d *delivery) (string, string) { return d.Rule, "" })
	cursors    = store.NewTable[cursor]("codestarnotifications:cursor", nil)
)

type ruleRow = store.Row[Rule]

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Clock clock.Clock // nil: clock.Real
	Mux   *dispatch.Mux
	Log   *slog.Logger // nil: slog.Default
}

// Service is CodeStar Notifications. Its methods are safe for concurrent use.
type Service struct {
	deps   Deps
	outbox *reconcile.Controller
}

// New returns the service; nothing runs until Run.
func New(d Deps) *Service {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	s := &Service{deps: d}
	// One worker: the messages of a resource are published in their order.
	s.outbox = &reconcile.Controller{Name: "codestarnotifications", Store: d.Store, Clock: d.Clock, Kind: deliveries.Kind, Workers: 1, Reconcile: s.deliver, Log: d.Log}
	return s
}

// Register serves this service's operations on mux.
func (s *Service) Register(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpCreateNotificationRule, s.createRule)
	dispatch.Register(mux, api.OpDescribeNotificationRule, s.describeRule)
	dispatch.Register(mux, api.OpUpdateNotificationRule, s.updateRule)
	dispatch.Register(mux, api.OpDeleteNotificationRule, s.deleteRule)
	dispatch.Register(mux, api.OpListNotificationRules, s.listRules)
	dispatch.Register(mux, api.OpListEventTypes, s.listEventTypes)
	dispatch.Register(mux, api.OpSubscribe, s.subscribe)
	dispatch.Register(mux, api.OpUnsubscribe, s.unsubscribe)
	dispatch.Register(mux, api.OpListTargets, s.listTargets)
	dispatch.Register(mux, api.OpDeleteTarget, s.deleteTarget)
	dispatch.Register(mux, api.OpTagResource, s.tagResource)
	dispatch.Register(mux, api.OpUntagResource, s.untagResource)
	dispatch.Register(mux, api.OpListTagsForResource, s.listTags)
}
