package ec2

import (
	"context"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"time"

	autoscaling "slipway/internal/api/autoscaling"
	iam "slipway/internal/api/iam"
	sts "slipway/internal/api/sts"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/ec2/imds"
	"slipway/internal/store"
)

// metadataSource answers package imds from the rows.
type metadataSource Service

// ByAddress finds the running instance that has a private address.
func (m *metadataSource) ByAddress(ctx context.Context, ip netip.Addr) (*imds.Instance, error) {
	s := (*Service)(m)
	var out *imds.Instance
	err := s.Store.View(ctx, func(r store.Reader) error {
		lease, err := addresses.Get(r, "", "", ip.String())
		if err != nil {
			return err
		}
		account, region, id := lease.Doc.Account, lease.Doc.Region, lease.Doc.Instance
		row, err := instances.Get(r, account, region, id)
		if err != nil {
			return err
		}
		tags, err := tagsOf(r, account, region, id)
		if err != nil {
			return err
		}
		out = metadataOf(account, region, &row.Doc, tags)
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, imds.ErrUnknown
	}
	return out, err
}

// LifecycleState asks Auto Scaling where the instance is going; "" where it is in no group.
func (m *metadataSource) LifecycleState(ctx context.Context, i *imds.Instance) (string, error) {
	s := (*Service)(m)
	ctx = caller.ForService(ctx, "ec2", i.Account, i.Region)
	out, err := dispatch.Call(ctx, s.Mux, autoscaling.OpDescribeAutoScalingInstances, &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: []string{i.ID}})
	if err != nil || len(out.AutoScalingInstances) == 0 {
		return "", err
	}
	return targetState(ptr.Value(out.AutoScalingInstances[0].LifecycleState)), nil
}

// targetState is what IMDS calls the target lifecycle state: where the
// instance is going (EC2 Auto Scaling User Guide, "Retrieve the target
// lifecycle state through instance metadata").
func targetState(state string) string {
	base, _, _ := strings.Cut(state, ":")
	switch {
	case strings.HasPrefix(state, "Warmed:"):
		return state
	case base == "Pending", base == "InService":
		return "InService"
	case base == "Terminating", base == "Terminated":
		return "Terminated"
	case base == "EnteringStandby":
		return "Standby"
	case base == "Detaching":
		return "Detached"
	}
	return base
}

func metadataOf(account, region string, i *Instance, tags map[string]string) *imds.Instance {
	out := &imds.Instance{
		ID: i.ID, Account: account, Region: region, Image: i.Image, Type: i.Type, Zone: i.Zone, ZoneID: i.zoneID(),
		LaunchIndex: i.LaunchIndex, Reservation: i.Reservation, Arch: typeOf(i.Type).Arch,
		PrivateIP: i.PrivateIP, MAC: i.MAC, Hostname: i.dns(), ENI: i.ENI, Subnet: i.Subnet, SubnetCIDR: "172.31.0.0/20", VPC: i.VPC, VPCCIDR: vpcCIDR,
		KeyName: i.KeyName, PublicKey: i.PublicKey, Launched: i.LaunchTime, Lifecycle: "on-demand",
		TokensRequired: i.Metadata.Tokens == "required", Disabled: i.Metadata.Endpoint == "disabled", HopLimit: int(i.Metadata.HopLimit),
	}
	if i.Lifecycle != "" {
		out.Lifecycle = i.Lifecycle
	}
	if sn, ok := defaultVPC(account, region).subnetByID(i.Subnet); ok {
		out.SubnetCIDR = sn.CIDR.String()
	}
	for _, g := range i.Groups {
		out.GroupIDs, out.GroupNames = append(out.GroupIDs, g.ID), append(out.GroupNames, g.Name)
	}
	if raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(i.UserData), "")); err == nil {
		out.UserData = raw
	}
	if i.Metadata.Tags == "enabled" {
		out.Tags = tags
		if out.Tags == nil {
			out.Tags = map[string]string{}
		}
	}
	if i.Profile != nil {
		out.ProfileArn, out.ProfileID, out.ProfileName = i.Profile.Arn, i.Profile.ID, i.Profile.Name
	}
	return out
}

// Role names the role in the instance's profile; "" where it has none.
func (m *metadataSource) Role(ctx context.Context, i *imds.Instance) (name, arn string, err error) {
	s := (*Service)(m)
	if i.ProfileName == "" {
		return "", "", nil
	}
	ctx = caller.ForService(ctx, "ec2", i.Account, i.Region)
	out, err := dispatch.Call(ctx, s.Mux, iam.OpGetInstanceProfile, &iam.GetInstanceProfileInput{InstanceProfileName: &i.ProfileName})
	if awserr.Is(err, "NoSuchEntity") {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	if out.InstanceProfile == nil || len(out.InstanceProfile.Roles) == 0 {
		return "", "", nil
	}
	r := out.InstanceProfile.Roles[0]
	return ptr.Value(r.RoleName), ptr.Value(r.Arn), nil
}

// credentialLife is how long an instance's credentials last (IMDS gives six
// hours; STS's limit for a role without a longer setting is one).
const credentialLife = time.Hour

// Credentials takes the role on behalf of the instance, as EC2 does: the
// session is called after the instance.
func (m *metadataSource) Credentials(ctx context.Context, i *imds.Instance, roleArn string) (imds.Credentials, error) {
	s := (*Service)(m)
	ctx = caller.ForService(ctx, "ec2", i.Account, i.Region)
	out, err := dispatch.Call(ctx, s.Mux, sts.OpAssumeRole, &sts.AssumeRoleInput{
		RoleArn: &roleArn, RoleSessionName: &i.ID, DurationSeconds: new(int64(credentialLife / time.Second))})
	if err != nil {
		return imds.Credentials{}, err
	}
	c := ptr.Value(out.Credentials)
	return imds.Credentials{AccessKeyID: ptr.Value(c.AccessKeyId), Secret: ptr.Value(c.SecretAccessKey), Token: ptr.Value(c.SessionToken), Expires: ptr.Value(c.Expiration)}, nil
}
