package awsjson

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"time"
	"unicode/utf8"

	"slipway/internal/aws/model"
)

// Encode writes src, a pointer to the generated struct of svc.Shape(shape),
// as a JSON object. Unset members are left out, empty lists are written.
func Encode(svc *model.Service, shape int, src any) ([]byte, error) {
	v, ok := model.Deref(reflect.ValueOf(src))
	if !ok {
		return []byte("{}"), nil
	}
	return appendValue(nil, svc, shape, "", v)
}

// EncodeBody is Encode for the REST protocols: members that travel elsewhere
// are left out.
func EncodeBody(svc *model.Service, shape int, src any) ([]byte, error) {
	v, ok := model.Deref(reflect.ValueOf(src))
	if !ok {
		return []byte("{}"), nil
	}
	return appendMembers(nil, svc, svc.Shape(shape), v, true)
}

// EncodeError writes an error body. fields are the error's further members,
// by name; shape is the error's schema, nil where it has none.
func EncodeError(svc *model.Service, typ, message string, shape *model.Shape, fields map[string]any) ([]byte, error) {
	return appendError(append([]byte(`{"__type":`), append(quote(typ), ',')...), svc, message, shape, fields)
}

// EncodeErrorBody is EncodeError for the REST protocols: the code is not in
// the body, nor are members that travel elsewhere.
func EncodeErrorBody(svc *model.Service, message string, shape *model.Shape, fields map[string]any) ([]byte, error) {
	return appendError([]byte{'{'}, svc, message, shape, fields)
}

// appendError ends an object that has begun with the message and the members.
// Only REST services place members of errors elsewhere than in the body.
func appendError(b []byte, svc *model.Service, message string, shape *model.Shape, fields map[string]any) ([]byte, error) {
	key := "message"
	if shape != nil {
		for _, m := range shape.Members {
			if m.WireName() == "Message" {
				key = "Message"
			}
		}
	}
	b = append(b, quote(key)...)
	b = append(append(b, ':'), quote(message)...)
	if shape != nil {
		for _, m := range shape.Members {
			v, ok := model.Deref(reflect.ValueOf(fields[m.Name]))
			if !ok || m.WireName() == key || m.Where != model.Body {
				continue
			}
			b = append(append(append(b, ','), quote(m.WireName())...), ':')
			var err error
			if b, err = appendValue(b, svc, m.Shape, m.Time, v); err != nil {
				return nil, err
			}
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, svc *model.Service, shape int, timeFormat string, v reflect.Value) ([]byte, error) {
	sh := svc.Shape(shape)
	switch sh.Kind {
	case model.Structure:
		return appendMembers(b, svc, sh, v, false)
	case model.List:
		return appendList(b, svc, sh, v)
	case model.Map:
		return appendMap(b, svc, sh, v)
	case model.String:
		if v.Kind() == reflect.String {
			return appendQuoted(b, v.String()), nil
		}
	case model.Integer:
		if v.CanInt() {
			return strconv.AppendInt(b, v.Int(), 10), nil
		}
	case model.Float:
		if v.CanFloat() {
			return appendFloat(b, v.Float()), nil
		}
	case model.Boolean:
		if v.Kind() == reflect.Bool {
			return strconv.AppendBool(b, v.Bool()), nil
		}
	case model.Timestamp:
		if timeFormat == "" {
			timeFormat = sh.Time
		}
		if t, ok := v.Interface().(time.Time); ok {
			if timeFormat == "" || timeFormat == model.Unix {
				return append(b, model.UnixText(t)...), nil
			}
			return appendQuoted(b, model.FormatTime(timeFormat, t)), nil
		}
	case model.Blob:
		if raw, ok := v.Interface().([]byte); ok {
			b = append(b, '"')
			b = base64.StdEncoding.AppendEncode(b, raw)
			return append(b, '"'), nil
		}
	}
	return nil, fmt.Errorf("awsjson: %s does not fit the shape %s", v.Type(), sh.Name)
}

// appendMembers writes a structure, or what of it belongs into a REST body.
func appendMembers(b []byte, svc *model.Service, sh *model.Shape, v reflect.Value, bodyOnly bool) ([]byte, error) {
	if v.Kind() != reflect.Struct {
		return nil, fmt.Errorf("awsjson: %s does not fit the shape %s", v.Type(), sh.Name)
	}
	b = append(b, '{')
	first := true
	for i := range sh.Members {
		m := &sh.Members[i]
		f, ok := model.Deref(v.Field(i))
		if !ok || bodyOnly && m.Where != model.Body {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendQuoted(b, m.WireName()), ':')
		var err error
		if b, err = appendValue(b, svc, m.Shape, m.Time, f); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendList(b []byte, svc *model.Service, sh *model.Shape, v reflect.Value) ([]byte, error) {
	if v.Kind() != reflect.Slice {
		return nil, fmt.Errorf("awsjson: %s does not fit the shape %s", v.Type(), sh.Name)
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendElem(b, svc, sh.Elem.Shape, v.Index(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// appendElem writes an element; a nil list inside a list is an empty one.
func appendElem(b []byte, svc *model.Service, shape int, v reflect.Value) ([]byte, error) {
	e, ok := model.Deref(v)
	if !ok {
		switch svc.Shape(shape).Kind {
		case model.List:
			return append(b, "[]"...), nil
		case model.Map:
			return append(b, "{}"...), nil
		case model.Blob:
			return append(b, `""`...), nil
		}
		return append(b, "null"...), nil
	}
	return appendValue(b, svc, shape, "", e)
}

func appendMap(b []byte, svc *model.Service, sh *model.Shape, v reflect.Value) ([]byte, error) {
	if v.Kind() != reflect.Map {
		return nil, fmt.Errorf("awsjson: %s does not fit the shape %s", v.Type(), sh.Name)
	}
	keys := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		keys = append(keys, k.String())
	}
	sort.Strings(keys) // the same answer twice is the same bytes
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendQuoted(b, k), ':')
		var err error
		if b, err = appendElem(b, svc, sh.Elem.Shape, v.MapIndex(reflect.ValueOf(k))); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return appendQuoted(b, model.FormatFloat(f))
	}
	return append(b, model.FormatFloat(f)...)
}

func quote(s string) []byte { return appendQuoted(nil, s) }

func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
