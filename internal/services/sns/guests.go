package sns

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"slipway/internal/aws/caller"
)

// guests are the services that a topic's policy must let in by name, also
// those of its own account: the default policy does not (AWS: "Configure
// Amazon SNS topics for notifications"). The others publish as the owner.
var guests = []string{"codestar-notifications.amazonaws.com", "events.amazonaws.com"}

func isGuest(who caller.Identity) bool {
	return who.AccessKeyID == "" && slices.Contains(guests, who.PrincipalID)
}

// admits says whether the topic's policy lets a service do action.
func (t *Topic) admits(who caller.Identity, action string) bool {
	if t.Policy == nil {
		return false
	}
	allowed := false
	for _, st := range t.Policy.Statement {
		if !grantsAction(st, action) || !namesService(st.Principal, who.PrincipalID) {
			continue
		}
		holds, known := conditionHolds(st.Condition, who)
		switch {
		case st.Effect == "Deny" && (holds || !known):
			return false
		case st.Effect == "Allow" && holds && known:
			allowed = true
		}
	}
	return allowed
}

func namesService(raw json.RawMessage, service string) bool {
	var any string
	if json.Unmarshal(raw, &any) == nil {
		return any == "*"
	}
	var p map[string]oneOrMany[string]
	if json.Unmarshal(raw, &p) != nil {
		return false
	}
	return slices.Contains(p["AWS"], "*") || slices.Contains(p["Service"], service) || slices.Contains(p["Service"], "*")
}

// conditionHolds evaluates the conditions that are written for services: who
// they act for. known is false where there is another one.
func conditionHolds(raw json.RawMessage, who caller.Identity) (holds, known bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return true, true
	}
	var operators map[string]map[string]oneOrMany[string]
	if json.Unmarshal(raw, &operators) != nil {
		return false, false
	}
	for operator, keys := range operators {
		var same func(pattern, value string) bool
		switch operator {
		case "StringEquals":
			same = func(p, v string) bool { return p == v }
		case "StringEqualsIgnoreCase":
			same = strings.EqualFold
		case "StringLike", "ArnLike", "ArnEquals": // the last two are the same (IAM user guide, "ARN condition operators")
			same = like
		default:
			return false, false
		}
		for key, patterns := range keys {
			value := ""
			switch strings.ToLower(key) {
			case "aws:sourceaccount":
				value = who.Account
			case "aws:sourcearn":
				value = who.SourceARN
			case "aws:sourceowner": // set for requests of accounts, not of services
			default:
				return false, false
			}
			if value == "" || !slices.ContainsFunc(patterns, func(p string) bool { return same(p, value) }) {
				return false, true
			}
		}
	}
	return true, true
}

// like matches a pattern with * and ?.
func like(pattern, s string) bool {
	p := regexp.QuoteMeta(pattern)
	p = strings.ReplaceAll(strings.ReplaceAll(p, `\*`, `.*`), `\?`, `.`)
	return regexp.MustCompile(`^(?s:` + p + `)$`).MatchString(s) // quoted: it compiles
}
