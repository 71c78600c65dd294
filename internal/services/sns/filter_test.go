package sns

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

type dialer struct{ asked *[]string }

func (d *dialer) dial(_ context.Context, _, addr string) (net.Conn, error) {
	*d.asked = append(*d.asked, addr)
	return nil, errors.New("nothing there")
}

func TestFilterPolicies(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		yes    []string
		no     []string
	}{
		"exact":            {`{"a":["x","y"]}`, []string{`{"a":"x"}`, `{"a":["z","y"]}`, `{"a":"y","b":1}`}, []string{`{"a":"X"}`, `{"b":"x"}`, `{}`, `{"a":{"x":1}}`, `[]`, `x`}},
		"keys and":         {`{"a":["x"],"b":["y"]}`, []string{`{"a":"x","b":"y"}`}, []string{`{"a":"x"}`, `{"b":"y"}`}},
		"null, bool":       {`{"a":[null,true]}`, []string{`{"a":null}`, `{"a":true}`}, []string{`{"a":false}`, `{"a":"true"}`, `{}`}},
		"number":           {`{"a":[3.0]}`, []string{`{"a":3}`, `{"a":3.000001}`, `{"a":[1,3]}`}, []string{`{"a":"3"}`, `{"a":3.1}`}},
		"prefix":           {`{"a":[{"prefix":"ab"}]}`, []string{`{"a":"abc"}`}, []string{`{"a":"xab"}`, `{"a":7}`}},
		"suffix":           {`{"a":[{"suffix":"ab"}]}`, []string{`{"a":"xab"}`}, []string{`{"a":"abc"}`}},
		"ignore case":      {`{"a":[{"equals-ignore-case":"aB"}]}`, []string{`{"a":"Ab"}`}, []string{`{"a":"abc"}`}},
		"wildcard":         {`{"a":[{"wildcard":"x*y*"}]}`, []string{`{"a":"xy"}`, `{"a":"x1y2"}`, `{"a":"xyyy"}`}, []string{`{"a":"yx"}`, `{"a":"ax1y"}`}},
		"cidr":             {`{"a":[{"cidr":"10.0.0.0/24"}]}`, []string{`{"a":"10.0.0.9"}`}, []string{`{"a":"10.0.1.9"}`, `{"a":"x"}`}},
		"numeric range":    {`{"a":[{"numeric":[">",0,"<=",5]}]}`, []string{`{"a":5}`, `{"a":0.1}`}, []string{`{"a":0}`, `{"a":5.1}`, `{"a":"1"}`}},
		"numeric equal":    {`{"a":[{"numeric":["=",301.5]}]}`, []string{`{"a":3.015e2}`}, []string{`{"a":301}`}},
		"exists":           {`{"a":[{"exists":true}]}`, []string{`{"a":1}`, `{"a":"x"}`}, []string{`{"b":1}`}},
		"exists not":       {`{"a":[{"exists":false}]}`, []string{`{"b":1}`}, []string{`{"a":1}`}},
		"anything but":     {`{"a":[{"anything-but":["x",3]}]}`, []string{`{"a":"y"}`, `{"a":4}`, `{"a":["x","y"]}`}, []string{`{"a":"x"}`, `{"a":3}`, `{"b":1}`, `{"a":["x"]}`}},
		"anything but pre": {`{"a":[{"anything-but":{"prefix":"x"}}]}`, []string{`{"a":"y"}`}, []string{`{"a":"xy"}`}},
		"or":               {`{"$or":[{"a":["x"]},{"b":[{"numeric":[">",1]}]}],"c":[1]}`, []string{`{"a":"x","c":1}`, `{"b":2,"c":1}`}, []string{`{"a":"x"}`, `{"c":1}`}},
		"nested":           {`{"a":{"b":["x"],"c":[{"exists":false}]}}`, []string{`{"a":{"b":"x"}}`, `{"a":[{"b":"y"},{"b":"x"}]}`}, []string{`{"a":{"b":"x","c":1}}`, `{"a":"x"}`, `{"b":"x"}`}},
		"not there nested": {`{"a":{"b":[{"exists":false}]}}`, []string{`{}`, `{"a":{}}`}, []string{`{"a":{"b":1}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parseFilter(c.policy, "MessageBody")
			if err != nil {
				t.Fatal(err)
			}
			for _, body := range c.yes {
				if !f.matchBody(body) {
					t.Errorf("%s does not match", body)
				}
			}
			for _, body := range c.no {
				if f.matchBody(body) {
					t.Errorf("%s matches", body)
				}
			}
		})
	}
}

func TestFilterAttributes(t *testing.T) {
	f, err := parseFilter(`{"list":["b"],"n":[{"numeric":[">=",2]}],"s":[{"anything-but":"x"}]}`, "")
	if err != nil {
		t.Fatal(err)
	}
	attrs := map[string]attribute{"list": {"String.Array", `["a","b"]`}, "n": {"Number", "2"}, "s": {"String", "y"}}
	if !f.matchAttributes(attrs) {
		t.Error("should match")
	}
	attrs["n"] = attribute{"String", "2"}
	if f.matchAttributes(attrs) {
		t.Error("text is no number")
	}
}

func TestBadFilters(t *testing.T) {
	for _, text := range []string{``, `[]`, `{"a":[]}`, `{"a":"x"}`, `{"a":[{"prefix":1}]}`, `{"a":[{"near":"x"}]}`, `{"a":[{"numeric":["=",1,"<",2]}]}`, `{"a":[{"numeric":[">",5,"<",1]}]}`,
		`{"a":[{"exists":"x"}]}`, `{"a":[{"cidr":"x"}]}`, `{"a":[1e10]}`, `{"a":[{"wildcard":"**"}]}`, `{"a":{}}`, `{"a":[{"prefix":"x","suffix":"y"}]}`,
		`{"a":[1],"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}`, `{"a":[` + strings.Repeat("1,", 150) + `1]}`, strings.Repeat(`{"a":`, 30) + `[1]` + strings.Repeat(`}`, 30)} {
		if _, err := parseFilter(text, "MessageBody"); err == nil {
			t.Errorf("%.80s was taken", text)
		}
	}
}

func TestWildcardIsQuick(t *testing.T) {
	start := time.Now()
	if wild(strings.Repeat("*a", 50)+"b", strings.Repeat("a", 100_000)) {
		t.Error("matches")
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`{"a":[{"numeric":[">",0,"<=",5]}]}`, `{"a":3}`)
	f.Add(`{"$or":[{"a":["x"]},{"b":[{"exists":false}]}]}`, `{"a":["x"]}`)
	f.Fuzz(func(t *testing.T, policy, body string) {
		for _, scope := range []string{"", "MessageBody"} {
			p, err := parseFilter(policy, scope)
			if err == nil {
				p.matchBody(body)
				p.matchAttributes(map[string]attribute{"a": {"String.Array", body}, "b": {"Number", body}})
			}
		}
	})
}

func TestRetryDelays(t *testing.T) {
	for name, c := range map[string]struct {
		policy retryPolicy
		want   []float64
	}{
		"default":     {defaultRetries(), []float64{20, 20, 20}},
		"phases":      {retryPolicy{MinDelayTarget: 1, MaxDelayTarget: 9, NumRetries: 6, NumNoDelayRetries: 1, NumMinDelayRetries: 1, NumMaxDelayRetries: 2, BackoffFunction: "linear"}, []float64{0, 1, 5, 9, 9, 9}},
		"exponential": {retryPolicy{MinDelayTarget: 1, MaxDelayTarget: 8, NumRetries: 3, BackoffFunction: "exponential"}, []float64{2, 4, 8}},
		"geometric":   {retryPolicy{MinDelayTarget: 1, MaxDelayTarget: 8, NumRetries: 3, BackoffFunction: "geometric"}, []float64{2, 4, 8}},
		"arithmetic":  {retryPolicy{MinDelayTarget: 1, MaxDelayTarget: 7, NumRetries: 3, BackoffFunction: "arithmetic"}, []float64{2, 4, 7}},
	} {
		for n, want := range c.want {
			if d, ok := c.policy.delay(n + 1); !ok || d.Round(time.Millisecond) != seconds(want) {
				t.Errorf("%s: retry %d after %v, want %vs", name, n+1, d, want)
			}
		}
		if _, ok := c.policy.delay(len(c.want) + 1); ok {
			t.Errorf("%s: one retry too many", name)
		}
	}
}
