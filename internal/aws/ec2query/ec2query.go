// Package ec2query is the codec of EC2's own dialect of the query protocol:
// names begin with a capital, lists are always flat, answers have no wrapper.
package ec2query

import (
	"encoding/base64"
	"reflect"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/awsquery"
	"slipway/internal/aws/model"
	"slipway/internal/aws/xmlbody"
)

// Decode fills dst, a pointer to the struct of svc.Shape(shape), from f.
// Unknown parameters are ignored; errors are InvalidParameterValue.
func Decode(svc *model.Service, shape int, f *awsquery.Form, dst any) error {
	return structure(svc, shape, f, reflect.ValueOf(dst).Elem())
}

// Name is the member's name in requests.
func Name(m *model.Member) string {
	if m.QueryName != "" {
		return m.QueryName
	}
	n := m.WireName()
	return strings.ToUpper(n[:1]) + n[1:]
}

func structure(svc *model.Service, shape int, f *awsquery.Form, v reflect.Value) error {
	sh := svc.Shape(shape)
	for i := range sh.Members {
		m := &sh.Members[i]
		if c := f.Child(Name(m)); c != nil {
			if err := value(svc, m, m.Shape, c, v.Field(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func value(svc *model.Service, m *model.Member, shape int, f *awsquery.Form, v reflect.Value) error {
	sh := svc.Shape(shape)
	switch sh.Kind {
	case model.Structure:
		return structure(svc, shape, f, model.Alloc(v))
	case model.List:
		items := f.Items()
		out := reflect.MakeSlice(v.Type(), len(items), len(items))
		for i, c := range items {
			if err := value(svc, m, sh.Elem.Shape, c, out.Index(i)); err != nil {
				return err
			}
		}
		if len(items) > 0 || f.IsSet() {
			v.Set(out)
		}
		return nil
	case model.Blob:
		b, err := base64.StdEncoding.DecodeString(f.Value)
		if err != nil {
			return awserr.New("InvalidParameterValue", "Value for parameter %s is not base64", Name(m))
		}
		v.SetBytes(b)
		return nil
	case model.Map:
		return awserr.New("InvalidParameterValue", "Parameter %s cannot be read", Name(m))
	}
	if f.Value == "" && sh.Kind != model.String {
		return nil
	}
	if err := model.SetText(v, sh.Kind, m.Time, f.Value); err != nil {
		return awserr.New("InvalidParameterValue", "Value (%s) for parameter %s is invalid. %s", f.Value, Name(m), sentence(err))
	}
	return nil
}

func sentence(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// Encode writes the answer to operation op.
func Encode(svc *model.Service, op string, shape int, src any, requestID string) ([]byte, error) {
	w := &xmlbody.Writer{Service: svc}
	ns := strings.TrimSuffix(svc.XMLNamespace, "/") + "/"
	w.Raw(xmlbody.Header + "<" + op + `Response xmlns="` + ns + `">`)
	w.Element("requestId", requestID)
	if v, ok := model.Deref(reflect.ValueOf(src)); ok {
		w.Members(shape, v)
	}
	w.Raw("</" + op + "Response>")
	return w.Bytes()
}

// EncodeError writes an error's body.
func EncodeError(code, message, requestID string) []byte {
	w := &xmlbody.Writer{}
	w.Raw(xmlbody.Header + "<Response><Errors><Error>")
	w.Element("Code", code)
	w.Element("Message", message)
	w.Raw("</Error></Errors>")
	w.Element("RequestID", requestID)
	w.Raw("</Response>")
	b, _ := w.Bytes() // only schema misfits fail, and there is no schema here
	return b
}
