package dispatch

import (
	"mime"
	"net/http"
	"net/url"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/awsquery"
	"slipway/internal/aws/model"
	"slipway/internal/aws/rest"
)

// FirstParty begins the X-Amz-Target of Slipway's own clients: JSON 1.1 to
// any service, "Slipway_" + the package's name + "." + the operation.
const FirstParty = "Slipway_"

// target is what a request asks for.
type target struct {
	svc   *service
	proto model.Protocol
	op    string
	// firstParty requests may be signed for the service like any other; only
	// their encoding differs.
	firstParty bool
	form       *awsquery.Form    // query and ec2
	labels     map[string]string // REST
}

// family is how far headers alone tell the protocol.
type family int

const (
	isJSON family = iota
	isCBOR
	isForm
	isREST     // S3
	isRESTJSON // a service that speaks REST-JSON
)

// classify tells the protocol family from headers, path and scope, before
// the body is read. scope is the credential scope's service, "" if unsigned.
// Nothing but the scope tells REST-JSON from S3: such a service's requests
// need one, even where signatures are not checked.
func (h *handler) classify(r *http.Request, scope string) family {
	switch {
	case r.Header.Get("X-Amz-Target") != "":
		return isJSON
	case r.Header.Get("Smithy-Protocol") == string(model.RPCCBOR):
		return isCBOR
	case scope == "s3":
		return isREST
	case h.restJSON(scope) != nil:
		return isRESTJSON
	case isFormBody(r) || r.URL.Path == "/" && r.URL.Query().Has("Action"):
		return isForm
	case scope != "":
		return isForm // signed for another service, and nothing says what for
	}
	return isREST
}

func isFormBody(r *http.Request) bool {
	if r.Method != http.MethodPost || r.URL.Path != "/" && r.URL.Path != "" {
		return false // curl uploads objects with this type
	}
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == "application/x-www-form-urlencoded"
}

// chooseJSON reads X-Amz-Target.
func (h *handler) chooseJSON(r *http.Request, t *target) error {
	t.proto = model.JSON11
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-amz-json-1.0") {
		t.proto = model.JSON10
	}
	prefix, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	t.op = op
	if name, ok := strings.CutPrefix(prefix, FirstParty); ok {
		t.svc, t.firstParty = h.mux.services[name], true
	} else {
		t.svc = h.byTarget[prefix]
	}
	if t.svc == nil {
		return awserr.New("UnknownOperationException", "Slipway serves no operation %s.", r.Header.Get("X-Amz-Target")).WithStatus(400)
	}
	return t.mustKnow(awserr.New("UnknownOperationException", "%s has no operation %s.", t.svc.model.ID, op).WithStatus(400))
}

// chooseCBOR reads /service/{name}/operation/{op}.
func (h *handler) chooseCBOR(r *http.Request, t *target) error {
	t.proto = model.RPCCBOR
	parts := strings.Split(r.URL.Path, "/")
	n := len(parts)
	if n >= 5 && parts[n-4] == "service" && parts[n-2] == "operation" {
		t.svc, t.op = h.byCBOR[parts[n-3]], parts[n-1]
	}
	if t.svc == nil {
		return awserr.New("UnknownOperationException", "Slipway serves nothing at %s over rpc-v2-cbor.", r.URL.Path).WithStatus(404)
	}
	return t.mustKnow(awserr.New("UnknownOperationException", "%s has no operation %s.", t.svc.model.ID, t.op).WithStatus(404))
}

// chooseForm reads Action and Version, and the scope where they do not suffice.
func (h *handler) chooseForm(r *http.Request, scope string, body []byte, t *target) error {
	t.proto = model.Query
	form, err := awsquery.ParseForm(r.URL.RawQuery, string(body))
	if err != nil {
		return err
	}
	t.form, t.op = form, form.Get("Action")
	version := form.Get("Version")
	for _, s := range h.bySigning[scope] {
		if t.svc == nil || s.model.APIVersion == version {
			t.svc = s
		}
	}
	if t.svc == nil && scope == "" {
		for _, s := range h.mux.services {
			if s.model.APIVersion == version && s.known[t.op] && speaks(s.model, model.Query, model.EC2) {
				t.svc = s
			}
		}
	}
	if t.svc == nil {
		if scope != "" {
			return awserr.New("NotImplemented", "Slipway does not implement the service %s.", scope).WithStatus(501)
		}
		return awserr.New("InvalidAction", "Could not find operation %s for version %s", t.op, version).WithStatus(400)
	}
	if speaks(t.svc.model, model.EC2) {
		t.proto = model.EC2
		return t.mustKnow(awserr.New("InvalidAction", "The action %s is not valid for this web service.", t.op).WithStatus(400))
	}
	switch {
	case !speaks(t.svc.model, model.Query): // a JSON service without X-Amz-Target
		t.proto = t.svc.model.Protocols[0]
		return awserr.New("UnknownOperationException", "The request has no X-Amz-Target header.").WithStatus(400)
	case t.op == "":
		return awserr.New("MissingAction", "The request is missing an Action.").WithStatus(400)
	}
	return t.mustKnow(awserr.New("InvalidAction", "Could not find operation %s for version %s", t.op, version).WithStatus(400))
}

// restJSON is the service that is signed for under this name and speaks
// REST-JSON, or nil.
func (h *handler) restJSON(scope string) *service {
	for _, s := range h.bySigning[scope] {
		if speaks(s.model, model.RESTJSON) {
			return s
		}
	}
	return nil
}

// chooseRESTJSON finds the operation that method, path and query string mean.
// Among the matching routes the one with the most literal parts wins.
func (h *handler) chooseRESTJSON(r *http.Request, scope string, t *target) error {
	t.proto, t.svc = model.RESTJSON, h.restJSON(scope)
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") {
		path = r.URL.EscapedPath()
	}
	query := r.URL.Query()
	best, found := -1, false
	for i := range t.svc.model.Routes {
		rt := &t.svc.model.Routes[i]
		labels, literals, ok := rest.Match(rt.Path, path)
		if !ok {
			continue
		}
		found = true
		if score := 2*literals + len(rt.Query); rt.Method == r.Method && score > best && matches(rt, query, r.Header) {
			best, t.op, t.labels = score, rt.Op, labels
		}
	}
	switch {
	case best >= 0:
		return t.mustKnow(NotBuilt(t.svc.model, t.op))
	case found:
		return awserr.New("MethodNotAllowedException", "%s has no operation %s %s.", t.svc.model.ID, r.Method, path).WithStatus(http.StatusMethodNotAllowed)
	}
	return awserr.New("UnknownOperationException", "%s has no operation %s %s.", t.svc.model.ID, r.Method, path).WithStatus(http.StatusNotFound)
}

func speaks(s *model.Service, protocols ...model.Protocol) bool {
	for _, have := range s.Protocols {
		for _, p := range protocols {
			if have == p {
				return true
			}
		}
	}
	return false
}

// mustKnow fails where AWS has no such operation, with the error given, and
// where Slipway has not built it.
func (t *target) mustKnow(unknown error) error {
	if t.svc.ops[t.op] != nil {
		return nil
	}
	if t.svc.known[t.op] {
		return NotBuilt(t.svc.model, t.op)
	}
	return unknown
}

// chooseREST finds bucket and key, and the operation that method, query
// string and headers mean. Among the matching routes the one with the most
// conditions wins; between equals a built one.
func (h *handler) chooseREST(r *http.Request, t *target) error {
	t.proto = model.RESTXML
	t.svc = h.rest
	if t.svc == nil {
		return awserr.New("NotImplemented", "Slipway serves nothing at this address.").WithStatus(501)
	}
	bucket, key, err := h.split(r)
	if err != nil {
		return err
	}
	t.labels = map[string]string{}
	path := "/"
	if bucket != "" {
		t.labels["Bucket"] = bucket
		path = "/{Bucket}"
	}
	if key != "" {
		t.labels["Key"] = key
		path = "/{Bucket}/{Key+}"
	}
	query := r.URL.Query()
	best := -1
	for i := range t.svc.model.Routes {
		rt := &t.svc.model.Routes[i]
		if rt.Method != r.Method || rt.Path != path || !matches(rt, query, r.Header) {
			continue
		}
		score := 2 * (len(rt.Query) + len(rt.Headers))
		if t.svc.ops[rt.Op] != nil {
			score++
		}
		if score > best {
			best, t.op = score, rt.Op
		}
	}
	if best < 0 {
		return awserr.New("MethodNotAllowed", "The specified method is not allowed against this resource.").
			WithStatus(http.StatusMethodNotAllowed).WithField("Method", r.Method)
	}
	return t.mustKnow(NotBuilt(t.svc.model, t.op))
}

func matches(rt *model.Route, query url.Values, header http.Header) bool {
	for _, q := range rt.Query {
		k, v, fixed := strings.Cut(q, "=")
		if !query.Has(k) || fixed && query.Get(k) != v {
			return false
		}
	}
	for _, name := range rt.Headers {
		if header.Get(name) == "" {
			return false
		}
	}
	return true
}

// split takes bucket and key from host and path. Keys keep their double
// slashes and whatever else they are made of.
func (h *handler) split(r *http.Request) (bucket, key string, err error) {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(raw, "/") {
		raw = r.URL.EscapedPath()
	}
	raw = strings.TrimPrefix(raw, "/")
	if b := h.hostBucket(r.Host); b != "" {
		bucket = b
	} else {
		bucket, raw, _ = strings.Cut(raw, "/")
		if bucket, err = url.PathUnescape(bucket); err != nil {
			return "", "", invalidURI()
		}
	}
	if key, err = url.PathUnescape(raw); err != nil {
		return "", "", invalidURI()
	}
	return bucket, key, nil
}

func invalidURI() error {
	return awserr.New("InvalidURI", "Couldn't parse the specified URI.").WithStatus(400)
}

// hostBucket is the bucket of a virtual-host style request, or "". Longer
// domains are tried first: "s3.localhost" is no bucket of "localhost".
func (h *handler) hostBucket(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	host = strings.ToLower(host)
	for _, d := range h.domains {
		if host == d {
			return ""
		}
		if b, ok := strings.CutSuffix(host, "."+d); ok {
			return b
		}
	}
	return ""
}
