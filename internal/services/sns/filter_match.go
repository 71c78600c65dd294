package sns

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// wild matches a pattern whose * stands for any text. Linear in the text for
// each star: it goes back only to the last one.
func wild(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchAttributes judges a message by its attributes.
func (f *filter) matchAttributes(attrs map[string]attribute) bool {
	object := map[string]any{}
	for name, a := range attrs {
		switch kind, _, _ := strings.Cut(a.Type, "."); {
		case a.Type == "String.Array":
			dec := json.NewDecoder(strings.NewReader(a.Value))
			dec.UseNumber()
			var list []any
			if dec.Decode(&list) != nil {
				continue
			}
			object[name] = list
		case kind == "Number":
			if _, err := strconv.ParseFloat(a.Value, 64); err == nil {
				object[name] = json.Number(a.Value)
			}
		case kind == "String":
			object[name] = a.Value
		}
	}
	return f.match(object)
}

// matchBody judges a message by its body; one that is no JSON object does not match.
func (f *filter) matchBody(body string) bool {
	dec := json.NewDecoder(bytes.NewReader([]byte(body)))
	dec.UseNumber()
	var object map[string]any
	if dec.Decode(&object) != nil || object == nil || dec.More() {
		return false
	}
	return f.match(object)
}

func (f *filter) match(object map[string]any) bool {
	for key, conditions := range f.keys {
		v, there := object[key]
		if !slices.ContainsFunc(conditions, func(c condition) bool { return holds(c, v, there) }) {
			return false
		}
	}
	for key, sub := range f.nested {
		if !sub.within(object[key]) {
			return false
		}
	}
	return len(f.either) == 0 || slices.ContainsFunc(f.either, func(sub *filter) bool { return sub.match(object) })
}

// within matches below a key: an object, or any object of an array.
func (f *filter) within(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return f.match(v)
	case []any:
		return slices.ContainsFunc(v, f.within)
	}
	return f.match(map[string]any{})
}

// holds judges a value, or any element of an array.
func holds(c condition, v any, there bool) bool {
	if !there {
		return c.absent
	}
	if c.absent {
		return false
	}
	if list, ok := v.([]any); ok {
		return slices.ContainsFunc(list, func(e any) bool { return c.match(e) })
	}
	if _, ok := v.(map[string]any); ok {
		return false
	}
	return c.match(v)
}
