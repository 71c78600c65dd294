package awsquery

import (
	"reflect"

	"slipway/internal/aws/model"
	"slipway/internal/aws/xmlbody"
)

// Encode writes the answer to operation op. wrapper is the result's element,
// "" where the operation has none.
func Encode(svc *model.Service, op, wrapper string, shape int, src any, requestID string) ([]byte, error) {
	w := &xmlbody.Writer{Service: svc}
	w.Raw("<" + op + `Response xmlns="` + svc.XMLNamespace + `">`)
	if wrapper != "" {
		w.Raw("<" + wrapper + ">")
	}
	if v, ok := model.Deref(reflect.ValueOf(src)); ok {
		members(w, svc, shape, v)
	}
	if wrapper != "" {
		w.Raw("</" + wrapper + ">")
	}
	w.Raw("<ResponseMetadata>")
	w.Element("RequestId", requestID)
	w.Raw("</ResponseMetadata></" + op + "Response>")
	return w.Bytes()
}

// members writes a result. Lists that have nothing are written as empty
// elements, as AWS does: clients such as boto3 leave out what they do not see,
// and programs that walk the list then fail. Lists further inside are left
// out when they are nil, for there the absence has a meaning.
func members(w *xmlbody.Writer, svc *model.Service, shape int, v reflect.Value) {
	sh := svc.Shape(shape)
	if v.Kind() != reflect.Struct {
		w.Members(shape, v)
		return
	}
	for i := range sh.Members {
		m := &sh.Members[i]
		f, ok := model.Deref(v.Field(i))
		switch {
		case m.Where != model.Body || m.Attr:
		case ok:
			w.Member(m, f)
		case svc.Shape(m.Shape).Kind == model.List && !m.Flat && !svc.Shape(m.Shape).Flat:
			w.Element(m.WireName(), "")
		}
	}
}

// EncodeError writes an error's body.
func EncodeError(svc *model.Service, code, message string, sender bool, shape *model.Shape, fields map[string]any, requestID string) ([]byte, error) {
	w := &xmlbody.Writer{Service: svc}
	typ := "Receiver"
	if sender {
		typ = "Sender"
	}
	w.Raw(`<ErrorResponse xmlns="` + svc.XMLNamespace + `"><Error>`)
	w.Element("Type", typ)
	w.Element("Code", code)
	w.Element("Message", message)
	if shape != nil {
		for i := range shape.Members {
			m := &shape.Members[i]
			if v, ok := model.Deref(reflect.ValueOf(fields[m.Name])); ok {
				w.Member(m, v)
			}
		}
	}
	w.Raw("</Error>")
	w.Element("RequestId", requestID)
	w.Raw("</ErrorResponse>")
	return w.Bytes()
}
