// Package yamlpos reads YAML so that every complaint carries file, line, column and field. Documents are
// walked as nodes and never decoded into Go values by reflection: a date stays text, 0.0 stays the number
// that was written, and a value knows where it stands.
package yamlpos

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// MaxSize is the largest document Parse accepts, in bytes. AWS caps neither file at a documented size; one
// megabyte is far above any that people write and keeps hostile archives from costing memory.
const MaxSize = 1 << 20

const maxDepth = 64

// Error is a complaint about one place of a document. Line and Column count from 1; 0 means unknown.
type Error struct {
	File   string
	Line   int
	Column int
	Field  string // path of the field, such as hooks.AfterInstall[0].timeout; "" for the document
	Msg    string
	Hint   string // what the author probably meant
}

// Error renders file:line:column: field: message (hint), leaving out what is unknown.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Column > 0 {
			fmt.Fprintf(&b, ":%d", e.Column)
		}
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Value is a node of a document with its position and path. The zero Value is "absent".
type Value struct {
	doc  *doc
	node *yaml.Node
	path string
}

type doc struct {
	file    string
	aliases bool
}

// Pair is one entry of a mapping.
type Pair struct {
	Key   string
	At    Value // the key itself, for complaints about it
	Value Value
}

// Options of Parse.
type Options struct {
	Aliases bool // resolve YAML aliases; without it an alias is an error
}

// Parse reads one YAML document. Every error is an *Error.
func Parse(file string, data []byte, o Options) (Value, error) {
	d := &doc{file: file, aliases: o.Aliases}
	if len(data) > MaxSize {
		return Value{}, &Error{File: file, Msg: fmt.Sprintf("the file has %d bytes; at most %d are read", len(data), MaxSize)}
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return Value{}, d.syntax(err, data)
	}
	if root.Kind == 0 || len(root.Content) == 0 {
		return Value{}, &Error{File: file, Line: 1, Column: 1, Msg: "the file is empty"}
	}
	v := Value{doc: d, node: root.Content[0]}
	budget := 100000
	if err := v.check(v.node, 0, &budget, nil); err != nil {
		return Value{}, err
	}
	return v, nil
}

// check bounds depth and the number of nodes after alias expansion, and refuses alias cycles.
func (v Value) check(n *yaml.Node, depth int, budget *int, open []*yaml.Node) error {
	*budget--
	if depth > maxDepth || *budget < 0 {
		return &Error{File: v.doc.file, Line: n.Line, Column: n.Column, Msg: "the document is nested too deeply or is too large"}
	}
	if n.Kind == yaml.AliasNode {
		if !v.doc.aliases {
			return &Error{File: v.doc.file, Line: n.Line, Column: n.Column, Msg: "YAML aliases are not supported in this file: *" + n.Value}
		}
		for _, o := range open {
			if o == n.Alias {
				return &Error{File: v.doc.file, Line: n.Line, Column: n.Column, Msg: "the alias *" + n.Value + " contains itself"}
			}
		}
		return v.check(n.Alias, depth+1, budget, append(open, n.Alias))
	}
	for _, c := range n.Content {
		if err := v.check(c, depth+1, budget, open); err != nil {
			return err
		}
	}
	return nil
}

func (d *doc) syntax(err error, data []byte) error {
	e := &Error{File: d.file, Msg: "not valid YAML: " + err.Error()}
	var le *yaml.LoadError
	if errors.As(err, &le) {
		e.Msg = "not valid YAML: " + le.Message
		e.Line, e.Column = le.Mark.Line, le.Mark.Column
		if e.Line < 1 {
			e.Line = 1
		}
		if e.Column < 1 {
			e.Column = 1
		}
	}
	if lines := strings.Split(string(data), "\n"); e.Line > 0 && e.Line <= len(lines) {
		if strings.HasPrefix(strings.TrimLeft(lines[e.Line-1], " "), "\t") {
			e.Hint = "this line is indented with a tab; YAML wants spaces"
		}
	}
	return e
}

func (v Value) real() *yaml.Node {
	n := v.node
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// Errorf makes an error that points at v.
func (v Value) Errorf(format string, args ...any) *Error {
	e := &Error{Field: v.path, Msg: fmt.Sprintf(format, args...)}
	if v.doc != nil {
		e.File = v.doc.file
	}
	if v.node != nil {
		e.Line, e.Column = v.node.Line, v.node.Column
	}
	return e
}

// Hinted adds a hint to an error and returns it.
func (e *Error) Hinted(hint string) *Error {
	e.Hint = hint
	return e
}

// Line of the value, from 1; 0 for an absent one.
func (v Value) Line() int {
	if v.node == nil {
		return 0
	}
	return v.node.Line
}

// Path is the field's path.
func (v Value) Path() string { return v.path }

// Null reports whether the value is absent or null.
func (v Value) Null() bool {
	n := v.real()
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// IsMap reports whether the value is a mapping.
func (v Value) IsMap() bool { n := v.real(); return n != nil && n.Kind == yaml.MappingNode }

// IsList reports whether the value is a sequence.
func (v Value) IsList() bool { n := v.real(); return n != nil && n.Kind == yaml.SequenceNode }

// IsScalar reports whether the value is a scalar (null included).
func (v Value) IsScalar() bool { n := v.real(); return n != nil && n.Kind == yaml.ScalarNode }

// Quoted reports whether a scalar was written in quotes or as a block.
func (v Value) Quoted() bool {
	n := v.real()
	return n != nil && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// Kind names the value's type for messages.
func (v Value) Kind() string {
	n := v.real()
	switch {
	case n == nil || v.Null():
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	}
	return "the text " + strconv.Quote(clip(n.Value))
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}

// Map returns the entries of a mapping in order. A doubled key is an error.
func (v Value) Map() ([]Pair, error) {
	n := v.real()
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, v.Errorf("must be a mapping, but is %s", v.Kind())
	}
	seen := make(map[string]int, len(n.Content)/2)
	out := make([]Pair, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := Value{doc: v.doc, node: n.Content[i], path: v.path}
		if !k.IsScalar() {
			return nil, k.Errorf("a key must be text, but is %s", k.Kind())
		}
		key := k.real().Value
		k.path = join(v.path, key)
		if line, dup := seen[key]; dup {
			return nil, k.Errorf("the key is given twice, first in line %d", line)
		}
		seen[key] = k.Line()
		out = append(out, Pair{Key: key, At: k, Value: Value{doc: v.doc, node: n.Content[i+1], path: k.path}})
	}
	return out, nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// List returns the items of a sequence.
func (v Value) List() ([]Value, error) {
	n := v.real()
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil, v.Errorf("must be a list, but is %s", v.Kind())
	}
	out := make([]Value, len(n.Content))
	for i, c := range n.Content {
		out[i] = Value{doc: v.doc, node: c, path: fmt.Sprintf("%s[%d]", v.path, i)}
	}
	return out, nil
}

// Text returns a scalar as it was written, numbers and booleans included (with quotes and escapes resolved).
func (v Value) Text() (string, error) {
	if !v.IsScalar() || v.Null() {
		return "", v.Errorf("must be text, but is %s", v.Kind())
	}
	return v.real().Value, nil
}

// Texts returns a list of scalars; a single scalar counts as a list of one when lone is set.
func (v Value) Texts(lone bool) ([]string, error) {
	if lone && v.IsScalar() && !v.Null() {
		s, err := v.Text()
		return []string{s}, err
	}
	items, err := v.List()
	if err != nil {
		return nil, err
	}
	out := make([]string, len(items))
	for i, it := range items {
		if out[i], err = it.Text(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Int returns a YAML integer (a leading zero means octal, as in YAML 1.1), or digits in quotes.
func (v Value) Int() (int, error) {
	s, err := v.Text()
	if err != nil {
		return 0, err
	}
	base := 10
	if !v.Quoted() {
		base = 0
	}
	i, err := strconv.ParseInt(s, base, 64)
	if err != nil || i > math.MaxInt32 || i < math.MinInt32 {
		return 0, v.Errorf("must be an integer, but is %s", v.Kind())
	}
	return int(i), nil
}

// Bool returns a boolean; the YAML 1.1 words yes, no, on and off count.
func (v Value) Bool() (bool, error) {
	s, err := v.Text()
	if err != nil {
		return false, err
	}
	switch strings.ToLower(s) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, v.Errorf("must be yes or no, but is %s", v.Kind())
}

// Float reports the value of an unquoted YAML number.
func (v Value) Float() (float64, bool) {
	n := v.real()
	if n == nil || n.Kind != yaml.ScalarNode || v.Quoted() {
		return 0, false
	}
	if t := n.ShortTag(); t != "!!float" && t != "!!int" {
		return 0, false
	}
	f, err := strconv.ParseFloat(n.Value, 64)
	return f, err == nil
}
