package awsjson

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// num scans a JSON number.
func (d *decoder) num(c byte, want string) (float64, string, error) {
	if c != '-' && (c < '0' || c > '9') {
		return 0, "", d.mismatch(c, want)
	}
	start := d.i
	for d.i < len(d.b) {
		switch c := d.b[d.i]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			d.i++
			continue
		}
		break
	}
	text := string(d.b[start:d.i])
	digits := strings.TrimPrefix(text, "-")
	bad := digits == "" || digits[0] < '0' || digits[0] > '9' || len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' || strings.HasSuffix(text, ".")
	f, err := strconv.ParseFloat(text, 64)
	if bad || err != nil {
		return 0, "", d.fail("'%s' is not a number", text)
	}
	return f, text, nil
}

func (d *decoder) literal(s string) error {
	if len(d.b)-d.i < len(s) || string(d.b[d.i:d.i+len(s)]) != s {
		return d.fail("unexpected character at byte %d", d.i)
	}
	d.i += len(s)
	return nil
}

// skip passes over any value, checking its syntax.
func (d *decoder) skip() error {
	switch c := d.peek(); c {
	case '{':
		return d.object(func(string) error { return d.skip() })
	case '[':
		if err := d.enter(); err != nil {
			return err
		}
		defer func() { d.depth-- }()
		d.i++
		if d.peek() == ']' {
			d.i++
			return nil
		}
		for {
			if err := d.skip(); err != nil {
				return err
			}
			switch d.peek() {
			case ',':
				d.i++
			case ']':
				d.i++
				return nil
			default:
				return d.fail("',' or ']' was expected at byte %d", d.i)
			}
		}
	case '"':
		_, err := d.str()
		return err
	case 't':
		return d.literal("true")
	case 'f':
		return d.literal("false")
	case 'n':
		return d.literal("null")
	default:
		_, _, err := d.num(c, "value")
		return err
	}
}

// str reads a string; the next byte is its opening quote.
func (d *decoder) str() (string, error) {
	d.i++
	start := d.i
	for d.i < len(d.b) {
		switch c := d.b[d.i]; {
		case c == '"':
			s := d.b[start:d.i]
			d.i++
			if !utf8.Valid(s) {
				return strings.ToValidUTF8(string(s), "\uFFFD"), nil
			}
			return string(s), nil
		case c == '\\':
			return d.escaped(start)
		case c < 0x20:
			return "", d.fail("a control character in a string at byte %d", d.i)
		}
		d.i++
	}
	return "", d.fail("a string that does not end")
}

func (d *decoder) escaped(start int) (string, error) {
	out := append(make([]byte, 0, d.i-start+64), d.b[start:d.i]...)
	for d.i < len(d.b) {
		c := d.b[d.i]
		d.i++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return strings.ToValidUTF8(string(out), "\uFFFD"), nil
			}
			return string(out), nil
		case c < 0x20:
			return "", d.fail("a control character in a string at byte %d", d.i-1)
		case c != '\\':
			out = append(out, c)
			continue
		}
		if d.i >= len(d.b) {
			break
		}
		e := d.b[d.i]
		d.i++
		if e == 'u' {
			r, err := d.unicode()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
			continue
		}
		const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		k := strings.IndexByte(from, e)
		if k < 0 {
			return "", d.fail("an unknown escape in a string at byte %d", d.i-1)
		}
		out = append(out, to[k])
	}
	return "", d.fail("a string that does not end")
}

func (d *decoder) unicode() (rune, error) {
	r, err := d.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if d.i+1 < len(d.b) && d.b[d.i] == '\\' && d.b[d.i+1] == 'u' {
		at := d.i
		d.i += 2
		low, err := d.hex4()
		if err != nil {
			return 0, err
		}
		if c := utf16.DecodeRune(r, low); c != utf8.RuneError {
			return c, nil
		}
		d.i = at
	}
	return utf8.RuneError, nil
}

func (d *decoder) hex4() (rune, error) {
	if len(d.b)-d.i < 4 {
		return 0, d.fail("a string that does not end")
	}
	n, err := strconv.ParseUint(string(d.b[d.i:d.i+4]), 16, 32)
	if err != nil {
		return 0, d.fail("an unknown escape in a string at byte %d", d.i)
	}
	d.i += 4
	return rune(n), nil
}
