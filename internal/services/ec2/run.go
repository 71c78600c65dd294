package ec2

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"path"
	"regexp"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/machine"
	"slipway/internal/store"
)

// maxUserData is EC2's limit before base64 (EC2 User Guide, "Run commands on
// your Linux instance at launch").
const maxUserData = 16 << 10

// maxPerCall bounds one RunInstances: far above what one host carries, low
// enough that a typing error does not fill the disk with rows.
const maxPerCall = 10000

// launch is a RunInstances request after its template, checked, with
// everything looked up; only the transaction is missing.
type launch struct {
	in       *api.RunInstancesInput
	account  string
	region   string
	instance Instance // what all instances have in common
	subnet   subnet
	min, max int64
	tags     map[string]map[string]string // by resource type
	want     string                       // private address asked for
}

func (s *Service) runInstances(ctx context.Context, in *api.RunInstancesInput) (*api.RunInstancesOutput, error) {
	account, region := where(ctx)
	hash := requestHash(in)
	if out, err := s.earlierRun(ctx, account, region, in, hash); out != nil || err != nil {
		return out, err
	}
	l, err := s.prepare(ctx, account, region, in)
	if err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	reservation, err := s.insertInstances(ctx, l, hash)
	if errors.Is(err, errTokenTaken) { // another request with the token was faster
		return s.earlierRun(ctx, account, region, in, hash)
	}
	if err != nil {
		return nil, err
	}
	out, err := s.runOutput(ctx, account, region, reservation)
	if err != nil {
		return nil, err
	}
	for i := range out.Instances {
		out.Instances[i].State = apiState(statePending) // the answer is the launch, however quick the boot
	}
	return out, nil
}

var errTokenTaken = errors.New("ec2: client token was used meanwhile")

// requestHash identifies a request's parameters for its client token.
func requestHash(in any) string {
	raw, _ := json.Marshal(in) // generated shapes always marshal
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// earlierRun answers a repeated client token with what it launched before.
func (s *Service) earlierRun(ctx context.Context, account, region string, in *api.RunInstancesInput, hash string) (*api.RunInstancesOutput, error) {
	if deref(in.ClientToken) == "" {
		return nil, nil
	}
	row, err := tokens.Find(ctx, s.Store, account, region, "RunInstances/"+*in.ClientToken)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if row.Doc.Hash != hash {
		return nil, awserr.New("IdempotentParameterMismatch", "The client token you have provided is associated with a request with different parameters. Use a new client token, or the same parameters.")
	}
	return s.runOutput(ctx, account, region, row.Doc.Result)
}

func (s *Service) runOutput(ctx context.Context, account, region, reservation string) (*api.RunInstancesOutput, error) {
	var out api.RunInstancesOutput
	err := s.Store.View(ctx, func(r store.Reader) error {
		rows, err := instances.List(r, store.Query{Account: account, Region: region, Parent: reservation})
		if err != nil {
			return err
		}
		for _, row := range rows {
			tags, err := tagsOf(r, account, region, row.ID)
			if err != nil {
				return err
			}
			out.Instances = append(out.Instances, apiInstance(account, &row.Doc, tags))
		}
		return nil
	})
	sortByLaunchIndex(out.Instances)
	out.ReservationId, out.OwnerId = &reservation, &account
	return &out, err
}

// prepare checks a request and looks up what it names. It writes nothing.
func (s *Service) prepare(ctx context.Context, account, region string, given *api.RunInstancesInput) (*launch, error) {
	in, template, err := s.withTemplate(ctx, account, region, given)
	if err != nil {
		return nil, err
	}
	l := &launch{in: in, account: account, region: region, min: deref(in.MinCount), max: deref(in.MaxCount), tags: map[string]map[string]string{}}
	switch {
	case in.MinCount == nil || in.MaxCount == nil:
		return nil, awserr.New("MissingParameter", "The request must contain the parameters MinCount and MaxCount")
	case l.min < 1:
		return nil, awserr.New("InvalidParameterValue", "Value ( %d ) for parameter minCount is invalid. It must be at least 1.", l.min)
	case l.max < l.min:
		return nil, awserr.New("InvalidParameterCombination", "Value ( %d ) for parameter maxCount is invalid. It must not be below minCount ( %d ).", l.max, l.min)
	case l.max > maxPerCall:
		return nil, awserr.New("InstanceLimitExceeded", "Value ( %d ) for parameter maxCount is above %d, the most that one call may launch.", l.max, maxPerCall)
	}
	if err := l.readTags(template); err != nil {
		return nil, err
	}
	steps := []func(context.Context, *launch) error{s.chooseMachine, s.choosePlace, s.chooseGroups, s.chooseIdentity}
	for _, step := range steps {
		if err := step(ctx, l); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// withTemplate lays the request over its launch template: what the request
// names wins, tags are joined by key (EC2 User Guide, "Launch an instance
// from a launch template").
func (s *Service) withTemplate(ctx context.Context, account, region string, given *api.RunInstancesInput) (*api.RunInstancesInput, map[string]string, error) {
	if given.LaunchTemplate == nil {
		return given, nil, nil
	}
	t, v, err := s.resolveTemplate(ctx, account, region, given.LaunchTemplate)
	if err != nil {
		return nil, nil, err
	}
	merged, err := convert[api.RunInstancesInput](&v.Data)
	if err != nil {
		return nil, nil, err
	}
	var tags []api.TagSpecification
	tags = append(append(tags, merged.TagSpecifications...), given.TagSpecifications...)
	overlay(&merged, given)
	merged.TagSpecifications = tags
	if given.SubnetId != nil || given.PrivateIpAddress != nil || len(given.SecurityGroupIds) > 0 {
		// A subnet or groups of the request replace the template's interface.
		for i := range merged.NetworkInterfaces {
			if given.SubnetId != nil {
				merged.NetworkInterfaces[i].SubnetId = nil
			}
			if len(given.SecurityGroupIds) > 0 {
				merged.NetworkInterfaces[i].Groups = nil
			}
		}
	}
	return &merged, map[string]string{
		"aws:ec2launchtemplate:id":      t.ID,
		"aws:ec2launchtemplate:version": v.number(),
	}, nil
}

func (l *launch) readTags(template map[string]string) error {
	for _, spec := range l.in.TagSpecifications {
		kind := deref(spec.ResourceType)
		if kind == "" {
			return awserr.New("MissingParameter", "The request must contain the parameter TagSpecification.ResourceType")
		}
		set, err := checkTags(spec.Tags, true)
		if err != nil {
			return err
		}
		if l.tags[kind] == nil {
			l.tags[kind] = map[string]string{}
		}
		for k, v := range set {
			l.tags[kind][k] = v
		}
	}
	if l.tags["instance"] == nil {
		l.tags["instance"] = map[string]string{}
	}
	for k, v := range template {
		l.tags["instance"][k] = v
	}
	if _, err := volumeMounts(l.tags["instance"][volumeTag]); err != nil {
		return err
	}
	return nil
}

// chooseMachine settles image, type, user data and switches.
func (s *Service) chooseMachine(ctx context.Context, l *launch) error {
	in, i := l.in, &l.instance
	if deref(in.ImageId) == "" {
		return awserr.New("MissingParameter", "The request must contain the parameter ImageId")
	}
	var err error
	if i.Image, i.MachineImage, i.Warning, err = s.machineImage(ctx, l.account, l.region, *in.ImageId); err != nil {
		return err
	}
	i.Type = deref(in.InstanceType)
	if i.Type == "" {
		i.Type = "m1.small" // EC2's default (API reference, RunInstances)
	}
	if _, ok := typeTable[i.Type]; !ok && i.Type != "m1.small" {
		return awserr.New("InvalidParameterValue", "Invalid value '%s' for InstanceType.", i.Type)
	}
	i.UserData = deref(in.UserData)
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(i.UserData), ""))
	if err != nil {
		return awserr.New("InvalidParameterValue", "Invalid BASE64 encoding of user data.")
	}
	if len(raw) > maxUserData {
		return awserr.New("InvalidParameterValue", "User data is limited to %d bytes", maxUserData)
	}
	i.OnShutdown = deref(in.InstanceInitiatedShutdownBehavior)
	if i.OnShutdown == "" {
		i.OnShutdown = "stop"
	}
	i.ClientToken = deref(in.ClientToken)
	i.Monitoring = in.Monitoring != nil && deref(in.Monitoring.Enabled)
	i.EbsOptimized = deref(in.EbsOptimized)
	i.NoTerminate, i.NoStop = deref(in.DisableApiTermination), deref(in.DisableApiStop)
	if m := in.InstanceMarketOptions; m != nil && deref(m.MarketType) == "spot" {
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
	id, zone := deref(in.SubnetId), ""
	l.want = deref(in.PrivateIpAddress)
	for _, ni := range in.NetworkInterfaces {
		if deref(ni.NetworkInterfaceId) != "" {
			return awserr.New("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", *ni.NetworkInterfaceId)
		}
		if deref(ni.DeviceIndex) != 0 {
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
		zone = deref(in.Placement.AvailabilityZone)
		if zone == "" {
			zone = deref(in.Placement.AvailabilityZoneId)
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
	if name := deref(l.in.KeyName); name != "" {
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
		found, err := s.findProfile(ctx, deref(p.Arn), deref(p.Name))
		if err != nil {
			return err
		}
		l.instance.Profile = found
	}
	return nil
}

// insertInstances writes the rows of one reservation: at least min, up to max
// as far as there are addresses.
func (s *Service) insertInstances(ctx context.Context, l *launch, hash string) (reservation string, err error) {
	now := s.Clock.Now()
	reservation = newID("r")
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		if t := l.instance.ClientToken; t != "" {
			_, err := tokens.Insert(tx, l.account, l.region, "RunInstances/"+t, token{Hash: hash, Result: reservation, At: now}, "Created", nil)
			if errors.Is(err, store.ErrExists) {
				return errTokenTaken
			}
			if err != nil {
				return err
			}
		}
		for n := range l.max {
			i := l.instance
			i.ID, i.Reservation, i.LaunchIndex, i.State = newID("i"), reservation, n, statePending
			i.MAC, i.ENI, i.Attachment, i.Volume = newMAC(), newID("eni"), newID("eni-attach"), newID("vol")
			i.CreateTime, i.LaunchTime = now, now
			if i.Profile != nil {
				p := *i.Profile
				p.Association, p.Since = newID("iip-assoc"), now
				i.Profile = &p
			}
			var err error
			i.PrivateIP, err = leaseAddress(tx, l.subnet, l.want, address{i.ID, l.account, l.region})
			if awserr.Is(err, "InsufficientFreeAddressesInSubnet") && n >= l.min {
				return nil
			}
			if err != nil {
				return err
			}
			if err := l.insertOne(tx, i); err != nil {
				return err
			}
		}
		return nil
	})
	return reservation, err
}

func (l *launch) insertOne(tx store.Tx, i Instance) error {
	var detail any
	if i.Warning != "" {
		detail = map[string]string{"warning": i.Warning}
	}
	if _, err := instances.Insert(tx, l.account, l.region, i.ID, i, "Launched", detail); err != nil {
		return err
	}
	for kind, id := range map[string]string{"instance": i.ID, "volume": i.Volume, "network-interface": i.ENI} {
		set := map[string]string{} // each resource has a map of its own
		for k, v := range l.tags[kind] {
			set[k] = v
		}
		if err := putTags(tx, l.account, l.region, id, kind, set); err != nil {
			return err
		}
	}
	return nil
}

// volumeTag names the shared data volumes of an instance, see volumeMounts.
const volumeTag = "slipway:volume"

var volumeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// volumeMounts reads "NAME:/path[,NAME2:/path2]": named directories of the
// host that all instances with the same tag share. On AWS the tag means nothing.
func volumeMounts(value string) ([]machine.Mount, error) {
	if value == "" {
		return nil, nil
	}
	var out []machine.Mount
	for part := range strings.SplitSeq(value, ",") {
		name, target, ok := strings.Cut(strings.TrimSpace(part), ":")
		if !ok || !volumeName.MatchString(name) || !strings.HasPrefix(target, "/") || path.Clean(target) != target || target == "/" {
			return nil, awserr.New("InvalidParameterValue", "Value (%s) for tag %s is invalid: want NAME:/absolute/path, several separated by commas.", part, volumeTag)
		}
		out = append(out, machine.Mount{Source: name, Target: target})
	}
	return out, nil
}
