// Package statechange is how a service tells the others that a resource of
// its own has moved on, in the words in which AWS's services tell EventBridge.
// Changes travel in the details of the store's events, so they are written in
// the transaction that made them and are lost or told twice by no crash;
// whoever reads the events with a cursor of its own reads each of them once.
package statechange

import (
	"encoding/json"
	"strconv"
	"time"

	"slipway/internal/store"
)

// Change is one transition. Account, region and time are those of the event
// that carries it.
type Change struct {
	Source     string // "aws.codepipeline"
	DetailType string // "CodePipeline Pipeline Execution State Change"
	// Resource is the ARN of what people watch: the pipeline, the build
	// project, the application, the repository.
	Resource string
	// Resources are the ARNs that AWS lists in the event.
	Resources []string
	// Detail is the event's detail, an object with AWS's members.
	Detail json.RawMessage
	// More is what notifications with all details say besides; an object, or nil.
	More json.RawMessage `json:",omitempty"`
}

// Detail is an event's detail that tells changes. Services with details of
// their own embed it.
type Detail struct {
	Changes []Change `json:"changes,omitempty"`
}

// Add appends a change; detail and more become JSON, a nil more is left out.
// Values that are no JSON are a mistake in the calling code: it panics.
func (d *Detail) Add(c Change, detail, more any) {
	c.Detail = encode(detail)
	if more != nil {
		c.More = encode(more)
	}
	d.Changes = append(d.Changes, c)
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("statechange: " + err.Error())
	}
	return b
}

// Of returns the changes that an event carries, nil where it carries none.
func Of(ev store.Event) ([]Change, error) {
	if len(ev.Detail) == 0 {
		return nil, nil
	}
	var d Detail
	err := json.Unmarshal(ev.Detail, &d)
	return d.Changes, err
}

// Number is written as AWS's events have all numbers, with a fraction: 8.0.
type Number int64

// MarshalJSON writes the number.
func (n Number) MarshalJSON() ([]byte, error) {
	return append(strconv.AppendInt(nil, int64(n), 10), ".0"...), nil
}

// Time writes a time as the details of CodePipeline's events have it.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
