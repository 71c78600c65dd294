package codebuild

import (
	"strings"
	"time"

	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/ptr"
	"slipway/internal/statechange"
)

// told is what the world knows of a build: how it was before a change.
type told struct {
	known, complete bool
	ended           map[int]bool // phases, by their place
}

func (b *Build) told() told {
	t := told{known: true, complete: b.Complete(), ended: map[int]bool{}}
	for i := range b.API.Phases {
		t.ended[i] = b.API.Phases[i].PhaseStatus != nil
	}
	return t
}

// stateNote is the detail of a change of state; phaseNote that of a phase's
// end (AWS: "Build notifications input format reference").
type stateNote struct {
	Status       string    `json:"build-status"`
	Project      string    `json:"project-name"`
	ID           string    `json:"build-id"`
	Additional   buildNote `json:"additional-information"`
	Phase        string    `json:"current-phase"`
	PhaseContext string    `json:"current-phase-context"`
	Version      string    `json:"version"`
}

type phaseNote struct {
	Phase      string             `json:"completed-phase"`
	Project    string             `json:"project-name"`
	ID         string             `json:"build-id"`
	Context    string             `json:"completed-phase-context"`
	Additional buildNote          `json:"additional-information"`
	Status     string             `json:"completed-phase-status"`
	Seconds    statechange.Number `json:"completed-phase-duration-seconds"`
	Version    string             `json:"version"`
	Start      string             `json:"completed-phase-start"`
	End        string             `json:"completed-phase-end"`
}

type buildNote struct {
	Cache struct {
		Type string `json:"type,omitempty"`
	} `json:"cache"`
	Number      statechange.Number `json:"build-number"`
	Timeout     statechange.Number `json:"timeout-in-minutes"`
	Complete    bool               `json:"build-complete"`
	Initiator   string             `json:"initiator"`
	Start       string             `json:"build-start-time"`
	Source      sourceNote         `json:"source"`
	Version     string             `json:"source-version,omitempty"`
	Artifact    artifactNote       `json:"artifact"`
	Environment environmentNote    `json:"environment"`
	Logs        logsNote           `json:"logs"`
	Phases      []buildPhaseNote   `json:"phases"`
	Queued      statechange.Number `json:"queued-timeout-in-minutes"`
}

type sourceNote struct {
	Location string `json:"location,omitempty"`
	Type     string `json:"type"`
}

type artifactNote struct {
	MD5      string `json:"md5sum,omitempty"`
	SHA256   string `json:"sha256sum,omitempty"`
	Location string `json:"location"`
}

type environmentNote struct {
	Image      string         `json:"image"`
	Privileged bool           `json:"privileged-mode"`
	Pull       string         `json:"image-pull-credentials-type,omitempty"`
	Compute    string         `json:"compute-type"`
	Type       string         `json:"type"`
	Variables  []variableNote `json:"environment-variables"`
}

type variableNote struct {
	Name  string `json:"name"`
	Type  string `json:"type,omitempty"`
	Value string `json:"value"`
}

type logsNote struct {
	Group  string `json:"group-name,omitempty"`
	Stream string `json:"stream-name,omitempty"`
	Link   string `json:"deep-link,omitempty"`
}

type buildPhaseNote struct {
	Context []string            `json:"phase-context,omitempty"`
	Start   string              `json:"start-time,omitempty"`
	End     string              `json:"end-time,omitempty"`
	Seconds *statechange.Number `json:"duration-in-seconds,omitempty"`
	Type    string              `json:"phase-type"`
	Status  string              `json:"phase-status,omitempty"`
}

// changes tells what happened to a build since: phases that ended, then its
// beginning or its end.
func changes(row *buildRow, before told) statechange.Detail {
	var out statechange.Detail
	b := &row.Doc.API
	project := "arn:aws:codebuild:" + row.Region + ":" + row.Account + ":project/" + ptr.Value(b.ProjectName)
	add := func(kind string, detail any) {
		out.Add(statechange.Change{Source: "aws.codebuild", DetailType: "CodeBuild Build " + kind + " Change", Resource: project, Resources: []string{ptr.Value(b.Arn)}}, detail, nil)
	}
	began, ended := !before.known, !before.complete && row.Doc.Complete()
	var all buildNote // made once, if at all
	note := func() buildNote {
		if all.Phases == nil {
			all = noteBuild(b)
		}
		return all
	}
	state := func(status string) {
		n := stateNote{Status: status, Project: ptr.Value(b.ProjectName), ID: ptr.Value(b.Arn), Additional: note(), Phase: ptr.Value(b.CurrentPhase), PhaseContext: "[]", Version: "1"}
		if last := len(b.Phases) - 1; last >= 0 {
			n.PhaseContext = contextText(b.Phases[last].Contexts)
		}
		add("State", n)
	}
	if began {
		state(api.StatusTypeInProgress)
	}
	for i := range b.Phases {
		p := &b.Phases[i]
		if p.PhaseStatus == nil || before.ended[i] {
			continue
		}
		add("Phase", phaseNote{Phase: ptr.Value(p.PhaseType), Project: ptr.Value(b.ProjectName), ID: ptr.Value(b.Arn), Context: contextText(p.Contexts), Additional: note(),
			Status: ptr.Value(p.PhaseStatus), Seconds: statechange.Number(ptr.Value(p.DurationInSeconds)), Version: "1", Start: clockText(p.StartTime), End: clockText(p.EndTime)})
	}
	if ended {
		state(ptr.Value(b.BuildStatus))
	}
	return out
}

func noteBuild(b *api.Build) buildNote {
	n := buildNote{Number: statechange.Number(ptr.Value(b.BuildNumber)), Timeout: statechange.Number(ptr.Value(b.TimeoutInMinutes)), Complete: ptr.Value(b.BuildComplete),
		Initiator: ptr.Value(b.Initiator), Start: clockText(b.StartTime), Version: ptr.Value(b.SourceVersion), Queued: statechange.Number(ptr.Value(b.QueuedTimeoutInMinutes)), Phases: []buildPhaseNote{}}
	n.Cache.Type = "NO_CACHE"
	if b.Cache != nil && b.Cache.Type != nil {
		n.Cache.Type = *b.Cache.Type
	}
	n.Source = sourceNote{ptr.Value(ptr.Value(b.Source).Location), ptr.Value(ptr.Value(b.Source).Type)}
	a := ptr.Value(b.Artifacts)
	n.Artifact = artifactNote{ptr.Value(a.Md5sum), ptr.Value(a.Sha256sum), ptr.Value(a.Location)}
	e := ptr.Value(b.Environment)
	n.Environment = environmentNote{ptr.Value(e.Image), ptr.Value(e.PrivilegedMode), ptr.Value(e.ImagePullCredentialsType), ptr.Value(e.ComputeType), ptr.Value(e.Type), []variableNote{}}
	for _, v := range e.EnvironmentVariables {
		n.Environment.Variables = append(n.Environment.Variables, variableNote{ptr.Value(v.Name), ptr.Value(v.Type), ptr.Value(v.Value)})
	}
	l := ptr.Value(b.Logs)
	n.Logs = logsNote{ptr.Value(l.GroupName), ptr.Value(l.StreamName), ptr.Value(l.DeepLink)}
	for i := range b.Phases {
		p := &b.Phases[i]
		one := buildPhaseNote{Start: clockText(p.StartTime), End: clockText(p.EndTime), Type: ptr.Value(p.PhaseType), Status: ptr.Value(p.PhaseStatus)}
		if p.DurationInSeconds != nil {
			one.Seconds = new(statechange.Number(*p.DurationInSeconds))
		}
		for _, c := range p.Contexts {
			one.Context = append(one.Context, ptr.Value(c.StatusCode)+": "+ptr.Value(c.Message))
		}
		n.Phases = append(n.Phases, one)
	}
	return n
}

// contextText is how these events write the contexts of a phase.
func contextText(contexts []api.PhaseContext) string {
	parts := make([]string, len(contexts))
	for i, c := range contexts {
		parts[i] = ptr.Value(c.StatusCode) + ": " + ptr.Value(c.Message)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// clockText is how these events write times: "Oct 1, 2020 12:04:31 AM".
func clockText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format("Jan 2, 2006 3:04:05 PM")
}
