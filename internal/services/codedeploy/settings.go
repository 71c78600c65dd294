package codedeploy

import (
	"slices"

	api "slipway/internal/api/codedeploy"
)

// merge brings what an update names into the settings: a member that is
// absent stays, an empty list clears.
func (set *Settings) merge(in *api.UpdateDeploymentGroupInput) {
	keep(&set.ConfigName, in.DeploymentConfigName)
	keep(&set.ServiceRoleARN, in.ServiceRoleArn)
	keep(&set.OutdatedStrategy, in.OutdatedInstancesStrategy)
	if in.Ec2TagFilters != nil {
		set.EC2TagFilters = in.Ec2TagFilters
		if in.Ec2TagSet == nil && len(in.Ec2TagFilters) > 0 {
			set.EC2TagSet = nil
		}
	}
	if in.Ec2TagSet != nil {
		set.EC2TagSet = in.Ec2TagSet.Ec2TagSetList
		if in.Ec2TagFilters == nil && len(set.EC2TagSet) > 0 {
			set.EC2TagFilters = nil
		}
	}
	if in.OnPremisesInstanceTagFilters != nil {
		set.OnPremisesFilters = in.OnPremisesInstanceTagFilters
	}
	if in.OnPremisesTagSet != nil {
		set.OnPremisesTagSet = in.OnPremisesTagSet.OnPremisesTagSetList
	}
	if in.TriggerConfigurations != nil {
		set.Triggers = in.TriggerConfigurations
	}
	if in.AlarmConfiguration != nil {
		set.Alarms = in.AlarmConfiguration
	}
	if in.AutoRollbackConfiguration != nil {
		set.AutoRollback = in.AutoRollbackConfiguration
	}
	if in.DeploymentStyle != nil {
		set.Style = in.DeploymentStyle
	}
	if in.LoadBalancerInfo != nil {
		set.LoadBalancer = in.LoadBalancerInfo
	}
	if in.TerminationHookEnabled != nil {
		set.TerminationHook = *in.TerminationHookEnabled
	}
}

func keep(to *string, from *string) {
	if from != nil {
		*to = *from
	}
}

// rescale changes a group's Auto Scaling groups and returns the hooks that
// are to be removed. names nil keeps the groups.
func (g *Group) rescale(names []string) (gone []ScalingGroup) {
	if names == nil {
		for _, a := range g.Scaling {
			names = append(names, a.Name)
		}
	}
	var kept []ScalingGroup
	for _, a := range g.Scaling {
		if !slices.Contains(names, a.Name) {
			gone = append(gone, a)
			continue
		}
		switch {
		case g.Settings.TerminationHook && a.TerminationHook == "":
			a.TerminationID, a.TerminationDone = newUUID(), false
			a.TerminationHook = hookName(terminationHookPrefix, g.Name, a.TerminationID)
		case !g.Settings.TerminationHook && a.TerminationHook != "":
			gone = append(gone, ScalingGroup{Name: a.Name, TerminationHook: a.TerminationHook})
			a.TerminationHook, a.TerminationID, a.TerminationDone = "", "", false
		}
		kept = append(kept, a)
	}
	for _, name := range unique(names) {
		if !slices.ContainsFunc(kept, func(a ScalingGroup) bool { return a.Name == name }) {
			kept = append(kept, newScaling(g.Name, name, g.Settings.TerminationHook))
		}
	}
	g.Scaling = kept
	return gone
}
