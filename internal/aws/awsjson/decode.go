// Package awsjson is the body codec of AWS's JSON protocols, 1.0 and 1.1: it
// reads into and writes from generated structs, led by the service's schema.
package awsjson

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
)

// Decode reads body, a JSON object, into dst, a pointer to the generated
// struct of svc.Shape(shape). Unknown members are skipped. Errors are
// SerializationException, as AWS answers.
func Decode(svc *model.Service, shape int, body []byte, dst any) error {
	return decode(&decoder{svc: svc, b: body}, shape, dst)
}

// DecodeBody is Decode for the REST protocols: members that travel elsewhere
// are skipped where the body names them.
func DecodeBody(svc *model.Service, shape int, body []byte, dst any) error {
	return decode(&decoder{svc: svc, b: body, bodyOnly: true}, shape, dst)
}

func decode(d *decoder, shape int, dst any) error {
	d.space()
	if d.i == len(d.b) {
		return nil // AWS reads an empty body as {}
	}
	if d.peek() != '{' {
		return d.fail("Start of structure or map expected")
	}
	if err := d.structure(shape, reflect.ValueOf(dst).Elem()); err != nil {
		return err
	}
	if d.space(); d.i != len(d.b) {
		return d.fail("data after the end of the JSON object")
	}
	return nil
}

type decoder struct {
	svc   *model.Service
	b     []byte
	i     int
	depth int
	path  []string
	// bodyOnly skips members of the outermost structure that belong elsewhere.
	bodyOnly bool
}

func (d *decoder) fail(format string, args ...any) error {
	msg := fmt.Sprintf(format, args...)
	if len(d.path) > 0 {
		msg += " (member " + strings.Join(d.path, ".") + ")"
	}
	return awserr.New("SerializationException", "%s", msg)
}

func (d *decoder) space() {
	for d.i < len(d.b) {
		switch d.b[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

// peek returns the next byte after white space, 0 at the end.
func (d *decoder) peek() byte {
	d.space()
	if d.i < len(d.b) {
		return d.b[d.i]
	}
	return 0
}

func (d *decoder) enter() error {
	if d.depth++; d.depth > model.MaxDepth {
		return d.fail("the request nests deeper than %d levels", model.MaxDepth)
	}
	return nil
}

// object walks the members of an object, calling f at each value.
func (d *decoder) object(f func(key string) error) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer func() { d.depth-- }()
	d.i++ // '{'
	if d.peek() == '}' {
		d.i++
		return nil
	}
	for {
		if d.peek() != '"' {
			return d.fail("a member's name was expected at byte %d", d.i)
		}
		key, err := d.str()
		if err != nil {
			return err
		}
		if d.peek() != ':' {
			return d.fail("':' was expected at byte %d", d.i)
		}
		d.i++
		if d.peek() == 'n' {
			if err := d.literal("null"); err != nil {
				return err
			}
		} else if err := f(key); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.i++
		case '}':
			d.i++
			return nil
		default:
			return d.fail("',' or '}' was expected at byte %d", d.i)
		}
	}
}

func (d *decoder) structure(shape int, v reflect.Value) error {
	sh := d.svc.Shape(shape)
	next := 0 // clients mostly write members in order
	return d.object(func(key string) error {
		n := find(sh, key, next)
		if n < 0 || d.bodyOnly && d.depth == 1 && sh.Members[n].Where != model.Body {
			return d.skip()
		}
		next = n + 1
		m := &sh.Members[n]
		d.path = append(d.path, m.Name)
		err := d.value(m.Shape, m.Time, v.Field(n))
		d.path = d.path[:len(d.path)-1]
		return err
	})
}

// find looks for a member by its JSON name, beginning at a hint.
func find(sh *model.Shape, key string, hint int) int {
	n := len(sh.Members)
	for k := range n {
		i := hint + k
		if i >= n {
			i -= n
		}
		if sh.Members[i].WireName() == key {
			return i
		}
	}
	return -1
}

func (d *decoder) value(shape int, timeFormat string, v reflect.Value) error {
	sh := d.svc.Shape(shape)
	c := d.peek()
	switch sh.Kind {
	case model.Structure:
		if c != '{' {
			return d.mismatch(c, "Expected null")
		}
		return d.structure(shape, model.Alloc(v))
	case model.List:
		if c != '[' {
			return d.mismatch(c, "Expected list or null")
		}
		return d.list(sh, v)
	case model.Map:
		if c != '{' {
			return d.mismatch(c, "Expected map or null")
		}
		return d.mapping(sh, v)
	case model.String:
		if c != '"' {
			return d.mismatch(c, "String")
		}
		s, err := d.str()
		if err == nil {
			model.Alloc(v).SetString(s)
		}
		return err
	case model.Blob:
		return d.blob(c, v)
	case model.Boolean:
		return d.boolean(c, v)
	case model.Timestamp:
		if timeFormat == "" {
			timeFormat = sh.Time
		}
		return d.timestamp(c, timeFormat, v)
	default:
		return d.number(c, sh.Kind, v)
	}
}

// mismatch says in AWS's words what was found instead of a scalar.
func (d *decoder) mismatch(c byte, want string) error {
	switch {
	case strings.HasPrefix(want, "Expected"):
		return d.fail("%s", want)
	case c == '{':
		return d.fail("Start of structure or map found where not expected.")
	case c == '[':
		return d.fail("Start of list found where not expected")
	case c == 't' || c == 'f':
		return d.fail("%s_VALUE can not be converted to %s", strings.ToUpper(strconv.FormatBool(c == 't')), article(want))
	case c == '"':
		return d.fail("STRING_VALUE can not be converted to %s", article(want))
	case c == '-' || c >= '0' && c <= '9':
		return d.fail("NUMBER_VALUE can not be converted to %s", article(want))
	}
	return d.fail("unexpected character at byte %d", d.i)
}

func article(t string) string {
	if t == "Integer" {
		return "an " + t
	}
	return "a " + t
}

func (d *decoder) list(sh *model.Shape, v reflect.Value) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer func() { d.depth-- }()
	d.i++ // '['
	out := reflect.MakeSlice(v.Type(), 0, 0)
	if d.peek() == ']' {
		d.i++
		v.Set(out)
		return nil
	}
	zero := reflect.Zero(v.Type().Elem())
	for {
		out = reflect.Append(out, zero)
		if d.peek() == 'n' {
			if err := d.literal("null"); err != nil {
				return err
			}
			out = out.Slice(0, out.Len()-1)
		} else if err := d.value(sh.Elem.Shape, "", out.Index(out.Len()-1)); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.i++
		case ']':
			d.i++
			v.Set(out)
			return nil
		default:
			return d.fail("',' or ']' was expected at byte %d", d.i)
		}
	}
}

func (d *decoder) mapping(sh *model.Shape, v reflect.Value) error {
	out := reflect.MakeMap(v.Type())
	err := d.object(func(key string) error {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(sh.Elem.Shape, "", e); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(key), e)
		return nil
	})
	v.Set(out)
	return err
}

func (d *decoder) blob(c byte, v reflect.Value) error {
	if c != '"' {
		return d.mismatch(c, "Blob")
	}
	s, err := d.str()
	if err != nil {
		return err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return d.fail("the value is not base64")
	}
	v.SetBytes(b)
	return nil
}

func (d *decoder) boolean(c byte, v reflect.Value) error {
	switch c {
	case 't':
		model.Alloc(v).SetBool(true)
		return d.literal("true")
	case 'f':
		model.Alloc(v).SetBool(false)
		return d.literal("false")
	}
	return d.mismatch(c, "Boolean")
}

func (d *decoder) timestamp(c byte, format string, v reflect.Value) error {
	var t time.Time
	if c == '"' {
		s, err := d.str()
		if err != nil {
			return err
		}
		if t, err = model.ParseTime(format, s); err != nil {
			return d.fail("STRING_VALUE can not be converted to milliseconds since epoch")
		}
	} else {
		f, _, err := d.num(c, "Timestamp")
		if err != nil {
			return err
		}
		if t, err = model.UnixTime(f); err != nil {
			return d.fail("%s", err)
		}
	}
	model.Alloc(v).Set(reflect.ValueOf(t))
	return nil
}

func (d *decoder) number(c byte, kind model.Kind, v reflect.Value) error {
	if kind == model.Float {
		if c == '"' {
			s, err := d.str()
			if err != nil {
				return err
			}
			if s != "NaN" && s != "Infinity" && s != "-Infinity" {
				return d.mismatch('"', "Double")
			}
			f, _ := model.ParseFloat(s)
			model.Alloc(v).SetFloat(f)
			return nil
		}
		f, _, err := d.num(c, "Double")
		if err == nil {
			model.Alloc(v).SetFloat(f)
		}
		return err
	}
	f, text, err := d.num(c, "Integer")
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // a fraction or an exponent: AWS truncates
		if math.Abs(f) >= 1<<63 {
			return d.fail("the number %s is out of range", text)
		}
		n = int64(f)
	}
	model.Alloc(v).SetInt(n)
	return nil
}
