package scenarios

import (
	"testing"
	"time"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/codepipeline"
	"slipway/internal/api/elbv2"
	"slipway/internal/aws/client"
	"slipway/internal/aws/model"
	"slipway/internal/aws/ptr"
	"slipway/internal/hostinfo"
)

// poller looks at the server with hardly any work of its own: the aws command
// line takes half a second of a processor for each look, which the figures
// would show.
type poller struct {
	t *testing.T
	w *world
	c *client.Client
}

func newPoller(t *testing.T, w *world) *poller {
	t.Helper()
	keys, err := hostinfo.ReadCredentials(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{Endpoint: w.endpoint, AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey})
	if err != nil {
		t.Fatal(err)
	}
	return &poller{t, w, c}
}

func look[I, O any](p *poller, op *model.Op[I, O], in *I) *O {
	p.t.Helper()
	out, err := client.Call(p.t.Context(), p.c, op, in)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// ended waits until the execution of a commit is over.
func (p *poller) ended(commit string) {
	p.t.Helper()
	p.w.wait(10*time.Minute, "the pipeline of "+commit, func() (bool, string) {
		out := look(p, codepipeline.OpListPipelineExecutions, &codepipeline.ListPipelineExecutionsInput{PipelineName: new("todo"), MaxResults: new(int64(5))})
		for _, e := range out.PipelineExecutionSummaries {
			for _, r := range e.SourceRevisions {
				if ptr.Value(r.RevisionId) == commit {
					return ptr.Value(e.Status) != "InProgress", ptr.Value(e.Status)
				}
			}
		}
		return false, "no execution"
	})
}

// replaced tells whether n instances are in service and healthy targets, without
// the one that went.
func (p *poller) replaced(gone string, n int) bool {
	p.t.Helper()
	inService := map[string]bool{}
	for _, g := range look(p, autoscaling.OpDescribeAutoScalingGroups, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"todo"}}).AutoScalingGroups {
		for _, i := range g.Instances {
			if ptr.Value(i.LifecycleState) == "InService" && ptr.Value(i.InstanceId) != gone {
				inService[ptr.Value(i.InstanceId)] = true
			}
		}
	}
	groups := look(p, elbv2.OpDescribeTargetGroups, &elbv2.DescribeTargetGroupsInput{Names: []string{"todo"}}).TargetGroups
	healthy := 0
	for _, d := range look(p, elbv2.OpDescribeTargetHealth, &elbv2.DescribeTargetHealthInput{TargetGroupArn: groups[0].TargetGroupArn}).TargetHealthDescriptions {
		if ptr.Value(d.TargetHealth.State) == "healthy" && inService[ptr.Value(d.Target.Id)] {
			healthy++
		}
	}
	return len(inService) == n && healthy == n
}
