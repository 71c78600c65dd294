package xmlbody

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"slipway/internal/aws/model"
)

// ErrMalformed is wrapped by every error of Parse and Decode.
var ErrMalformed = errors.New("malformed XML")

// maxNodes bounds a document: the largest that AWS takes is a list of 10,000
// parts with half a dozen elements each.
const maxNodes = 200_000

// Node is one parsed element.
type Node struct {
	Name     string // local name
	Space    string // namespace URI
	Attrs    []xml.Attr
	Children []*Node
	Text     string
}

// Parse reads a whole document. It refuses DTDs, and nesting and sizes beyond
// what any request has.
func Parse(body []byte) (*Node, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	var root *Node
	var stack []*Node
	nodes := 0
	for {
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			n := &Node{Name: t.Name.Local, Space: t.Name.Space, Attrs: append([]xml.Attr(nil), t.Attr...)}
			if nodes++; nodes > maxNodes || len(stack) >= model.MaxDepth {
				return nil, fmt.Errorf("%w: too many or too deep elements", ErrMalformed)
			}
			switch {
			case len(stack) > 0:
				p := stack[len(stack)-1]
				p.Children = append(p.Children, n)
			case root != nil:
				return nil, fmt.Errorf("%w: more than one root element", ErrMalformed)
			default:
				root = n
			}
			stack = append(stack, n)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].Text += string(t)
			} else if len(bytes.TrimSpace(t)) > 0 {
				return nil, fmt.Errorf("%w: text outside of the root element", ErrMalformed)
			}
		case xml.Directive:
			return nil, fmt.Errorf("%w: a document type is not allowed", ErrMalformed)
		}
	}
	if root == nil {
		return nil, fmt.Errorf("%w: no root element", ErrMalformed)
	}
	return root, nil
}

// Decode fills v, a struct of svc.Shape(shape), from n's children and
// attributes. Unknown elements are ignored.
func Decode(svc *model.Service, shape int, n *Node, v reflect.Value) error {
	sh := svc.Shape(shape)
	for i := range sh.Members {
		m := &sh.Members[i]
		if m.Where != model.Body {
			continue
		}
		if err := decodeMember(svc, m, n, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func decodeMember(svc *model.Service, m *model.Member, n *Node, f reflect.Value) error {
	sh := svc.Shape(m.Shape)
	name := m.WireName()
	if m.Attr {
		local := name[strings.IndexByte(name, ':')+1:]
		for _, a := range n.Attrs {
			if a.Name.Local == local {
				return text(m.Name, f, sh, m.Time, a.Value)
			}
		}
		return nil
	}
	flat := m.Flat || sh.Flat
	if flat && sh.Kind == model.List && sh.Elem.Name != "" {
		name = sh.Elem.Name
	}
	var found []*Node
	for _, c := range n.Children {
		if c.Name == name {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 0:
		return nil
	case sh.Kind == model.List && flat:
		return decodeList(svc, m.Name, sh, found, f)
	case sh.Kind == model.Map && flat:
		return decodeMap(svc, m.Name, sh, found, f)
	}
	return value(svc, m.Name, m.Shape, m.Time, found[0], f)
}

func value(svc *model.Service, at string, shape int, timeFormat string, n *Node, v reflect.Value) error {
	sh := svc.Shape(shape)
	switch sh.Kind {
	case model.Structure:
		return Decode(svc, shape, n, model.Alloc(v))
	case model.List:
		return decodeList(svc, at, sh, n.Children, v)
	case model.Map:
		return decodeMap(svc, at, sh, n.Children, v)
	}
	if len(n.Children) > 0 {
		return fmt.Errorf("%w: %s holds elements where text is expected", ErrMalformed, at)
	}
	return text(at, v, sh, timeFormat, n.Text)
}

func text(at string, v reflect.Value, sh *model.Shape, timeFormat, s string) error {
	if sh.Kind == model.Blob {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("%w: %s is not base64", ErrMalformed, at)
		}
		v.SetBytes(b)
		return nil
	}
	if timeFormat == "" {
		timeFormat = sh.Time
	}
	if err := model.SetText(v, sh.Kind, timeFormat, s); err != nil {
		return fmt.Errorf("%w: %s: %v", ErrMalformed, at, err)
	}
	return nil
}

func decodeList(svc *model.Service, at string, sh *model.Shape, items []*Node, v reflect.Value) error {
	out := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, n := range items {
		if err := value(svc, at, sh.Elem.Shape, "", n, out.Index(i)); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

func decodeMap(svc *model.Service, at string, sh *model.Shape, entries []*Node, v reflect.Value) error {
	out := reflect.MakeMap(v.Type())
	keyName, valueName := sh.Key.Name, sh.Elem.Name
	if keyName == "" {
		keyName = "key"
	}
	if valueName == "" {
		valueName = "value"
	}
	for _, n := range entries {
		var key *string
		e := reflect.New(v.Type().Elem()).Elem()
		for _, c := range n.Children {
			switch c.Name {
			case keyName:
				key = &c.Text
			case valueName:
				if err := value(svc, at, sh.Elem.Shape, "", c, e); err != nil {
					return err
				}
			}
		}
		if key == nil {
			return fmt.Errorf("%w: %s has an entry without a key", ErrMalformed, at)
		}
		out.SetMapIndex(reflect.ValueOf(*key), e)
	}
	v.Set(out)
	return nil
}
