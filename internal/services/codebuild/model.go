package codebuild

import (
	"time"

	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// Project is a project's row; its id is the name.
type Project struct {
	API api.Project
	// Builds is the number of the newest build.
	Builds int64
	// CacheGeneration is raised to make everything in the cache unknown.
	CacheGeneration int64 `json:",omitempty"`
}

// Build is a build's row; its id is "<project>:<uuid>".
type Build struct {
	// API is what BatchGetBuilds shows.
	API api.Build
	// Request is what RetryBuild repeats.
	Request api.StartBuildInput
	// ByPipeline: CodePipeline started it and says where artifacts go.
	ByPipeline bool `json:",omitempty"`
	// Artifacts and Secondary are where packed artifacts go.
	Artifacts *api.ProjectArtifacts  `json:",omitempty"`
	Secondary []api.ProjectArtifacts `json:",omitempty"`
	// Cache is the volume that outlives the machine, or "".
	Cache string `json:",omitempty"`

	QueuedAt time.Time
	// Address in the VPC that the machine has while it exists.
	Address string `json:",omitempty"`
	// Door is the token with which the machine asks for its own things.
	Door string
	// LaunchedAt is when the runner was started; zero before.
	LaunchedAt time.Time `json:",omitzero"`
	// Seq is the number of the last event that this row accounts for.
	Seq int64
	// Trouble is why what the runner announced could not be stored; it fails
	// UPLOAD_ARTIFACTS.
	Trouble string `json:",omitempty"`
	// StopAt is when somebody asked for the end, zero if nobody did.
	StopAt time.Time `json:",omitzero"`
	// Cleaned: the machine and the address are given back.
	Cleaned bool `json:",omitempty"`
}

// Token remembers the answer to a StartBuild; its id is "<project>/<token>".
type Token struct {
	Build string
	At    time.Time
}

// Lease is an address in use; its id is the address.
type Lease struct{ Build string }

// Door leads from a machine's token to its build; its id is the token.
type Door struct{ Account, Region, Build string }

// ReportGroup is a report group's row; its id is the name.
type ReportGroup struct{ API api.ReportGroup }

// Report is a report's row; its id is "<group>:<uuid>".
type Report struct {
	API   api.Report
	Group string
	Cases []api.TestCase
}

// The rows of this service. Others may watch "codebuild:build": State is the
// status, Parent the project.
var (
	projects = store.NewTable[Project]("codebuild:project", nil)
	builds   = store.NewTable("codebuild:build", func(b *Build) (string, string) { return ptr.Value(b.API.ProjectName), ptr.Value(b.API.BuildStatus) })
	tokens   = store.NewTable[Token]("codebuild:token", nil)
	leases   = store.NewTable[Lease]("codebuild:address", nil)
	doors    = store.NewTable[Door]("codebuild:door", nil)
	groups   = store.NewTable[ReportGroup]("codebuild:report-group", nil)
	reports  = store.NewTable("codebuild:report", func(r *Report) (string, string) { return r.Group, ptr.Value(r.API.Status) })
)

type (
	projectRow = store.Row[Project]
	buildRow   = store.Row[Build]
)

// Complete tells whether the build has its final status.
func (b *Build) Complete() bool { return ptr.Value(b.API.BuildComplete) }

// phase is the newest phase of that type, or nil.
func (b *Build) phase(name string) *api.BuildPhase {
	for i := len(b.API.Phases) - 1; i >= 0; i-- {
		if ptr.Value(b.API.Phases[i].PhaseType) == name {
			return &b.API.Phases[i]
		}
	}
	return nil
}

// enter begins a phase. Times never run backwards, whatever two clocks say.
func (b *Build) enter(name string, at time.Time) {
	if n := len(b.API.Phases); n > 0 {
		if end := b.API.Phases[n-1].EndTime; end != nil && at.Before(*end) {
			at = *end
		}
	}
	b.API.CurrentPhase = &name
	b.API.Phases = append(b.API.Phases, api.BuildPhase{PhaseType: &name, StartTime: &at})
}

// leave ends the phase of that name if it is under way.
func (b *Build) leave(name, status string, at time.Time, contexts ...api.PhaseContext) {
	p := b.phase(name)
	if p == nil || p.PhaseStatus != nil {
		return
	}
	if at.Before(*p.StartTime) {
		at = *p.StartTime
	}
	p.PhaseStatus, p.EndTime, p.Contexts = &status, &at, contexts
	p.DurationInSeconds = new(int64(at.Sub(*p.StartTime) / time.Second))
}

// finish gives the build its final status. The phase that is under way ends
// with the same one, for the reason given; between two phases, FINALIZING is
// the one that ends so.
func (b *Build) finish(status string, at time.Time, contexts ...api.PhaseContext) {
	if b.Complete() {
		return
	}
	if n := len(b.API.Phases); n > 0 {
		if b.API.Phases[n-1].PhaseStatus != nil && len(contexts) > 0 {
			b.enter(api.BuildPhaseTypeFinalizing, at)
		}
		b.leave(ptr.Value(b.API.CurrentPhase), status, at, contexts...)
	}
	b.enter(api.BuildPhaseTypeCompleted, at)
	b.API.BuildStatus, b.API.BuildComplete, b.API.EndTime = &status, new(true), b.API.Phases[len(b.API.Phases)-1].StartTime
}

func because(code, message string) api.PhaseContext {
	return api.PhaseContext{StatusCode: &code, Message: &message}
}
