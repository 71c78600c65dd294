package dispatch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/awsjson"
	"slipway/internal/aws/awsquery"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ec2query"
	"slipway/internal/aws/model"
	"slipway/internal/aws/payload"
	"slipway/internal/aws/rest"
	"slipway/internal/aws/restjson"
	"slipway/internal/aws/restxml"
	"slipway/internal/aws/rpccbor"
	"slipway/internal/aws/sigv4"
	"slipway/internal/aws/validate"
)

// Config is what the HTTP side of a Mux needs. The zero value of a field has
// the default that its comment names.
type Config struct {
	// Keys finds credentials; nil refuses every signed request.
	Keys sigv4.Keys
	// AuthAny takes any credentials, or none, without a check: for test tools,
	// on loopback only. Requests that a browser marks as cross-site are
	// refused, or any web page could use the API.
	AuthAny bool
	// Account is whose resources an unchecked request sees; "123456789012".
	Account string
	// Now is the time that signatures are compared with and durations measured
	// by: the wall clock, whatever the time scale, for clients sign with theirs.
	// Required.
	Now func() time.Time
	// Log gets one debug record for each request, errors for what is
	// Slipway's fault; slog.Default().
	Log *slog.Logger
	// Observe, if set, is called after each request, concurrently.
	Observe func(Record)
	// MaxBody bounds request bodies that are read whole, in bytes, before and
	// after decompression; 16 MiB. BodyLimits overrides it by service name.
	MaxBody    int64
	BodyLimits map[string]int64
	// Domains are the hosts whose subdomains name buckets; "s3.localhost" and
	// "localhost".
	Domains []string
}

// Record tells of one served request.
type Record struct {
	Service, Operation string
	Protocol           model.Protocol
	Status             int
	Code               string // AWS's error code, "" on success
	Duration           time.Duration
	RequestID          string
	Account, Region    string
}

type handler struct {
	Config
	mux       *Mux
	byTarget  map[string]*service
	byCBOR    map[string]*service
	bySigning map[string][]*service
	rest      *service
	domains   []string
}

// Handler serves the Mux over HTTP. Register and Declare everything before.
// Mount it as the server's handler itself, not behind an http.ServeMux:
// that one redirects S3 keys with double slashes.
func (m *Mux) Handler(cfg Config) http.Handler {
	h := &handler{Config: cfg, mux: m, byTarget: map[string]*service{}, byCBOR: map[string]*service{}, bySigning: map[string][]*service{}}
	if h.Account == "" {
		h.Account = "123456789012"
	}
	if h.Log == nil {
		h.Log = slog.Default()
	}
	if h.MaxBody == 0 {
		h.MaxBody = 16 << 20
	}
	h.domains = append([]string(nil), cfg.Domains...)
	if h.domains == nil {
		h.domains = []string{"s3.localhost", "localhost"}
	}
	sort.Slice(h.domains, func(i, j int) bool { return len(h.domains[i]) > len(h.domains[j]) })
	for _, s := range m.services {
		if p := s.model.TargetPrefix; p != "" {
			h.byTarget[p] = s
		}
		if p := s.model.AltTargetPrefix; p != "" {
			h.byTarget[p] = s
		}
		if n := s.model.CBORName; n != "" {
			h.byCBOR[n] = s
		}
		if speaks(s.model, model.RESTXML) {
			h.rest = s
		}
		h.bySigning[s.model.SigningName] = append(h.bySigning[s.model.SigningName], s)
	}
	return h
}

// exchange is one request on its way through.
type exchange struct {
	h    *handler
	w    http.ResponseWriter
	r    *http.Request
	ctx  context.Context
	t    target
	op   *operation
	body []byte // the whole body, decompressed; not for S3
	rest *payload.Body
	id   string
	who  caller.Identity
	code string
	// status is what was written, 0 before that.
	status int
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.Now()
	x := &exchange{h: h, w: w, r: r, ctx: r.Context(), id: requestID()}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			h.Log.Error("panic in a handler", "request", x.id, "service", x.serviceName(), "operation", x.t.op, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if x.status != 0 {
				panic(http.ErrAbortHandler) // the answer has begun: the client must see it end
			}
			x.fail(awserr.New("InternalFailure", "The request processing has failed because of an unknown error, exception or failure.").WithStatus(500))
		}
		x.done(start)
	}()
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

func (x *exchange) serviceName() string {
	if x.t.svc == nil {
		return ""
	}
	return x.t.svc.model.Name
}

func (x *exchange) done(start time.Time) {
	rec := Record{Service: x.serviceName(), Operation: x.t.op, Protocol: x.t.proto, Status: x.status, Code: x.code,
		Duration: x.h.Now().Sub(start), RequestID: x.id, Account: x.who.Account, Region: x.who.Region}
	x.h.Log.Debug("request", "service", rec.Service, "operation", rec.Operation, "protocol", string(rec.Protocol),
		"status", rec.Status, "code", rec.Code, "duration", rec.Duration, "request", rec.RequestID)
	if x.h.Observe != nil {
		x.h.Observe(rec)
	}
}

func (x *exchange) serve() error {
	r := x.r
	sig, sigErr := sigv4.Parse(r)
	scope := ""
	if sigErr == nil || sig != nil {
		scope = sig.Service
	}
	kind := x.h.classify(r, scope)
	if kind == isREST {
		return x.serveREST(sig, sigErr)
	}
	raw, err := x.readBody(kind)
	if err != nil {
		x.t.proto = map[family]model.Protocol{isJSON: model.JSON11, isCBOR: model.RPCCBOR, isForm: model.Query, isRESTJSON: model.RESTJSON}[kind]
		return err
	}
	switch kind {
	case isJSON:
		err = x.h.chooseJSON(r, &x.t)
	case isCBOR:
		err = x.h.chooseCBOR(r, &x.t)
	case isRESTJSON:
		err = x.h.chooseRESTJSON(r, scope, &x.t)
	default:
		err = x.h.chooseForm(r, scope, x.body, &x.t)
	}
	if err != nil {
		return err // also to the unsigned: what is built is no secret
	}
	x.op = x.t.svc.ops[x.t.op]
	if lim := x.h.BodyLimits[x.t.svc.model.Name]; lim > 0 && int64(len(x.body)) > lim {
		return tooLarge(lim)
	}
	sum := sha256.Sum256(raw)
	if _, err := x.authenticate(sig, sigErr, hex.EncodeToString(sum[:])); err != nil {
		return err
	}
	in := x.op.newInput()
	if err := x.decode(in); err != nil {
		return err
	}
	return x.run(in)
}

func (x *exchange) decode(in any) error {
	svc, shape := x.t.svc.model, x.op.input
	switch x.t.proto {
	case model.JSON10, model.JSON11:
		return awsjson.Decode(svc, shape, x.body, in)
	case model.RPCCBOR:
		return rpccbor.Decode(svc, shape, x.body, in)
	case model.EC2:
		return ec2query.Decode(svc, shape, x.t.form, in)
	case model.RESTJSON:
		return restjson.Decode(svc, shape, &rest.Request{Labels: x.t.labels, Query: x.r.URL.Query(), Header: x.r.Header}, x.body, in)
	}
	return awsquery.Decode(svc, shape, x.t.form, in)
}

func (x *exchange) run(in any) error {
	if err := validate.Input(x.t.svc.model, x.op.input, in); err != nil {
		return err
	}
	out, err := x.op.call(caller.With(x.ctx, x.who), in)
	if err != nil {
		return err
	}
	return x.succeed(out)
}

func (x *exchange) serveREST(sig *sigv4.Request, sigErr error) error {
	if err := x.h.chooseREST(x.r, &x.t); err != nil {
		return err
	}
	x.op = x.t.svc.ops[x.t.op]
	hash := x.r.Header.Get("X-Amz-Content-Sha256")
	if sig != nil {
		if sig.PayloadHash != "" {
			hash = sig.PayloadHash
		}
		if sig.Presigned && hash == "" {
			hash = sigv4.Unsigned
		}
	}
	res, err := x.authenticate(sig, sigErr, hash)
	if err != nil {
		return err
	}
	if res != nil && !res.Presigned && hash == "" {
		return awserr.New("InvalidRequest", "Missing required header for this request: x-amz-content-sha256").WithStatus(400)
	}
	if x.rest, err = payload.New(x.r, res); err != nil {
		return err
	}
	limit := x.h.MaxBody
	if lim := x.h.BodyLimits[x.t.svc.model.Name]; lim > 0 {
		limit = lim
	}
	in := x.op.newInput()
	req := &rest.Request{Labels: x.t.labels, Query: x.r.URL.Query(), Header: x.headers(), Body: x.rest, MaxBody: limit}
	if err := restxml.Decode(x.t.svc.model, x.op.input, req, in); err != nil {
		return err
	}
	return x.run(in)
}

// headers are the request's, with the framing of aws-chunked taken off.
func (x *exchange) headers() http.Header {
	hd := x.r.Header.Clone()
	if n := x.rest.Length(); n >= 0 {
		hd.Set("Content-Length", fmt.Sprint(n))
	}
	if enc := hd.Get("Content-Encoding"); enc != "" {
		var keep []string
		for part := range strings.SplitSeq(enc, ",") {
			if part = strings.TrimSpace(part); part != "" && !strings.EqualFold(part, "aws-chunked") {
				keep = append(keep, part)
			}
		}
		hd.Del("Content-Encoding")
		if len(keep) > 0 {
			hd.Set("Content-Encoding", strings.Join(keep, ","))
		}
	}
	return hd
}

func tooLarge(limit int64) error {
	return awserr.New("RequestEntityTooLarge", "The request body is larger than %d bytes.", limit).WithStatus(http.StatusRequestEntityTooLarge)
}

// readBody reads the whole body within bounds. It returns the bytes that
// were signed and leaves the decompressed ones in x.body.
func (x *exchange) readBody(kind family) ([]byte, error) {
	limit := x.h.MaxBody
	for _, l := range x.h.BodyLimits {
		limit = max(limit, l)
	}
	raw, err := readBounded(x.r.Body, limit)
	if err != nil {
		return nil, err
	}
	x.body = raw
	if strings.EqualFold(x.r.Header.Get("Content-Encoding"), "gzip") {
		zr, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, badGzip(kind, err)
		}
		if x.body, err = readBounded(zr, limit); err != nil {
			if awserr.As(err) != nil && awserr.Code(err) == "RequestEntityTooLarge" {
				return nil, err
			}
			return nil, badGzip(kind, err)
		}
	}
	return raw, nil
}

func badGzip(kind family, err error) error {
	code := "SerializationException"
	if kind == isForm {
		code = "MalformedInput"
	}
	return awserr.New(code, "The request body is not valid gzip: %s", err).WithStatus(400)
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, awserr.New("RequestTimeout", "The request body could not be read to its end.").WithStatus(400).WithCause(err)
	}
	if int64(len(b)) > limit {
		return nil, tooLarge(limit)
	}
	return b, nil
}
