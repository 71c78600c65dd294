package codepipeline

import (
	"fmt"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
)

var variable = lazyre.New(`#\{([A-Za-z0-9@\-_]+)\.([A-Za-z0-9@\-_]+)\}`)

// resolve fills the variables of a configuration in, which must all be known.
func (e *Execution) resolve(config map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(config))
	var missing error
	for k, v := range config {
		out[k] = variable.ReplaceAllStringFunc(v, func(ref string) string {
			m := variable.FindStringSubmatch(ref)
			value, ok := e.variable(m[1], m[2])
			if !ok && missing == nil {
				missing = fmt.Errorf("An action configuration uses the variable %s, which has no value", ref)
			}
			return value
		})
	}
	return out, missing
}

// variable is the value of #{namespace.key} so far.
func (e *Execution) variable(namespace, key string) (string, bool) {
	switch namespace {
	case "codepipeline":
		return e.ID, key == "PipelineExecutionId"
	case "variables":
		v, ok := e.Variables[key]
		return v, ok
	}
	for i, st := range e.Declaration.Stages {
		for j, a := range st.Actions {
			if ptr.Value(a.Namespace) == namespace && e.Stages[i].Actions[j].Status == api.ActionExecutionStatusSucceeded {
				v, ok := e.Stages[i].Actions[j].Variables[key]
				return v, ok
			}
		}
	}
	return "", false
}
