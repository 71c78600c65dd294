package ec2

import (
	"context"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/dispatch"
)

// Register serves this service's operations on mux. What is not listed here
// answers 501 by name.
func (s *Service) Register(mux *dispatch.Mux) {
	s.registerInstances(mux)
	s.registerTemplates(mux)
	s.registerImages(mux)
	s.registerNetwork(mux)
	s.registerGroups(mux)
	s.registerKeys(mux)
	dispatch.Register(mux, api.OpCreateTags, s.createTags)
	dispatch.Register(mux, api.OpDeleteTags, s.deleteTags)
	dispatch.Register(mux, api.OpDescribeTags, s.describeTags)
	dispatch.Register(mux, api.OpDescribeInstanceTypes, s.describeInstanceTypes)
	dispatch.Register(mux, api.OpDescribeInstanceTypeOfferings, s.describeInstanceTypeOfferings)
}

func (s *Service) registerInstances(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpRunInstances, s.runInstances)
	dispatch.Register(mux, api.OpDescribeInstances, s.describeInstances)
	dispatch.Register(mux, api.OpDescribeInstanceStatus, s.describeInstanceStatus)
	dispatch.Register(mux, api.OpDescribeInstanceAttribute, s.describeInstanceAttribute)
	dispatch.Register(mux, api.OpModifyInstanceAttribute, s.modifyInstanceAttribute)
	dispatch.Register(mux, api.OpModifyInstanceMetadataOptions, s.modifyMetadataOptions)
	dispatch.Register(mux, api.OpTerminateInstances, s.terminateInstances)
	dispatch.Register(mux, api.OpStopInstances, s.stopInstances)
	dispatch.Register(mux, api.OpStartInstances, s.startInstances)
	dispatch.Register(mux, api.OpRebootInstances, s.rebootInstances)
	dispatch.Register(mux, api.OpGetConsoleOutput, s.getConsoleOutput)
	dispatch.Register(mux, api.OpMonitorInstances, func(ctx context.Context, in *api.MonitorInstancesInput) (*api.MonitorInstancesOutput, error) {
		m, err := s.setMonitoring(ctx, in.InstanceIds, in.DryRun, true)
		return &api.MonitorInstancesOutput{InstanceMonitorings: m}, err
	})
	dispatch.Register(mux, api.OpUnmonitorInstances, func(ctx context.Context, in *api.UnmonitorInstancesInput) (*api.UnmonitorInstancesOutput, error) {
		m, err := s.setMonitoring(ctx, in.InstanceIds, in.DryRun, false)
		return &api.UnmonitorInstancesOutput{InstanceMonitorings: m}, err
	})
	dispatch.Register(mux, api.OpDescribeInstanceCreditSpecifications, s.describeCredits)
	dispatch.Register(mux, api.OpDescribeIamInstanceProfileAssociations, s.describeProfiles)
	dispatch.Register(mux, api.OpAssociateIamInstanceProfile, s.associateProfile)
	dispatch.Register(mux, api.OpDisassociateIamInstanceProfile, s.disassociateProfile)
	dispatch.Register(mux, api.OpDescribeVolumes, s.describeVolumes)
	dispatch.Register(mux, api.OpDescribeNetworkInterfaces, s.describeNetworkInterfaces)
}

func (s *Service) registerTemplates(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpCreateLaunchTemplate, s.createTemplate)
	dispatch.Register(mux, api.OpCreateLaunchTemplateVersion, s.createTemplateVersion)
	dispatch.Register(mux, api.OpModifyLaunchTemplate, s.modifyTemplate)
	dispatch.Register(mux, api.OpDeleteLaunchTemplate, s.deleteTemplate)
	dispatch.Register(mux, api.OpDeleteLaunchTemplateVersions, s.deleteTemplateVersions)
	dispatch.Register(mux, api.OpDescribeLaunchTemplates, s.describeTemplates)
	dispatch.Register(mux, api.OpDescribeLaunchTemplateVersions, s.describeTemplateVersions)
	dispatch.Register(mux, api.OpGetLaunchTemplateData, s.getTemplateData)
}

func (s *Service) registerImages(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpDescribeImages, s.describeImages)
	dispatch.Register(mux, api.OpCreateImage, s.createImage)
	dispatch.Register(mux, api.OpRegisterImage, s.registerImage)
	dispatch.Register(mux, api.OpDeregisterImage, s.deregisterImage)
}

func (s *Service) registerNetwork(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpDescribeVpcs, s.describeVpcs)
	dispatch.Register(mux, api.OpDescribeVpcAttribute, s.describeVpcAttribute)
	dispatch.Register(mux, api.OpDescribeSubnets, s.describeSubnets)
	dispatch.Register(mux, api.OpDescribeAvailabilityZones, s.describeZones)
	dispatch.Register(mux, api.OpDescribeRegions, s.describeRegions)
	dispatch.Register(mux, api.OpDescribeRouteTables, s.describeRouteTables)
	dispatch.Register(mux, api.OpDescribeInternetGateways, s.describeInternetGateways)
	dispatch.Register(mux, api.OpDescribeNetworkAcls, s.describeNetworkAcls)
	dispatch.Register(mux, api.OpDescribeDhcpOptions, s.describeDhcpOptions)
	dispatch.Register(mux, api.OpDescribeAccountAttributes, s.describeAccountAttributes)
}

func (s *Service) registerGroups(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpCreateSecurityGroup, s.createGroup)
	dispatch.Register(mux, api.OpDeleteSecurityGroup, s.deleteGroup)
	dispatch.Register(mux, api.OpDescribeSecurityGroups, s.describeGroups)
	dispatch.Register(mux, api.OpDescribeSecurityGroupRules, s.describeRules)
	dispatch.Register(mux, api.OpAuthorizeSecurityGroupIngress, s.authorizeIngress)
	dispatch.Register(mux, api.OpAuthorizeSecurityGroupEgress, s.authorizeEgress)
	dispatch.Register(mux, api.OpRevokeSecurityGroupIngress, s.revokeIngress)
	dispatch.Register(mux, api.OpRevokeSecurityGroupEgress, s.revokeEgress)
}

func (s *Service) registerKeys(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpCreateKeyPair, s.createKeyPair)
	dispatch.Register(mux, api.OpImportKeyPair, s.importKeyPair)
	dispatch.Register(mux, api.OpDescribeKeyPairs, s.describeKeyPairs)
	dispatch.Register(mux, api.OpDeleteKeyPair, s.deleteKeyPair)
}
