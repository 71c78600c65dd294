package ec2

import (
	"context"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// chooseMachine settles image, type, user data and switches.
func (s *Service) chooseMachine(ctx context.Context, l *launch) error {
	in, i := l.in, &l.instance
	if ptr.Value(in.ImageId) == "" {
		return awserr.New("MissingParameter", "The request must contain the parameter ImageId")
	}
	var err error
	if i.Image, i.MachineImage, i.Warning, err = s.machineImage(ctx, l.account, l.region, *in.ImageId); err != nil {
		return err
	}
	i.Type = ptr.Value(in.InstanceType)
	if i.Type == "" {
		i.Type = "m1.small" // EC2's default (API reference, RunInstances)
	}
	if _, ok := typeTable[i.Type]; !ok && i.Type != "m1.small" {
		return awserr.New("InvalidParameterValue", "Invalid value '%s' for InstanceType.", i.Type)
	}
	i.UserData = ptr.Value(in.UserData)
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(i.UserData), ""))
	if err != nil {
		return awserr.New("InvalidParameterValue", "Invalid BASE64 encoding of user data.")
	}
	if len(raw) > maxUserData {
		return awserr.New("InvalidParameterValue", "User data is limited to %d bytes", maxUserData)
	}
	i.OnShutdown = ptr.Value(in.InstanceInitiatedShutdownBehavior)
	if i.OnShutdown == "" {
		i.OnShutdown = "stop"
	}
	i.ClientToken = ptr.Value(in.ClientToken)
	i.Monitoring = in.Monitoring != nil && ptr.Value(in.Monitoring.Enabled)
	i.EbsOptimized = ptr.Value(in.EbsOptimized)
	i.NoTerminate, i.NoStop = ptr.Value(in.DisableApiTermination), ptr.Value(in.DisableApiStop)
	if m := in.InstanceMarketOptions; m != nil && ptr.Value(m.MarketType) == "spot" {
		i.Lifecycle = "spot"
	}
	i.Metadata = metadata{Tokens: "optional", HopLimit: 1, Endpoint: "enabled", IPv6: "disabled", Tags: "disabled"}
	if m := in.MetadataOptions; m != nil {
		i.Metadata.set(m.HttpTokens, m.HttpEndpoint, m.HttpProtocolIpv6, m.InstanceMetadataTags, m.HttpPutResponseHopLimit)
	}
	return nil
}

func (m *metadata) set(tokens, endpoint, ipv6, tags *string, hops *int64) {
	for _, f := range []struct {
		to   *string
		from *string
	}{{&m.Tokens, tokens}, {&m.Endpoint, endpoint}, {&m.IPv6, ipv6}, {&m.Tags, tags}} {
		if f.from != nil && *f.from != "" {
			*f.to = *f.from
		}
	}
	if hops != nil {
		m.HopLimit = *hops
	}
}

// choosePlace settles subnet, zone and address.
func (s *Service) choosePlace(_ context.Context, l *launch) error {
	in, net := l.in, defaultVPC(l.account, l.region)
	id, zone := ptr.Value(in.SubnetId), ""
	l.want = ptr.Value(in.PrivateIpAddress)
	for _, ni := range in.NetworkInterfaces {
		if ptr.Value(ni.NetworkInterfaceId) != "" {
			return awserr.New("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", *ni.NetworkInterfaceId)
		}
		if ptr.Value(ni.DeviceIndex) != 0 {
			return awserr.New("AttachmentLimitExceeded", "Interface count exceeds the limit for %s: Slipway's instances have one network interface.", l.instance.Type)
		}
		if ni.SubnetId != nil {
			id = *ni.SubnetId
		}
		if ni.PrivateIpAddress != nil {
			l.want = *ni.PrivateIpAddress
		}
	}
	if in.Placement != nil {
		zone = ptr.Value(in.Placement.AvailabilityZone)
		if zone == "" {
			zone = ptr.Value(in.Placement.AvailabilityZoneId)
		}
	}
	switch {
	case id != "":
		sn, ok := net.subnetByID(id)
		if !ok {
			return awserr.New("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
		}
		if zone != "" && zone != sn.Zone && zone != sn.ZoneID {
			return awserr.New("InvalidParameterCombination", "The subnet '%s' is in the availability zone %s, not in %s.", id, sn.Zone, zone)
		}
		l.subnet = sn
	case zone != "":
		sn, ok := net.subnetByZone(zone)
		if !ok {
			return awserr.New("InvalidParameterValue", "Invalid availability zone: [%s]", zone)
		}
		l.subnet = sn
	case l.want != "":
		l.subnet = net.Subnets[0]
		for _, sn := range net.Subnets {
			if strings.HasPrefix(sn.CIDR.Addr().String(), "172.31.") && containsIP(sn, l.want) {
				l.subnet = sn
			}
		}
	default:
		l.subnet = net.Subnets[rand.IntN(len(net.Subnets))]
	}
	if l.want != "" && l.max > 1 {
		return awserr.New("InvalidParameterCombination", "A private address can be given to one instance only, not to %d.", l.max)
	}
	i := &l.instance
	i.VPC, i.Subnet, i.Zone = net.VPC, l.subnet.ID, l.subnet.Zone
	return nil
}

// chooseGroups settles the security groups: the VPC's default one where none is named.
func (s *Service) chooseGroups(ctx context.Context, l *launch) error {
	in := l.in
	ids, names := append([]string(nil), in.SecurityGroupIds...), in.SecurityGroups
	for _, ni := range in.NetworkInterfaces {
		ids = append(ids, ni.Groups...)
	}
	return s.Store.View(ctx, func(r store.Reader) error {
		all, err := securityGroups(r, l.account, l.region)
		if err != nil {
			return err
		}
		found, err := pickGroups(all, ids, names)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			found, _ = pickGroups(all, nil, []string{"default"})
		}
		for _, g := range found {
			l.instance.Groups = append(l.instance.Groups, group{g.ID, g.Name})
		}
		return nil
	})
}

// chooseIdentity settles key pair and instance profile.
func (s *Service) chooseIdentity(ctx context.Context, l *launch) error {
	if name := ptr.Value(l.in.KeyName); name != "" {
		row, err := keyPairs.Find(ctx, s.Store, l.account, l.region, name)
		if errors.Is(err, store.ErrNotFound) {
			return awserr.New("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", name)
		}
		if err != nil {
			return err
		}
		l.instance.KeyName, l.instance.PublicKey = name, row.Doc.PublicKey
	}
	if p := l.in.IamInstanceProfile; p != nil {
		found, err := s.findProfile(ctx, ptr.Value(p.Arn), ptr.Value(p.Name))
		if err != nil {
			return err
		}
		l.instance.Profile = found
	}
	return nil
}
