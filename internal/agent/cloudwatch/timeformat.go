package cloudwatch

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// timeFormat finds and reads the time in a line, by a format of strftime's letters.
type timeFormat struct {
	re    *regexp.Regexp
	parts []byte // what each group of re is
	utc   bool
}

var months = map[string]time.Month{"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}

// timeLetters are the regular expressions of strftime's letters that timestamp_format may have.
var timeLetters = map[byte]string{
	'Y': `(\d{4})`, 'y': `(\d{2})`, 'm': `(\d{1,2})`, 'd': `(\s?\d{1,2})`, 'e': `(\s?\d{1,2})`, 'b': `([A-Za-z]{3})`, 'B': `([A-Za-z]{3,9})`, 'h': `([A-Za-z]{3})`,
	'H': `(\d{1,2})`, 'I': `(\d{1,2})`, 'M': `(\d{1,2})`, 'S': `(\d{1,2})`, 'f': `(\d{1,9})`, 'p': `([AaPp][Mm])`,
	'z': `([+-]\d{2}:?\d{2}|Z)`, 'Z': `([A-Z]{1,5}|[+-]\d{2}:?\d{2})`, 'a': `([A-Za-z]{3})`, 'A': `([A-Za-z]{6,9})`, 's': `(\d{9,11})`, 'j': `(\d{1,3})`,
}

// newTimeFormat compiles a format; times without a zone are UTC or the host's.
func newTimeFormat(format string, utc bool) (*timeFormat, error) {
	f := &timeFormat{utc: utc}
	var re strings.Builder
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c != '%' {
			re.WriteString(regexp.QuoteMeta(string(c)))
			continue
		}
		i++
		if i < len(format) && format[i] == '-' { // %-d: without padding
			i++
		}
		if i >= len(format) {
			return nil, fmt.Errorf("%q ends in the middle of a letter", format)
		}
		letter := format[i]
		expand := map[byte]string{'T': "%H:%M:%S", 'D': "%m/%d/%y", 'F': "%Y-%m-%d", 'R': "%H:%M"}[letter]
		switch {
		case letter == '%':
			re.WriteByte('%')
		case expand != "":
			format = format[:i+1] + expand + format[i+1:]
		case timeLetters[letter] == "":
			return nil, fmt.Errorf("%%%c in %q is not known", letter, format)
		default:
			re.WriteString(timeLetters[letter])
			f.parts = append(f.parts, letter)
		}
	}
	if len(f.parts) == 0 {
		return nil, fmt.Errorf("%q has no letters of a time", format)
	}
	var err error
	f.re, err = regexp.Compile(re.String())
	return f, err
}

// find reads the first time in a line. What the format lacks of the date is now's.
func (f *timeFormat) find(line []byte, now time.Time) (time.Time, bool) {
	if len(line) > 4096 {
		line = line[:4096]
	}
	m := f.re.FindSubmatch(line)
	if m == nil {
		return time.Time{}, false
	}
	zone := time.Local
	if f.utc {
		zone = time.UTC
	}
	now = now.In(zone)
	t := readTime{year: now.Year(), month: now.Month(), day: now.Day(), zone: zone}
	for i, part := range f.parts {
		if !t.set(part, strings.TrimSpace(string(m[i+1]))) {
			return time.Time{}, false
		}
	}
	if t.unix != 0 {
		return time.Unix(t.unix, int64(t.nano)), true
	}
	if t.pm && t.hour < 12 {
		t.hour += 12
	} else if t.am && t.hour == 12 {
		t.hour = 0
	}
	when := time.Date(t.year, t.month, t.day, t.hour, t.minute, t.second, t.nano, t.zone)
	if !t.hasYear && when.After(now.AddDate(0, 0, 2)) {
		when = when.AddDate(-1, 0, 0) // December's line read in January
	}
	return when, true
}

type readTime struct {
	year                            int
	month                           time.Month
	day, hour, minute, second, nano int
	unix                            int64
	am, pm, hasYear                 bool
	zone                            *time.Location
}

// set takes one part and reports whether it made sense.
func (t *readTime) set(part byte, v string) bool {
	n, err := strconv.Atoi(v)
	switch part {
	case 'Y':
		t.year, t.hasYear = n, true
	case 'y':
		t.year, t.hasYear = 2000+n, true
		if n >= 69 { // strptime(3)
			t.year = 1900 + n
		}
	case 'm':
		t.month = time.Month(n)
		return err == nil && n >= 1 && n <= 12
	case 'b', 'B', 'h':
		m, ok := months[strings.ToLower(v[:3])]
		t.month = m
		return ok
	case 'd', 'e':
		t.day = n
		return err == nil && n >= 1 && n <= 31
	case 'j':
		t.month, t.day = 1, n
		return err == nil && n >= 1 && n <= 366
	case 'H', 'I':
		t.hour = n
		return err == nil && n < 24
	case 'M':
		t.minute = n
		return err == nil && n < 60
	case 'S':
		t.second = n
		return err == nil && n <= 60
	case 'f':
		t.nano, err = strconv.Atoi((v + "000000000")[:9])
	case 's':
		t.unix = int64(n)
	case 'p':
		t.pm = v[0] == 'p' || v[0] == 'P'
		t.am = !t.pm
		return true
	case 'z', 'Z':
		return t.setZone(v)
	case 'a', 'A':
		return true
	}
	return err == nil
}

func (t *readTime) setZone(v string) bool {
	if v == "Z" || v == "UTC" || v == "GMT" {
		t.zone = time.UTC
		return true
	}
	if v[0] != '+' && v[0] != '-' {
		return true // a name says too little: the configured zone stays
	}
	digits := strings.ReplaceAll(v[1:], ":", "")
	n, err := strconv.Atoi(digits)
	if err != nil || len(digits) != 4 {
		return false
	}
	seconds := n/100*3600 + n%100*60
	if v[0] == '-' {
		seconds = -seconds
	}
	t.zone = time.FixedZone("", seconds)
	return true
}
