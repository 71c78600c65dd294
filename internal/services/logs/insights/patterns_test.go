package insights

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// patternsOf runs a query over messages; each row is its fields by name.
func patternsOf(t *testing.T, query string, messages []string) []map[string]string {
	t.Helper()
	q, err := Parse(query)
	if err != nil {
		t.Fatal(err)
	}
	run := q.Start(0)
	for i, m := range messages {
		run.Add(&Event{Time: int64(-i), Message: m})
	}
	var out []map[string]string
	for _, row := range run.Results() {
		fields := map[string]string{}
		for _, f := range row {
			fields[f.Name] = f.Value
		}
		out = append(out, fields)
	}
	return out
}

func TestPatterns(t *testing.T) {
	var messages []string
	for i := range 6 {
		messages = append(messages, fmt.Sprintf("2026-01-02 03:04:0%d [INFO] Request time: %d ms", i, 300+i))
	}
	for i, user := range []string{"ann", "bob", "carl"} {
		messages = append(messages, fmt.Sprintf("2026-01-02 03:05:0%d [ERROR] user %s was refused by 10.0.0.%d: wrong password", i, user, i))
	}
	messages = append(messages, "shutting down")
	got := patternsOf(t, "pattern @message", messages)
	want := []map[string]string{
		{"@pattern": "<Date-1> <Time-2> [INFO] Request time: <Number-3> ms", "@ratio": "0.6", "@sampleCount": "6", "@severityLabel": "Info"},
		{"@pattern": "<Date-1> <Time-2> [ERROR] user <Token-3> was refused by <IPAddress-4>: wrong password", "@ratio": "0.3", "@sampleCount": "3", "@severityLabel": "Error"},
		{"@pattern": "shutting down", "@ratio": "0.1", "@sampleCount": "1"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
	got = patternsOf(t, `filter @message like "user" | parse @message "user * was" as who | pattern who | sort @pattern asc | limit 2`, messages)
	if len(got) != 2 || got[0]["@pattern"] != "ann" || got[1]["@sampleCount"] != "1" {
		t.Errorf("of a parsed field: %v", got)
	}
	got = patternsOf(t, `pattern @message | filter @severityLabel = "Error" | fields @sampleCount * 2 as double`, messages)
	if len(got) != 1 || got[0]["double"] != "6" {
		t.Errorf("patterns as rows: %v", got)
	}
}

// asExpression is a pattern as a regular expression.
func asExpression(pattern string) *regexp.Regexp {
	token := regexp.MustCompile(`<[A-Za-z]+-\d+>`)
	var b strings.Builder
	b.WriteString("(?s)^")
	last := 0
	for _, at := range token.FindAllStringIndex(pattern, -1) {
		b.WriteString(regexp.QuoteMeta(pattern[last:at[0]]) + "(.+?)")
		last = at[1]
	}
	return regexp.MustCompile(b.String() + regexp.QuoteMeta(pattern[last:]) + "$")
}

// TestEveryMessageHasItsPattern checks what must hold of any messages: the
// counts are a partition, and each message fits a pattern.
func TestEveryMessageHasItsPattern(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		words := []string{"user", "login", "failed", "GET", "/index.html", "id=%d", "10.0.0.%d", "took", "%d ms", "ERROR", "info:", "{\"a\": %d}", "12:00:%02d", "x", "(retry)", "done."}
		var messages []string
		for range 300 {
			var parts []string
			for range 1 + rnd.IntN(6) {
				w := words[rnd.IntN(len(words))]
				if strings.Contains(w, "%") {
					w = fmt.Sprintf(w, rnd.IntN(60))
				}
				parts = append(parts, w)
			}
			messages = append(messages, strings.Join(parts, " "))
		}
		rows := patternsOf(t, "pattern @message", messages)
		total, ratio := 0.0, 0.0
		var fits []*regexp.Regexp
		for i, row := range rows {
			n, _ := strconv.ParseFloat(row["@sampleCount"], 64)
			r, _ := strconv.ParseFloat(row["@ratio"], 64)
			total, ratio = total+n, ratio+r
			if before, _ := strconv.ParseFloat(rows[max(i-1, 0)]["@sampleCount"], 64); n > before {
				t.Fatalf("seed %d: pattern %d has %v of them, the one before %v", seed, i, n, before)
			}
			fits = append(fits, asExpression(row["@pattern"]))
		}
		if total != 300 || math.Abs(ratio-1) > 0.05 {
			t.Fatalf("seed %d: %v messages, ratio %v", seed, total, ratio)
		}
	next:
		for _, m := range messages {
			for _, e := range fits {
				if e.MatchString(m) {
					continue next
				}
			}
			t.Fatalf("seed %d: %q fits no pattern", seed, m)
		}
	}
}

func TestPatternsAreBounded(t *testing.T) {
	var messages []string
	for i := range 3 * maxPatterns { // each of a build of its own
		messages = append(messages, strings.Repeat("(", i%150)+"word"+strings.Repeat(")", i/150))
	}
	messages = append(messages, strings.Repeat("long ", 100_000), strings.Repeat("[", 10_000), "\xff\xfe", "")
	rows := patternsOf(t, "pattern @message | limit 10000", messages)
	total := 0.0
	for _, row := range rows {
		n, _ := strconv.ParseFloat(row["@sampleCount"], 64)
		total += n
	}
	if len(rows) > maxPatterns+1 || total != float64(len(messages)) {
		t.Errorf("%d patterns of %v messages", len(rows), total)
	}
}

func BenchmarkPatterns(b *testing.B) {
	q, err := Parse("pattern @message")
	if err != nil {
		b.Fatal(err)
	}
	run := q.Start(0)
	for i := 0; b.Loop(); i++ {
		m := fmt.Sprintf(`127.0.0.%d - - [02/Jan/2026:03:04:05 +0000] "GET /item/%d HTTP/1.1" 200 %d "-" "curl/8.0"`, i%256, i, i%5000)
		b.SetBytes(int64(len(m)))
		run.Add(&Event{Message: m})
	}
}
