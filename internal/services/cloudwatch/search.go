package cloudwatch

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"slipway/internal/aws/awserr"
	"slipway/internal/services/cloudwatch/mathexpr"
	"slipway/internal/services/cloudwatch/metricstore"
)

// maxSearch is how many series a SEARCH gives at most.
const maxSearch = 500

// searchSeries runs SEARCH (User Guide, "CloudWatch search expression
// syntax") over the metrics of the last two weeks.
func (r *run) searchSeries(expression, stat string, period int64) ([]mathexpr.Series, error) {
	st, err := metricstore.ParseStatistic(stat)
	if err != nil {
		return nil, err
	}
	if bad := checkPeriod(period); bad != "" {
		return nil, fmt.Errorf("the period %s", bad)
	}
	match, err := parseSearch(expression)
	if err != nil {
		return nil, err
	}
	since := r.s.clock.Now().Add(-silentAfter)
	found := r.s.metrics.List(r.span.account, r.span.region, func(m *metricstore.Listed) bool { return !m.Last.Before(since) && match(&m.Metric) })
	var out []mathexpr.Series
	for _, m := range found[:min(len(found), maxSearch)] {
		series, _, err := r.read(m.Metric, "", st, period)
		if err != nil {
			return nil, awserr.New("InternalServiceError", "Metrics cannot be read.").WithStatus(500).WithCause(err)
		}
		if len(series.Points) > 0 {
			series.Label = searchLabel(&m.Metric)
			out = append(out, series)
		}
	}
	return out, nil
}

// searchLabel names a found metric: by its dimensions, then its name.
func searchLabel(m *metricstore.Metric) string {
	var parts []string
	for _, d := range m.Dimensions {
		parts = append(parts, d.Value)
	}
	return strings.Join(append(parts, m.Name), " ")
}

type matcher func(*metricstore.Metric) bool

// parseSearch reads "{namespace,dimension,...} terms".
func parseSearch(s string) (matcher, error) {
	schema := matcher(func(*metricstore.Metric) bool { return true })
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "{") {
		inside, rest, ok := strings.Cut(s[1:], "}")
		if !ok {
			return nil, fmt.Errorf("the schema of the search does not end with }")
		}
		names := splitSchema(inside)
		if len(names) == 0 || names[0] == "" {
			return nil, fmt.Errorf("the schema of the search names no namespace")
		}
		schema = func(m *metricstore.Metric) bool { return m.Namespace == names[0] && sameDimensions(m, names[1:]) }
		s = rest
	}
	p := &searchParser{}
	if err := p.scan(s); err != nil {
		return nil, err
	}
	if len(p.toks) == 0 {
		return schema, nil
	}
	terms, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.at < len(p.toks) {
		return nil, fmt.Errorf("unexpected %q in the search", p.toks[p.at].text)
	}
	return func(m *metricstore.Metric) bool { return schema(m) && terms(m) }, nil
}

func splitSchema(s string) []string {
	var out []string
	for _, part := range strings.Split(s, ",") {
		out = append(out, strings.Trim(strings.TrimSpace(part), `"`))
	}
	return out
}

func sameDimensions(m *metricstore.Metric, names []string) bool {
	if len(names) != len(m.Dimensions) {
		return false
	}
	for _, d := range m.Dimensions {
		if !slices.Contains(names, d.Name) {
			return false
		}
	}
	return true
}

type searchToken struct {
	text   string
	quoted bool
}

type searchParser struct {
	toks []searchToken
	at   int
}

func (p *searchParser) scan(s string) error {
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t':
			i++
		case c == '(' || c == ')' || c == '=':
			p.toks = append(p.toks, searchToken{text: s[i : i+1]})
			i++
		case c == '"':
			end := strings.IndexByte(s[i+1:], '"')
			if end < 0 {
				return fmt.Errorf("a quotation mark in the search is not closed")
			}
			p.toks = append(p.toks, searchToken{s[i+1 : i+1+end], true})
			i += end + 2
		default:
			j := i
			for j < len(s) && !strings.ContainsRune(" \t()=\"", rune(s[j])) {
				j++
			}
			p.toks = append(p.toks, searchToken{text: s[i:j]})
			i = j
		}
	}
	return nil
}

func (p *searchParser) peek(text string) bool {
	return p.at < len(p.toks) && !p.toks[p.at].quoted && p.toks[p.at].text == text
}

func (p *searchParser) or(depth int) (matcher, error) {
	a, err := p.and(depth)
	for err == nil && p.peek("OR") {
		p.at++
		var b matcher
		left := a
		b, err = p.and(depth)
		a = func(m *metricstore.Metric) bool { return left(m) || b(m) }
	}
	return a, err
}

// and joins terms; AND may be left out.
func (p *searchParser) and(depth int) (matcher, error) {
	a, err := p.term(depth)
	for err == nil && p.at < len(p.toks) && !p.peek("OR") && !p.peek(")") {
		if p.peek("AND") {
			p.at++
		}
		var b matcher
		left := a
		b, err = p.term(depth)
		a = func(m *metricstore.Metric) bool { return left(m) && b(m) }
	}
	return a, err
}

func (p *searchParser) term(depth int) (matcher, error) {
	if depth > 50 {
		return nil, fmt.Errorf("the search is nested too deeply")
	}
	if p.at >= len(p.toks) {
		return nil, fmt.Errorf("the search ends where a term is expected")
	}
	if p.peek("NOT") {
		p.at++
		x, err := p.term(depth + 1)
		return func(m *metricstore.Metric) bool { return !x(m) }, err
	}
	if p.peek("(") {
		p.at++
		x, err := p.or(depth + 1)
		if err == nil && !p.peek(")") {
			err = fmt.Errorf("a bracket of the search is not closed")
		}
		p.at++
		return x, err
	}
	t := p.toks[p.at]
	p.at++
	if !p.peek("=") {
		return anywhere(t), nil
	}
	p.at++
	if p.peek("(") { // name=(a OR b)
		start := p.at
		x, err := p.values(t.text, depth+1)
		if err == nil && p.at == start {
			err = fmt.Errorf("the search has no value for %s", t.text)
		}
		return x, err
	}
	if p.at >= len(p.toks) || p.peek(")") {
		return nil, fmt.Errorf("the search has no value for %s", t.text)
	}
	v := p.toks[p.at]
	p.at++
	return propertyMatch(t.text, v), nil
}

// values reads "(a OR b)" behind "name=".
func (p *searchParser) values(name string, depth int) (matcher, error) {
	var any []matcher
	p.at++
	for {
		if p.at >= len(p.toks) || p.peek(")") {
			return nil, fmt.Errorf("the search has no value for %s", name)
		}
		any = append(any, propertyMatch(name, p.toks[p.at]))
		p.at++
		if p.peek("OR") {
			p.at++
			continue
		}
		if !p.peek(")") {
			return nil, fmt.Errorf("a bracket of the search is not closed")
		}
		p.at++
		return func(m *metricstore.Metric) bool {
			return slices.ContainsFunc(any, func(f matcher) bool { return f(m) })
		}, nil
	}
}

func propertyMatch(name string, v searchToken) matcher {
	return func(m *metricstore.Metric) bool {
		switch {
		case strings.EqualFold(name, "MetricName"):
			return matches(m.Name, v)
		case strings.EqualFold(name, "Namespace"):
			return matches(m.Namespace, v)
		}
		for _, d := range m.Dimensions {
			if d.Name == name && matches(d.Value, v) {
				return true
			}
		}
		return false
	}
}

func anywhere(t searchToken) matcher {
	return func(m *metricstore.Metric) bool {
		if matches(m.Name, t) || matches(m.Namespace, t) {
			return true
		}
		for _, d := range m.Dimensions {
			if matches(d.Name, t) || matches(d.Value, t) {
				return true
			}
		}
		return false
	}
}

// matches compares as SEARCH does: a quoted term is the whole text, another
// one is a row of its tokens, whatever their case.
func matches(text string, t searchToken) bool {
	if t.quoted {
		return text == t.text
	}
	have, want := searchWords(text), searchWords(t.text)
	if strings.EqualFold(text, t.text) {
		return true
	}
	for i := 0; len(want) > 0 && i+len(want) <= len(have); i++ {
		if slices.Equal(have[i:i+len(want)], want) {
			return true
		}
	}
	return false
}

// searchWords splits a name into tokens: at what is no letter or digit, where
// lower case turns upper, before the last capital of several, and between
// letters and digits: CPUUtilization is "cpu" and "utilization".
func searchWords(s string) []string {
	var out []string
	var word []rune
	flush := func() {
		if len(word) > 0 {
			out = append(out, strings.ToLower(string(word)))
			word = nil
		}
	}
	runes := []rune(s)
	for i, c := range runes {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			flush()
			continue
		}
		if len(word) > 0 {
			prev := runes[i-1]
			nextLower := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if unicode.IsUpper(c) && (unicode.IsLower(prev) || unicode.IsUpper(prev) && nextLower) || unicode.IsDigit(c) != unicode.IsDigit(prev) {
				flush()
			}
		}
		word = append(word, c)
	}
	flush()
	return out
}
