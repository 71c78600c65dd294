// Package forward is the hot path of the load balancer: it reads requests from
// client connections, asks a Router what to do, and relays request and response.
// One goroutine per client connection; target connections are pooled per Endpoint;
// in the steady state nothing is allocated per request. It knows nothing about
// listeners, rules or target groups.
package forward

import (
	"net/netip"
	"time"

	"slipway/internal/lb/h1"
)

// Router decides about requests. Its methods are called by the goroutine of the
// client connection, concurrently for different connections; the Exchange and all
// that it points to are valid only until Done returns.
type Router interface {
	// Route sets x.Action and what belongs to it. With ActionForward it has
	// acquired x.Endpoint.
	Route(x *Exchange)
	// Another is called when no byte of the request could be sent to x.Endpoint.
	// It releases that and acquires another one, or returns false and keeps it.
	Another(x *Exchange) bool
	// Response is called with the target's response head in x.Res before it is
	// forwarded; it may append header lines to x.Extra.
	Response(x *Exchange)
	// Done is called once per request, also for one that could not be parsed (then
	// Route was not called). It releases x.Endpoint when there is one.
	Done(x *Exchange)
}

// Action is what happens to a request.
type Action uint8

// The actions. ActionNone is a request that never got as far as Route.
const (
	ActionNone Action = iota
	ActionForward
	ActionReply // the load balancer answers with x.Reply
)

// Reply is an answer of the load balancer itself. An empty Body with
// HTML false is sent empty; with HTML true the standard page is made.
type Reply struct {
	Status      int
	ContentType string
	Body        string
	Location    string
	HTML        bool
}

// Exchange is one request and its response. It is reused for all requests of a
// client connection.
type Exchange struct {
	Req h1.Request
	Res *h1.Response // of the target; nil before it came

	Client  netip.AddrPort
	Options *Options // in force for this request
	Action  Action
	Reply   Reply
	// Endpoint is the chosen target's. The router owns Tag and Note.
	Endpoint *Endpoint
	Tag      any
	Note     [4]int
	// CloseAfter closes both connections after this request.
	CloseAfter bool
	// Extra are header lines for the response, each with CRLF.
	Extra []byte

	Start      time.Time // the request's first byte was there
	Sent       time.Time // the request's head was sent to the target
	FirstByte  time.Time // the response's head had arrived
	Status     int       // sent to the client; 460 and 000 (0) are log-only
	FromTarget int       // the target's status; 0 when none came
	BytesIn    int64     // from the client, heads included
	BytesOut   int64     // to the client
	ConnErrors int       // connections to targets that failed
	TLSErrors  int
	Retried    int
	Upgraded   bool
	HTTP2      bool // the client spoke HTTP/2; set once per connection
	// Cause explains a 4xx or 5xx that the load balancer made, for its log.
	Cause string

	Trace    []byte // the X-Amzn-Trace-Id that was sent to the target
	traceBuf [96]byte
}

// reset prepares for the next request of the same connection.
func (x *Exchange) reset() {
	x.Req.Reset()
	x.Res = nil
	x.Action = ActionNone
	x.Reply = Reply{}
	x.Endpoint, x.Tag, x.Note = nil, nil, [4]int{}
	x.CloseAfter, x.Upgraded = false, false
	x.Extra = x.Extra[:0]
	x.Start, x.Sent, x.FirstByte = time.Time{}, time.Time{}, time.Time{}
	x.Status, x.FromTarget, x.BytesIn, x.BytesOut = 0, 0, 0, 0
	x.ConnErrors, x.TLSErrors, x.Retried = 0, 0, 0
	x.Cause, x.Trace = "", nil
}

// XFFMode is routing.http.xff_header_processing.mode.
type XFFMode uint8

// The modes.
const (
	XFFAppend XFFMode = iota
	XFFPreserve
	XFFRemove
)

// Options are the load balancer attributes that the hot path obeys. Immutable
// once given to a Server.
type Options struct {
	Scheme string // http or https
	Port   int    // the listener's port in AWS's terms
	// RealPort is where clients really connect; it differs from Port when the host
	// shifts ports. A Host that names it is what the client sees: it stays.
	RealPort        int
	IdleTimeout     time.Duration
	ClientKeepAlive time.Duration
	Desync          Desync
	DropInvalid     bool
	PreserveHost    bool
	XFF             XFFMode
	XFFPort         bool
	// HideServer drops the target's and the load balancer's Server header.
	HideServer bool
	// TLSHeaders adds X-Amzn-Tls-Version and -Cipher-Suite.
	TLSHeaders bool
}

// Desync is routing.http.desync_mitigation_mode.
type Desync uint8

// The modes.
const (
	DesyncDefensive Desync = iota
	DesyncMonitor
	DesyncStrictest
)

const (
	clientBuffer = 4 << 10
	targetBuffer = 16 << 10
	bodyBuffer   = 32 << 10
	maxHead      = h1.MaxRequestHead + h1.MaxRequestLine + 4
	maxXFF       = 30
)
