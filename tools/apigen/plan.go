package main

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// entry is one shape that the generated package contains.
type entry struct {
	index int
	name  string // AWS's name, or "<Op>Input" and "<Op>Output"
	goTyp string // the Go struct's name, for structures
	kind  string // a constant of package model
	sh    *shape
	elem  *edge
	key   *edge
	mems  []memberPlan
	noGo  bool // error shapes: their members travel in awserr.Error.Fields
}

type edge struct {
	to   *entry
	name string
}

type memberPlan struct {
	member
	field string
	to    *entry
	req   bool
}

type opPlan struct {
	name    string
	op      *operation
	in, out *entry
}

// packagePlan is everything to be written for one service.
type packagePlan struct {
	pkg     string
	m       *apiModel
	entries []*entry
	byKey   map[string]*entry
	names   map[string]bool // exported Go names taken
	ops     []opPlan
	errors  []errorPlan
}

type errorPlan struct {
	name string
	code string
	sh   *shape
	e    *entry
}

func plan(pkg string, m *apiModel, ops []string) (*packagePlan, error) {
	p := &packagePlan{pkg: pkg, m: m, byKey: map[string]*entry{}, names: map[string]bool{"Service": true, "Ops": true}}
	sorted := append([]string(nil), ops...)
	sort.Strings(sorted)
	for i, name := range sorted {
		if m.Operations[name] == nil {
			return nil, fmt.Errorf("operations/%s.txt: AWS has no operation %s", pkg, name)
		}
		if i > 0 && sorted[i-1] == name {
			return nil, fmt.Errorf("operations/%s.txt: %s is listed twice", pkg, name)
		}
		for _, n := range []string{"Op" + name, name + "Input", name + "Output"} {
			p.names[n] = true
		}
	}
	for _, name := range sorted {
		op := m.Operations[name]
		in, err := p.ioShape(name+"Input", op.Input)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out, err := p.ioShape(name+"Output", op.Output)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.ops = append(p.ops, opPlan{name, op, in, out})
	}
	if len(sorted) > 0 {
		return p, p.planErrors()
	}
	return p, nil
}

// ioShape plans an operation's input or output under the operation's own
// name, whatever AWS's model calls it and however often it uses it.
func (p *packagePlan) ioShape(name string, r *ref) (*entry, error) {
	if r == nil {
		return p.structure(name, name, &shape{Type: "structure"})
	}
	sh := p.m.Shapes[r.Shape]
	if sh == nil {
		return nil, fmt.Errorf("no shape %s", r.Shape)
	}
	c := *sh
	if r.LocationName != "" {
		c.LocationName = r.LocationName
	}
	if r.XMLNamespace != nil {
		c.XMLNamespace = r.XMLNamespace
	}
	return p.structure(name, name, &c)
}

func (p *packagePlan) planErrors() error {
	var names []string
	for n, sh := range p.m.Shapes {
		if sh.Exception || sh.Error != nil {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	for _, n := range names {
		sh := p.m.Shapes[n]
		code := n
		if sh.Error != nil && sh.Error.Code != "" {
			code = sh.Error.Code
		}
		ep := errorPlan{name: n, code: code, sh: sh}
		rich := false
		for _, m := range sh.Members {
			rich = rich || !strings.EqualFold(m.name, "message")
		}
		if rich {
			e := p.add("error "+n, &entry{name: n, kind: "Structure", sh: sh, noGo: true})
			if err := p.fill(e); err != nil {
				return err
			}
			ep.e = e
		}
		p.errors = append(p.errors, ep)
	}
	return nil
}

func (p *packagePlan) add(key string, e *entry) *entry {
	e.index = len(p.entries)
	p.entries = append(p.entries, e)
	p.byKey[key] = e
	return e
}

func (p *packagePlan) structure(key, goName string, sh *shape) (*entry, error) {
	if e := p.byKey[key]; e != nil {
		return e, nil
	}
	e := p.add(key, &entry{name: key, goTyp: goName, kind: "Structure", sh: sh})
	return e, p.fill(e)
}

func (p *packagePlan) fill(e *entry) error {
	fields := map[string]bool{}
	for _, m := range e.sh.Members {
		to, err := p.use(m.Shape, m.Streaming)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", e.name, m.name, err)
		}
		f := exported(m.name)
		if fields[f] {
			return fmt.Errorf("%s: two members called %s", e.name, f)
		}
		fields[f] = true
		e.mems = append(e.mems, memberPlan{m, f, to, contains(e.sh.Required, m.name)})
	}
	return nil
}

// use plans a nested shape.
func (p *packagePlan) use(name string, streaming bool) (*entry, error) {
	sh := p.m.Shapes[name]
	if sh == nil {
		return nil, fmt.Errorf("no shape %s", name)
	}
	key := name
	if streaming || sh.Streaming {
		key += " (stream)"
	}
	if e := p.byKey[key]; e != nil {
		return e, nil
	}
	switch sh.Type {
	case "structure":
		if sh.EventStream {
			e := p.add(key, &entry{name: name, kind: "EventStream", sh: sh, goTyp: p.goName(name)})
			return e, p.fill(e)
		}
		return p.structure(key, p.goName(name), sh)
	case "list":
		e := p.add(key, &entry{name: name, kind: "List", sh: sh})
		to, err := p.use(sh.Member.Shape, false)
		e.elem = &edge{to, sh.Member.LocationName}
		return e, err
	case "map":
		e := p.add(key, &entry{name: name, kind: "Map", sh: sh})
		k, err := p.use(sh.Key.Shape, false)
		if err != nil {
			return nil, err
		}
		v, err := p.use(sh.Value.Shape, false)
		e.key, e.elem = &edge{k, sh.Key.LocationName}, &edge{v, sh.Value.LocationName}
		return e, err
	case "blob":
		if streaming || sh.Streaming {
			return p.add(key, &entry{name: name, kind: "Stream", sh: sh}), nil
		}
		return p.add(key, &entry{name: name, kind: "Blob", sh: sh}), nil
	}
	kind, ok := map[string]string{"string": "String", "character": "String", "integer": "Integer",
		"long": "Integer", "float": "Float", "double": "Float", "boolean": "Boolean", "timestamp": "Timestamp"}[sh.Type]
	if !ok {
		return nil, fmt.Errorf("shape %s has the unknown type %q", name, sh.Type)
	}
	return p.add(key, &entry{name: name, kind: kind, sh: sh}), nil
}

// goName claims an exported name for a nested structure.
func (p *packagePlan) goName(name string) string {
	return p.claim(exported(name), "Shape")
}

func (p *packagePlan) claim(name, suffix string) string {
	for p.names[name] {
		name += suffix
	}
	p.names[name] = true
	return name
}

func exported(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// goType is the type of a struct field of this shape; elements of lists and
// maps have no pointer.
func (e *entry) goType(field bool) string {
	ptr := ""
	if field {
		ptr = "*"
	}
	switch e.kind {
	case "Structure":
		return ptr + e.goTyp
	case "List":
		return "[]" + e.elem.to.goType(false)
	case "Map":
		return "map[string]" + e.elem.to.goType(false)
	case "String":
		return ptr + "string"
	case "Integer":
		return ptr + "int64"
	case "Float":
		return ptr + "float64"
	case "Boolean":
		return ptr + "bool"
	case "Timestamp":
		return ptr + "time.Time"
	case "Blob":
		return "[]byte"
	case "Stream":
		return "io.ReadCloser"
	case "EventStream":
		return "func(ctx context.Context, send func(*" + e.goTyp + ") error) error"
	}
	panic("apigen: kind " + e.kind)
}

// namespace reads both spellings of xmlNamespace.
func namespace(raw json.RawMessage) (uri, prefix string) {
	if raw == nil {
		return "", ""
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, ""
	}
	var o struct{ URI, Prefix string }
	if json.Unmarshal(raw, &o) == nil {
		return o.URI, o.Prefix
	}
	return "", ""
}
