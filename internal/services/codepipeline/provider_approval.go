package codepipeline

import (
	"context"
	"encoding/json"
	"time"

	"slipway/internal/api/sns"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

// stepApproval asks for an approval once, by its token, and then waits for
// PutApprovalResult.
func (s *Service) stepApproval(ctx context.Context, a *action) (*outcome, error) {
	if a.run.Token != "" {
		return a.wait(), nil
	}
	a.run.Token = derived("approval", a.run.ID)
	if topic := a.run.Resolved["NotificationArn"]; topic != "" {
		limit := 7 * 24 * time.Hour
		if m := ptr.Value(a.decl.TimeoutInMinutes); m > 0 {
			limit = time.Duration(m) * time.Minute
		}
		subject := cut("APPROVAL NEEDED: AWS CodePipeline "+a.exec.Pipeline+" for action "+a.run.Name, 100)
		body, err := json.MarshalIndent(map[string]any{ // AWS: "JSON data format for manual approval notifications"
			"region": a.key.Region,
			"approval": map[string]any{
				"pipelineName": a.exec.Pipeline, "stageName": a.exec.Stages[a.exec.At].Name, "actionName": a.run.Name, "token": a.run.Token,
				"expires": a.run.Started.Add(limit).UTC().Format("2006-01-02T15:04Z"), "externalEntityLink": a.run.Resolved["ExternalEntityLink"],
				"customData": a.run.Resolved["CustomData"],
			},
		}, "", "  ")
		if err != nil {
			return nil, err
		}
		if _, err := dispatch.Call(ctx, s.deps.Mux, sns.OpPublish, &sns.PublishInput{TopicArn: &topic, Subject: &subject, Message: new(string(body))}); err != nil {
			return nil, err
		}
	}
	return a.wait(), nil
}
