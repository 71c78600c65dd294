// Package restxml is the codec of the REST-XML protocol (S3): members travel
// in the path, the query string, headers, and an XML or raw body.
package restxml

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
	"slipway/internal/aws/xmlbody"
)

// Request is what of an HTTP request the protocol looks at.
type Request struct {
	Labels map[string]string // path parameters, unescaped
	Query  url.Values
	Header http.Header
	// Body is the body, decoded of any transfer coding.
	Body io.ReadCloser
	// MaxBody bounds a body that is read whole (an XML document or a string).
	MaxBody int64
}

// Decode fills dst, a pointer to the struct of svc.Shapes[shape]. Errors are
// MalformedXML for bodies and InvalidArgument for all else. A streaming
// body is handed on unread.
func Decode(svc *model.Service, shape int, r *Request, dst any) error {
	v := reflect.ValueOf(dst).Elem()
	sh := &svc.Shapes[shape]
	hasBody := false
	for i := range sh.Members {
		m := &sh.Members[i]
		if m.Where == model.Body {
			hasBody = true
			continue
		}
		if err := bind(svc, m, r, v.Field(i)); err != nil {
			return err
		}
	}
	if sh.Payload > 0 {
		m := &sh.Members[sh.Payload-1]
		return payload(svc, m, r, v.Field(sh.Payload-1))
	}
	if hasBody {
		return document(svc, shape, r, v)
	}
	return nil
}

func bind(svc *model.Service, m *model.Member, r *Request, f reflect.Value) error {
	sh := &svc.Shapes[m.Shape]
	name := m.WireName()
	switch m.Where {
	case model.URI:
		if s, ok := r.Labels[m.WireName()]; ok {
			return scalar(m, sh, f, s, model.ISO8601)
		}
	case model.QueryString:
		return bindQuery(svc, m, r, f)
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

func bindQuery(svc *model.Service, m *model.Member, r *Request, f reflect.Value) error {
	sh := &svc.Shapes[m.Shape]
	vals, ok := r.Query[m.WireName()]
	if !ok {
		return nil
	}
	if sh.Kind == model.List {
		out := reflect.MakeSlice(f.Type(), len(vals), len(vals))
		for i, s := range vals {
			if err := scalar(m, &svc.Shapes[sh.Elem.Shape], out.Index(i), s, model.ISO8601); err != nil {
				return err
			}
		}
		f.Set(out)
		return nil
	}
	if vals[0] == "" && sh.Kind != model.String {
		return nil
	}
	return scalar(m, sh, f, vals[0], model.ISO8601)
}

func bindHeaderList(svc *model.Service, m *model.Member, sh *model.Shape, vals []string, f reflect.Value) error {
	elem := &svc.Shapes[sh.Elem.Shape]
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
			return invalid(m, s, err)
		}
		f.SetBytes(b)
		return nil
	}
	if err := model.SetText(f, sh.Kind, timeFormat, s); err != nil {
		return invalid(m, s, err)
	}
	return nil
}

func invalid(m *model.Member, s string, err error) error {
	return awserr.New("InvalidArgument", "Provided %s is not valid: %s", m.WireName(), err).
		WithStatus(400).WithField("ArgumentName", m.WireName()).WithField("ArgumentValue", s)
}

func payload(svc *model.Service, m *model.Member, r *Request, f reflect.Value) error {
	sh := &svc.Shapes[m.Shape]
	if sh.Kind == model.Stream {
		f.Set(reflect.ValueOf(r.Body))
		return nil
	}
	body, err := readAll(r)
	if err != nil {
		return err
	}
	switch sh.Kind {
	case model.Blob:
		f.SetBytes(body)
		return nil
	case model.String:
		model.Alloc(f).SetString(string(body))
		return nil
	}
	if len(body) == 0 {
		return nil // required or not: the validation says
	}
	n, err := xmlbody.Parse(body)
	if err != nil {
		return malformed(err)
	}
	want := m.WireName()
	if n.Name != want && n.Name != sh.XMLName && n.Name != sh.Name {
		return malformed(fmt.Errorf("the root element is %s, not %s", n.Name, want))
	}
	if err := xmlbody.Decode(svc, m.Shape, n, model.Alloc(f)); err != nil {
		return malformed(err)
	}
	return nil
}

func document(svc *model.Service, shape int, r *Request, v reflect.Value) error {
	body, err := readAll(r)
	if err != nil || len(body) == 0 {
		return err
	}
	n, err := xmlbody.Parse(body)
	if err != nil {
		return malformed(err)
	}
	if err := xmlbody.Decode(svc, shape, n, v); err != nil {
		return malformed(err)
	}
	return nil
}

func malformed(err error) error {
	return awserr.New("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema").
		WithStatus(400).WithCause(err)
}

func readAll(r *Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, r.MaxBody+1))
	if err != nil {
		var ae *awserr.Error
		if errors.As(err, &ae) {
			return nil, ae
		}
		return nil, awserr.New("IncompleteBody", "The request body could not be read to its end.").WithStatus(400).WithCause(err)
	}
	if int64(len(body)) > r.MaxBody {
		return nil, awserr.New("MaxMessageLengthExceeded", "Your request was too big: the limit is %d bytes.", r.MaxBody).WithStatus(400)
	}
	return body, nil
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

// Encode writes src, a pointer to the struct of svc.Shapes[shape].
func Encode(svc *model.Service, shape int, src any) (*Response, error) {
	res := &Response{Header: http.Header{}, Length: -1}
	v, ok := model.Deref(reflect.ValueOf(src))
	if !ok {
		return res, nil
	}
	sh := &svc.Shapes[shape]
	hasBody := false
	for i := range sh.Members {
		m := &sh.Members[i]
		f, ok := model.Deref(v.Field(i))
		if m.Where == model.Body {
			hasBody = true
			continue
		}
		if ok {
			header(svc, m, f, res)
		}
	}
	if sh.Payload > 0 {
		return res, encodePayload(svc, &sh.Members[sh.Payload-1], v.Field(sh.Payload-1), res)
	}
	if hasBody {
		root := sh.XMLName
		if root == "" {
			root = strings.TrimSuffix(sh.Name, "Output") + "Result"
		}
		w := &xmlbody.Writer{Service: svc}
		w.Raw(xmlbody.Header + "<" + root + ` xmlns="` + namespace(svc, sh) + `">`)
		w.Members(shape, v)
		w.Raw("</" + root + ">")
		return res, finish(res, w)
	}
	return res, nil
}

// S3's documents are all in this namespace, though the model names it only
// where a client must write it.
func namespace(svc *model.Service, sh *model.Shape) string {
	if sh.XMLNS != "" && sh.XMLPrefix == "" {
		return sh.XMLNS
	}
	if svc.XMLNamespace != "" {
		return svc.XMLNamespace
	}
	return "http://s3.amazonaws.com/doc/2006-03-01/"
}

func finish(res *Response, w *xmlbody.Writer) error {
	b, err := w.Bytes()
	res.Body = b
	if res.Header.Get("Content-Type") == "" {
		res.Header.Set("Content-Type", "application/xml")
	}
	return err
}

func header(svc *model.Service, m *model.Member, f reflect.Value, res *Response) {
	sh := &svc.Shapes[m.Shape]
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
				parts = append(parts, model.Text(f.Index(i), svc.Shapes[sh.Elem.Shape].Kind, model.RFC822))
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

func encodePayload(svc *model.Service, m *model.Member, field reflect.Value, res *Response) error {
	sh := &svc.Shapes[m.Shape]
	if sh.Kind == model.Stream {
		if rc, ok := field.Interface().(io.ReadCloser); ok && rc != nil {
			res.Stream = rc
			if res.Header.Get("Content-Type") == "" {
				res.Header.Set("Content-Type", "binary/octet-stream")
			}
		}
		return nil
	}
	f, ok := model.Deref(field)
	if !ok {
		return nil
	}
	switch sh.Kind {
	case model.Blob:
		res.Body = f.Bytes()
		return nil
	case model.String:
		res.Body = []byte(f.String())
		return nil
	}
	name := sh.XMLName
	if name == "" {
		name = m.WireName()
	}
	w := &xmlbody.Writer{Service: svc}
	w.Raw(xmlbody.Header)
	w.Value(m.Shape, name, ` xmlns="`+namespace(svc, sh)+`"`, "", f)
	return finish(res, w)
}

// EncodeError writes S3's error body: further fields (Key, BucketName,
// ArgumentName...) come as elements of their own, sorted by the caller's map.
func EncodeError(code, message string, fields [][2]string, requestID, hostID string) []byte {
	w := &xmlbody.Writer{}
	w.Raw(xmlbody.Header + "<Error>")
	w.Element("Code", code)
	w.Element("Message", message)
	for _, f := range fields {
		w.Element(f[0], f[1])
	}
	w.Element("RequestId", requestID)
	w.Element("HostId", hostID)
	w.Raw("</Error>")
	b, _ := w.Bytes() // no schema, no misfit
	return b
}
