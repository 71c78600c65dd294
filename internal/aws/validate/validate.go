// Package validate checks decoded input against the limits of AWS's models,
// and says what is wrong in the words and codes of the service's protocol.
//
// The models promise more than AWS enforces: EC2 checks little but presence
// before its own logic, and S3 checks everything in its own words, so for
// these two only required members are looked at.
package validate

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
	"slipway/internal/lazyre"
)

// maxFindings is where a message stops listing.
const maxFindings = 20

// finding is one violated constraint.
type finding struct {
	path       string // as AWS's messages spell it: "tags.1.member.key"
	value      string // quoted, or "null"
	constraint string
	member     *model.Member // the top-level member it is in
	missing    bool
}

type checker struct {
	svc      *model.Service
	presence bool // only look for required members
	top      *model.Member
	found    []finding
}

// Input checks in, a pointer to the struct of svc.Shape(shape); nil is fine.
// Safe for concurrent use.
func Input(svc *model.Service, shape int, in any) error {
	v, ok := model.Deref(reflect.ValueOf(in))
	if !ok {
		return nil
	}
	proto := svc.Protocols[0]
	c := &checker{svc: svc, presence: proto == model.EC2 || proto == model.RESTXML}
	c.structure(shape, "", v)
	if len(c.found) == 0 {
		return nil
	}
	switch proto {
	case model.EC2:
		return awserr.New("MissingParameter", "The request must contain the parameter %s", c.found[0].path).WithStatus(400)
	case model.RESTXML:
		return s3Error(c.found[0])
	}
	return c.coral()
}

func s3Error(f finding) error {
	if f.member.Where == model.Body {
		return awserr.New("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema").
			WithStatus(400).WithCause(fmt.Errorf("%s is missing", f.path))
	}
	return awserr.New("InvalidRequest", "Missing required parameter: %s", f.member.WireName()).WithStatus(400)
}

// coral is the answer of the services that share AWS's own framework.
func (c *checker) coral() error {
	if e := c.specific(); e != nil {
		return e
	}
	n := len(c.found)
	s := "s"
	if n == 1 {
		s = ""
	}
	parts := make([]string, 0, n)
	for _, f := range c.found {
		parts = append(parts, fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", f.value, f.path, f.constraint))
	}
	msg := fmt.Sprintf("%d validation error%s detected: %s", n, s, strings.Join(parts, "; "))
	return awserr.New(c.code(), "%s", msg).WithStatus(400)
}

func (c *checker) code() string {
	if c.svc.ValidationCode != "" {
		return c.svc.ValidationCode
	}
	for _, p := range c.svc.Protocols {
		if p == model.Query {
			return "ValidationError"
		}
	}
	return "ValidationException"
}

// specific finds the error that CodeDeploy and CodeCommit have for one member:
// ApplicationNameRequiredException, InvalidApplicationNameException.
func (c *checker) specific() error {
	f := c.found[0]
	name := strings.ToUpper(f.member.Name[:1]) + f.member.Name[1:]
	if _, ok := c.svc.Errors[name+"RequiredException"]; ok && f.missing {
		return awserr.New(name+"RequiredException", "The required parameter %s is missing.", f.path)
	}
	if _, ok := c.svc.Errors["Invalid"+name+"Exception"]; ok && !f.missing {
		return awserr.New("Invalid"+name+"Exception", "Value %s at '%s' failed to satisfy constraint: %s", f.value, f.path, f.constraint)
	}
	return nil
}

func (c *checker) add(path, value, constraint string, missing bool) {
	if len(c.found) < maxFindings {
		c.found = append(c.found, finding{path, value, constraint, c.top, missing})
	}
}

func (c *checker) structure(shape int, path string, v reflect.Value) {
	sh := c.svc.Shape(shape)
	for i := range sh.Members {
		m := &sh.Members[i]
		if path == "" {
			c.top = m
		}
		f, ok := present(v.Field(i))
		if !ok {
			if m.Required && !m.Token {
				c.add(join(path, c.name(m)), "null", "Member must not be null", true)
			}
			continue
		}
		if k := c.svc.Shape(m.Shape).Kind; k == model.Stream || k == model.EventStream {
			continue
		}
		c.value(m.Shape, join(path, c.name(m)), f)
	}
}

// present is model.Deref, but an interface field counts as it is.
func present(v reflect.Value) (reflect.Value, bool) {
	if v.Kind() == reflect.Interface {
		return v, !v.IsNil()
	}
	return model.Deref(v)
}

// name is the member's name in messages: AWS's begins with a small letter,
// EC2's is the parameter's.
func (c *checker) name(m *model.Member) string {
	if c.presence {
		return strings.ToUpper(m.Name[:1]) + m.Name[1:]
	}
	return strings.ToLower(m.Name[:1]) + m.Name[1:]
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (c *checker) value(shape int, path string, v reflect.Value) {
	sh := c.svc.Shape(shape)
	switch sh.Kind {
	case model.Structure:
		c.structure(shape, path, v)
		return
	case model.List:
		c.length(sh, path, v, v.Len())
		if !c.nested(sh.Elem.Shape) {
			return
		}
		for i := range v.Len() {
			if e, ok := model.Deref(v.Index(i)); ok {
				c.value(sh.Elem.Shape, c.index(path, i), e)
			}
		}
		return
	case model.Map:
		c.length(sh, path, v, v.Len())
		for _, k := range v.MapKeys() {
			c.value(sh.Key.Shape, path, k)
			if e, ok := model.Deref(v.MapIndex(k)); ok {
				c.value(sh.Elem.Shape, path+"."+k.String()+".member", e)
			}
		}
		return
	}
	if c.presence {
		return
	}
	switch sh.Kind {
	case model.String:
		c.text(sh, path, v)
	case model.Blob:
		c.length(sh, path, v, v.Len())
	case model.Integer:
		c.size(sh, path, v, float64(v.Int()))
	case model.Float:
		c.size(sh, path, v, v.Float())
	}
}

// nested says whether elements of this shape can violate anything.
func (c *checker) nested(shape int) bool {
	sh := c.svc.Shape(shape)
	switch sh.Kind {
	case model.String, model.Integer, model.Float, model.Blob:
		return !c.presence && (sh.HasMin || sh.HasMax || sh.Pattern != "" || len(sh.Enum) > 0)
	case model.Boolean, model.Timestamp:
		return false
	}
	return true
}

func (c *checker) index(path string, i int) string {
	if c.presence {
		return path + "." + strconv.Itoa(i+1)
	}
	return path + "." + strconv.Itoa(i+1) + ".member"
}

func (c *checker) length(sh *model.Shape, path string, v reflect.Value, n int) {
	if c.presence {
		return
	}
	if sh.HasMax && float64(n) > sh.Max {
		c.add(path, quoted(sh, v), "Member must have length less than or equal to "+model.FormatFloatInt(sh.Max), false)
	}
	if sh.HasMin && float64(n) < sh.Min {
		c.add(path, quoted(sh, v), "Member must have length greater than or equal to "+model.FormatFloatInt(sh.Min), false)
	}
}

func (c *checker) size(sh *model.Shape, path string, v reflect.Value, f float64) {
	if sh.HasMax && f > sh.Max {
		c.add(path, quoted(sh, v), "Member must have value less than or equal to "+model.FormatFloatInt(sh.Max), false)
	}
	if sh.HasMin && f < sh.Min {
		c.add(path, quoted(sh, v), "Member must have value greater than or equal to "+model.FormatFloatInt(sh.Min), false)
	}
}

func (c *checker) text(sh *model.Shape, path string, v reflect.Value) {
	s := v.String()
	if sh.HasMin || sh.HasMax {
		c.length(sh, path, v, chars(s))
	}
	if sh.Pattern != "" {
		if re := pattern(sh.Pattern); re != nil && !re.MatchString(s) {
			c.add(path, quoted(sh, v), "Member must satisfy regular expression pattern: "+sh.Pattern, false)
		}
	}
	if len(sh.Enum) > 0 {
		for _, e := range sh.Enum {
			if e == s {
				return
			}
		}
		c.add(path, quoted(sh, v), "Member must satisfy enum value set: ["+strings.Join(sh.Enum, ", ")+"]", false)
	}
}

// chars counts as Java does: UTF-16 code units.
func chars(s string) int {
	n := 0
	for _, r := range s {
		n += utf16.RuneLen(r)
		if r == '\uFFFD' && utf16.RuneLen(r) < 0 {
			n++
		}
	}
	return n
}

func quoted(sh *model.Shape, v reflect.Value) string {
	if sh.Sensitive {
		return "'***Sensitive Data Redacted***'"
	}
	const limit = 1024
	s := javaString(v, 0)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return "'" + s + "'"
}

// javaString prints a value about as AWS's messages do.
func javaString(v reflect.Value, depth int) string {
	v, ok := model.Deref(v)
	switch {
	case !ok:
		return "null"
	case depth > 4:
		return "..."
	}
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Slice:
		if b, ok := v.Interface().([]byte); ok {
			return fmt.Sprintf("java.nio.HeapByteBuffer[pos=0 lim=%d cap=%d]", len(b), len(b))
		}
		var parts []string
		for i := range min(v.Len(), 50) {
			parts = append(parts, javaString(v.Index(i), depth+1))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Map:
		return fmt.Sprintf("{%d entries}", v.Len())
	case reflect.Struct:
		if f, ok := v.Interface().(fmt.Stringer); ok {
			return f.String()
		}
		var parts []string
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			parts = append(parts, strings.ToLower(name[:1])+name[1:]+"="+javaString(v.Field(i), depth+1))
		}
		return v.Type().Name() + "(" + strings.Join(parts, ", ") + ")"
	}
	return fmt.Sprint(v.Interface())
}

var patterns sync.Map // string -> *regexp.Regexp, nil where Go cannot compile it

// pattern compiles one of AWS's Java patterns for the whole string. Those
// that need look-around or possessive matching are not checked here.
func pattern(p string) *regexp.Regexp {
	if re, ok := patterns.Load(p); ok {
		return re.(*regexp.Regexp)
	}
	re, err := regexp.Compile(`\A(?:` + translate(p) + `)\z`)
	if err != nil {
		re = nil
	}
	patterns.Store(p, re)
	return re
}

// translate rewrites what Java and RE2 spell differently.
func translate(p string) string {
	// All beyond the basic plane, in Java's UTF-16.
	p = strings.ReplaceAll(p, `\uD800\uDC00-\uDBFF\uDFFF`, `\x{10000}-\x{10FFFF}`)
	return strings.NewReplacer(`\p{IsLetter}`, `\p{L}`, `\p{Letter}`, `\p{L}`, `\p{ASCII}`, `[\x00-\x7F]`).Replace(unicodeEscapes.ReplaceAllString(p, `\x{$1}`))
}

var unicodeEscapes = lazyre.New(`\\u([0-9A-Fa-f]{4})`)
