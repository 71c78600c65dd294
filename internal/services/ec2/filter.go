package ec2

import (
	"encoding/base64"
	"slices"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

// fields computes, by filter name, the values that a resource of type T has.
type fields[T any] map[string]func(T) []string

// one adapts a field with a single value; an empty one matches nothing.
func one[T any](f func(T) string) func(T) []string {
	return func(v T) []string {
		if s := f(v); s != "" {
			return []string{s}
		}
		return nil
	}
}

// filtered keeps what all filters accept: within a filter any value will do
// (EC2 API reference, Filter). tags may be nil where T has none.
func filtered[T any](all []T, filters []api.Filter, by fields[T], tags func(T) map[string]string) ([]T, error) {
	for _, f := range filters {
		name := ptr.Value(f.Name)
		values, err := valuesOf(name, by, tags)
		if err != nil {
			return nil, err
		}
		var keep []T
		for _, v := range all {
			if matchAny(values(v), f.Values) {
				keep = append(keep, v)
			}
		}
		all = keep
	}
	return all, nil
}

func valuesOf[T any](name string, by fields[T], tags func(T) map[string]string) (func(T) []string, error) {
	if get := by[name]; get != nil {
		return get, nil
	}
	if tags != nil {
		if key, ok := strings.CutPrefix(name, "tag:"); ok {
			return func(v T) []string {
				if s, ok := tags(v)[key]; ok {
					return []string{s}
				}
				return nil
			}, nil
		}
		switch name {
		case "tag-key":
			return func(v T) []string { return sortedKeys(tags(v)) }, nil
		case "tag-value":
			return func(v T) (out []string) {
				for _, s := range tags(v) {
					out = append(out, s)
				}
				return out
			}, nil
		}
	}
	return nil, awserr.New("InvalidParameterValue", "The filter '%s' is invalid", name)
}

func matchAny(have, want []string) bool {
	return slices.ContainsFunc(want, func(pattern string) bool {
		return slices.ContainsFunc(have, func(s string) bool { return wildcard(pattern, s) })
	})
}

// wildcard matches EC2's filter patterns: * for any run, ? for one character,
// a backslash makes the next one literal. Linear in space, at most quadratic in time.
func wildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
			continue
		case p < len(pattern) && pattern[p] == '\\' && p+1 < len(pattern) && pattern[p+1] == s[i]:
			p, i = p+2, i+1
			continue
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
			continue
		case star >= 0:
			mark++
			p, i = star+1, mark
			continue
		}
		return false
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// page cuts a list that is ordered by key into pages: it starts behind the
// token's key and returns a token where more follows. max nil: everything.
func page[T any](all []T, key func(T) string, max *int64, next *string, low, high int64) ([]T, *string, error) {
	if max != nil && (*max < low || *max > high) {
		return nil, nil, awserr.New("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value between %d and %d.", *max, low, high)
	}
	if next != nil && *next != "" {
		raw, err := base64.RawURLEncoding.DecodeString(*next)
		after, ok := strings.CutPrefix(string(raw), "after:")
		if err != nil || !ok {
			return nil, nil, awserr.New("InvalidParameterValue", "Unable to parse pagination token")
		}
		i := slices.IndexFunc(all, func(v T) bool { return key(v) > after })
		if i < 0 {
			i = len(all)
		}
		all = all[i:]
	}
	if max == nil || int64(len(all)) <= *max {
		return all, nil, nil
	}
	all = all[:*max]
	token := base64.RawURLEncoding.EncodeToString([]byte("after:" + key(all[len(all)-1])))
	return all, &token, nil
}

// dryRun is EC2's answer to a permitted dry run (API reference, "Common
// query parameters", DryRun).
func dryRun(flag *bool) error {
	if flag != nil && *flag {
		return awserr.New("DryRunOperation", "Request would have succeeded, but DryRun flag is set.").WithStatus(412)
	}
	return nil
}
