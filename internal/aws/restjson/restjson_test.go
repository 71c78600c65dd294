package restjson

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
	"slipway/internal/aws/rest"
)

func TestDecode(t *testing.T) {
	r := &rest.Request{Labels: map[string]string{"resourceArn": "arn:x"}, Query: url.Values{"tagKeys": {"a", "b"}}, Header: http.Header{}}
	in := &api.UntagResourceInput{}
	// What the path says cannot be said again, nor differently, by a body.
	if err := Decode(api.Service, api.OpUntagResource.Input, r, []byte(`{"resourceArn":"arn:y"}`), in); err != nil {
		t.Fatal(err)
	}
	if *in.Arn != "arn:x" || len(in.TagKeys) != 2 {
		t.Errorf("got %+v", in)
	}
	for name, tt := range map[string]struct{ body, code string }{
		"fine":      {`{"Arn":"a","Target":{"TargetType":"SNS","Unknown":[1]}}`, ""},
		"nothing":   {``, ""},
		"not JSON":  {`<x/>`, "SerializationException"},
		"a list":    {`[]`, "SerializationException"},
		"a number":  {`{"Arn":1}`, "SerializationException"},
		"two":       {`{}{}`, "SerializationException"},
		"too deep":  {strings.Repeat(`{"Target":`, 100), "SerializationException"},
		"not ended": {`{"Arn":"a"`, "SerializationException"},
	} {
		if err := Decode(api.Service, api.OpSubscribe.Input, r, []byte(tt.body), &api.SubscribeInput{}); awserr.Code(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// placed has members of every place, and a payload where payload is set.
func placed(payload bool) *model.Service {
	s := &model.Service{Schema: func() []model.Shape {
		return []model.Shape{
			{Name: "Out", Members: []model.Member{
				{Name: "Code", Shape: 1, Where: model.StatusCode},
				{Name: "Next", Shape: 2, Wire: "X-Next", Where: model.Header},
				{Name: "Doc", Shape: 3, Wire: "doc"},
			}},
			{Name: "Integer", Kind: model.Integer}, {Name: "String", Kind: model.String},
			{Name: "Doc", Members: []model.Member{{Name: "Text", Shape: 2, Where: model.Header}}},
		}
	}}
	if payload {
		s.Shape(0).Payload = 3
	}
	return s
}

type (
	doc struct{ Text *string }
	out struct {
		Code *int64
		Next *string
		Doc  *doc
	}
)

func TestEncode(t *testing.T) {
	full := &out{Code: new(int64(202)), Next: new("n"), Doc: &doc{new("t")}}
	for name, tt := range map[string]struct {
		payload bool
		src     *out
		body    string
		status  int
	}{
		// The place of a member counts in the outermost structure only.
		"document": {false, full, `{"doc":{"Text":"t"}}`, 202},
		"payload":  {true, full, `{"Text":"t"}`, 202},
		"nothing":  {false, &out{}, `{}`, 0},
		"no value": {true, &out{}, ``, 0},
	} {
		res, err := Encode(placed(tt.payload), 0, tt.src)
		if err != nil || string(res.Body) != tt.body || res.Status != tt.status {
			t.Errorf("%s: %s %d %v", name, res.Body, res.Status, err)
		}
		if tt.src == full && res.Header.Get("X-Next") != "n" {
			t.Errorf("%s: %v", name, res.Header)
		}
		in := &out{}
		if err := Decode(placed(tt.payload), 0, &rest.Request{Header: res.Header}, res.Body, in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if tt.src == full && (in.Doc == nil || *in.Doc.Text != "t" || *in.Next != "n") {
			t.Errorf("%s came back as %+v", name, in)
		}
	}
}

func TestEncodeError(t *testing.T) {
	svc := placed(false)
	res, err := EncodeError(svc, "Busy", `say "please"`, svc.Shape(0), map[string]any{"Next": "60", "Doc": &doc{new("t")}})
	if err != nil || res.Header.Get("X-Amzn-Errortype") != "Busy" || res.Header.Get("X-Next") != "60" || string(res.Body) != `{"message":"say \"please\"","doc":{"Text":"t"}}` {
		t.Errorf("%v %s %v", res.Header, res.Body, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"Name":"n","Targets":[{"TargetType":"SNS","TargetAddress":"arn"}],"Tags":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		err := Decode(api.Service, api.OpCreateNotificationRule.Input, &rest.Request{}, body, &api.CreateNotificationRuleInput{})
		if err != nil && awserr.As(err) == nil {
			t.Fatal(err)
		}
	})
}
