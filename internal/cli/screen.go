package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen shows a region that changes in place where the output is a
// terminal, and plain lines, each said once, where it is not.
type screen struct {
	out   *os.File
	live  bool
	color bool
	width int
	lines int             // of the region now on the screen
	said  map[string]bool // plain lines so far
	start time.Time
}

func newScreen(out *os.File) *screen {
	s := &screen{out: out, said: map[string]bool{}, start: time.Now(), width: 100}
	s.live = term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb"
	s.measure()
	s.color = s.live && os.Getenv("NO_COLOR") == ""
	return s
}

const (
	bold, dim, red, green, yellow, cyan = "1", "2", "31", "32", "33", "36"
)

func (s *screen) paint(code, text string) string {
	if !s.color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// mark is the sign of a status.
func (s *screen) mark(status string) string {
	switch status {
	case "Succeeded", "SUCCEEDED", "Healthy", "healthy", "InService", "OK", "running":
		return s.paint(green, "✔")
	case "Failed", "FAILED", "FAULT", "TIMED_OUT", "unhealthy", "Unhealthy", "ALARM", "terminated":
		return s.paint(red, "✘")
	case "InProgress", "IN_PROGRESS", "initial", "Pending", "draining", "Stopping", "pending":
		return s.paint(yellow, "●")
	case "Skipped", "Stopped", "STOPPED", "Superseded":
		return s.paint(dim, "–")
	}
	return s.paint(dim, "·")
}

// measure looks how wide the terminal is now.
func (s *screen) measure() {
	if w, _, err := term.GetSize(int(s.out.Fd())); err == nil && w > 20 {
		s.width = w
	}
}

// wrap breaks a text at blanks into indented lines that fit the terminal: what
// failed, and why, must not be cut off at its edge. Plain output is one line
// for a line of the text.
func (s *screen) wrap(text, indent string) []string {
	var lines []string
	room := s.width - 1 - len(indent)
	for l := range strings.Lines(text) {
		l = strings.TrimRight(l, "\n\r ")
		for s.live && utf8.RuneCountInString(l) > room {
			head := string([]rune(l)[:room+1])
			at := strings.LastIndexByte(head, ' ')
			if at <= room/2 {
				head = string([]rune(l)[:room]) // one long word
				at = len(head)
			}
			lines = append(lines, indent+l[:at])
			l = strings.TrimLeft(l[at:], " ")
		}
		lines = append(lines, indent+l)
	}
	return lines
}

// region replaces what the last region showed.
func (s *screen) region(lines []string) {
	if !s.live {
		return
	}
	s.measure()
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.lines)
	}
	for _, l := range lines {
		b.WriteString("\r" + cut(l, s.width-1) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	s.lines = len(lines)
	io.WriteString(s.out, b.String())
}

// keep leaves the region on the screen; the next one begins below it.
func (s *screen) keep() { s.lines = 0 }

// say prints a line once, with the time since the start, above the region.
func (s *screen) say(line string) {
	if s.said[line] {
		return
	}
	s.said[line] = true
	if s.live {
		if s.lines > 0 {
			fmt.Fprintf(s.out, "\x1b[%dA\r\x1b[J", s.lines)
			s.lines = 0
		}
		fmt.Fprintln(s.out, line)
		return
	}
	fmt.Fprintf(s.out, "%7.1fs  %s\n", time.Since(s.start).Seconds(), line)
}

// print shows a line below all that was said: no time, and again if need be.
func (s *screen) print(line string) {
	s.keep()
	fmt.Fprintln(s.out, line)
}

// plain says a line only where there is no live region to show it.
func (s *screen) plain(line string) {
	if !s.live {
		s.say(line)
	}
}

// bar draws how far something is.
func (s *screen) bar(f float64) string {
	const n = 30
	full := int(f*n + 0.5)
	return s.paint(cyan, strings.Repeat("━", full)) + s.paint(dim, strings.Repeat("━", n-full)) + fmt.Sprintf(" %3.0f%%", f*100)
}

// cut shortens a line to width columns, leaving colour codes whole.
func cut(line string, width int) string {
	var b strings.Builder
	cols := 0
	for i := 0; i < len(line); {
		if line[i] == 0x1b {
			if end := strings.IndexByte(line[i:], 'm'); end > 0 {
				b.WriteString(line[i : i+end+1])
				i += end + 1
				continue
			}
		}
		r, n := utf8.DecodeRuneInString(line[i:])
		if r < ' ' || r == 0x7f {
			r = ' ' // whatever a build prints must not move the cursor
		}
		if cols >= width {
			i += n
			continue
		}
		b.WriteRune(r)
		cols++
		i += n
	}
	return b.String()
}

// render draws the pipeline as the lines of a region.
func (v *view) render(s *screen, started time.Time) []string {
	lines := []string{"", s.paint(bold, v.Pipeline) + "  " + s.bar(v.fraction()) + "  " + s.paint(dim, short(time.Since(started)))}
	for _, st := range v.Stages {
		status := st.Status
		if status == "" {
			status = "waiting"
		}
		line := fmt.Sprintf("  %s %-8s %s", s.mark(st.Status), st.Name, status)
		if st.Summary != "" && st.Error == "" {
			line += "  " + s.paint(dim, st.Summary)
		}
		lines = append(lines, line)
		if b := st.Build; b != nil && b.Status == "IN_PROGRESS" {
			lines = append(lines, "      "+s.paint(cyan, b.Phase)+"  "+s.paint(dim, b.LastLine))
		}
		if st.Deploy != nil {
			for _, t := range st.Deploy.Targets {
				lines = append(lines, t.render(s))
			}
			if st.Deploy.Rollback != "" {
				lines = append(lines, "      "+s.paint(yellow, "rolled back by "+st.Deploy.Rollback))
			}
		}
		if st.Error != "" {
			for _, l := range s.wrap(st.Error, "      ") {
				lines = append(lines, s.paint(red, l))
			}
		}
	}
	return lines
}

func (t targetView) render(s *screen) string {
	what := t.Event
	if what == "" && len(t.Events) > 0 {
		what = t.Events[len(t.Events)-1]
		for _, e := range t.Events {
			if strings.Contains(e, " Failed") { // what follows it was only skipped
				what = e
			}
		}
	}
	dots := s.paint(green, strings.Repeat("▪", t.Done)) + s.paint(dim, strings.Repeat("▫", max(0, t.Total-t.Done)))
	return fmt.Sprintf("      %s %s  %s  %s", s.mark(t.Status), t.Instance, dots, what)
}

// narrate says in plain lines what the region would show.
func (v *view) narrate(s *screen) {
	if s.live {
		return
	}
	id := v.Execution
	if len(id) > 8 {
		id = id[:8]
	}
	for _, st := range v.Stages {
		if st.Status == "" {
			continue
		}
		if b := st.Build; b != nil {
			for _, p := range b.Phases {
				s.say(fmt.Sprintf("[%s] %s: %s", id, st.Name, p))
			}
		}
		if d := st.Deploy; d != nil {
			for _, t := range d.Targets {
				for _, e := range t.Events {
					s.say(fmt.Sprintf("[%s] %s: %s %s", id, st.Name, t.Instance, e))
				}
			}
			if d.Rollback != "" {
				s.say(fmt.Sprintf("[%s] %s: rolled back by %s", id, st.Name, d.Rollback))
			}
		}
		line := fmt.Sprintf("[%s] %s: %s", id, st.Name, st.Status)
		if st.Error != "" {
			line += ": " + st.Error
		}
		s.say(line)
	}
}
