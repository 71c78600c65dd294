package ec2

import (
	"context"
	"reflect"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/model"
)

// register serves op with h. EC2 writes every list at the top of an answer,
// empty ones too, and clients index it without asking.
func register[I, O any](mux *dispatch.Mux, op *model.Op[I, O], h func(context.Context, *I) (*O, error)) {
	dispatch.Register(mux, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil || out == nil {
			return nil, err
		}
		v := reflect.ValueOf(out).Elem()
		for n := range v.NumField() {
			if f := v.Field(n); f.Kind() == reflect.Slice && f.IsNil() && f.Type().Elem().Kind() != reflect.Uint8 {
				f.Set(reflect.MakeSlice(f.Type(), 0, 0))
			}
		}
		return out, nil
	})
}

// Register serves this service's operations on mux. What is not listed here
// answers 501 by name.
func (s *Service) Register(mux *dispatch.Mux) {
	s.registerInstances(mux)
	s.registerTemplates(mux)
	s.registerImages(mux)
	s.registerNetwork(mux)
	s.registerGroups(mux)
	s.registerKeys(mux)
	register(mux, api.OpCreateTags, s.createTags)
	register(mux, api.OpDeleteTags, s.deleteTags)
	register(mux, api.OpDescribeTags, s.describeTags)
	register(mux, api.OpDescribeInstanceTypes, s.describeInstanceTypes)
	register(mux, api.OpDescribeInstanceTypeOfferings, s.describeInstanceTypeOfferings)
}

func (s *Service) registerInstances(mux *dispatch.Mux) {
	register(mux, api.OpRunInstances, s.runInstances)
	register(mux, api.OpDescribeInstances, s.describeInstances)
	register(mux, api.OpDescribeInstanceStatus, s.describeInstanceStatus)
	register(mux, api.OpDescribeInstanceAttribute, s.describeInstanceAttribute)
	register(mux, api.OpModifyInstanceAttribute, s.modifyInstanceAttribute)
	register(mux, api.OpModifyInstanceMetadataOptions, s.modifyMetadataOptions)
	register(mux, api.OpTerminateInstances, s.terminateInstances)
	register(mux, api.OpStopInstances, s.stopInstances)
	register(mux, api.OpStartInstances, s.startInstances)
	register(mux, api.OpRebootInstances, s.rebootInstances)
	register(mux, api.OpGetConsoleOutput, s.getConsoleOutput)
	register(mux, api.OpMonitorInstances, func(ctx context.Context, in *api.MonitorInstancesInput) (*api.MonitorInstancesOutput, error) {
		m, err := s.setMonitoring(ctx, in.InstanceIds, in.DryRun, true)
		return &api.MonitorInstancesOutput{InstanceMonitorings: m}, err
	})
	register(mux, api.OpUnmonitorInstances, func(ctx context.Context, in *api.UnmonitorInstancesInput) (*api.UnmonitorInstancesOutput, error) {
		m, err := s.setMonitoring(ctx, in.InstanceIds, in.DryRun, false)
		return &api.UnmonitorInstancesOutput{InstanceMonitorings: m}, err
	})
	register(mux, api.OpDescribeInstanceCreditSpecifications, s.describeCredits)
	register(mux, api.OpDescribeIamInstanceProfileAssociations, s.describeProfiles)
	register(mux, api.OpAssociateIamInstanceProfile, s.associateProfile)
	register(mux, api.OpDisassociateIamInstanceProfile, s.disassociateProfile)
	register(mux, api.OpDescribeVolumes, s.describeVolumes)
	register(mux, api.OpDescribeNetworkInterfaces, s.describeNetworkInterfaces)
}

func (s *Service) registerTemplates(mux *dispatch.Mux) {
	register(mux, api.OpCreateLaunchTemplate, s.createTemplate)
	register(mux, api.OpCreateLaunchTemplateVersion, s.createTemplateVersion)
	register(mux, api.OpModifyLaunchTemplate, s.modifyTemplate)
	register(mux, api.OpDeleteLaunchTemplate, s.deleteTemplate)
	register(mux, api.OpDeleteLaunchTemplateVersions, s.deleteTemplateVersions)
	register(mux, api.OpDescribeLaunchTemplates, s.describeTemplates)
	register(mux, api.OpDescribeLaunchTemplateVersions, s.describeTemplateVersions)
	register(mux, api.OpGetLaunchTemplateData, s.getTemplateData)
}

func (s *Service) registerImages(mux *dispatch.Mux) {
	register(mux, api.OpDescribeImages, s.describeImages)
	register(mux, api.OpCreateImage, s.createImage)
	register(mux, api.OpRegisterImage, s.registerImage)
	register(mux, api.OpDeregisterImage, s.deregisterImage)
}

func (s *Service) registerNetwork(mux *dispatch.Mux) {
	register(mux, api.OpDescribeVpcs, s.describeVpcs)
	register(mux, api.OpDescribeVpcAttribute, s.describeVpcAttribute)
	register(mux, api.OpDescribeSubnets, s.describeSubnets)
	register(mux, api.OpDescribeAvailabilityZones, s.describeZones)
	register(mux, api.OpDescribeRegions, s.describeRegions)
	register(mux, api.OpDescribeRouteTables, s.describeRouteTables)
	register(mux, api.OpDescribeInternetGateways, s.describeInternetGateways)
	register(mux, api.OpDescribeNetworkAcls, s.describeNetworkAcls)
	register(mux, api.OpDescribeDhcpOptions, s.describeDhcpOptions)
	register(mux, api.OpDescribeAccountAttributes, s.describeAccountAttributes)
}

func (s *Service) registerGroups(mux *dispatch.Mux) {
	register(mux, api.OpCreateSecurityGroup, s.createGroup)
	register(mux, api.OpDeleteSecurityGroup, s.deleteGroup)
	register(mux, api.OpDescribeSecurityGroups, s.describeGroups)
	register(mux, api.OpDescribeSecurityGroupRules, s.describeRules)
	register(mux, api.OpAuthorizeSecurityGroupIngress, s.authorizeIngress)
	register(mux, api.OpAuthorizeSecurityGroupEgress, s.authorizeEgress)
	register(mux, api.OpRevokeSecurityGroupIngress, s.revokeIngress)
	register(mux, api.OpRevokeSecurityGroupEgress, s.revokeEgress)
	register(mux, api.OpModifySecurityGroupRules, s.modifyRules)
	register(mux, api.OpUpdateSecurityGroupRuleDescriptionsIngress, s.describeIngress)
	register(mux, api.OpUpdateSecurityGroupRuleDescriptionsEgress, s.describeEgress)
}

func (s *Service) registerKeys(mux *dispatch.Mux) {
	register(mux, api.OpCreateKeyPair, s.createKeyPair)
	register(mux, api.OpImportKeyPair, s.importKeyPair)
	register(mux, api.OpDescribeKeyPairs, s.describeKeyPairs)
	register(mux, api.OpDeleteKeyPair, s.deleteKeyPair)
}
