package lb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Client talks to a load balancer process over its unix socket. Safe for
// concurrent use. Errors of the transport wrap the net error (the process is
// away: keep the snapshot and try again); a refused request is an *APIError.
type Client struct {
	socket string
	http   *http.Client
}

// APIError is a request that the process understood and refused.
type APIError struct {
	Status  int    `json:"-"`
	Message string `json:"message"`
}

func (e *APIError) Error() string { return "lb: " + e.Message }

// NewClient returns a client for the process listening on the socket; nothing is
// dialled before the first call.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: dial, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info describes a running process.
type Info struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Applied is the version of the configuration in force; 0 when none ever came.
	Applied int64 `json:"applied"`
}

// Ping returns who is there and which version is in force.
func (c *Client) Ping(ctx context.Context) (Info, error) {
	var out Info
	return out, c.call(ctx, http.MethodGet, "/v1/info", nil, &out)
}

// Apply makes s the configuration in force and returns after it is durable on
// disk and live: no request that arrives later is routed by the former one. A
// listener whose port is taken does not fail the call: see Applied.
func (c *Client) Apply(ctx context.Context, s Snapshot) (Applied, error) {
	var out Applied
	return out, c.call(ctx, http.MethodPost, "/v1/apply", s, &out)
}

// Applied is the result of Apply.
type Applied struct {
	Version int64 `json:"version"`
	// ListenerErrors maps a listener's ARN to why its socket is not open (port
	// busy, no such address, bad certificate). The process keeps trying.
	ListenerErrors map[string]string `json:"listenerErrors,omitempty"`
}

// Health returns the state of every target.
func (c *Client) Health(ctx context.Context) ([]TargetHealth, error) {
	var out []TargetHealth
	return out, c.call(ctx, http.MethodGet, "/v1/health", nil, &out)
}

// HealthState is a state of a target in AWS's words.
type HealthState string

// The states that the process reports. unused means that no listener's action
// names the group.
const (
	StateInitial   HealthState = "initial"
	StateHealthy   HealthState = "healthy"
	StateUnhealthy HealthState = "unhealthy"
	StateDraining  HealthState = "draining"
	StateUnused    HealthState = "unused"
)

// TargetHealth is the health of one target, with AWS's reason code and
// description (both empty when healthy).
type TargetHealth struct {
	TargetGroup     string      `json:"targetGroup"`
	ID              string      `json:"id"`
	Port            int         `json:"port"`
	Zone            string      `json:"zone"`
	HealthCheckPort string      `json:"healthCheckPort"`
	State           HealthState `json:"state"`
	Reason          string      `json:"reason,omitempty"`
	Description     string      `json:"description,omitempty"`
	Since           time.Time   `json:"since"`
	InFlight        int64       `json:"inFlight"`
	// Drained is true for a draining target without requests in flight.
	Drained bool `json:"drained,omitempty"`
}

// EventKind says what an Event tells.
type EventKind string

// The kinds. A watch starts with one EventHealth per target, one EventListener
// per broken listener and then EventSynced, so that a watcher that was away
// misses no state; from then on transitions follow as they happen.
const (
	EventSynced   EventKind = "synced"   // the initial state is complete
	EventHealth   EventKind = "health"   // Health is the target's new state
	EventDrained  EventKind = "drained"  // a draining target has no request left, or its delay is over
	EventListener EventKind = "listener" // Listener's socket failed (Error) or is open (Error empty)
	EventApplied  EventKind = "applied"  // Version is in force
)

// Event is one line of the watch stream.
type Event struct {
	Kind     EventKind     `json:"kind"`
	Time     time.Time     `json:"time"`
	Health   *TargetHealth `json:"health,omitempty"`
	Listener string        `json:"listener,omitempty"`
	Error    string        `json:"error,omitempty"`
	Version  int64         `json:"version,omitempty"`
}

// ErrLagging ends a watch whose reader was too slow; watch again to resync.
var ErrLagging = errors.New("lb: watcher too slow, events were dropped")

// Watch calls f for each event, one at a time, until the context ends, the
// connection breaks or f fails; it returns the reason, never nil.
func (c *Client) Watch(ctx context.Context, f func(Event) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lb/v1/watch", nil)
	if err != nil {
		return fmt.Errorf("lb watch: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("lb watch: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return readAPIError(res)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("lb watch: %w", err)
		}
		if e.Kind == "lagging" {
			return ErrLagging
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("lb watch: %w", err)
	}
	return fmt.Errorf("lb watch: %w", io.ErrUnexpectedEOF)
}

// Metrics returns all counters since the process started.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	var out Metrics
	return out, c.call(ctx, http.MethodGet, "/v1/metrics", nil, &out)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("lb %s: %w", path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://lb"+path, body)
	if err != nil {
		return fmt.Errorf("lb %s: %w", path, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("lb %s: %w", path, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return readAPIError(res)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("lb %s: %w", path, err)
	}
	return nil
}

func readAPIError(res *http.Response) error {
	e := &APIError{Status: res.StatusCode}
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil || json.Unmarshal(b, e) != nil || e.Message == "" {
		e.Message = res.Status
	}
	return e
}
