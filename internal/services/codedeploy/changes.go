package codedeploy

import (
	api "slipway/internal/api/codedeploy"
	"slipway/internal/statechange"
)

// deploymentStates are those of AWS's events by ours.
var deploymentStates = map[string]string{
	api.DeploymentStatusInProgress: "START", api.DeploymentStatusSucceeded: "SUCCESS",
	api.DeploymentStatusFailed: "FAILURE", api.DeploymentStatusStopped: "STOP",
}

// stateNote is the detail of AWS's event (CodeDeploy user guide, "Monitoring
// deployments with Amazon CloudWatch Events").
type stateNote struct {
	GroupID     string `json:"instanceGroupId"`
	Region      string `json:"region"`
	Application string `json:"application"`
	Deployment  string `json:"deploymentId"`
	State       string `json:"state"`
	Group       string `json:"deploymentGroup"`
}

// stateChanged tells that a deployment began or ended.
func stateChanged(row *deploymentRow) statechange.Detail {
	d := &row.Doc
	arn := "arn:aws:codedeploy:" + row.Region + ":" + row.Account + ":"
	application := arn + "application:" + d.Application
	var out statechange.Detail
	out.Add(statechange.Change{Source: "aws.codedeploy", DetailType: "CodeDeploy Deployment State-change Notification", Resource: application,
		Resources: []string{application, arn + "deploymentgroup:" + d.Application + "/" + d.Group}},
		stateNote{d.GroupID, row.Region, d.Application, d.ID, deploymentStates[d.Status], d.Group}, nil)
	return out
}
