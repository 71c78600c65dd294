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
	for in, column := range map[string]int{`"open`: 1, "a -": 4, "a %b": 3, "%(%": 1, "a (b)": 3, "%a% %b% %c%": 9} {
		_, err := pattern.Parse(in)
		var se *pattern.SyntaxError
		if !errors.As(err, &se) || se.Column != column {
			t.Errorf("%s: %v, want column %d", in, err, column)
		}
	}
	for _, in := range []string{"{ $.a = 1 }", "[ip, user]"} {
		if _, err := pattern.Parse(in); !errors.Is(err, pattern.ErrNotBuilt) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`a "b c" -d ?e %f%`)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := pattern.Parse(s); err == nil {
			p.Match(s)
		}
	})
}
