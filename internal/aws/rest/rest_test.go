package rest

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"testing"
	"time"

	"slipway/internal/aws/model"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		template, path string
		labels         map[string]string
		literals       int
		ok             bool
	}{
		{"/subscribe", "/subscribe", map[string]string{}, 1, true},
		{"/subscribe", "/subscribe/", map[string]string{}, 1, true},
		{"/subscribe", "/Subscribe", nil, 0, false},
		{"/subscribe", "/subscribe/more", nil, 0, false},
		{"/", "/", map[string]string{}, 1, true},
		{"/tags/{arn}", "/tags/arn%3Aaws%3Ax%2Fy", map[string]string{"arn": "arn:aws:x/y"}, 1, true},
		{"/tags/{arn}", "/tags/", nil, 0, false},
		{"/tags/{arn}", "/tags", nil, 0, false},
		{"/tags/{arn}", "/tags/%zz", nil, 0, false},
		{"/a/{b}/c/{d}", "/a/1/c/2", map[string]string{"b": "1", "d": "2"}, 2, true},
		{"/a/{b}/c/{d}", "/a/1/x/2", nil, 0, false},
		{"/a/{b}/{rest+}", "/a/1/x/2%20/z", map[string]string{"b": "1", "rest": "x/2 /z"}, 1, true},
		{"/a/{rest+}", "/a", nil, 0, false},
	} {
		labels, literals, ok := Match(tt.template, tt.path)
		if ok != tt.ok || ok && (literals != tt.literals || !maps.Equal(labels, tt.labels)) {
			t.Errorf("%s against %s: %v %d %v", tt.path, tt.template, labels, literals, ok)
		}
	}
}

// thing has a member in each place; its shapes are 1 to 5.
type thing struct {
	Name  *string
	Size  *int64
	Kinds []string
	When  *time.Time
	Rest  map[string][]string
	Meta  map[string]string
	Text  *string
}

var service = &model.Service{Schema: func() []model.Shape {
	return []model.Shape{
		{Name: "Thing", Members: []model.Member{
			{Name: "Name", Shape: 1, Wire: "name", Where: model.URI},
			{Name: "Size", Shape: 2, Wire: "size", Where: model.QueryString},
			{Name: "Kinds", Shape: 3, Wire: "kind", Where: model.QueryString},
			{Name: "When", Shape: 4, Wire: "X-When", Where: model.Header},
			{Name: "Rest", Shape: 5, Where: model.QueryString},
			{Name: "Meta", Shape: 6, Wire: "X-Meta-", Where: model.Headers},
			{Name: "Text", Shape: 1},
		}},
		{Name: "String", Kind: model.String},
		{Name: "Integer", Kind: model.Integer},
		{Name: "Strings", Kind: model.List, Elem: model.Ref{Shape: 1}},
		{Name: "Time", Kind: model.Timestamp},
		{Name: "Lists", Kind: model.Map, Key: model.Ref{Shape: 1}, Elem: model.Ref{Shape: 3}},
		{Name: "Texts", Kind: model.Map, Key: model.Ref{Shape: 1}, Elem: model.Ref{Shape: 1}},
	}
}}

func TestBind(t *testing.T) {
	r := &Request{Labels: map[string]string{"name": "a/b"}, Query: url.Values{"size": {"3"}, "kind": {"x", "y"}, "other": {"1", "2"}},
		Header: http.Header{"X-When": {"Sun, 23 Nov 2025 01:02:03 GMT"}, "X-Meta-Color": {"blue"}}}
	var in thing
	hasBody, err := Bind(service, 0, r, reflect.ValueOf(&in).Elem())
	if err != nil || !hasBody {
		t.Fatal(hasBody, err)
	}
	if *in.Name != "a/b" || *in.Size != 3 || !slices.Equal(in.Kinds, []string{"x", "y"}) || in.When.Second() != 3 || in.Meta["color"] != "blue" {
		t.Errorf("got %+v", in)
	}
	if len(in.Rest) != 1 || !slices.Equal(in.Rest["other"], []string{"1", "2"}) {
		t.Errorf("the other parameters are %v", in.Rest)
	}
	r.Query.Set("size", "large")
	var bad *BadValue
	if _, err := Bind(service, 0, r, reflect.ValueOf(&in).Elem()); !errors.As(err, &bad) || bad.Member != "size" || bad.Value != "large" {
		t.Errorf("got %v", err)
	}
}

func TestWrite(t *testing.T) {
	res := &Response{Header: http.Header{}}
	when := time.Date(2025, 11, 23, 1, 2, 3, 0, time.UTC)
	src := thing{When: &when, Meta: map[string]string{"a": "line\r\nbreak"}}
	if !Write(service, 0, reflect.ValueOf(src), res) {
		t.Error("there is a member for the body")
	}
	if got := res.Header.Get("X-When"); got != "Sun, 23 Nov 2025 01:02:03 GMT" {
		t.Errorf("X-When: %s", got)
	}
	if got := res.Header["x-meta-a"]; len(got) != 1 || got[0] != "line  break" {
		t.Errorf("x-meta-a: %q", got)
	}
}
