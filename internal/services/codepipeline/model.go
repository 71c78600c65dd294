package codepipeline

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// Pipeline is a pipeline's row; its id is the name.
type Pipeline struct {
	Declaration api.PipelineDeclaration // the current version
	Updated     time.Time
	Tags        map[string]string `json:",omitempty"`
	// Closed are the disabled inbound transitions, by stage.
	Closed map[string]Closed `json:",omitempty"`
	// Latest is the execution that entered a stage last, by stage.
	Latest map[string]string `json:",omitempty"`
	// Heads are the revisions that executions were started for, by source
	// action; another one at the source starts the pipeline.
	Heads map[string]string `json:",omitempty"`
	// Number counts executions.
	Number int64
}

// Closed is a disabled transition.
type Closed struct {
	Reason, By string
	At         time.Time
}

// Structure is a version of a pipeline; its id is "<pipeline>/<version>".
type Structure struct{ Declaration api.PipelineDeclaration }

// Token remembers the answer to a StartPipelineExecution; its id is
// "<pipeline>/<token>".
type Token struct{ Execution string }

// Execution is one run of a pipeline.
type Execution struct {
	ID, Pipeline string
	Number       int64 // executions of a pipeline are ordered by it
	// Declaration is the structure that was current at the start.
	Declaration   api.PipelineDeclaration
	Status        string
	StatusSummary string `json:",omitempty"`
	Type          string // STANDARD or ROLLBACK
	RollbackOf    string `json:",omitempty"` // the execution that a ROLLBACK repeats
	TriggerType   string
	TriggerDetail string            `json:",omitempty"`
	Variables     map[string]string `json:",omitempty"`
	// Overrides are revisions asked for at the start, by source action.
	Overrides map[string]string `json:",omitempty"`
	Started   time.Time
	Updated   time.Time
	// At is the stage that it is in or, when Waiting, in front of.
	At      int
	Waiting bool
	Stages  []StageRun
	// Artifacts are what actions have put out, by artifact name.
	Artifacts map[string]Artifact `json:",omitempty"`
	Revisions []Revision          `json:",omitempty"`
	Stop      *Stop               `json:",omitempty"`
}

// Stop asks an execution to end.
type Stop struct {
	At      time.Time
	Reason  string
	Abandon bool
}

// Artifact is a ZIP in the artifact store.
type Artifact struct{ Bucket, Key, Version, ETag string }

// Revision is what a source action found.
type Revision struct {
	Action, Artifact, ID, Summary, URL string
	Created                            time.Time
}

// StageRun is a stage of an execution; Status is empty before it is entered.
type StageRun struct {
	Name    string
	Status  string
	Actions []ActionRun
	// Past are the action runs that a retry has replaced, oldest first.
	Past          []ActionRun `json:",omitempty"`
	AutoRetries   int64       `json:",omitempty"`
	ManualRetries int64       `json:",omitempty"`
	LastRetry     string      `json:",omitempty"`
}

// ActionRun is an action of an execution; ID is empty before it is started.
type ActionRun struct {
	Name      string
	ID        string
	Attempt   int
	Status    string
	Started   time.Time `json:",omitzero"`
	Changed   time.Time `json:",omitzero"`
	Summary   string    `json:",omitempty"`
	ErrorCode string    `json:",omitempty"`
	Error     string    `json:",omitempty"`
	// External is the build, deployment or revision at the provider.
	External string `json:",omitempty"`
	URL      string `json:",omitempty"`
	Token    string `json:",omitempty"` // of an approval
	By       string `json:",omitempty"` // who approved
	// Resolved is the configuration with variables filled in.
	Resolved map[string]string   `json:",omitempty"`
	Inputs   map[string]Artifact `json:",omitempty"`
	Outputs  map[string]Artifact `json:",omitempty"`
	// Variables that the action puts out into its namespace.
	Variables map[string]string `json:",omitempty"`
}

// The rows of this service.
var (
	pipelines  = store.NewTable[Pipeline]("codepipeline:pipeline", nil)
	executions = store.NewTable("codepipeline:execution", func(e *Execution) (string, string) { return e.Pipeline, e.Status })
	structures = store.NewTable("codepipeline:structure", func(s *Structure) (string, string) { return ptr.Value(s.Declaration.Name), "" })
	startings  = store.NewTable[Token]("codepipeline:token", nil)
)

type (
	pipelineRow  = store.Row[Pipeline]
	executionRow = store.Row[Execution]
)

const (
	typeStandard = "STANDARD"
	typeRollback = "ROLLBACK"
)

func executionID(pipeline, id string) string { return pipeline + "/" + id }

func structureID(d *api.PipelineDeclaration) string {
	return fmt.Sprintf("%s/%08d", ptr.Value(d.Name), ptr.Value(d.Version))
}

// Active tells whether the execution may still change by itself.
func (e *Execution) Active() bool {
	return e.Status == api.PipelineExecutionStatusInProgress || e.Status == api.PipelineExecutionStatusStopping
}

// stage is the index of the stage of that name, or -1.
func (e *Execution) stage(name string) int {
	return slices.IndexFunc(e.Stages, func(s StageRun) bool { return s.Name == name })
}

// mode is how executions of the structure get along with each other.
func mode(d *api.PipelineDeclaration) string {
	if d.ExecutionMode == nil {
		return api.ExecutionModeSuperseded
	}
	return *d.ExecutionMode
}

// bucket is the artifact store of a region.
func bucket(d *api.PipelineDeclaration, region string) string {
	if d.ArtifactStore != nil {
		return ptr.Value(d.ArtifactStore.Location)
	}
	return ptr.Value(d.ArtifactStores[region].Location)
}

// derived makes a UUID out of what it stands for, so that a repeat makes the
// same.
func derived(parts ...string) string {
	b := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func optTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
