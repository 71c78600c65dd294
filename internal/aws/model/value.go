package model

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// MaxDepth bounds how deeply a request may nest, in every protocol: deeper
// than any shape of AWS's and far from the stack's end.
const MaxDepth = 64

// Alloc returns the settable value behind v: v itself, or, where v is a
// pointer, a newly allocated element that v then points to.
func Alloc(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return v.Elem()
	}
	return v
}

// Deref follows a pointer or interface; ok is false where there is no value.
// Nil slices and maps are absent, empty ones are values.
func Deref(v reflect.Value) (reflect.Value, bool) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return v, false
		}
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Func:
		return v, !v.IsNil()
	case reflect.Invalid:
		return v, false
	}
	return v, true
}

// SetText parses text as a scalar of this kind into v, a field or an element.
// The error names what was expected, not the member.
func SetText(v reflect.Value, kind Kind, timeFormat, text string) error {
	switch kind {
	case String:
		Alloc(v).SetString(text)
	case Integer:
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return fmt.Errorf("'%s' is not an integer", text)
		}
		Alloc(v).SetInt(n)
	case Float:
		f, err := ParseFloat(text)
		if err != nil {
			return err
		}
		Alloc(v).SetFloat(f)
	case Boolean:
		b, err := parseBool(text)
		if err != nil {
			return err
		}
		Alloc(v).SetBool(b)
	case Timestamp:
		t, err := ParseTime(timeFormat, text)
		if err != nil {
			return err
		}
		Alloc(v).Set(reflect.ValueOf(t))
	default:
		return fmt.Errorf("a value was found where none is expected")
	}
	return nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("'%s' is not a boolean", text)
}

// ParseFloat reads a number, or NaN, Infinity, -Infinity as AWS spells them.
func ParseFloat(text string) (float64, error) {
	switch text = strings.TrimSpace(text); text {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("'%s' is not a number", text)
	}
	return f, nil
}

// Text writes a scalar as XML, headers and query strings have it.
func Text(v reflect.Value, kind Kind, timeFormat string) string {
	switch kind {
	case String:
		return v.String()
	case Integer:
		if v.CanInt() {
			return strconv.FormatInt(v.Int(), 10)
		}
	case Float:
		if v.CanFloat() {
			return FormatFloat(v.Float())
		}
	case Boolean:
		if v.Kind() == reflect.Bool {
			return strconv.FormatBool(v.Bool())
		}
	case Timestamp:
		if t, ok := v.Interface().(time.Time); ok {
			return FormatTime(timeFormat, t)
		}
	}
	return fmt.Sprint(v.Interface()) // a loosely typed error member
}

// FormatFloat writes a number as AWS does: no exponent for everyday sizes.
func FormatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.FormatFloat(f, 'E', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// FormatFloatInt writes a limit of the model, which is mostly a whole number.
func FormatFloatInt(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// Timestamp formats, by the names in AWS's models.
const (
	ISO8601 = "iso8601"
	Unix    = "unixTimestamp"
	RFC822  = "rfc822"
	// Seconds is ISO 8601 without a fraction, for services that write it so.
	Seconds = "iso8601-seconds"
)

// FormatTime writes t in the named format; "" means ISO 8601 with milliseconds.
func FormatTime(format string, t time.Time) string {
	t = t.UTC()
	switch format {
	case Unix:
		return UnixText(t)
	case RFC822:
		return t.Format("Mon, 02 Jan 2006 15:04:05 GMT")
	case Seconds:
		return t.Format("2006-01-02T15:04:05Z")
	}
	return t.Format("2006-01-02T15:04:05.000Z")
}

// UnixText is seconds since 1970 with at most three decimals.
func UnixText(t time.Time) string {
	ms := t.UnixMilli()
	if ms%1000 == 0 {
		return strconv.FormatInt(ms/1000, 10)
	}
	return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64)
}

var timeLayouts = []string{
	time.RFC3339Nano,
	"2006-01-02T15:04:05.999999999", // no zone: UTC
	"2006-01-02T15:04Z07:00",
	"2006-01-02T15:04",
	"2006-01-02T15:04:05.999999999Z0700",
	"20060102T150405Z",
	"2006-01-02 15:04:05",
	"2006-01-02",
	"Mon, 02 Jan 2006 15:04:05 GMT",
	"Mon, _2 Jan 2006 15:04:05 MST",
	"Monday, 02-Jan-06 15:04:05 MST",
	"Mon Jan _2 15:04:05 2006",
}

// ParseTime reads any of the formats, the named one or not: AWS's services
// are as tolerant. A time without a zone is UTC.
func ParseTime(format, text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	for _, l := range timeLayouts {
		if t, err := time.Parse(l, text); err == nil {
			return t.UTC(), nil
		}
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return UnixTime(f)
	}
	return time.Time{}, fmt.Errorf("'%s' is not a timestamp", text)
}

// UnixTime is the instant f seconds after 1970, to the millisecond.
func UnixTime(f float64) (time.Time, error) {
	const year9999 = 253402300800
	if math.IsNaN(f) || f > year9999 || f < -62135596800 {
		return time.Time{}, fmt.Errorf("'%v' is not a timestamp", f)
	}
	return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
}
