package sns

import (
	"testing"

	"slipway/internal/aws/caller"
)

// Notification rules publish only where the topic's policy names them.
func TestGuestsNeedAPermission(t *testing.T) {
	const rule = "arn:aws:codestar-notifications:us-east-1:123456789012:notificationrule/abc"
	who := caller.From(caller.ForService(t.Context(), "codestar-notifications", account, region))
	who.SourceARN = rule
	statement := func(effect, principal, condition string) string {
		if condition != "" {
			condition = `,"Condition":` + condition
		}
		return `{"Effect":"` + effect + `","Principal":` + principal + `,"Action":"SNS:Publish","Resource":"*"` + condition + `}`
	}
	const named = `{"Service":"codestar-notifications.amazonaws.com"}`
	allow := statement("Allow", named, "")
	for name, tt := range map[string]struct {
		policy string
		want   bool
	}{
		"default":                {"", false},
		"named":                  {allow, true},
		"in a list":              {statement("Allow", `{"Service":["events.amazonaws.com","codestar-notifications.amazonaws.com"]}`, ""), true},
		"another service":        {statement("Allow", `{"Service":"events.amazonaws.com"}`, ""), false},
		"everybody":              {statement("Allow", `"*"`, ""), true},
		"the owner's requests":   {statement("Allow", `{"AWS":"*"}`, `{"StringEquals":{"AWS:SourceOwner":"123456789012"}}`), false},
		"this account":           {statement("Allow", named, `{"StringEquals":{"aws:SourceAccount":"123456789012"}}`), true},
		"another account":        {statement("Allow", named, `{"StringEquals":{"aws:SourceAccount":["210987654321"]}}`), false},
		"these rules":            {statement("Allow", named, `{"ArnLike":{"aws:SourceArn":"arn:aws:codestar-notifications:*:123456789012:notificationrule/*"}}`), true},
		"other rules":            {statement("Allow", named, `{"ArnLike":{"aws:SourceArn":"arn:aws:codestar-notifications:*:123456789012:notificationrule/x*"}}`), false},
		"an unknown condition":   {statement("Allow", named, `{"DateGreaterThan":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}}`), false},
		"denied":                 {allow + "," + statement("Deny", named, ""), false},
		"denied to others":       {allow + "," + statement("Deny", named, `{"StringEquals":{"aws:SourceAccount":"210987654321"}}`), true},
		"denied, who knows when": {allow + "," + statement("Deny", named, `{"Bool":{"aws:SecureTransport":"false"}}`), false},
		"another action":         {`{"Effect":"Allow","Principal":` + named + `,"Action":"SNS:Subscribe","Resource":"*"}`, false},
	} {
		topic := &Topic{Owner: account}
		if tt.policy != "" {
			p, err := parsePolicy(`{"Statement":[` + tt.policy + `]}`)
			if err != nil {
				t.Fatal(name, err)
			}
			topic.Policy = p
		}
		if got := topic.admits(who, "Publish"); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if isGuest(caller.From(caller.ForService(t.Context(), "cloudwatch", account, region))) {
		t.Error("alarms publish as the owner of the topic")
	}
	mine := who
	mine.AccessKeyID = "AKIA"
	if isGuest(mine) {
		t.Error("who has keys is no service")
	}
}
