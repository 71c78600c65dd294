// Package rest is what the two REST protocols, REST-XML and REST-JSON, have in
// common: members that travel in the path, the query string, headers and the
// status code. Packages restxml and restjson add the bodies and the errors.
package rest

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"slipway/internal/aws/model"
)

// Request is what of an HTTP request the protocols look at.
type Request struct {
	Labels map[string]string // path parameters, unescaped
	Query  url.Values
	Header http.Header
	// Body is the body, decoded of any transfer coding.
	Body io.ReadCloser
	// MaxBody bounds a body that is read whole (a document or a string).
	MaxBody int64
}

// Response is an answer ready to be written. Body or Stream is set, or none.
type Response struct {
	Status int // 0 where the output does not say
	Header http.Header
	Body   []byte
	Stream io.ReadCloser
	// Length of Stream in bytes, -1 where it is not known.
	Length int64
}

// BadValue says that the text of a member could not be read as its type. The
// protocols turn it into errors of their own.
type BadValue struct {
	Member string // its name on the wire
	Value  string
	Err    error
}

func (b *BadValue) Error() string { return b.Member + ": " + b.Err.Error() }

func (b *BadValue) Unwrap() error { return b.Err }

// Bind fills the members of dst, the struct of svc.Shape(shape), that do not
// travel in the body. hasBody says whether there are others. Errors are
// *BadValue.
func Bind(svc *model.Service, shape int, r *Request, dst reflect.Value) (hasBody bool, err error) {
	sh := svc.Shape(shape)
	for i := range sh.Members {
		m := &sh.Members[i]
		if m.Where == model.Body {
			hasBody = true
			continue
		}
		if err := bind(svc, sh, m, r, dst.Field(i)); err != nil {
			return hasBody, err
		}
	}
	return hasBody, nil
}

func bind(svc *model.Service, input *model.Shape, m *model.Member, r *Request, f reflect.Value) error {
	sh := svc.Shape(m.Shape)
	name := m.WireName()
	switch m.Where {
	case model.URI:
		if s, ok := r.Labels[name]; ok {
			return scalar(m, sh, f, s, model.ISO8601)
		}
	case model.QueryString:
		return bindQuery(svc, input, m, r, f)
	case model.Header:
		vals := r.Header.Values(name)
		if len(vals) == 0 {
			return nil
		}
		if sh.Kind == model.List {
			return bindHeaderList(svc, m, sh, vals, f)
		}
		if vals[0] == "" && sh.Kind != model.String {
			return nil
		}
		return scalar(m, sh, f, strings.Join(vals, ","), model.RFC822)
	case model.Headers:
		out := reflect.MakeMap(f.Type())
		for k, vals := range r.Header {
			if len(k) > len(name) && strings.EqualFold(k[:len(name)], name) {
				out.SetMapIndex(reflect.ValueOf(strings.ToLower(k[len(name):])), reflect.ValueOf(strings.Join(vals, ",")))
			}
		}
		if out.Len() > 0 {
			f.Set(out)
		}
	}
	return nil
}

func bindQuery(svc *model.Service, input *model.Shape, m *model.Member, r *Request, f reflect.Value) error {
	sh := svc.Shape(m.Shape)
	if sh.Kind == model.Map {
		return bindQueryMap(svc, input, m, sh, r, f)
	}
	vals, ok := r.Query[m.WireName()]
	if !ok {
		return nil
	}
	if sh.Kind == model.List {
		return bindList(svc, m, sh, vals, f)
	}
	if vals[0] == "" && sh.Kind != model.String {
		return nil
	}
	return scalar(m, sh, f, vals[0], model.ISO8601)
}

func bindList(svc *model.Service, m *model.Member, sh *model.Shape, vals []string, f reflect.Value) error {
	out := reflect.MakeSlice(f.Type(), len(vals), len(vals))
	for i, s := range vals {
		if err := scalar(m, svc.Shape(sh.Elem.Shape), out.Index(i), s, model.ISO8601); err != nil {
			return err
		}
	}
	f.Set(out)
	return nil
}

// bindQueryMap takes every parameter that no other member claims
// (httpQueryParams): text, or lists of it.
func bindQueryMap(svc *model.Service, input *model.Shape, m *model.Member, sh *model.Shape, r *Request, f reflect.Value) error {
	claimed := map[string]bool{}
	for i := range input.Members {
		if o := &input.Members[i]; o.Where == model.QueryString && svc.Shape(o.Shape).Kind != model.Map {
			claimed[o.WireName()] = true
		}
	}
	elem := svc.Shape(sh.Elem.Shape)
	out := reflect.MakeMap(f.Type())
	for k, vals := range r.Query {
		if claimed[k] {
			continue
		}
		e := reflect.New(f.Type().Elem()).Elem()
		var err error
		if elem.Kind == model.List {
			err = bindList(svc, m, elem, vals, e)
		} else {
			err = scalar(m, elem, e, vals[0], model.ISO8601)
		}
		if err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(k), e)
	}
	if out.Len() > 0 {
		f.Set(out)
	}
	return nil
}

func bindHeaderList(svc *model.Service, m *model.Member, sh *model.Shape, vals []string, f reflect.Value) error {
	elem := svc.Shape(sh.Elem.Shape)
	out := reflect.MakeSlice(f.Type(), 0, 0)
	for _, line := range vals {
		for part := range strings.SplitSeq(line, ",") {
			out = reflect.Append(out, reflect.Zero(f.Type().Elem()))
			if err := scalar(m, elem, out.Index(out.Len()-1), strings.TrimSpace(part), model.RFC822); err != nil {
				return err
			}
		}
	}
	f.Set(out)
	return nil
}

func scalar(m *model.Member, sh *model.Shape, f reflect.Value, s, timeFormat string) error {
	if sh.Kind == model.Blob {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return &BadValue{m.WireName(), s, err}
		}
		f.SetBytes(b)
		return nil
	}
	if err := model.SetText(f, sh.Kind, timeFormat, s); err != nil {
		return &BadValue{m.WireName(), s, err}
	}
	return nil
}

// Write puts the members of src, the struct of svc.Shape(shape), that do not
// travel in the body into res. hasBody says whether there are others.
func Write(svc *model.Service, shape int, src reflect.Value, res *Response) (hasBody bool) {
	sh := svc.Shape(shape)
	for i := range sh.Members {
		m := &sh.Members[i]
		f, ok := model.Deref(src.Field(i))
		if m.Where == model.Body {
			hasBody = true
			continue
		}
		if ok {
			WriteMember(svc, m, f, res)
		}
	}
	return hasBody
}

// WriteMember puts one member into res as its header, or as its status code.
func WriteMember(svc *model.Service, m *model.Member, f reflect.Value, res *Response) {
	sh := svc.Shape(m.Shape)
	switch m.Where {
	case model.StatusCode:
		res.Status = int(f.Int())
	case model.Headers:
		for _, k := range f.MapKeys() {
			// As AWS writes it: clients keep the letters of these names as they come.
			res.Header[strings.ToLower(m.WireName()+k.String())] = []string{clean(f.MapIndex(k).String())}
		}
	case model.Header:
		name := m.WireName()
		if sh.Kind == model.List {
			var parts []string
			for i := range f.Len() {
				parts = append(parts, model.Text(f.Index(i), svc.Shape(sh.Elem.Shape).Kind, model.RFC822))
			}
			res.Header.Set(name, clean(strings.Join(parts, ", ")))
			return
		}
		format := m.Time
		if format == "" {
			format = sh.Time
		}
		if format == "" {
			format = model.RFC822
		}
		s := clean(model.Text(f, sh.Kind, format))
		if strings.EqualFold(name, "Content-Length") {
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				res.Length = n
			}
		}
		res.Header.Set(name, s)
	}
}

// clean keeps a stored value from ending its header line.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, s)
}

// Payload writes a payload member that is not a structure: a stream, bytes,
// or text. done is false where the protocol's own document is to be written.
func Payload(sh *model.Shape, field reflect.Value, res *Response) (done bool) {
	if sh.Kind == model.Stream {
		if rc, ok := field.Interface().(io.ReadCloser); ok && rc != nil {
			res.Stream = rc
			defaultType(res, "binary/octet-stream")
		}
		return true
	}
	f, ok := model.Deref(field)
	if !ok {
		return true
	}
	switch sh.Kind {
	case model.Blob:
		res.Body = f.Bytes()
		return true
	case model.String:
		res.Body = []byte(f.String())
		return true
	}
	return false
}

func defaultType(res *Response, t string) {
	if res.Header.Get("Content-Type") == "" {
		res.Header.Set("Content-Type", t)
	}
}

// Document makes body the answer, of the type given unless a member said
// otherwise.
func (res *Response) Document(contentType string, body []byte) {
	res.Body = body
	defaultType(res, contentType)
}

// Match says whether a path, escaped as the client sent it, is one of the
// route's, and what its labels are, unescaped. A label takes one segment,
// a greedy one ({Key+}) at the end all that is left. literals counts the
// segments that had to be as they are: between two routes that match, the
// one with more is meant.
func Match(template, path string) (labels map[string]string, literals int, ok bool) {
	labels = map[string]string{}
	want := strings.Split(strings.Trim(template, "/"), "/")
	have := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if n := len(have); n > 1 && have[n-1] == "" && len(want) < n { // a slash at the end means nothing
		have = have[:n-1]
	}
	for i, w := range want {
		if i >= len(have) {
			return nil, 0, false
		}
		name, label := strings.CutPrefix(w, "{")
		if !label {
			if w != have[i] {
				return nil, 0, false
			}
			literals++
			continue
		}
		name = strings.TrimSuffix(name, "}")
		raw := have[i]
		greedy, isGreedy := strings.CutSuffix(name, "+")
		if isGreedy {
			name, raw = greedy, strings.Join(have[i:], "/")
		}
		value, err := url.PathUnescape(raw)
		if err != nil || value == "" {
			return nil, 0, false
		}
		labels[name] = value
		if isGreedy {
			return labels, literals, true
		}
	}
	return labels, literals, len(have) == len(want)
}
