// Package imds is the EC2 instance metadata service: what an instance reads
// at 169.254.169.254. The caller is known by its source address, which the
// network of the machines does not let it forge.
//
// Version 2 (a session token got with PUT) always works; version 1 (plain
// GET) unless the instance requires tokens. As on EC2, a request that a
// proxy forwarded gets no token (EC2 User Guide, "Use the Instance Metadata
// Service to access instance metadata").
package imds

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrUnknown says that no instance has the address.
var ErrUnknown = errors.New("imds: no instance has this address")

// Instance is what the metadata of one instance is made of.
type Instance struct {
	ID, Account, Region      string
	Image, Type, Arch        string
	Zone, ZoneID             string
	LaunchIndex              int64
	Reservation              string
	PrivateIP, MAC, Hostname string
	ENI, Subnet, SubnetCIDR  string
	VPC, VPCCIDR             string
	GroupIDs, GroupNames     []string
	KeyName, PublicKey       string
	Lifecycle                string
	Launched                 time.Time
	UserData                 []byte
	ProfileArn, ProfileID    string
	ProfileName              string
	// Tags are nil where the instance does not show them in its metadata.
	Tags map[string]string
	// TokensRequired refuses version 1; Disabled refuses everything.
	TokensRequired, Disabled bool
	HopLimit                 int
}

// Credentials of the instance's role. They are real: their expiry is real time.
type Credentials struct {
	AccessKeyID, Secret, Token string
	Expires                    time.Time
}

// Source knows the instances. Its methods are called from many goroutines.
type Source interface {
	// ByAddress returns the instance with a private address, or ErrUnknown.
	ByAddress(ctx context.Context, ip netip.Addr) (*Instance, error)
	// Role is the role in the instance's profile; empty where there is none.
	Role(ctx context.Context, i *Instance) (name, arn string, err error)
	// Credentials takes the role for the instance.
	Credentials(ctx context.Context, i *Instance, roleArn string) (Credentials, error)
	// LifecycleState is the target lifecycle state; empty outside a group.
	LifecycleState(ctx context.Context, i *Instance) (string, error)
}

// Handler serves the metadata of whoever asks.
type Handler struct {
	source Source
	log    *slog.Logger
	tokens *tokenBook

	mu    sync.Mutex
	creds map[string]*cached // by instance id + role
}

type cached struct {
	mu      sync.Mutex // held while fetching, so that one request fetches for all
	creds   Credentials
	updated time.Time
}

// New makes a handler; log may be nil.
func New(source Source, log *slog.Logger) *Handler {
	if log == nil {
		log = slog.Default()
	}
	return &Handler{source: source, log: log, tokens: newTokenBook(), creds: map[string]*cached{}}
}

// ServeHTTP answers one request. Bodies are text/plain but for credentials
// and documents, as EC2 sends them.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "EC2ws")
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		refuse(w, http.StatusForbidden)
		return
	}
	inst, err := h.source.ByAddress(r.Context(), addr.Addr().Unmap())
	switch {
	case errors.Is(err, ErrUnknown):
		refuse(w, http.StatusNotFound)
		return
	case err != nil:
		h.log.Error("instance metadata", "address", addr.Addr(), "error", err)
		refuse(w, http.StatusInternalServerError)
		return
	case inst.Disabled, len(r.Header.Values("X-Forwarded-For")) > 0:
		refuse(w, http.StatusForbidden)
		return
	}
	version, rest := split(r.URL.Path)
	if rest == "api/token" {
		h.token(w, r, inst)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "OPTIONS, GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	if !h.allowed(r, inst) {
		refuse(w, http.StatusUnauthorized)
		return
	}
	if version == "" { // the root lists the versions
		text(w, "1.0\n2007-01-19\n2014-11-05\n2018-09-24\n2021-07-15\nlatest")
		return
	}
	h.serve(w, r, inst, rest)
}

// split takes the version off a path: "/latest/meta-data/" -> "latest", "meta-data/".
func split(p string) (version, rest string) {
	slash := strings.HasSuffix(p, "/")
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	version, rest, _ = strings.Cut(p, "/")
	if slash && rest != "" {
		rest += "/"
	}
	return version, rest
}

const (
	headerToken = "X-Aws-Ec2-Metadata-Token"
	headerTTL   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

// token serves PUT /latest/api/token.
func (h *Handler) token(w http.ResponseWriter, r *http.Request, inst *Instance) {
	if r.Method != http.MethodPut {
		w.Header().Set("Allow", "OPTIONS, PUT")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(headerTTL))
	if err != nil || ttl < 1 || ttl > 21600 {
		refuse(w, http.StatusBadRequest)
		return
	}
	w.Header().Set(headerTTL, strconv.Itoa(ttl))
	text(w, h.tokens.issue(inst.ID, time.Duration(ttl)*time.Second))
}

// allowed checks the session token: required where the instance says so, and
// valid wherever one is given.
func (h *Handler) allowed(r *http.Request, inst *Instance) bool {
	token := r.Header.Get(headerToken)
	if token == "" {
		return !inst.TokensRequired
	}
	return h.tokens.valid(inst.ID, token)
}

func text(w http.ResponseWriter, body string) { write(w, "text/plain", body) }

func write(w http.ResponseWriter, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Accept-Ranges", "none")
	_, _ = w.Write([]byte(body)) // the instance hung up: nothing to do
}

func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	body := "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html><head><title>" + strconv.Itoa(status) + " - " + http.StatusText(status) +
		"</title></head><body><h1>" + strconv.Itoa(status) + " - " + http.StatusText(status) + "</h1></body></html>\n"
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}
