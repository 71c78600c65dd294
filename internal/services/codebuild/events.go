package codebuild

import (
	"strings"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
)

// apply is an event's effect on the row. Events come in the order of their
// numbers; one that the row knows already changes nothing.
func (b *Build) apply(ev build.Event) {
	if ev.Seq <= b.Seq || b.Complete() {
		return
	}
	b.Seq = ev.Seq
	switch ev.Type {
	case build.EventPhaseStart:
		b.enter(ev.Phase, ev.Time)
	case build.EventPhaseEnd:
		status, contexts := ev.Status, make([]api.PhaseContext, 0, len(ev.Contexts)+1)
		for _, c := range ev.Contexts {
			contexts = append(contexts, because(c.StatusCode, c.Message))
		}
		if ev.Phase == build.PhaseUploadArtifacts && b.Trouble != "" && status == build.StatusSucceeded {
			status, contexts = build.StatusFailed, []api.PhaseContext{because(build.CodeClientError, b.Trouble)}
		}
		b.leave(ev.Phase, status, ev.Time, contexts...)
	case build.EventExported:
		for _, v := range ev.Exported {
			b.API.ExportedEnvironmentVariables = append(b.API.ExportedEnvironmentVariables, api.ExportedEnvironmentVariable{Name: new(v.Name), Value: new(v.Value)})
		}
	case build.EventDone:
		status := ev.Status
		if b.Trouble != "" && status == build.StatusSucceeded {
			status = build.StatusFailed
		}
		b.finish(status, ev.Time)
	}
}

// lines cuts the text of log events into the lines that are sent to the log;
// a line without its end waits for the rest of it.
type lines struct{ rest string }

func (l *lines) add(text string) []string {
	all := strings.Split(l.rest+text, "\n")
	l.rest = all[len(all)-1]
	return all[:len(all)-1]
}

// flush is the unfinished line, if any.
func (l *lines) flush() []string {
	if l.rest == "" {
		return nil
	}
	last := l.rest
	l.rest = ""
	return []string{last}
}
