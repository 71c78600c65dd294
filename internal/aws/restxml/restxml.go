// Package restxml is the codec of the REST-XML protocol (S3): members travel
// in the path, the query string, headers, and an XML or raw body.
package restxml

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
	"slipway/internal/aws/rest"
	"slipway/internal/aws/xmlbody"
)

// Request is what of an HTTP request the protocol looks at.
type Request = rest.Request

// Response is an answer ready to be written.
type Response = rest.Response

// Decode fills dst, a pointer to the struct of svc.Shape(shape). Errors are
// MalformedXML for bodies and InvalidArgument for all else. A streaming
// body is handed on unread.
func Decode(svc *model.Service, shape int, r *Request, dst any) error {
	v := reflect.ValueOf(dst).Elem()
	sh := svc.Shape(shape)
	hasBody, err := rest.Bind(svc, shape, r, v)
	if err != nil {
		return invalid(err)
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

func invalid(err error) error {
	var bad *rest.BadValue
	if !errors.As(err, &bad) {
		return err
	}
	return awserr.New("InvalidArgument", "Provided %s is not valid: %s", bad.Member, bad.Err).
		WithStatus(400).WithField("ArgumentName", bad.Member).WithField("ArgumentValue", bad.Value)
}

func payload(svc *model.Service, m *model.Member, r *Request, f reflect.Value) error {
	sh := svc.Shape(m.Shape)
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

// Encode writes src, a pointer to the struct of svc.Shape(shape).
func Encode(svc *model.Service, shape int, src any) (*Response, error) {
	res := &Response{Header: http.Header{}, Length: -1}
	v, ok := model.Deref(reflect.ValueOf(src))
	if !ok {
		return res, nil
	}
	sh := svc.Shape(shape)
	hasBody := rest.Write(svc, shape, v, res)
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
	res.Document("application/xml", b)
	return err
}

func encodePayload(svc *model.Service, m *model.Member, field reflect.Value, res *Response) error {
	sh := svc.Shape(m.Shape)
	if rest.Payload(sh, field, res) {
		return nil
	}
	f, _ := model.Deref(field) // there is one: see rest.Payload
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
