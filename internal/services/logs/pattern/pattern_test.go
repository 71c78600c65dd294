package pattern_test

import (
	"errors"
	"testing"

	"slipway/internal/services/logs/pattern"
)

func TestMatch(t *testing.T) {
	const e = "2026/01/02 03:04:05 [error] 12#12: *4 connect() failed (111: Connection refused)"
	for _, c := range []struct {
		pattern, message string
		want             bool
	}{
		{"", "x", true}, {" ", "x", true},
		{"ERROR", "[ERROR 400] BAD REQUEST", true}, {"ERROR", "error", false},
		{"ERROR ARGUMENTS", "[ERROR 419] MISSING ARGUMENTS", true}, {"ERROR ARGUMENTS", "[ERROR 401] UNAUTHORIZED", false},
		{"?ERROR ?ARGUMENTS", "MISSING ARGUMENTS", true}, {"?ERROR ?ARGUMENTS", "OK", false},
		{"ERROR -ARGUMENTS", "ERROR UNAUTHORIZED", true}, {"ERROR -ARGUMENTS", "ERROR MISSING ARGUMENTS", false},
		{`"[error]"`, e, true}, {`?"[crit]" ?"[error]"`, e, true}, {`"Connection refused" -"[warn]"`, e, true},
		{`"say \"hi\""`, `I say "hi"`, true}, {`%1[0-9]{2}: Conn%`, e, true}, {`-%refused%`, e, false},
	} {
		p, err := pattern.Parse(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.Match(c.message); got != c.want {
			t.Errorf("%s on %q: %v", c.pattern, c.message, got)
		}
	}
}

func TestErrors(t *testing.T) {
	for in, column := range map[string]int{`"open`: 1, "a -": 4, "a %b": 3, "%(%": 1, "a (b)": 3, "%a% %b% %c%": 9,
		"{ $.a }": 7, "{ $.a = }": 9, "{ $.a = 1": 10, "{ a = 1 }": 3, "{ $.a > b }": 9, "{ ($.a = 1 }": 12, "[a, b": 6, "[]": 3, "[a, ..., b, ...]": 16, "[a ! 1]": 4} {
		_, err := pattern.Parse(in)
		var se *pattern.SyntaxError
		if !errors.As(err, &se) || se.Column != column {
			t.Errorf("%s: %v, want column %d", in, err, column)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`a "b c" -d ?e %f%`)
	f.Add(`{ ($.a[0].b = "x*" || $["c"] IS NULL) && $.* >= 1e-3 }`)
	f.Add(`[a, b = 4* && b != %40.%, ..., c > 1]`)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := pattern.Parse(s); err == nil {
			p.Match(s)
		}
	})
}

const cloudTrail = `{"eventType": "UpdateTrail", "sourceIPAddress": "111.111.111.111", "arrayKey": ["value", "another value"],
	"objectList": [{"name": "a", "id": 1}, {"name": "b", "id": 2}], "SomeObject": null, "ThisFlag": true, "latency": 1.5e-2, "n": 404}`

const access = `127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534`

func TestStructured(t *testing.T) {
	for _, c := range []struct {
		pattern, message string
		want             bool
	}{
		{`{ $.eventType = "UpdateTrail" }`, cloudTrail, true}, {`{ $.eventType = UpdateTrail }`, cloudTrail, true}, {`{ $.eventType = Update }`, cloudTrail, false},
		{`{ $.sourceIPAddress != 123.123.* }`, cloudTrail, true}, {`{ $.sourceIPAddress = 111.* }`, cloudTrail, true},
		{`{ $.arrayKey[0] = "value" }`, cloudTrail, true}, {`{ $.arrayKey[1] = "value" }`, cloudTrail, false}, {`{ $.arrayKey[*] = "another value" }`, cloudTrail, true},
		{`{ $.objectList[1].id = 2 }`, cloudTrail, true}, {`{ $.objectList[1].id > 2 }`, cloudTrail, false}, {`{ $['objectList'][0]["name"] = a }`, cloudTrail, true},
		{`{ $.SomeObject IS NULL }`, cloudTrail, true}, {`{ $.SomeOtherObject NOT EXISTS }`, cloudTrail, true}, {`{ $.SomeObject NOT EXISTS }`, cloudTrail, false},
		{`{ $.ThisFlag IS TRUE }`, cloudTrail, true}, {`{ $.ThisFlag IS FALSE }`, cloudTrail, false}, {`{ $.latency >= 1.5e-2 }`, cloudTrail, true}, {`{ $.latency < 0.015 }`, cloudTrail, false},
		{`{ $.missing != 1 }`, cloudTrail, false}, {`{ $.n = 4* }`, cloudTrail, true}, {`{ $.eventType = %Trail$% }`, cloudTrail, true},
		{`{ ($.n = 1 || $.n = 404) && $.ThisFlag IS TRUE }`, cloudTrail, true}, {`{ $.n = 404 || $.n = 1 && $.ThisFlag IS FALSE }`, cloudTrail, true},
		{`{ ($.n = 404 || $.n = 1) && $.ThisFlag IS FALSE }`, cloudTrail, false}, {`{ $.* = 404 }`, cloudTrail, true},
		{`{ $.a = 1 }`, "no json", false}, {`{ $.a = 1 }`, `{"a": 1`, false},
		{"[ip, user, username, timestamp, request, status_code, bytes]", access, true}, {"[ip, user]", access, false}, {"[..., status_code, bytes]", access, true},
		{"[ip, user, username, timestamp, request, status_code = 4*, bytes]", access, true}, {"[ip, user, username, timestamp, request, status_code = 4* && status_code != 404, bytes]", access, false},
		{"[ip, ..., status_code >= 400 && status_code < 500, bytes > 1500]", access, true}, {"[ip, ..., request = *html*, status_code, bytes]", access, true},
		{`[ip, user, username, timestamp = "10/Oct/2000:13:25:15 -0700", request =%GET.*html%, , ]`, access, true}, {"[w1 = ERROR || w1 = %WARN%, ...]", "WARNING disk", true},
		{"[w1 = ERROR || w1 = %WARN%, ...]", "INFO disk", false}, {"[error]", "one", true}, {"[error]", "two words", false},
	} {
		p, err := pattern.Parse(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.Match(c.message); got != c.want {
			t.Errorf("%s on %q: %v", c.pattern, c.message, got)
		}
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct{ pattern, message, selector, want string }{
		{"[..., status, size]", access, "$size", "1534"}, {"[a, , ...]", access, "$2", "Prod"},
		{"{ $.n = * }", cloudTrail, "$.latency", "0.015"}, {"{ $.n = 404 }", cloudTrail, "$.objectList[0].name", "a"},
	} {
		p, err := pattern.Parse(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		sel, err := p.Selector(c.selector)
		if err != nil {
			t.Fatal(err)
		}
		f, ok := p.Find(c.message)
		if v, has := f.Value(sel); !ok || !has || v != c.want {
			t.Errorf("%s of %s: %q %v %v", c.selector, c.pattern, v, ok, has)
		}
	}
	p, _ := pattern.Parse("[ip, ..., size]")
	if _, err := p.Selector("$user"); err == nil {
		t.Error("a field that the pattern does not have was taken")
	}
	f, _ := p.Find(access)
	if v := f.Values(); len(v) != 2 || v["$ip"] != "127.0.0.1" || v["$size"] != "1534" {
		t.Error(v)
	}
}
