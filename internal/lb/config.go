// Package lb is the load balancer process and its client.
//
// The process owns the listening sockets of every load balancer, checks the
// health of every target and forwards requests. It gets its whole configuration
// as versioned snapshots over a unix socket (Client.Apply), keeps the last good
// one on disk, and goes on serving with it when the control plane is away.
//
// Start reading at config.go (what comes in), client.go (the API of the
// process), process.go (how it is put together) and forward/ (the hot path).
package lb

import "time"

// Snapshot is the complete wanted configuration. Applying one replaces the
// former; whatever is the same in both keeps its connections, health state and
// in-flight counters.
type Snapshot struct {
	// Version orders snapshots; one that is lower than the applied one is refused.
	Version       int64          `json:"version"`
	LoadBalancers []LoadBalancer `json:"loadBalancers"`
	TargetGroups  []TargetGroup  `json:"targetGroups"`
}

// LoadBalancer is one load balancer with its listeners. Attributes use AWS's
// keys (idle_timeout.timeout_seconds, routing.http.*, ...); absent keys mean
// AWS's defaults.
type LoadBalancer struct {
	ARN        string            `json:"arn"`
	Name       string            `json:"name"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Listeners  []Listener        `json:"listeners"`
}

// Listener is one listening socket and its rules.
type Listener struct {
	ARN      string `json:"arn"`
	Protocol string `json:"protocol"` // HTTP or HTTPS
	// Address is where the process listens on the host, such as 127.0.0.1:8080.
	Address string `json:"address"`
	// Port is the port in AWS's terms: X-Forwarded-Port, Host and #{port} use it.
	Port           int               `json:"port"`
	DefaultActions []Action          `json:"defaultActions"`
	Rules          []Rule            `json:"rules,omitempty"`
	Certificates   []Certificate     `json:"certificates,omitempty"`
	SSLPolicy      string            `json:"sslPolicy,omitempty"`
	Attributes     map[string]string `json:"attributes,omitempty"`
}

// Certificate is a PEM chain with its key. The first default one (or the first
// of all) answers clients whose SNI name matches none.
type Certificate struct {
	ARN      string `json:"arn"`
	ChainPEM string `json:"chainPem"`
	KeyPEM   string `json:"keyPem"`
	Default  bool   `json:"default,omitempty"`
}

// Rule is a listener rule; rules are evaluated by ascending Priority, the
// listener's DefaultActions last.
type Rule struct {
	ARN        string      `json:"arn"`
	Priority   int         `json:"priority"`
	Conditions []Condition `json:"conditions"`
	Actions    []Action    `json:"actions"`
}

// Condition fields are AWS's: host-header, path-pattern, http-header,
// http-request-method, query-string, source-ip. Values are ORed.
type Condition struct {
	Field       string        `json:"field"`
	Values      []string      `json:"values,omitempty"`
	RegexValues []string      `json:"regexValues,omitempty"`
	HeaderName  string        `json:"headerName,omitempty"`   // http-header
	Query       []QueryString `json:"queryStrings,omitempty"` // query-string
}

// QueryString matches one key=value of the raw query; an empty Key matches any.
type QueryString struct {
	Key   string `json:"key,omitempty"`
	Value string `json:"value"`
}

// Action types: forward, redirect, fixed-response.
type Action struct {
	Type          string         `json:"type"`
	Forward       *Forward       `json:"forward,omitempty"`
	Redirect      *Redirect      `json:"redirect,omitempty"`
	FixedResponse *FixedResponse `json:"fixedResponse,omitempty"`
}

// Forward names weighted target groups and the stickiness between them.
type Forward struct {
	TargetGroups      []WeightedGroup `json:"targetGroups"`
	StickinessEnabled bool            `json:"stickinessEnabled,omitempty"`
	StickinessSeconds int             `json:"stickinessSeconds,omitempty"`
}

// WeightedGroup is a target group with its share (0 to 999).
type WeightedGroup struct {
	ARN    string `json:"arn"`
	Weight int    `json:"weight"`
}

// Redirect parts may hold #{protocol}, #{host}, #{port}, #{path}, #{query};
// empty means AWS's default for the part.
type Redirect struct {
	StatusCode string `json:"statusCode"` // HTTP_301 or HTTP_302
	Protocol   string `json:"protocol,omitempty"`
	Host       string `json:"host,omitempty"`
	Port       string `json:"port,omitempty"`
	Path       string `json:"path,omitempty"`
	// Query nil means #{query}; empty drops the query.
	Query *string `json:"query,omitempty"`
}

// FixedResponse is answered by the load balancer itself.
type FixedResponse struct {
	StatusCode  int    `json:"statusCode"`
	ContentType string `json:"contentType,omitempty"`
	Body        string `json:"body,omitempty"`
}

// TargetGroup is a set of targets with one health check. It is checked only
// while a listener's action names it.
type TargetGroup struct {
	ARN             string            `json:"arn"`
	Name            string            `json:"name"`
	Protocol        string            `json:"protocol"`        // HTTP or HTTPS
	ProtocolVersion string            `json:"protocolVersion"` // HTTP1, HTTP2, GRPC; empty is HTTP1
	Port            int               `json:"port"`
	HealthCheck     HealthCheck       `json:"healthCheck"`
	Attributes      map[string]string `json:"attributes,omitempty"`
	Targets         []Target          `json:"targets"`
}

// HealthCheck uses AWS's parameters; zero values mean AWS's defaults.
type HealthCheck struct {
	Protocol           string `json:"protocol,omitempty"` // HTTP or HTTPS; empty is HTTP
	Port               string `json:"port,omitempty"`     // traffic-port or a number
	Path               string `json:"path,omitempty"`
	IntervalSeconds    int    `json:"intervalSeconds,omitempty"`
	TimeoutSeconds     int    `json:"timeoutSeconds,omitempty"`
	HealthyThreshold   int    `json:"healthyThreshold,omitempty"`
	UnhealthyThreshold int    `json:"unhealthyThreshold,omitempty"`
	Matcher            string `json:"matcher,omitempty"` // 200, 200-399, 200,301
}

// TargetState is what the control plane wants of a target.
type TargetState string

// The wanted states. A draining target gets no new request; it stays in the
// snapshot until the control plane calls it unused.
const (
	Registered TargetState = "registered"
	Draining   TargetState = "draining"
)

// Target is one address that takes requests. (ID, Port) is its identity within
// the group; another IP under the same identity is a new target with new health.
type Target struct {
	ID            string      `json:"id"`
	IP            string      `json:"ip"`
	Port          int         `json:"port"`
	Zone          string      `json:"zone"`
	State         TargetState `json:"state"`
	DrainingSince time.Time   `json:"drainingSince,omitzero"`
}
