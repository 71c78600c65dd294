package sns

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

// defaultActions are what the default policy grants the owner.
var defaultActions = []string{"SNS:GetTopicAttributes", "SNS:SetTopicAttributes", "SNS:AddPermission", "SNS:RemovePermission", "SNS:DeleteTopic",
	"SNS:Subscribe", "SNS:ListSubscriptionsByTopic", "SNS:Publish"}

// policy is a topic's access policy.
type policy struct {
	Version   string          `json:"Version,omitempty"`
	ID        string          `json:"Id,omitempty"`
	Statement oneOrMany[rule] `json:"Statement"`
}

type rule struct {
	Sid          string            `json:"Sid,omitempty"`
	Effect       string            `json:"Effect"`
	Principal    json.RawMessage   `json:"Principal,omitempty"`
	NotPrincipal json.RawMessage   `json:"NotPrincipal,omitempty"`
	Action       oneOrMany[string] `json:"Action,omitempty"`
	NotAction    oneOrMany[string] `json:"NotAction,omitempty"`
	Resource     oneOrMany[string] `json:"Resource,omitempty"`
	Condition    json.RawMessage   `json:"Condition,omitempty"`
}

// oneOrMany is a list that may be written as its only element.
type oneOrMany[T any] []T

// UnmarshalJSON reads an element or a list.
func (l *oneOrMany[T]) UnmarshalJSON(raw []byte) error {
	if strings.HasPrefix(strings.TrimSpace(string(raw)), "[") {
		return json.Unmarshal(raw, (*[]T)(l))
	}
	var one T
	if err := json.Unmarshal(raw, &one); err != nil {
		return err
	}
	*l = []T{one}
	return nil
}

// MarshalJSON writes a single element without a list, as AWS does.
func (l oneOrMany[T]) MarshalJSON() ([]byte, error) {
	if len(l) == 1 {
		if _, isString := any(l[0]).(string); isString {
			return json.Marshal(l[0])
		}
	}
	return json.Marshal([]T(l))
}

// maxPolicy is the longest policy, in bytes.
const maxPolicy = 30 * 1024

func parsePolicy(raw string) (*policy, error) {
	var p policy
	if len(raw) > maxPolicy {
		return nil, invalid("Policy length exceeds limit %d", maxPolicy)
	}
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		return nil, invalid("Policy Error: null")
	}
	if len(p.Statement) == 0 {
		return nil, invalid("Policy statement must be present!")
	}
	for _, st := range p.Statement {
		if st.Effect != "Allow" && st.Effect != "Deny" {
			return nil, invalid("Policy statement effect must be Allow or Deny, not %q", st.Effect)
		}
		if len(st.Action)+len(st.NotAction) == 0 {
			return nil, invalid("Policy statement action is missing")
		}
		if st.Principal == nil && st.NotPrincipal == nil {
			return nil, invalid("Policy statement must contain principals")
		}
	}
	return &p, nil
}

// policyText is the Policy attribute.
func (t *Topic) policyText() string {
	p := t.Policy
	if p == nil {
		condition, _ := json.Marshal(map[string]any{"StringEquals": map[string]string{"AWS:SourceOwner": t.Owner}})
		p = &policy{Version: "2008-10-17", ID: "__default_policy_ID", Statement: []rule{{Sid: "__default_statement_ID", Effect: "Allow",
			Principal: json.RawMessage(`{"AWS":"*"}`), Action: defaultActions, Resource: []string{t.ARN}, Condition: condition}}}
	}
	raw, _ := json.Marshal(p) // parsed before: it marshals
	return string(raw)
}

// allows says whether another account may do action. Statements with
// conditions are not taken as a permission: what they ask is not known here.
func (t *Topic) allows(account, action string) bool {
	if t.Policy == nil {
		return false
	}
	allowed := false
	for _, st := range t.Policy.Statement {
		if !grantsAction(st, action) || !namesAccount(st.Principal, account) {
			continue
		}
		if st.Effect == "Deny" {
			return false
		}
		if len(st.Condition) == 0 {
			allowed = true
		}
	}
	return allowed
}

func grantsAction(st rule, action string) bool {
	return slices.ContainsFunc(st.Action, func(a string) bool {
		return a == "*" || strings.EqualFold(a, "SNS:*") || strings.EqualFold(a, "SNS:"+action)
	})
}

func namesAccount(raw json.RawMessage, account string) bool {
	var any string
	if json.Unmarshal(raw, &any) == nil {
		return any == "*"
	}
	var p map[string]oneOrMany[string]
	if json.Unmarshal(raw, &p) != nil {
		return false
	}
	return slices.ContainsFunc(p["AWS"], func(v string) bool {
		return v == "*" || v == account || strings.HasPrefix(v, "arn:aws:iam::"+account+":")
	})
}

var twelveDigits = lazyre.New(`^[0-9]{12}$`)

// permitted are the actions that AddPermission takes.
var permitted = []string{"Publish", "RemovePermission", "SetTopicAttributes", "DeleteTopic", "ListSubscriptionsByTopic", "GetTopicAttributes", "Receive", "AddPermission", "Subscribe"}

func (s *Service) addPermission(ctx context.Context, in *api.AddPermissionInput) (*api.AddPermissionOutput, error) {
	st := rule{Sid: ptr.Value(in.Label), Effect: "Allow", Resource: []string{ptr.Value(in.TopicArn)}}
	if len(in.AWSAccountId) == 0 || len(in.ActionName) == 0 {
		return nil, invalid("AWSAccountId and ActionName must not be empty")
	}
	var arns []string
	for _, id := range in.AWSAccountId {
		if !twelveDigits.MatchString(id) {
			return nil, invalid("AWSAccountId %q is not an account", id)
		}
		arns = append(arns, "arn:aws:iam::"+id+":root")
	}
	for _, a := range in.ActionName {
		if !slices.Contains(permitted, a) {
			return nil, invalid("Policy statement action out of service scope!")
		}
		st.Action = append(st.Action, "SNS:"+a)
	}
	st.Principal, _ = json.Marshal(map[string]oneOrMany[string]{"AWS": arns}) // strings marshal
	return &api.AddPermissionOutput{}, s.changeTopic(ctx, ptr.Value(in.TopicArn), "AddPermission", "Permission", func(_ store.Tx, t *Topic) error {
		p, err := parsePolicy(t.policyText())
		if err != nil {
			return err
		}
		if slices.ContainsFunc(p.Statement, func(x rule) bool { return x.Sid == st.Sid }) {
			return invalid("Statement already exists")
		}
		p.Statement = append(p.Statement, st)
		t.Policy = p
		return nil
	})
}

func (s *Service) removePermission(ctx context.Context, in *api.RemovePermissionInput) (*api.RemovePermissionOutput, error) {
	return &api.RemovePermissionOutput{}, s.changeTopic(ctx, ptr.Value(in.TopicArn), "RemovePermission", "Permission", func(_ store.Tx, t *Topic) error {
		if t.Policy == nil {
			return nil
		}
		t.Policy.Statement = slices.DeleteFunc(t.Policy.Statement, func(x rule) bool { return x.Sid == ptr.Value(in.Label) })
		if len(t.Policy.Statement) == 0 {
			t.Policy = nil
		}
		return nil
	})
}
