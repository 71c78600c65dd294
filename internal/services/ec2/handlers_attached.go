package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/store"
)

// containsIP says whether text is an address of the subnet.
func containsIP(sn subnet, text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && sn.CIDR.Contains(ip)
}

func (s *Service) describeVolumes(ctx context.Context, in *api.DescribeVolumesInput) (*api.DescribeVolumesOutput, error) {
	account, region := where(ctx)
	all, err := s.views(ctx, nil)
	if err != nil {
		return nil, err
	}
	var tags map[string]map[string]string
	if err := s.Store.View(ctx, func(r store.Reader) (err error) {
		tags, err = allTags(r, account, region, "volume")
		return err
	}); err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v view) bool { return v.State == stateTerminated })
	if len(in.VolumeIds) > 0 {
		for _, id := range in.VolumeIds {
			if !slices.ContainsFunc(all, func(v view) bool { return v.Volume == id }) {
				return nil, awserr.New("InvalidVolume.NotFound", "The volume '%s' does not exist.", id)
			}
		}
		all = slices.DeleteFunc(all, func(v view) bool { return !slices.Contains(in.VolumeIds, v.Volume) })
	}
	by := fields[view]{
		"volume-id":                        one(func(v view) string { return v.Volume }),
		"attachment.instance-id":           one(func(v view) string { return v.ID }),
		"attachment.device":                one(func(v view) string { return v.rootDevice() }),
		"attachment.status":                one(func(view) string { return "attached" }),
		"attachment.delete-on-termination": one(func(view) string { return "true" }),
		"availability-zone":                one(func(v view) string { return v.Zone }),
		"status":                           one(func(view) string { return "in-use" }),
		"volume-type":                      one(func(view) string { return "gp3" }),
		"encrypted":                        one(func(view) string { return "false" }),
		"size":                             one(func(view) string { return "8" }),
	}
	if all, err = filtered(all, in.Filters, by, func(v view) map[string]string { return tags[v.Volume] }); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b view) int { return strings.Compare(a.Volume, b.Volume) })
	all, next, err := page(all, func(v view) string { return v.Volume }, in.MaxResults, in.NextToken, 5, 1000)
	out := &api.DescribeVolumesOutput{NextToken: next}
	for _, v := range all {
		out.Volumes = append(out.Volumes, api.Volume{
			VolumeId: new(v.Volume), AvailabilityZone: new(v.Zone), CreateTime: new(v.CreateTime), Encrypted: new(false), Size: new(int64(8)),
			State: new("in-use"), SnapshotId: new(""), Iops: new(int64(3000)), Throughput: new(int64(125)), VolumeType: new("gp3"), MultiAttachEnabled: new(false), Tags: apiTags(tags[v.Volume]),
			Attachments: []api.VolumeAttachment{{AttachTime: new(v.CreateTime), Device: new(v.rootDevice()), InstanceId: new(v.ID), State: new("attached"), VolumeId: new(v.Volume), DeleteOnTermination: new(true)}},
		})
	}
	return out, err
}

func (s *Service) describeNetworkInterfaces(ctx context.Context, in *api.DescribeNetworkInterfacesInput) (*api.DescribeNetworkInterfacesOutput, error) {
	account, region := where(ctx)
	all, err := s.views(ctx, nil)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v view) bool { return v.State == stateTerminated })
	for _, id := range in.NetworkInterfaceIds {
		if !slices.ContainsFunc(all, func(v view) bool { return v.ENI == id }) {
			return nil, awserr.New("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
		}
	}
	if len(in.NetworkInterfaceIds) > 0 {
		all = slices.DeleteFunc(all, func(v view) bool { return !slices.Contains(in.NetworkInterfaceIds, v.ENI) })
	}
	var tags map[string]map[string]string
	if err := s.Store.View(ctx, func(r store.Reader) (err error) {
		tags, err = allTags(r, account, region, "network-interface")
		return err
	}); err != nil {
		return nil, err
	}
	if all, err = filtered(all, in.Filters, interfaceFields, func(v view) map[string]string { return tags[v.ENI] }); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b view) int { return strings.Compare(a.ENI, b.ENI) })
	all, next, err := page(all, func(v view) string { return v.ENI }, in.MaxResults, in.NextToken, 5, 1000)
	out := &api.DescribeNetworkInterfacesOutput{NextToken: next}
	for _, v := range all {
		out.NetworkInterfaces = append(out.NetworkInterfaces, api.NetworkInterface{
			Attachment: &api.NetworkInterfaceAttachment{AttachTime: new(v.CreateTime), AttachmentId: new(v.Attachment), DeleteOnTermination: new(true),
				DeviceIndex: new(int64(0)), NetworkCardIndex: new(int64(0)), InstanceId: new(v.ID), InstanceOwnerId: &account, Status: new("attached")},
			AvailabilityZone: new(v.Zone), Description: new(""), Groups: v.apiGroups(), InterfaceType: new("interface"), MacAddress: new(v.MAC),
			NetworkInterfaceId: new(v.ENI), OwnerId: &account, PrivateDnsName: new(v.dns()), PrivateIpAddress: new(v.PrivateIP), RequesterManaged: new(false),
			SourceDestCheck: new(!v.NoSourceDestCheck), Status: new("in-use"), SubnetId: new(v.Subnet), VpcId: new(v.VPC), TagSet: apiTags(tags[v.ENI]),
			PrivateIpAddresses: []api.NetworkInterfacePrivateIpAddress{{Primary: new(true), PrivateDnsName: new(v.dns()), PrivateIpAddress: new(v.PrivateIP)}},
		})
	}
	return out, err
}

var interfaceFields = fields[view]{
	"network-interface-id":         one(func(v view) string { return v.ENI }),
	"attachment.instance-id":       one(func(v view) string { return v.ID }),
	"attachment.attachment-id":     one(func(v view) string { return v.Attachment }),
	"attachment.status":            one(func(view) string { return "attached" }),
	"attachment.instance-owner-id": func(view) []string { return nil },
	"attachment.device-index":      one(func(view) string { return "0" }),
	"addresses.private-ip-address": one(func(v view) string { return v.PrivateIP }),
	"private-ip-address":           one(func(v view) string { return v.PrivateIP }),
	"private-dns-name":             one(func(v view) string { return v.dns() }),
	"availability-zone":            one(func(v view) string { return v.Zone }),
	"group-id":                     groupIDs,
	"group-name":                   groupNames,
	"mac-address":                  one(func(v view) string { return v.MAC }),
	"status":                       one(func(view) string { return "in-use" }),
	"subnet-id":                    one(func(v view) string { return v.Subnet }),
	"vpc-id":                       one(func(v view) string { return v.VPC }),
	"interface-type":               one(func(view) string { return "interface" }),
	"description":                  func(view) []string { return nil },
	"requester-id":                 func(view) []string { return nil },
	"association.public-ip":        func(view) []string { return nil },
}
