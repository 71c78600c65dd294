package insights

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// The pattern command finds what messages have in common ("pattern" in the
// Logs user guide; AWS does not say how). A message is cut into words and what
// stands between them. Words that look like dates, numbers or identifiers are
// dynamic at once; messages of the same build, of which most other words are
// alike, become one pattern, and where their words differ it is dynamic too.

const (
	maxLength    = 4096 // bytes of a message and
	maxPieces    = 200  // pieces; the rest of it is one dynamic token
	maxTemplates = 300  // of one build
	alike        = 0.6  // share of the constant words that must be the same
	maxPatterns  = 5000 // in all; what fits none of them is a token
	maxKnown     = 5000 // remembered messages,
	maxKnownSize = 512  // which are short
)

// classes are the kinds of words that are dynamic by their looks, tried in
// this order. The names are those of the tokens.
var classes = []struct {
	name string
	re   *regexp.Regexp
}{
	{"Timestamp", regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d)$`)},
	{"Date", regexp.MustCompile(`^(\d{4}[-/]\d\d[-/]\d\d|\d\d[-/]\d\d[-/]\d{4}|\d\d/[A-Z][a-z]{2}/\d{4})$`)},
	{"Time", regexp.MustCompile(`^\d\d:\d\d(:\d\d([.,]\d+)?)?Z?$`)},
	{"UUID", regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)},
	{"IPAddress", regexp.MustCompile(`^\d{1,3}(\.\d{1,3}){3}(:\d+)?$`)},
	{"Number", regexp.MustCompile(`^[-+]?\d+(\.\d+)?$`)},
	{"Token", regexp.MustCompile(`\d`)},
}

// separators stand between words and belong to the build of a message.
const separators = " \t\r\n[](){}\"'=,;|<>"

// piece is a word or what stands between two words.
type piece struct {
	text  string
	class string // "" for what is constant
	word  bool
}

var severities = map[string]string{
	"trace": "Trace", "debug": "Debug", "info": "Info", "notice": "Info", "warn": "Warning", "warning": "Warning", "err": "Error", "error": "Error",
	"fatal": "Critical", "crit": "Critical", "critical": "Critical", "alert": "Critical", "emerg": "Critical", "panic": "Critical",
}

// cut makes pieces of a message and says how severe it is.
func cut(message string) (pieces []piece, severity string) {
	if len(message) > maxLength {
		pieces, severity = cut(strings.ToValidUTF8(message[:maxLength], ""))
		return append(pieces, piece{class: "Token", word: true}), severity
	}
	for i := 0; i < len(message); {
		if len(pieces) == maxPieces {
			return append(pieces, piece{class: "Token", word: true}), severity
		}
		j := i
		between := strings.IndexByte(separators, message[i]) >= 0
		for j < len(message) && strings.IndexByte(separators, message[j]) >= 0 == between {
			j++
		}
		p := piece{text: message[i:j], word: !between}
		i = j
		if between {
			pieces = append(pieces, p)
			continue
		}
		// Punctuation at the end of a word is between words as well.
		core := strings.TrimRight(p.text, ".:!?")
		rest := p.text[len(core):]
		if core == "" {
			pieces = append(pieces, piece{text: p.text})
			continue
		}
		p.text = core
		for _, c := range classes {
			if !strings.ContainsAny(core, "0123456789") {
				break // each of them has some
			}
			if c.re.MatchString(core) {
				p.class = c.name
				break
			}
		}
		if s := severities[strings.ToLower(core)]; s != "" && severity == "" {
			severity = s
		}
		if pieces = append(pieces, p); rest != "" {
			pieces = append(pieces, piece{text: rest})
		}
	}
	return pieces, severity
}

// build is what messages must share to be compared: how severe they are, and
// what stands between their words.
func build(pieces []piece, severity string) string {
	var b strings.Builder
	b.WriteString(severity)
	for _, p := range pieces {
		b.WriteByte(0)
		if !p.word {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

type template struct {
	pieces   []piece
	severity string
	count    float64
}

// patternRun collects patterns.
type patternRun struct {
	from   expr
	total  float64
	builds map[string][]*template
	order  []*template
	known  map[string]*template
	rest   *template // what is too much; nil while there is none
}

func newPatternRun(from expr) *patternRun {
	return &patternRun{from: from, builds: map[string][]*template{}, known: map[string]*template{}}
}

func (r *patternRun) add(rec *record) {
	v := r.from.eval(rec)
	if v == nil {
		return
	}
	message := show(v)
	r.total++
	if t := r.known[message]; t != nil {
		t.count++
		return
	}
	pieces, severity := cut(message)
	t := r.find(pieces, severity)
	t.count++
	if len(r.known) < maxKnown && len(message) <= maxKnownSize {
		r.known[message] = t
	}
}

// find is the template that the pieces fit best, made general enough for them,
// or a new one.
func (r *patternRun) find(pieces []piece, severity string) *template {
	key := build(pieces, severity)
	var best *template
	most := -1.0
	for _, t := range r.builds[key] {
		if s := t.likeness(pieces); s > most {
			best, most = t, s
		}
	}
	full := len(r.order) >= maxPatterns
	switch {
	case best != nil && (most >= alike || full || len(r.builds[key]) >= maxTemplates):
		best.take(pieces)
		return best
	case full && r.rest == nil:
		r.rest = &template{pieces: []piece{{class: "Token", word: true}}}
		r.order = append(r.order, r.rest)
		return r.rest
	case full:
		return r.rest
	}
	for i := range pieces { // not to hold the whole message
		pieces[i].text = strings.Clone(pieces[i].text)
	}
	t := &template{pieces: pieces, severity: severity}
	r.builds[key] = append(r.builds[key], t)
	r.order = append(r.order, t)
	return t
}

// likeness is the share of the template's constant words that are the same in
// the message; with none of them, both are alike. A template whose words became
// dynamic keeps two constant ones at least, for the next message must have most
// of those that are left.
func (t *template) likeness(pieces []piece) float64 {
	words, same := 0.0, 0.0
	for i, p := range pieces {
		q := t.pieces[i]
		if !p.word || q.class != "" {
			continue
		}
		if words++; p.class == "" && p.text == q.text {
			same++
		}
	}
	if words == 0 {
		return 1
	}
	return same / words
}

// take makes dynamic what differs.
func (t *template) take(pieces []piece) {
	for i, p := range pieces {
		q := &t.pieces[i]
		if !p.word || p.class == q.class && (p.class != "" || p.text == q.text) {
			continue
		}
		q.class = "Token"
	}
}

// String is the pattern: dynamic words are numbered.
func (t *template) String() string {
	var b strings.Builder
	n := 0
	for _, p := range t.pieces {
		if p.class == "" {
			b.WriteString(p.text)
			continue
		}
		n++
		fmt.Fprintf(&b, "<%s-%d>", p.class, n)
	}
	return b.String()
}

// patternColumns are what the command gives.
var patternColumns = []string{"@pattern", "@ratio", "@sampleCount", "@severityLabel"}

// rows are the patterns, the most frequent first. Templates that have become
// the same count together.
func (r *patternRun) rows() []*record {
	type found struct {
		text, severity string
		count          float64
	}
	at := map[string]int{}
	var all []found
	for _, t := range r.order {
		f := found{t.String(), t.severity, t.count}
		key := f.severity + "\x00" + f.text
		if i, ok := at[key]; ok {
			all[i].count += f.count
			continue
		}
		at[key] = len(all)
		all = append(all, f)
	}
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(b.count, a.count) })
	var out []*record
	for _, f := range all {
		rec := &record{}
		rec.set("@pattern", f.text)
		rec.set("@ratio", math.Round(f.count/r.total*1e4)/1e4)
		rec.set("@sampleCount", f.count)
		if f.severity != "" {
			rec.set("@severityLabel", f.severity)
		}
		out = append(out, rec)
	}
	return out
}
