package ec2

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// view is an instance with its tags, as the describe calls see it.
type view struct {
	*Instance
	Tags map[string]string
}

func dnsName(ip, region string) string {
	name := "ip-" + strings.ReplaceAll(ip, ".", "-")
	if region == "us-east-1" {
		return name + ".ec2.internal"
	}
	return name + "." + region + ".compute.internal"
}

func regionOf(zone string) string { return zone[:len(zone)-1] }

func (i *Instance) dns() string { return dnsName(i.PrivateIP, regionOf(i.Zone)) }

func (i *Instance) zoneID() string {
	region := regionOf(i.Zone)
	return zoneID(region, int(i.Zone[len(i.Zone)-1]-'a')+1)
}

func (i *Instance) rootDevice() string { return "/dev/xvda" }

func apiState(name string) *api.InstanceState {
	return &api.InstanceState{Code: new(stateCode[name]), Name: &name}
}

func (i *Instance) apiGroups() (out []api.GroupIdentifier) {
	for _, g := range i.Groups {
		out = append(out, api.GroupIdentifier{GroupId: new(g.ID), GroupName: new(g.Name)})
	}
	return out
}

func (m metadata) api() *api.InstanceMetadataOptionsResponse {
	return &api.InstanceMetadataOptionsResponse{State: new("applied"), HttpTokens: new(m.Tokens), HttpPutResponseHopLimit: new(m.HopLimit),
		HttpEndpoint: new(m.Endpoint), HttpProtocolIpv6: new(m.IPv6), InstanceMetadataTags: new(m.Tags)}
}

// apiInstance writes an instance in EC2's shape. What a terminated instance
// no longer has (address, interface, groups' network) is absent, as on EC2.
func apiInstance(account string, i *Instance, tags map[string]string) api.Instance {
	t := typeOf(i.Type)
	out := api.Instance{
		AmiLaunchIndex: new(i.LaunchIndex), ImageId: new(i.Image), InstanceId: new(i.ID), InstanceType: new(i.Type),
		KeyName: orNil(i.KeyName), LaunchTime: new(i.LaunchTime), Monitoring: &api.Monitoring{State: new(i.monitoring())},
		Placement:      &api.Placement{AvailabilityZone: new(i.Zone), AvailabilityZoneId: new(i.zoneID()), GroupName: new(""), Tenancy: new("default")},
		PrivateDnsName: new(""), PublicDnsName: new(""), State: apiState(i.State), StateTransitionReason: new(i.Transition),
		Architecture: new(t.Arch), ClientToken: new(i.ClientToken), EbsOptimized: new(i.EbsOptimized), EnaSupport: new(true),
		Hypervisor: new("xen"), InstanceLifecycle: orNil(i.Lifecycle), RootDeviceName: new(i.rootDevice()), RootDeviceType: new("ebs"),
		VirtualizationType: new("hvm"), Tags: apiTags(tags), PlatformDetails: new("Linux/UNIX"), UsageOperation: new("RunInstances"),
		UsageOperationUpdateTime: new(i.CreateTime), MetadataOptions: i.Metadata.api(), BootMode: new("uefi-preferred"), CurrentInstanceBootMode: new("legacy-bios"),
		CpuOptions:                       &api.CpuOptions{CoreCount: new(max(1, t.VCPUs/2)), ThreadsPerCore: new(min(2, t.VCPUs))},
		CapacityReservationSpecification: &api.CapacityReservationSpecificationResponse{CapacityReservationPreference: new("open")},
		HibernationOptions:               &api.HibernationOptions{Configured: new(false)}, EnclaveOptions: &api.EnclaveOptions{Enabled: new(false)},
		MaintenanceOptions:    &api.InstanceMaintenanceOptions{AutoRecovery: new("default")},
		PrivateDnsNameOptions: &api.PrivateDnsNameOptionsResponse{HostnameType: new("ip-name"), EnableResourceNameDnsARecord: new(false), EnableResourceNameDnsAAAARecord: new(false)},
	}
	out.ProductCodes, out.SecurityGroups = []api.ProductCode{}, []api.GroupIdentifier{}
	out.NetworkInterfaces, out.BlockDeviceMappings = []api.InstanceNetworkInterface{}, []api.InstanceBlockDeviceMapping{}
	if i.Reason != (reason{}) {
		out.StateReason = &api.StateReason{Code: new(i.Reason.Code), Message: new(i.Reason.Message)}
	}
	if i.Profile != nil {
		out.IamInstanceProfile = &api.IamInstanceProfile{Arn: new(i.Profile.Arn), Id: new(i.Profile.ID)}
	}
	if i.State == stateTerminated {
		return out
	}
	out.VpcId, out.SubnetId, out.PrivateIpAddress, out.PrivateDnsName = new(i.VPC), new(i.Subnet), new(i.PrivateIP), new(i.dns())
	out.SecurityGroups, out.SourceDestCheck = i.apiGroups(), new(!i.NoSourceDestCheck)
	out.NetworkInterfaces = []api.InstanceNetworkInterface{i.apiInterface(account)}
	out.BlockDeviceMappings = []api.InstanceBlockDeviceMapping{{DeviceName: new(i.rootDevice()), Ebs: &api.EbsInstanceBlockDevice{
		AttachTime: new(i.CreateTime), DeleteOnTermination: new(true), Status: new("attached"), VolumeId: new(i.Volume)}}}
	return out
}

func (i *Instance) monitoring() string {
	if i.Monitoring {
		return "enabled"
	}
	return "disabled"
}

func (i *Instance) apiInterface(account string) api.InstanceNetworkInterface {
	return api.InstanceNetworkInterface{
		Attachment: &api.InstanceNetworkInterfaceAttachment{AttachTime: new(i.CreateTime), AttachmentId: new(i.Attachment),
			DeleteOnTermination: new(true), DeviceIndex: new(int64(0)), Status: new("attached"), NetworkCardIndex: new(int64(0))},
		Description: new(""), Groups: i.apiGroups(), MacAddress: new(i.MAC), NetworkInterfaceId: new(i.ENI), OwnerId: &account,
		PrivateDnsName: new(i.dns()), PrivateIpAddress: new(i.PrivateIP), SourceDestCheck: new(!i.NoSourceDestCheck),
		PrivateIpAddresses: []api.InstancePrivateIpAddress{{Primary: new(true), PrivateDnsName: new(i.dns()), PrivateIpAddress: new(i.PrivateIP)}},
		Status:             new("in-use"), SubnetId: new(i.Subnet), VpcId: new(i.VPC), InterfaceType: new("interface"),
	}
}

// instanceFields are the filters of DescribeInstances (API reference).
var instanceFields = fields[view]{
	"instance-id":         one(func(v view) string { return v.ID }),
	"instance-state-name": one(func(v view) string { return v.State }),
	"instance-state-code": one(func(v view) string { return strconv.FormatInt(stateCode[v.State], 10) }),
	"instance-type":       one(func(v view) string { return v.Type }),
	"image-id":            one(func(v view) string { return v.Image }),
	"key-name":            one(func(v view) string { return v.KeyName }),
	"availability-zone":   one(func(v view) string { return v.Zone }),
	"availability-zone-id": one(func(v view) string {
		return v.zoneID()
	}),
	"subnet-id": one(func(v view) string { return v.Subnet }), "network-interface.subnet-id": one(func(v view) string { return v.Subnet }),
	"vpc-id": one(func(v view) string { return v.VPC }), "network-interface.vpc-id": one(func(v view) string { return v.VPC }),
	"private-ip-address": one(func(v view) string { return v.PrivateIP }), "network-interface.addresses.private-ip-address": one(func(v view) string { return v.PrivateIP }),
	"private-dns-name":                                   one(func(v view) string { return v.dns() }),
	"network-interface.network-interface-id":             one(func(v view) string { return v.ENI }),
	"network-interface.mac-address":                      one(func(v view) string { return v.MAC }),
	"reservation-id":                                     one(func(v view) string { return v.Reservation }),
	"client-token":                                       one(func(v view) string { return v.ClientToken }),
	"architecture":                                       one(func(v view) string { return typeOf(v.Type).Arch }),
	"launch-index":                                       one(func(v view) string { return strconv.FormatInt(v.LaunchIndex, 10) }),
	"launch-time":                                        one(func(v view) string { return v.LaunchTime.Format("2006-01-02T15:04:05.000Z") }),
	"instance-lifecycle":                                 one(func(v view) string { return v.Lifecycle }),
	"root-device-name":                                   one(func(v view) string { return v.rootDevice() }),
	"root-device-type":                                   one(func(view) string { return "ebs" }),
	"virtualization-type":                                one(func(view) string { return "hvm" }),
	"hypervisor":                                         one(func(view) string { return "xen" }),
	"tenancy":                                            one(func(view) string { return "default" }),
	"monitoring-state":                                   one(func(v view) string { return v.monitoring() }),
	"state-reason-code":                                  one(func(v view) string { return v.Reason.Code }),
	"reason":                                             one(func(v view) string { return v.Transition }),
	"block-device-mapping.volume-id":                     one(func(v view) string { return v.Volume }),
	"metadata-options.http-tokens":                       one(func(v view) string { return v.Metadata.Tokens }),
	"metadata-options.http-endpoint":                     one(func(v view) string { return v.Metadata.Endpoint }),
	"iam-instance-profile.arn":                           one(func(v view) string { return ptr.Value(v.Profile).Arn }),
	"iam-instance-profile.id":                            one(func(v view) string { return ptr.Value(v.Profile).ID }),
	"iam-instance-profile.name":                          one(func(v view) string { return ptr.Value(v.Profile).Name }),
	"instance.group-id":                                  groupIDs,
	"instance.group-name":                                groupNames,
	"network-interface.group-id":                         groupIDs,
	"network-interface.group-name":                       groupNames,
	"source-dest-check":                                  one(func(v view) string { return strconv.FormatBool(!v.NoSourceDestCheck) }),
	"ip-address":                                         func(view) []string { return nil }, // no public addresses here
	"dns-name":                                           func(view) []string { return nil },
	"platform":                                           func(view) []string { return nil },
	"spot-instance-request-id":                           func(view) []string { return nil },
	"placement-group-name":                               func(view) []string { return nil },
	"block-device-mapping.status":                        one(func(view) string { return "attached" }),
	"block-device-mapping.delete-on-termination":         one(func(view) string { return "true" }),
	"network-interface.status":                           one(func(view) string { return "in-use" }),
	"network-interface.attachment.instance-id":           one(func(v view) string { return v.ID }),
	"network-interface.attachment.attachment-id":         one(func(v view) string { return v.Attachment }),
	"network-interface.private-dns-name":                 one(func(v view) string { return v.dns() }),
	"network-interface.availability-zone":                one(func(v view) string { return v.Zone }),
	"network-interface.source-dest-check":                one(func(v view) string { return strconv.FormatBool(!v.NoSourceDestCheck) }),
	"network-interface.attachment.delete-on-termination": one(func(view) string { return "true" }),
}

func groupIDs(v view) (out []string) {
	for _, g := range v.Groups {
		out = append(out, g.ID)
	}
	return out
}

func groupNames(v view) (out []string) {
	for _, g := range v.Groups {
		out = append(out, g.Name)
	}
	return out
}

// views reads the instances of the caller's region: those of ids, which must
// exist, or all of them.
func (s *Service) views(ctx context.Context, ids []string) ([]view, error) {
	account, region := where(ctx)
	var out []view
	err := s.Store.View(ctx, func(r store.Reader) error {
		if len(ids) > 0 {
			rows, err := instancesByID(r, account, region, ids)
			if err != nil {
				return err
			}
			for _, row := range rows {
				tags, err := tagsOf(r, account, region, row.ID)
				if err != nil {
					return err
				}
				out = append(out, view{&row.Doc, tags})
			}
			return nil
		}
		tags, err := allTags(r, account, region, "instance")
		if err != nil {
			return err
		}
		rows, err := instances.List(r, store.Query{Account: account, Region: region})
		for _, row := range rows {
			out = append(out, view{&row.Doc, tags[row.ID]})
		}
		return err
	})
	return out, err
}

// instancesByID reads rows in the order of ids, each once; a missing one is
// EC2's error that names all that are missing.
func instancesByID(r store.Reader, account, region string, ids []string) ([]*store.Row[Instance], error) {
	var rows []*store.Row[Instance]
	var missing []string
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id] {
			continue
		}
		seen[id] = true
		if err := checkID("i", id, "InvalidInstanceID.Malformed"); err != nil {
			return nil, err
		}
		row, err := instances.Get(r, account, region, id)
		if errors.Is(err, store.ErrNotFound) {
			missing = append(missing, id)
			continue
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	switch len(missing) {
	case 0:
		return rows, nil
	case 1:
		return nil, awserr.New("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", missing[0])
	}
	return nil, awserr.New("InvalidInstanceID.NotFound", "The instance IDs '%s' do not exist", strings.Join(missing, ", "))
}

func (s *Service) describeInstances(ctx context.Context, in *api.DescribeInstancesInput) (*api.DescribeInstancesOutput, error) {
	account, _ := where(ctx)
	if len(in.InstanceIds) > 0 && in.MaxResults != nil {
		return nil, awserr.New("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
	}
	all, err := s.views(ctx, in.InstanceIds)
	if err != nil {
		return nil, err
	}
	if all, err = filtered(all, in.Filters, instanceFields, func(v view) map[string]string { return v.Tags }); err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b view) int { return strings.Compare(a.ID, b.ID) })
	all, next, err := page(all, func(v view) string { return v.ID }, in.MaxResults, in.NextToken, 5, 1000)
	if err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	out := &api.DescribeInstancesOutput{NextToken: next}
	at := map[string]int{}
	for _, v := range all {
		n, ok := at[v.Reservation]
		if !ok {
			n = len(out.Reservations)
			at[v.Reservation] = n
			r := api.Reservation{OwnerId: &account, ReservationId: new(v.Reservation)}
			if _, ok := v.Tags["aws:autoscaling:groupName"]; ok {
				r.RequesterId = new("autoscaling.amazonaws.com")
			}
			out.Reservations = append(out.Reservations, r)
		}
		out.Reservations[n].Instances = append(out.Reservations[n].Instances, apiInstance(account, v.Instance, v.Tags))
	}
	for _, r := range out.Reservations {
		sortByLaunchIndex(r.Instances)
	}
	return out, nil
}

func sortByLaunchIndex(all []api.Instance) {
	slices.SortStableFunc(all, func(a, b api.Instance) int { return int(ptr.Value(a.AmiLaunchIndex) - ptr.Value(b.AmiLaunchIndex)) })
}

// statusFields are the filters of DescribeInstanceStatus.
var statusFields = fields[view]{
	"availability-zone":          instanceFields["availability-zone"],
	"availability-zone-id":       instanceFields["availability-zone-id"],
	"instance-state-code":        instanceFields["instance-state-code"],
	"instance-state-name":        instanceFields["instance-state-name"],
	"instance-status.status":     one(func(v view) string { return v.status() }),
	"system-status.status":       one(func(v view) string { return v.status() }),
	"attached-ebs-status.status": one(func(v view) string { return v.status() }),
	"instance-status.reachability": one(func(v view) string {
		return v.reachability()
	}),
	"system-status.reachability":       one(func(v view) string { return v.reachability() }),
	"attached-ebs-status.reachability": one(func(v view) string { return v.reachability() }),
	"event.code":                       func(view) []string { return nil },
}

// status is the summary of the status checks: init answers, so all is well;
// an instance that is not running is not checked.
func (i *Instance) status() string {
	switch i.State {
	case stateRunning:
		return "ok"
	case statePending:
		return "initializing"
	}
	return "not-applicable"
}

func (i *Instance) reachability() string {
	switch i.State {
	case stateRunning:
		return "passed"
	case statePending:
		return "initializing"
	}
	return ""
}

func (s *Service) describeInstanceStatus(ctx context.Context, in *api.DescribeInstanceStatusInput) (*api.DescribeInstanceStatusOutput, error) {
	all, err := s.views(ctx, in.InstanceIds)
	if err != nil {
		return nil, err
	}
	if all, err = filtered(all, in.Filters, statusFields, nil); err != nil {
		return nil, err
	}
	if !ptr.Value(in.IncludeAllInstances) {
		all = slices.DeleteFunc(all, func(v view) bool { return v.State != stateRunning })
	}
	slices.SortStableFunc(all, func(a, b view) int { return strings.Compare(a.ID, b.ID) })
	all, next, err := page(all, func(v view) string { return v.ID }, in.MaxResults, in.NextToken, 5, 1000)
	if err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	out := &api.DescribeInstanceStatusOutput{NextToken: next}
	for _, v := range all {
		summary := func() *api.InstanceStatusSummary {
			s := &api.InstanceStatusSummary{Status: new(v.status())}
			if r := v.reachability(); r != "" {
				s.Details = []api.InstanceStatusDetails{{Name: new("reachability"), Status: &r}}
			}
			return s
		}
		st := api.InstanceStatus{AvailabilityZone: new(v.Zone), AvailabilityZoneId: new(v.zoneID()), InstanceId: new(v.ID),
			InstanceState: apiState(v.State), InstanceStatus: summary(), SystemStatus: summary()}
		out.InstanceStatuses = append(out.InstanceStatuses, st)
	}
	return out, nil
}

func (s *Service) getConsoleOutput(ctx context.Context, in *api.GetConsoleOutputInput) (*api.GetConsoleOutputOutput, error) {
	all, err := s.views(ctx, []string{ptr.Value(in.InstanceId)})
	if err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	account, region := where(ctx)
	out := &api.GetConsoleOutputOutput{InstanceId: in.InstanceId}
	text, err := s.Machines.ConsoleOutput(all[0].ID)
	at := s.Clock.Now()
	if err != nil || len(text) == 0 {
		kept, err := consoles.Find(ctx, s.Store, account, region, all[0].ID)
		if errors.Is(err, store.ErrNotFound) {
			return out, nil // nothing was ever written
		}
		if err != nil {
			return nil, err
		}
		text, at = kept.Doc.Output, kept.Doc.At
	}
	out.Output, out.Timestamp = new(base64.StdEncoding.EncodeToString(text)), &at
	return out, nil
}
