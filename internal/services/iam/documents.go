package iam

import (
	"bytes"
	"encoding/json"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

func malformed(format string, args ...any) error {
	return awserr.New("MalformedPolicyDocument", format, args...).WithStatus(400)
}

// checkDocument refuses what is no policy: AWS's grammar as far as it decides
// between a policy and something else ("Grammar of the IAM JSON policy
// language" in the IAM user guide). trust documents name principals and no
// resources.
func checkDocument(doc *string, trust bool) error {
	type statement struct {
		Sid                     string
		Effect                  string
		Action, NotAction       json.RawMessage
		Resource, NotResource   json.RawMessage
		Principal, NotPrincipal json.RawMessage
		Condition               json.RawMessage
	}
	var p struct {
		Version, ID string
		Statement   json.RawMessage
	}
	dec := json.NewDecoder(strings.NewReader(ptr.Value(doc)))
	if err := dec.Decode(&p); err != nil {
		if trust {
			return malformed("This policy contains invalid Json")
		}
		return malformed("Syntax errors in policy.")
	}
	if dec.More() {
		return malformed("Syntax errors in policy.")
	}
	if p.Version != "" && p.Version != "2012-10-17" && p.Version != "2008-10-17" {
		return malformed("The policy must contain a valid version string")
	}
	var sts []statement
	raw := bytes.TrimSpace(p.Statement)
	if len(raw) > 0 && raw[0] == '{' {
		raw = append(append([]byte{'['}, raw...), ']')
	}
	if err := json.Unmarshal(raw, &sts); err != nil || len(sts) == 0 {
		return malformed("Syntax errors in policy.")
	}
	for _, st := range sts {
		switch {
		case st.Effect != "Allow" && st.Effect != "Deny":
			return malformed("Invalid effect: %s", st.Effect)
		case st.Action == nil && st.NotAction == nil:
			return malformed("Policy statement must contain actions.")
		case trust && (st.Resource != nil || st.NotResource != nil):
			return malformed("Has prohibited field Resource")
		case trust && st.Principal == nil && st.NotPrincipal == nil:
			return malformed("Missing required field Principal")
		case !trust && (st.Principal != nil || st.NotPrincipal != nil):
			return malformed("Policy document should not specify a principal.")
		case !trust && st.Resource == nil && st.NotResource == nil:
			return malformed("Policy statement must contain resources.")
		}
	}
	return nil
}

func checkTrust(doc *string) error { return checkDocument(doc, true) }
