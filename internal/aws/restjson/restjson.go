// Package restjson is the codec of the REST-JSON protocol (restJson1 in
// Smithy's specification): members travel in the path, the query string,
// headers, and a JSON or raw body.
package restjson

import (
	"bytes"
	"io"
	"net/http"
	"reflect"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/awsjson"
	"slipway/internal/aws/model"
	"slipway/internal/aws/rest"
)

// ContentType is that of every JSON document of the protocol.
const ContentType = "application/json"

// Decode fills dst, a pointer to the struct of svc.Shape(shape). The body
// was read whole; r.Body is not looked at. Errors are SerializationException.
func Decode(svc *model.Service, shape int, r *rest.Request, body []byte, dst any) error {
	v := reflect.ValueOf(dst).Elem()
	sh := svc.Shape(shape)
	hasBody, err := rest.Bind(svc, shape, r, v)
	if err != nil {
		return awserr.New("SerializationException", "The value of %s", err).WithStatus(http.StatusBadRequest)
	}
	if sh.Payload == 0 {
		if !hasBody {
			return nil // whatever was sent means nothing
		}
		return awsjson.DecodeBody(svc, shape, body, dst)
	}
	m, f := &sh.Members[sh.Payload-1], v.Field(sh.Payload-1)
	p := svc.Shape(m.Shape)
	switch p.Kind {
	case model.Stream:
		f.Set(reflect.ValueOf(io.NopCloser(bytes.NewReader(body))))
	case model.Blob:
		if len(body) > 0 {
			f.SetBytes(body)
		}
	case model.String:
		if len(body) > 0 {
			model.Alloc(f).SetString(string(body))
		}
	default:
		if len(bytes.TrimSpace(body)) == 0 {
			return nil // required or not: the validation says
		}
		return awsjson.Decode(svc, m.Shape, body, model.Alloc(f).Addr().Interface())
	}
	return nil
}

// Encode writes src, a pointer to the struct of svc.Shape(shape). An answer
// without members in its body is an empty object.
func Encode(svc *model.Service, shape int, src any) (*rest.Response, error) {
	res := &rest.Response{Header: http.Header{}, Length: -1}
	v, ok := model.Deref(reflect.ValueOf(src))
	if !ok {
		res.Document(ContentType, []byte("{}"))
		return res, nil
	}
	sh := svc.Shape(shape)
	rest.Write(svc, shape, v, res)
	if sh.Payload == 0 {
		body, err := awsjson.EncodeBody(svc, shape, src)
		res.Document(ContentType, body)
		return res, err
	}
	m, f := &sh.Members[sh.Payload-1], v.Field(sh.Payload-1)
	if rest.Payload(svc.Shape(m.Shape), f, res) {
		return res, nil
	}
	body, err := awsjson.Encode(svc, m.Shape, f.Interface())
	res.Document(ContentType, body)
	return res, err
}

// EncodeError writes an error's answer. Its code travels as a header,
// X-Amzn-Errortype; the body has the message under the name that the error's
// shape gives it, and its further members. Members that the shape puts into
// headers go there. shape is nil where the error has none.
func EncodeError(svc *model.Service, code, message string, shape *model.Shape, fields map[string]any) (*rest.Response, error) {
	res := &rest.Response{Header: http.Header{}, Length: -1}
	res.Header.Set("X-Amzn-Errortype", code)
	if shape != nil {
		for i := range shape.Members {
			m := &shape.Members[i]
			if v, ok := model.Deref(reflect.ValueOf(fields[m.Name])); ok && m.Where != model.Body {
				rest.WriteMember(svc, m, v, res)
			}
		}
	}
	body, err := awsjson.EncodeErrorBody(svc, message, shape, fields)
	res.Document(ContentType, body)
	return res, err
}
