package logs

import (
	"encoding/json"
	"math"
	"strings"

	"slipway/internal/services/logs/segment"
)

// Limits of the embedded metric format ("Specification: Embedded metric
// format" in the CloudWatch user guide).
const (
	emfMetrics    = 100
	emfDimensions = 30
)

type emfMetadata struct {
	Directives []struct {
		Namespace  string
		Dimensions [][]string
		Metrics    []struct {
			Name, Unit        string
			StorageResolution int64
		}
	} `json:"CloudWatchMetrics"`
	Timestamp *float64
}

// maybeEMF reports whether a message may be in the embedded metric format;
// it is cheap, for every event is asked.
func maybeEMF(message string) bool {
	return strings.HasPrefix(message, "{") && strings.Contains(message, `"CloudWatchMetrics"`) && strings.Contains(message, `"_aws"`)
}

// embedded adds the metrics that an event brings with it. An event that does
// not keep to the format brings none.
func embedded(acc *accumulator, r *segment.Record) {
	if !maybeEMF(r.Message) {
		return
	}
	var doc map[string]json.RawMessage
	var meta emfMetadata
	if json.Unmarshal([]byte(r.Message), &doc) != nil || json.Unmarshal(doc["_aws"], &meta) != nil {
		return
	}
	at := r.Time
	if meta.Timestamp != nil && *meta.Timestamp > 0 && *meta.Timestamp < math.MaxInt64 {
		at = int64(*meta.Timestamp)
	}
	count := 0
	for _, d := range meta.Directives {
		sets := d.Dimensions
		if len(sets) == 0 {
			sets = [][]string{{}}
		}
		if d.Namespace == "" || len(d.Namespace) > 1024 || len(sets) > emfDimensions {
			continue
		}
		for _, m := range d.Metrics {
			if count++; count > emfMetrics {
				return
			}
			for _, set := range sets {
				if dims, ok := emfDims(doc, set); ok {
					emfAdd(acc, doc[m.Name], d.Namespace, m.Name, m.Unit, dims, at, m.StorageResolution)
				}
			}
		}
	}
}

// emfDims reads a dimension set's values: they are texts of the document.
func emfDims(doc map[string]json.RawMessage, set []string) (map[string]string, bool) {
	if len(set) > emfDimensions {
		return nil, false
	}
	dims := map[string]string{}
	for _, name := range set {
		var v string
		if json.Unmarshal(doc[name], &v) != nil || v == "" || len(v) > 1024 {
			return nil, false
		}
		dims[name] = v
	}
	return dims, true
}

// emfAdd adds a metric's value, or its list of up to a hundred.
func emfAdd(acc *accumulator, raw json.RawMessage, namespace, name, unit string, dims map[string]string, at, resolution int64) {
	if resolution != 1 {
		resolution = 60
	}
	var one float64
	var many []float64
	switch {
	case json.Unmarshal(raw, &one) == nil:
		many = []float64{one}
	case json.Unmarshal(raw, &many) != nil || len(many) > 100:
		return
	}
	for _, v := range many {
		acc.add(namespace, name, unit, dims, at, resolution, v)
	}
}
