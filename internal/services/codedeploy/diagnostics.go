package codedeploy

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	api "slipway/internal/api/codedeploy"
	cmds "slipway/internal/api/codedeploycommands"
	"slipway/internal/aws/ptr"
)

// Bounds of what an agent may say about an event. The agent itself cuts its
// log at 2048 characters.
const (
	maxScript  = 1024
	maxMessage = 2048
	maxLogTail = 4096
)

// lifecycleErrorCodes are AWS's names of the agent's codes 0 to 4; every
// other code is UnknownError.
var lifecycleErrorCodes = []string{
	api.LifecycleErrorCodeSuccess, api.LifecycleErrorCodeScriptMissing, api.LifecycleErrorCodeScriptNotExecutable,
	api.LifecycleErrorCodeScriptTimedOut, api.LifecycleErrorCodeScriptFailed,
}

func parseDiagnostics(env *cmds.Envelope, failed bool) *Diagnostics {
	d := &Diagnostics{ErrorCode: api.LifecycleErrorCodeSuccess}
	if failed {
		d.ErrorCode = api.LifecycleErrorCodeUnknownError
	}
	if env == nil || ptr.Value(env.Payload) == "" {
		return d
	}
	var p struct {
		ErrorCode  int    `json:"error_code"`
		ScriptName string `json:"script_name"`
		Message    string `json:"message"`
		Log        string `json:"log"`
	}
	if err := json.Unmarshal([]byte(*env.Payload), &p); err != nil {
		d.Message = fmt.Sprintf("the agent's diagnostics do not parse: %v", err)
		return d
	}
	if failed && p.ErrorCode > 0 && p.ErrorCode < len(lifecycleErrorCodes) {
		d.ErrorCode = lifecycleErrorCodes[p.ErrorCode]
	}
	d.Script, d.Message, d.LogTail = head(p.ScriptName, maxScript), head(p.Message, maxMessage), tail(p.Log, maxLogTail)
	return d
}

// head cuts s to n bytes of whole, valid characters.
func head(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// tail keeps the last n bytes of s, in whole characters.
func tail(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	i := len(s) - n
	for i < len(s) && !utf8.RuneStart(s[i]) {
		i++
	}
	return s[i:]
}
