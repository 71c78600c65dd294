package insights

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// A value is nil (missing), float64, string, bool, or stamp.
type value any

// stamp is a time in milliseconds, which is shown as a date.
type stamp int64

func (s stamp) String() string {
	return time.UnixMilli(int64(s)).UTC().Format("2006-01-02 15:04:05.000")
}

// Event is what a query is asked of. Times are milliseconds since the epoch.
type Event struct {
	Time, Ingested       int64
	Message, Stream, Log string
	Ptr                  string
}

// record is an event with what the query has made of it, or a row of stats.
type record struct {
	ev     *Event // nil for a row of stats
	fields map[string]value
	doc    map[string]any // of a JSON message
	parsed bool
}

func (r *record) set(name string, v value) {
	if r.fields == nil {
		r.fields = map[string]value{}
	}
	r.fields[name] = v
}

// get is the value of a field: made by the query, of the event, or found in
// its JSON.
func (r *record) get(name string) value {
	if v, ok := r.fields[name]; ok {
		return v
	}
	if r.ev == nil {
		return nil
	}
	switch name {
	case "@timestamp":
		return stamp(r.ev.Time)
	case "@ingestionTime":
		return stamp(r.ev.Ingested)
	case "@message":
		return r.ev.Message
	case "@logStream":
		return r.ev.Stream
	case "@log":
		return r.ev.Log
	case "@ptr":
		return r.ev.Ptr
	}
	if !r.parsed {
		r.parsed = true
		if i := strings.IndexByte(r.ev.Message, '{'); i >= 0 && strings.TrimSpace(r.ev.Message[:i]) == "" {
			_ = json.Unmarshal([]byte(r.ev.Message), &r.doc) // else it is no JSON
		}
	}
	return find(r.doc, name)
}

// find follows a dotted path; keys may have dots themselves.
func find(doc any, path string) value {
	switch d := doc.(type) {
	case map[string]any:
		if v, ok := d[path]; ok {
			return plain(v)
		}
		for i := 0; i < len(path); i++ {
			if path[i] == '.' {
				if sub, ok := d[path[:i]]; ok {
					if v := find(sub, path[i+1:]); v != nil {
						return v
					}
				}
			}
		}
	case []any:
		head, rest, more := strings.Cut(path, ".")
		i, err := strconv.Atoi(head)
		if err != nil || i < 0 || i >= len(d) {
			return nil
		}
		if !more {
			return plain(d[i])
		}
		return find(d[i], rest)
	}
	return nil
}

func plain(v any) value {
	switch v := v.(type) {
	case nil, string, float64, bool:
		return v
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return string(b)
}

func show(v value) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		if v {
			return "1"
		}
		return "0"
	case stamp:
		return v.String()
	}
	return ""
}

func num(v value) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case stamp:
		return float64(v), true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case string:
		if v == "" || v[0] > '9' {
			return 0, false
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	return 0, false
}

func truth(v value) bool {
	switch v := v.(type) {
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != "" && v != "0" && !strings.EqualFold(v, "false")
	case stamp:
		return true
	}
	return false
}

// compare orders two values: as numbers where both are, else as texts.
func compare(a, b value) int {
	x, ok1 := num(a)
	y, ok2 := num(b)
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	case ok1 && ok2 && x < y:
		return -1
	case ok1 && ok2 && x > y:
		return 1
	case ok1 && ok2:
		return 0
	}
	return strings.Compare(show(a), show(b))
}
