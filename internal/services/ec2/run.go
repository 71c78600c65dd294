package ec2

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
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
	if ptr.Value(in.ClientToken) == "" {
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
	l := &launch{in: in, account: account, region: region, min: ptr.Value(in.MinCount), max: ptr.Value(in.MaxCount), tags: map[string]map[string]string{}}
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
		kind := ptr.Value(spec.ResourceType)
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

var volumeName = lazyre.New(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

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
