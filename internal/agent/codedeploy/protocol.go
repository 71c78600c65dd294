package codedeploy

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// The host-agent protocol: awsJson 1.1, target CodeDeployCommandService_v20141006.<Operation>, SigV4 service
// codedeploy-commands. Source: the service model that AWS's open-source agent carries.
const (
	targetPrefix = "CodeDeployCommandService_v20141006."
	signName     = "codedeploy-commands"
)

// Command statuses of the protocol.
const (
	statusSucceeded = "Succeeded"
	statusFailed    = "Failed"
)

// hostCommand is one lifecycle event that the service asks this host to run.
type hostCommand struct {
	HostCommandIdentifier string
	HostIdentifier        string
	DeploymentExecutionId string
	CommandName           string
	Nonce                 int64 `json:",omitempty"`
}

type envelope struct {
	Format  string
	Payload string
}

// Error codes of a command's diagnostics. The API shows 0 to 4 by name and all others as UnknownError.
const (
	codeSuccess        = 0
	codeMissing        = 1
	codeNotExecutable  = 2
	codeTimedOut       = 3
	codeFailed         = 4
	codeUnknown        = 5
	codeOutputsOpen    = 6
	codeAgentRestarted = 7
)

// diagnostics is the JSON payload with which a command completes.
type diagnostics struct {
	ErrorCode  int    `json:"error_code"`
	ScriptName string `json:"script_name"`
	Message    string `json:"message"`
	Log        string `json:"log"`
}

// completion is a command's outcome; it is kept on disk until the service has it.
type completion struct {
	HostCommandIdentifier string
	CommandStatus         string
	Diagnostics           envelope
}

func complete(id string, d diagnostics) completion {
	status := statusSucceeded
	if d.ErrorCode != codeSuccess {
		status = statusFailed
	}
	return completion{HostCommandIdentifier: id, CommandStatus: status, Diagnostics: jsonEnvelope(d)}
}

func jsonEnvelope(v any) envelope {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, booleans and integers only
	}
	return envelope{Format: "JSON", Payload: string(b)}
}

func (a *Agent) call(ctx context.Context, op string, in, out any) error {
	h := http.Header{"X-Amz-Codedeploy-Agent-Version": {Version}}
	return a.cfg.API.JSON(ctx, signName, targetPrefix+op, h, in, out)
}

// poll waits for a command; nil means that there is none. The service holds the call open for up to a minute.
func (a *Agent) poll(ctx context.Context) (*hostCommand, error) {
	ctx, cancel := context.WithTimeout(ctx, 80*time.Second)
	defer cancel()
	var out struct{ HostCommand *hostCommand }
	err := a.call(ctx, "PollHostCommand", map[string]string{"HostIdentifier": a.cfg.Host}, &out)
	return out.HostCommand, err
}

func (a *Agent) getSpecification(ctx context.Context, c *hostCommand) (envelope, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out struct {
		DeploymentSystem        string
		DeploymentSpecification struct{ GenericEnvelope envelope }
	}
	err := a.call(ctx, "GetDeploymentSpecification", map[string]string{
		"DeploymentExecutionId": c.DeploymentExecutionId, "HostIdentifier": a.cfg.Host}, &out)
	return out.DeploymentSpecification.GenericEnvelope, err
}

// acknowledge says that the command has arrived and returns its status as the service sees it.
func (a *Agent) acknowledge(ctx context.Context, id string, noop bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out struct{ CommandStatus string }
	err := a.call(ctx, "PutHostCommandAcknowledgement", map[string]any{"HostCommandIdentifier": id,
		"Diagnostics": jsonEnvelope(map[string]bool{"IsCommandNoop": noop})}, &out)
	return out.CommandStatus, err
}

func (a *Agent) putComplete(ctx context.Context, c completion) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return a.call(ctx, "PutHostCommandComplete", c, nil)
}
