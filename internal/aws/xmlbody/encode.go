// Package xmlbody reads and writes XML after a service's schema: the part
// that the REST-XML, query and EC2 protocols share.
package xmlbody

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"sort"
	"unicode/utf8"

	"slipway/internal/aws/model"
)

// Header begins every XML answer.
const Header = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// Writer builds an XML document. Errors stick and come out of Bytes.
type Writer struct {
	Service *model.Service
	b       []byte
	err     error
}

// Bytes returns what was written, or the first error.
func (w *Writer) Bytes() ([]byte, error) { return w.b, w.err }

// Raw adds markup as it is.
func (w *Writer) Raw(markup string) { w.b = append(w.b, markup...) }

// Text adds escaped character data.
func (w *Writer) Text(s string) { w.b = AppendEscaped(w.b, s) }

// Element adds <name>text</name>.
func (w *Writer) Element(name, text string) {
	w.open(name, "")
	w.Text(text)
	w.close(name)
}

func (w *Writer) open(name, attrs string) {
	w.b = append(append(append(w.b, '<'), name...), attrs...)
	w.b = append(w.b, '>')
}

func (w *Writer) close(name string) {
	w.b = append(append(append(w.b, "</"...), name...), '>')
}

// Members writes the body members of a structure as child elements.
func (w *Writer) Members(shape int, v reflect.Value) {
	sh := w.Service.Shape(shape)
	if v.Kind() != reflect.Struct {
		w.misfit(v, sh)
		return
	}
	for i := range sh.Members {
		m := &sh.Members[i]
		if m.Where != model.Body || m.Attr {
			continue
		}
		if f, ok := model.Deref(v.Field(i)); ok {
			w.Member(m, f)
		}
	}
}

// Member writes one member that has a value.
func (w *Writer) Member(m *model.Member, v reflect.Value) {
	sh := w.Service.Shape(m.Shape)
	name := m.WireName()
	if name == "." { // the text of the element itself
		w.Text(model.Text(v, sh.Kind, ""))
		return
	}
	flat := m.Flat || sh.Flat
	switch {
	case sh.Kind == model.List && flat:
		if sh.Elem.Name != "" {
			name = sh.Elem.Name
		}
		w.list(sh, name, v)
	case sh.Kind == model.Map && flat:
		w.mapping(sh, name, v)
	default:
		w.Value(m.Shape, name, namespace(m), m.Time, v)
	}
}

func namespace(m *model.Member) string {
	switch {
	case m.XMLNS == "":
		return ""
	case m.XMLPrefix != "":
		return ` xmlns:` + m.XMLPrefix + `="` + m.XMLNS + `"`
	}
	return ` xmlns="` + m.XMLNS + `"`
}

// Value writes an element of any shape; attrs go into its start tag.
func (w *Writer) Value(shape int, name, attrs, timeFormat string, v reflect.Value) {
	sh := w.Service.Shape(shape)
	if sh.Kind == model.Structure {
		if sh.XMLPrefix != "" {
			attrs += ` xmlns:` + sh.XMLPrefix + `="` + sh.XMLNS + `"`
		}
		attrs += w.attributes(sh, v)
	}
	w.open(name, attrs)
	switch sh.Kind {
	case model.Structure:
		w.Members(shape, v)
	case model.List:
		elem := sh.Elem.Name
		if elem == "" {
			elem = "member"
		}
		w.list(sh, elem, v)
	case model.Map:
		w.mapping(sh, "entry", v)
	case model.Blob:
		if raw, ok := v.Interface().([]byte); ok {
			w.b = base64.StdEncoding.AppendEncode(w.b, raw)
		}
	default:
		if timeFormat == "" {
			timeFormat = sh.Time
		}
		if timeFormat == "" {
			timeFormat = w.Service.TimeFormat
		}
		w.Text(model.Text(v, sh.Kind, timeFormat))
	}
	w.close(name)
}

func (w *Writer) attributes(sh *model.Shape, v reflect.Value) string {
	var out []byte
	for i := range sh.Members {
		m := &sh.Members[i]
		if !m.Attr {
			continue
		}
		if f, ok := model.Deref(v.Field(i)); ok {
			out = append(append(append(out, ' '), m.WireName()...), `="`...)
			out = append(AppendEscaped(out, model.Text(f, w.Service.Shape(m.Shape).Kind, "")), '"')
		}
	}
	return string(out)
}

func (w *Writer) list(sh *model.Shape, name string, v reflect.Value) {
	if v.Kind() != reflect.Slice {
		w.misfit(v, sh)
		return
	}
	for i := range v.Len() {
		e, ok := model.Deref(v.Index(i))
		if !ok {
			w.open(name, "")
			w.close(name)
			continue
		}
		w.Value(sh.Elem.Shape, name, "", "", e)
	}
}

func (w *Writer) mapping(sh *model.Shape, name string, v reflect.Value) {
	if v.Kind() != reflect.Map {
		w.misfit(v, sh)
		return
	}
	key, value := sh.Key.Name, sh.Elem.Name
	if key == "" {
		key = "key"
	}
	if value == "" {
		value = "value"
	}
	keys := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		keys = append(keys, k.String())
	}
	sort.Strings(keys)
	for _, k := range keys {
		w.open(name, "")
		w.Element(key, k)
		if e, ok := model.Deref(v.MapIndex(reflect.ValueOf(k))); ok {
			w.Value(sh.Elem.Shape, value, "", "", e)
		}
		w.close(name)
	}
}

func (w *Writer) misfit(v reflect.Value, sh *model.Shape) {
	if w.err == nil {
		w.err = fmt.Errorf("xmlbody: %s does not fit the shape %s", v.Type(), sh.Name)
	}
}

// AppendEscaped appends s with XML's special characters escaped. What XML 1.0
// cannot hold becomes U+FFFD: parsers refuse a whole document for one such byte.
func AppendEscaped(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		esc := ""
		switch {
		case r == '&':
			esc = "&amp;"
		case r == '<':
			esc = "&lt;"
		case r == '>':
			esc = "&gt;"
		case r == '"':
			esc = "&quot;"
		case r == '\r':
			esc = "&#13;"
		case r < 0x20 && r != '\n' && r != '\t', r == 0xFFFE, r == 0xFFFF, r == utf8.RuneError && n == 1:
			esc = "\uFFFD"
		}
		if esc != "" {
			b = append(append(b, s[start:i]...), esc...)
			start = i + n
		}
		i += n
	}
	return append(b, s[start:]...)
}
