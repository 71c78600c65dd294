// Package rpccbor is the body codec of the Smithy RPC v2 CBOR protocol.
package rpccbor

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
)

// decMode bounds what a body may make the decoder allocate; timestamps stay
// tagged so that they are told from numbers.
var decMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  model.MaxDepth,
		MaxArrayElements: 1 << 20,
		MaxMapPairs:      1 << 16,
		DefaultMapType:   reflect.TypeFor[map[any]any](),
		TimeTag:          cbor.DecTagIgnored,
		IntDec:           cbor.IntDecConvertSignedOrFail,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

var encMode = func() cbor.EncMode {
	m, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, NilContainers: cbor.NilContainerAsNull}.EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// Decode fills dst, a pointer to the struct of svc.Shape(shape). Unknown
// members are ignored; errors are SerializationException.
func Decode(svc *model.Service, shape int, body []byte, dst any) error {
	if len(body) == 0 {
		return nil
	}
	var raw any
	if err := decMode.Unmarshal(body, &raw); err != nil {
		return awserr.New("SerializationException", "The request body is not valid CBOR: %s", err)
	}
	d := &decoder{svc: svc}
	return d.structure(shape, raw, reflect.ValueOf(dst).Elem())
}

type decoder struct {
	svc  *model.Service
	path []string
}

func (d *decoder) fail(want string, got any) error {
	return awserr.New("SerializationException", "%s expected, found %T (member %s)", want, got, strings.Join(d.path, "."))
}

func (d *decoder) structure(shape int, raw any, v reflect.Value) error {
	m, ok := raw.(map[any]any)
	if !ok {
		return d.fail("a map", raw)
	}
	sh := d.svc.Shape(shape)
	for i := range sh.Members {
		mem := &sh.Members[i]
		val, ok := m[mem.Name]
		if !ok || val == nil {
			continue
		}
		d.path = append(d.path, mem.Name)
		if err := d.value(mem.Shape, val, v.Field(i)); err != nil {
			return err
		}
		d.path = d.path[:len(d.path)-1]
	}
	return nil
}

func (d *decoder) value(shape int, raw any, v reflect.Value) error {
	sh := d.svc.Shape(shape)
	switch sh.Kind {
	case model.Structure:
		return d.structure(shape, raw, model.Alloc(v))
	case model.List:
		return d.list(sh, raw, v)
	case model.Map:
		return d.mapping(sh, raw, v)
	case model.String:
		s, ok := raw.(string)
		if !ok {
			return d.fail("a string", raw)
		}
		model.Alloc(v).SetString(s)
	case model.Boolean:
		b, ok := raw.(bool)
		if !ok {
			return d.fail("a boolean", raw)
		}
		model.Alloc(v).SetBool(b)
	case model.Blob:
		b, ok := raw.([]byte)
		if !ok {
			return d.fail("a byte string", raw)
		}
		v.SetBytes(b)
	case model.Integer:
		f, n, ok := number(raw)
		if !ok || f != math.Trunc(f) {
			return d.fail("an integer", raw)
		}
		model.Alloc(v).SetInt(n)
	case model.Float:
		f, _, ok := number(raw)
		if !ok {
			return d.fail("a number", raw)
		}
		model.Alloc(v).SetFloat(f)
	case model.Timestamp:
		return d.timestamp(raw, v)
	}
	return nil
}

// number reads any CBOR number as both kinds.
func number(raw any) (float64, int64, bool) {
	switch n := raw.(type) {
	case int64:
		return float64(n), n, true
	case uint64:
		return float64(n), int64(n), n <= math.MaxInt64
	case float32:
		return float64(n), int64(n), true
	case float64:
		return n, int64(n), true
	}
	return 0, 0, false
}

func (d *decoder) timestamp(raw any, v reflect.Value) error {
	if tag, ok := raw.(cbor.Tag); ok && tag.Number == 1 {
		raw = tag.Content
	}
	f, _, ok := number(raw)
	if !ok {
		if t, isTime := raw.(time.Time); isTime && !t.IsZero() { // zero: NaN or infinity
			model.Alloc(v).Set(reflect.ValueOf(t.UTC()))
			return nil
		}
		return d.fail("a timestamp", raw)
	}
	t, err := model.UnixTime(f)
	if err != nil {
		return d.fail("a timestamp", raw)
	}
	model.Alloc(v).Set(reflect.ValueOf(t))
	return nil
}

func (d *decoder) list(sh *model.Shape, raw any, v reflect.Value) error {
	items, ok := raw.([]any)
	if !ok {
		return d.fail("an array", raw)
	}
	out := reflect.MakeSlice(v.Type(), 0, len(items))
	zero := reflect.Zero(v.Type().Elem())
	for _, it := range items {
		if it == nil {
			continue
		}
		out = reflect.Append(out, zero)
		if err := d.value(sh.Elem.Shape, it, out.Index(out.Len()-1)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

func (d *decoder) mapping(sh *model.Shape, raw any, v reflect.Value) error {
	m, ok := raw.(map[any]any)
	if !ok {
		return d.fail("a map", raw)
	}
	out := reflect.MakeMap(v.Type())
	for k, val := range m {
		key, ok := k.(string)
		if !ok {
			return d.fail("a string key", k)
		}
		if val == nil {
			continue
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(sh.Elem.Shape, val, e); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(key), e)
	}
	v.Set(out)
	return nil
}

// Encode writes src, a pointer to the struct of svc.Shape(shape).
func Encode(svc *model.Service, shape int, src any) ([]byte, error) {
	v, ok := model.Deref(reflect.ValueOf(src))
	if !ok {
		return []byte{0xa0}, nil
	}
	tree, err := value(svc, shape, v)
	if err != nil {
		return nil, err
	}
	return encMode.Marshal(tree)
}

// EncodeError writes an error's body.
func EncodeError(svc *model.Service, typ, message string, shape *model.Shape, fields map[string]any) ([]byte, error) {
	m := map[string]any{"__type": typ, "message": message}
	if shape != nil {
		for _, mem := range shape.Members {
			if v, ok := model.Deref(reflect.ValueOf(fields[mem.Name])); ok {
				val, err := value(svc, mem.Shape, v)
				if err != nil {
					return nil, err
				}
				m[mem.Name] = val
			}
		}
	}
	return encMode.Marshal(m)
}

func value(svc *model.Service, shape int, v reflect.Value) (any, error) {
	sh := svc.Shape(shape)
	misfit := func() (any, error) {
		return nil, fmt.Errorf("rpccbor: %s does not fit the shape %s", v.Type(), sh.Name)
	}
	switch sh.Kind {
	case model.Structure:
		if v.Kind() != reflect.Struct {
			return misfit()
		}
		m := make(map[string]any, len(sh.Members))
		for i := range sh.Members {
			f, ok := model.Deref(v.Field(i))
			if !ok {
				continue
			}
			val, err := value(svc, sh.Members[i].Shape, f)
			if err != nil {
				return nil, err
			}
			m[sh.Members[i].Name] = val
		}
		return m, nil
	case model.List:
		if v.Kind() != reflect.Slice {
			return misfit()
		}
		out := make([]any, v.Len())
		for i := range out {
			val, err := value(svc, sh.Elem.Shape, v.Index(i))
			if err != nil {
				return nil, err
			}
			out[i] = val
		}
		return out, nil
	case model.Map:
		if v.Kind() != reflect.Map {
			return misfit()
		}
		out := make(map[string]any, v.Len())
		for _, k := range v.MapKeys() {
			val, err := value(svc, sh.Elem.Shape, v.MapIndex(k))
			if err != nil {
				return nil, err
			}
			out[k.String()] = val
		}
		return out, nil
	case model.Timestamp:
		t, ok := v.Interface().(time.Time)
		if !ok {
			return misfit()
		}
		return cbor.Tag{Number: 1, Content: float64(t.UnixMilli()) / 1000}, nil
	}
	return v.Interface(), nil
}
