// Package awsquery is the codec of AWS's query protocol: form parameters in
// ("Tags.member.1.Key=..."), XML out.
package awsquery

import (
	"encoding/base64"
	"net/url"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
)

// maxParams bounds a request's parameters; AWS's largest requests have some
// thousands (20 metrics with 150 values each, twice).
const maxParams = 50_000

// Form is a request's parameters as a tree: split at the dots of their names.
type Form struct {
	Value    string
	set      bool
	children map[string]*Form
}

// ParseForm reads an application/x-www-form-urlencoded body, and further ones
// (a GET request's query string), into one tree.
func ParseForm(bodies ...string) (*Form, error) {
	root := &Form{}
	params := 0
	for _, body := range bodies {
		for pair := range strings.SplitSeq(body, "&") {
			if pair == "" {
				continue
			}
			if params++; params > maxParams {
				return nil, awserr.New("MalformedQueryString", "The request has more than %d parameters", maxParams)
			}
			rawKey, rawValue, _ := strings.Cut(pair, "=")
			key, err := url.QueryUnescape(rawKey)
			if err != nil {
				return nil, awserr.New("MalformedQueryString", "The query string contains a malformed name: %s", err)
			}
			val, err := url.QueryUnescape(rawValue)
			if err != nil {
				return nil, awserr.New("MalformedQueryString", "The value of %s is malformed: %s", key, err)
			}
			if err := root.add(key, val); err != nil {
				return nil, err
			}
		}
	}
	return root, nil
}

func (f *Form) add(key, val string) error {
	n := f
	depth := 0
	for part := range strings.SplitSeq(key, ".") {
		if depth++; depth > model.MaxDepth {
			return awserr.New("MalformedQueryString", "A parameter's name has more than %d parts", model.MaxDepth)
		}
		if n.children == nil {
			n.children = map[string]*Form{}
		}
		c := n.children[part]
		if c == nil {
			c = &Form{}
			n.children[part] = c
		}
		n = c
	}
	n.Value, n.set = val, true
	return nil
}

// Get returns the value of a top-level parameter, or "".
func (f *Form) Get(name string) string {
	if c := f.children[name]; c != nil {
		return c.Value
	}
	return ""
}

// Child returns what is under a name, or nil.
func (f *Form) Child(name string) *Form { return f.children[name] }

// IsSet says that the parameter itself was given, not only names below it.
func (f *Form) IsSet() bool { return f.set }

// Items returns the children with numbers for names, by number.
func (f *Form) Items() []*Form {
	type item struct {
		n int
		f *Form
	}
	var items []item
	for k, c := range f.children {
		if n, err := strconv.Atoi(k); err == nil && n >= 0 {
			items = append(items, item{n, c})
		}
	}
	sort.Slice(items, func(i, j int) bool { return items[i].n < items[j].n })
	out := make([]*Form, len(items))
	for i := range items {
		out[i] = items[i].f
	}
	return out
}

// Decode fills dst, a pointer to the struct of svc.Shape(shape). Unknown
// parameters are ignored; errors are MalformedInput.
func Decode(svc *model.Service, shape int, f *Form, dst any) error {
	d := decoder{svc}
	return d.structure(shape, f, reflect.ValueOf(dst).Elem())
}

type decoder struct{ svc *model.Service }

func (d decoder) structure(shape int, f *Form, v reflect.Value) error {
	sh := d.svc.Shape(shape)
	for i := range sh.Members {
		m := &sh.Members[i]
		ms := d.svc.Shape(m.Shape)
		name := m.WireName()
		flat := m.Flat || ms.Flat
		if flat && ms.Kind == model.List && ms.Elem.Name != "" {
			name = ms.Elem.Name
		}
		c := f.children[name]
		if c == nil {
			continue
		}
		if err := d.value(m.Name, m.Shape, m.Time, flat, c, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func (d decoder) value(at string, shape int, timeFormat string, flat bool, f *Form, v reflect.Value) error {
	sh := d.svc.Shape(shape)
	switch sh.Kind {
	case model.Structure:
		return d.structure(shape, f, model.Alloc(v))
	case model.List:
		return d.list(at, sh, flat, f, v)
	case model.Map:
		return d.mapping(at, sh, flat, f, v)
	case model.Blob:
		b, err := base64.StdEncoding.DecodeString(f.Value)
		if err != nil {
			return awserr.New("MalformedInput", "The value of %s is not base64", at)
		}
		v.SetBytes(b)
		return nil
	}
	if f.Value == "" && sh.Kind != model.String {
		return nil // "MaxRecords=" is as if it were not there
	}
	if !f.set {
		return awserr.New("MalformedInput", "Start of structure or map found where not expected: %s", at)
	}
	if timeFormat == "" {
		timeFormat = sh.Time
	}
	if err := model.SetText(v, sh.Kind, timeFormat, f.Value); err != nil {
		if sh.Kind == model.Timestamp {
			return awserr.New("MalformedInput", "timestamp must follow ISO8601: %s", at)
		}
		return awserr.New("MalformedInput", "%s: %s", at, err)
	}
	return nil
}

func (d decoder) list(at string, sh *model.Shape, flat bool, f *Form, v reflect.Value) error {
	items := f
	if !flat {
		name := sh.Elem.Name
		if name == "" {
			name = "member"
		}
		items = f.children[name]
		if items == nil {
			items = f.children["member"]
		}
		if items == nil {
			items = f // lenient: "Names.1" for "Names.member.1"
		}
	}
	found := items.Items()
	if len(found) == 0 && !f.set {
		return nil
	}
	out := reflect.MakeSlice(v.Type(), len(found), len(found))
	for i, c := range found {
		if err := d.value(at, sh.Elem.Shape, "", false, c, out.Index(i)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

func (d decoder) mapping(at string, sh *model.Shape, flat bool, f *Form, v reflect.Value) error {
	entries := f
	if !flat {
		if entries = f.children["entry"]; entries == nil {
			entries = f
		}
	}
	keyName, valueName := sh.Key.Name, sh.Elem.Name
	if keyName == "" {
		keyName = "key"
	}
	if valueName == "" {
		valueName = "value"
	}
	out := reflect.MakeMap(v.Type())
	for _, c := range entries.Items() {
		k := c.children[keyName]
		if k == nil {
			return awserr.New("MalformedInput", "%s has an entry without a %s", at, keyName)
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if val := c.children[valueName]; val != nil {
			if err := d.value(at, sh.Elem.Shape, "", false, val, e); err != nil {
				return err
			}
		}
		out.SetMapIndex(reflect.ValueOf(k.Value), e)
	}
	v.Set(out)
	return nil
}
