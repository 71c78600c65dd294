package elbv2

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/lb"
	"slipway/internal/store"
)

// LoadBalancer is a row; its id is the ARN.
type LoadBalancer struct {
	Name           string
	DNSName        string
	Scheme         string
	VPC            string
	IPAddressType  string
	Zones          []Zone
	SecurityGroups []string
	Attributes     map[string]string // only what was set
	Tags           map[string]string
	Created        time.Time
	// Index decides the loopback address of the listeners: the lowest number
	// that no other load balancer of this installation has.
	Index int
}

// Zone is a subnet that a load balancer is attached to.
type Zone struct{ Name, Subnet string }

// Listener is a row; its id is the ARN, its parent the load balancer's.
type Listener struct {
	LoadBalancer   string
	Protocol       string
	Port           int64
	SSLPolicy      string
	Certificates   []string // ARNs, the default one first
	DefaultActions []api.Action
	Attributes     map[string]string
	Tags           map[string]string
	// Error is why the lb process cannot listen; empty when it does.
	Error string
}

// Rule is a row; its id is the ARN, its parent the listener's.
type Rule struct {
	Listener   string
	Priority   int64
	Conditions []api.RuleCondition
	Actions    []api.Action
	Tags       map[string]string
}

// TargetGroup is a row; its id is the ARN.
type TargetGroup struct {
	Name            string
	Protocol        string
	ProtocolVersion string
	Port            int64
	VPC             string
	TargetType      string
	HealthCheck     HealthCheck
	Attributes      map[string]string // only what was set
	Tags            map[string]string
}

// HealthCheck of a target group, in AWS's units.
type HealthCheck struct {
	Protocol, Port, Path, Matcher                           string
	Interval, Timeout, HealthyThreshold, UnhealthyThreshold int64
}

// The states of a target, as AWS names them.
const (
	stateInitial   = "initial"
	stateHealthy   = "healthy"
	stateUnhealthy = "unhealthy"
	stateDraining  = "draining"
	stateUnused    = "unused"
)

// Target is a row: see targetID for its id; its parent is the target group.
type Target struct {
	TargetGroup string
	ID          string
	Port        int64
	Zone        string
	IP          string // empty while the instance is stopped
	State       string
	Reason      string
	Description string
	// DrainingSince is when the target was deregistered; zero while it is
	// registered.
	DrainingSince time.Time
}

var (
	balancers = store.NewTable("elbv2:loadbalancer", func(b *LoadBalancer) (string, string) { return b.Name, "" })
	listeners = store.NewTable("elbv2:listener", func(l *Listener) (string, string) { return l.LoadBalancer, "" })
	rules     = store.NewTable("elbv2:rule", func(r *Rule) (string, string) { return r.Listener, "" })
	groups    = store.NewTable("elbv2:targetgroup", func(g *TargetGroup) (string, string) { return g.Name, "" })
	targets   = store.NewTable("elbv2:target", func(t *Target) (string, string) { return t.TargetGroup, t.State })
)

func targetID(group, id string, port int64) string { return fmt.Sprintf("%s|%s|%d", group, id, port) }

// Balancer is the lb process as this service uses it; *lb.Client is one.
type Balancer interface {
	Apply(ctx context.Context, s lb.Snapshot) (lb.Applied, error)
	Watch(ctx context.Context, f func(lb.Event) error) error
	Metrics(ctx context.Context) (lb.Metrics, error)
}

// Deps are what the service needs from outside.
type Deps struct {
	Store store.Store
	Clock clock.Clock
	Log   *slog.Logger
	Mux   *dispatch.Mux // to reach EC2
	// LB is the data plane; nil where machines are simulated: targets are
	// then healthy as long as their instances run.
	LB Balancer
	// Address is the loopback address of the first load balancer.
	Address string
	// PortShift is added to listener ports under 1024.
	PortShift int64
}

// Service is Elastic Load Balancing. Its methods are safe for concurrent use.
type Service struct {
	deps Deps
	// kick asks the engine to apply the configuration soon; capacity 1.
	kick chan struct{}
	// applying is held while a configuration is built and sent, so that a
	// newer one never overtakes an older one.
	applying sync.Mutex
	version  int64 // guarded by applying
}

// New returns the service; nothing runs until Run.
func New(d Deps) *Service {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Address == "" {
		d.Address = "127.0.0.1"
	}
	return &Service{deps: d, kick: make(chan struct{}, 1)}
}

// Resync makes the engine send the configuration again: the lb process was
// replaced.
func (s *Service) Resync() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Metrics are the data plane's counters; zero where there is none.
func (s *Service) Metrics(ctx context.Context) (lb.Metrics, error) {
	if s.deps.LB == nil {
		return lb.Metrics{}, nil
	}
	return s.deps.LB.Metrics(ctx)
}

// address is where a load balancer listens: the first one at Deps.Address,
// number N one above in the third part and at N in the last.
func (s *Service) address(index int) string {
	if index == 0 {
		return s.deps.Address
	}
	var a, b, c, d int
	fmt.Sscanf(s.deps.Address, "%d.%d.%d.%d", &a, &b, &c, &d)
	return fmt.Sprintf("%d.%d.%d.%d", a, b, c+1+index/250, 1+(index-1)%250)
}

// listenAddress is where a listener can be reached on this machine.
func (s *Service) listenAddress(b *LoadBalancer, l *Listener) string {
	port := l.Port
	if port < 1024 {
		port += s.deps.PortShift
	}
	return fmt.Sprintf("%s:%d", s.address(b.Index), port)
}

// ListenerAddress tells where a listener is reachable.
type ListenerAddress struct {
	LoadBalancerARN string `json:"loadBalancerArn"`
	Name            string `json:"name"`
	Port            int64  `json:"port"`
	Protocol        string `json:"protocol"`
	Address         string `json:"address"`
	Error           string `json:"error,omitempty"`
}

// Listeners lists every listener with its address on this machine.
func (s *Service) Listeners(ctx context.Context) ([]ListenerAddress, error) {
	out := []ListenerAddress{}
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		rows, err := listeners.List(r, store.Query{})
		if err != nil {
			return err
		}
		for _, l := range rows {
			b, err := balancers.Get(r, l.Account, l.Region, l.Doc.LoadBalancer)
			if err != nil {
				return err
			}
			out = append(out, ListenerAddress{b.ID, b.Doc.Name, l.Doc.Port, l.Doc.Protocol, s.listenAddress(&b.Doc, &l.Doc), l.Doc.Error})
		}
		return nil
	})
	return out, err
}

// tail is what follows the resource type in an ARN: "app/NAME/ID".
func tail(arn string) string {
	_, rest, _ := strings.Cut(arn, "/")
	return rest
}
