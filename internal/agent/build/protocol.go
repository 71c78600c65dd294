// Package build is the build runner: the program that runs one CodeBuild build inside its sandbox
// (`slipway agent build`).
//
// Who does what. The service owns the build record, the sandbox, the log groups, the buckets and the
// reports; the runner owns everything that happens inside the sandbox: fetching and unpacking the source,
// reading the buildspec, running its commands, packing artifacts into local files, reading test reports.
// The runner learns its task from one Job and tells what happens as a stream of Events; it writes to no
// bucket and to no log group. It calls the public API, as the build's role, for three things only: the source
// object in S3, values of the parameter store and values of the secrets manager.
package build

import "time"

// Phase names in the order in which a build passes through them, as BatchGetBuilds shows them. The service
// records SUBMITTED, QUEUED, PROVISIONING before it starts the runner; the runner reports those from
// DOWNLOAD_SOURCE to FINALIZING; COMPLETED is recorded by the service when it has read the done event.
const (
	PhaseDownloadSource  = "DOWNLOAD_SOURCE"
	PhaseInstall         = "INSTALL"
	PhasePreBuild        = "PRE_BUILD"
	PhaseBuild           = "BUILD"
	PhasePostBuild       = "POST_BUILD"
	PhaseUploadArtifacts = "UPLOAD_ARTIFACTS"
	PhaseFinalizing      = "FINALIZING"
)

// Statuses of phases and of the whole build.
const (
	StatusSucceeded  = "SUCCEEDED"
	StatusFailed     = "FAILED"
	StatusFault      = "FAULT"
	StatusTimedOut   = "TIMED_OUT"
	StatusInProgress = "IN_PROGRESS"
	StatusStopped    = "STOPPED"
)

// Status codes of phase contexts.
const (
	CodeCommandError = "COMMAND_EXECUTION_ERROR"
	CodeClientError  = "CLIENT_ERROR"
	CodeYAMLError    = "YAML_FILE_ERROR"
)

// Types of environment variables, as in the API.
const (
	EnvPlaintext      = "PLAINTEXT"
	EnvParameterStore = "PARAMETER_STORE"
	EnvSecretsManager = "SECRETS_MANAGER"
)

// Job is the task of one runner: a single JSON document on stdin, or in the file that --job names.
type Job struct {
	BuildID  string `json:"buildId"`  // project:uuid
	BuildARN string `json:"buildArn"` // ends up in no file; for messages and CODEBUILD_BUILD_ARN when Env lacks it
	Project  string `json:"project"`  // report groups are named <project>-<name>

	// Root holds everything the runner makes; "" means /codebuild. Sources go to Root/output/srcN/src.
	Root string `json:"root,omitempty"`

	Source           Source   `json:"source"`
	SecondarySources []Source `json:"secondarySources,omitempty"`

	// Buildspec is what the project (or StartBuild) says: "" means buildspec.yml at the source's root, text with
	// a line break or starting with "version:" is the document itself, anything else is a path inside the
	// source.
	Buildspec string `json:"buildspec,omitempty"`

	// Env are the project's variables with StartBuild's overrides already merged in, and the CODEBUILD_*
	// variables that the service knows (CODEBUILD_BUILD_ID, _ARN, _NUMBER, _IMAGE, _INITIATOR, _SOURCE_VERSION ...).
	// They win over the buildspec's. The runner adds CODEBUILD_SRC_DIR*, CODEBUILD_BUILD_SUCCEEDING, HOME, PWD.
	Env []EnvVar `json:"env,omitempty"`

	// Artifacts is the project's main artifact, SecondaryArtifacts the others. Nil or type NO_ARTIFACTS: none.
	Artifacts          *Artifact  `json:"artifacts,omitempty"`
	SecondaryArtifacts []Artifact `json:"secondaryArtifacts,omitempty"`

	// OutputDir is where packed artifacts are left for the service: OutputDir/<n> for packaging ZIP (a file),
	// the same as a directory for packaging NONE. "" means Root/output/artifacts.
	OutputDir string `json:"outputDir,omitempty"`

	// CacheDir, when set, is a directory that outlives the sandbox (the service mounts it): cache paths of the
	// buildspec are restored from it before INSTALL and saved to it after POST_BUILD.
	CacheDir string `json:"cacheDir,omitempty"`

	// TimeoutSeconds bounds the build from the runner's start (0: no bound). The phase then running is TIMED_OUT.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`

	// Endpoint, Region and Credentials serve the source, parameter store and secrets manager. Credentials are
	// also what the service should offer to the commands through the container credentials endpoint.
	Endpoint    string       `json:"endpoint,omitempty"`
	Region      string       `json:"region,omitempty"`
	Credentials *Credentials `json:"credentials,omitempty"`
}

// Credentials of the build's service role. They are used for signing and never written to the log or disk.
type Credentials struct {
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken,omitempty"`
}

// Source says where one source comes from. Exactly one of Dir, (Bucket, Key) and URL is set; none means
// NO_SOURCE: an empty directory and an inline buildspec.
type Source struct {
	Identifier string `json:"identifier,omitempty"` // secondary sources: CODEBUILD_SRC_DIR_<identifier>
	Dir        string `json:"dir,omitempty"`        // already in place inside the sandbox; used where it is
	Bucket     string `json:"bucket,omitempty"`     // S3 object: a zip archive
	Key        string `json:"key,omitempty"`
	VersionID  string `json:"versionId,omitempty"`
	URL        string `json:"url,omitempty"` // http(s) URL of a zip, fetched unsigned (a presigned URL)
}

// EnvVar is an environment variable as the API carries it.
type EnvVar struct {
	Name  string `json:"name"`
	Value string `json:"value"` // for the two reference types: the name to look up
	Type  string `json:"type,omitempty"`
}

// Artifact is what the project wants of one artifact block.
type Artifact struct {
	Identifier string `json:"identifier,omitempty"` // secondary: the key under secondary-artifacts
	Type       string `json:"type"`                 // S3, CODEPIPELINE, NO_ARTIFACTS
	Packaging  string `json:"packaging,omitempty"`  // ZIP or NONE (default); CODEPIPELINE is always ZIP
	// OverrideName lets the buildspec's artifacts.name (expanded by the shell) replace the project's name.
	OverrideName bool `json:"overrideName,omitempty"`
}

// Event types. Every line on stdout is one Event; unknown types must be ignored by readers.
const (
	EventPhaseStart = "phase_start" // Phase
	EventPhaseEnd   = "phase_end"   // Phase, Status, Contexts
	EventLog        = "log"         // Log: text with its line ends; may be several lines, or a part of one
	EventArtifact   = "artifact"    // Artifact: a packed artifact is ready in the sandbox
	EventExported   = "exported"    // Exported: values of env.exported-variables, frozen after POST_BUILD
	EventReport     = "report"      // Report: one parsed report group
	EventDone       = "done"        // Status: the build's; always the last event
)

// Event is one thing that happened. Seq counts from 1 without gaps, so that a reader which was away can tell
// where to go on. A phase's artifact, report and exported events come before its phase_end; the service shows
// UPLOAD_ARTIFACTS as ended only when it has stored what those events announced (and may fail the phase). A line
// may be some megabytes long (a report with many messages): read with json.Decoder, not with a line scanner.
type Event struct {
	Seq      int64           `json:"seq"`
	Time     time.Time       `json:"time"`
	Type     string          `json:"type"`
	Phase    string          `json:"phase,omitempty"`
	Status   string          `json:"status,omitempty"`
	Contexts []Context       `json:"contexts,omitempty"`
	Log      string          `json:"log,omitempty"`
	Artifact *PackedArtifact `json:"artifact,omitempty"`
	Exported []EnvVar        `json:"exported,omitempty"`
	Report   *Report         `json:"report,omitempty"`
}

// Context explains a phase's end. A phase that succeeded has one with both fields empty.
type Context struct {
	StatusCode string `json:"statusCode"`
	Message    string `json:"message"`
}

// PackedArtifact is an artifact that waits in the sandbox for the service to store it.
type PackedArtifact struct {
	Identifier string `json:"identifier,omitempty"` // "" for the main one
	Path       string `json:"path"`                 // absolute inside the sandbox: zip file, or directory
	Packaging  string `json:"packaging"`            // ZIP or NONE
	Name       string `json:"name,omitempty"`       // the evaluated artifacts.name when OverrideName asked for it
	Prefix     string `json:"prefix,omitempty"`     // the evaluated artifacts.s3-prefix
	Files      int    `json:"files"`
	Size       int64  `json:"size"`
	SHA256     string `json:"sha256,omitempty"` // hex, ZIP only
	MD5        string `json:"md5,omitempty"`    // hex, ZIP only
}

// Report is one report group's results in this build.
type Report struct {
	Group      string         `json:"group"`  // the group's full name (<project>-<name>) or its ARN
	Type       string         `json:"type"`   // TEST
	Status     string         `json:"status"` // SUCCEEDED, FAILED, INCOMPLETE (files that could not be read)
	Cases      []TestCase     `json:"cases"`  // at most 500, as AWS keeps
	Total      int            `json:"total"`
	Counts     map[string]int `json:"counts"` // by test status
	DurationNs int64          `json:"durationNs"`
	Problems   []string       `json:"problems,omitempty"` // unreadable files, by name
}

// TestCase is one test of a report; Status is SUCCEEDED, FAILED, ERROR, SKIPPED or UNKNOWN.
type TestCase struct {
	File       string `json:"file"`   // the report file it was read from, relative to the base directory
	Prefix     string `json:"prefix"` // suite or class
	Name       string `json:"name"`
	Status     string `json:"status"`
	DurationNs int64  `json:"durationNs"`
	Message    string `json:"message,omitempty"` // at most 5000 characters
}
