package codedeploy

import (
	"context"
	"errors"
	"maps"
	"slices"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

func (s *Service) registerOnPremises(m *dispatch.Mux) {
	dispatch.Register(m, api.OpRegisterOnPremisesInstance, s.registerOnPremisesInstance)
	dispatch.Register(m, api.OpDeregisterOnPremisesInstance, s.deregisterOnPremisesInstance)
	dispatch.Register(m, api.OpGetOnPremisesInstance, s.getOnPremisesInstance)
	dispatch.Register(m, api.OpBatchGetOnPremisesInstances, s.batchGetOnPremisesInstances)
	dispatch.Register(m, api.OpListOnPremisesInstances, s.listOnPremisesInstances)
	dispatch.Register(m, api.OpAddTagsToOnPremisesInstances, s.addTagsToOnPremisesInstances)
	dispatch.Register(m, api.OpRemoveTagsFromOnPremisesInstances, s.removeTagsFromOnPremisesInstances)
}

var (
	instanceNamePattern = lazyre.New(`^[A-Za-z0-9._+=,@-]{1,100}$`)
	userARNPattern      = lazyre.New(`^arn:aws[a-z-]*:iam::\d{12}:user/.+$`)
	sessionARNPattern   = lazyre.New(`^arn:aws[a-z-]*:sts::\d{12}:assumed-role/.+/.+$`)
)

func validInstanceName(name string) error {
	if name == "" {
		return awserr.New(api.ErrCodeInstanceNameRequiredException, "An on-premises instance name must be specified.")
	}
	// A name of the form of an EC2 instance id would be taken for one.
	if !instanceNamePattern.MatchString(name) || validInstanceID(name) {
		return awserr.New(api.ErrCodeInvalidInstanceNameException, "The instance name %.120q is not valid.", name)
	}
	return nil
}

func (s *Service) registerOnPremisesInstance(ctx context.Context, in *api.RegisterOnPremisesInstanceInput) (*api.RegisterOnPremisesInstanceOutput, error) {
	name, user, session := ptr.Value(in.InstanceName), ptr.Value(in.IamUserArn), ptr.Value(in.IamSessionArn)
	if err := validInstanceName(name); err != nil {
		return nil, err
	}
	switch {
	case user != "" && session != "":
		return nil, awserr.New(api.ErrCodeMultipleIamArnsProvidedException, "Give iamUserArn or iamSessionArn, not both.")
	case user == "" && session == "":
		return nil, awserr.New(api.ErrCodeIamArnRequiredException, "iamUserArn or iamSessionArn must be specified.")
	case user != "" && !userARNPattern.MatchString(user):
		return nil, awserr.New(api.ErrCodeInvalidIamUserArnException, "iamUserArn %.120q is not the ARN of an IAM user.", user)
	case session != "" && !sessionARNPattern.MatchString(session):
		return nil, awserr.New(api.ErrCodeInvalidIamSessionArnException, "iamSessionArn %.120q is not the ARN of an STS session.", session)
	}
	id := caller.From(ctx)
	o := OnPremises{
		Name: name, IAMUserARN: user, IAMSessionARN: session, RegisteredAt: s.clock.Now(),
		ARN: "arn:aws:codedeploy:" + id.Region + ":" + id.Account + ":instance/" + name + "_" + newUUID()[:8],
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		if _, err := onPremisesByPrincipal(tx, id.Account, id.Region, o.principal()); err == nil {
			code := api.ErrCodeIamUserArnAlreadyRegisteredException
			if session != "" {
				code = api.ErrCodeIamSessionArnAlreadyRegisteredException
			}
			return awserr.New(code, "The ARN %s is already registered with an on-premises instance.", o.principal())
		}
		row, err := onPremises.Get(tx, id.Account, id.Region, name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			_, err = onPremises.Insert(tx, id.Account, id.Region, name, o, "Registered", nil)
			return err
		case err != nil:
			return err
		case row.Doc.DeregisteredAt.IsZero():
			return awserr.New(api.ErrCodeInstanceNameAlreadyRegisteredException, "The on-premises instance name %s is already used.", name)
		}
		row.Doc = o
		return onPremises.Save(tx, row, "Registered", nil)
	})
	if err != nil {
		return nil, err
	}
	return &api.RegisterOnPremisesInstanceOutput{}, nil
}

func (s *Service) deregisterOnPremisesInstance(ctx context.Context, in *api.DeregisterOnPremisesInstanceInput) (*api.DeregisterOnPremisesInstanceOutput, error) {
	if err := validInstanceName(ptr.Value(in.InstanceName)); err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	_, err := onPremises.Modify(ctx, s.store, id.Account, id.Region, *in.InstanceName, "Deregistered", func(o *OnPremises) error {
		if !o.DeregisteredAt.IsZero() {
			return store.ErrUnchanged
		}
		o.DeregisteredAt = s.clock.Now()
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	return &api.DeregisterOnPremisesInstanceOutput{}, nil
}

func renderOnPremises(o *OnPremises) api.InstanceInfo {
	return api.InstanceInfo{
		InstanceName: new(o.Name), InstanceArn: new(o.ARN), IamUserArn: ptr.NonZero(o.IAMUserARN), IamSessionArn: ptr.NonZero(o.IAMSessionARN),
		RegisterTime: optTime(o.RegisteredAt), DeregisterTime: optTime(o.DeregisteredAt), Tags: renderTags(o.Tags),
	}
}

func notRegistered(name string) error {
	return awserr.New(api.ErrCodeInstanceNotRegisteredException, "The on-premises instance %s is not registered.", name)
}

func (s *Service) getOnPremisesInstance(ctx context.Context, in *api.GetOnPremisesInstanceInput) (*api.GetOnPremisesInstanceOutput, error) {
	if err := validInstanceName(ptr.Value(in.InstanceName)); err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	row, err := onPremises.Find(ctx, s.store, id.Account, id.Region, *in.InstanceName)
	if err != nil {
		return nil, orElse(err, notRegistered(*in.InstanceName))
	}
	return &api.GetOnPremisesInstanceOutput{InstanceInfo: new(renderOnPremises(&row.Doc))}, nil
}

func (s *Service) batchGetOnPremisesInstances(ctx context.Context, in *api.BatchGetOnPremisesInstancesInput) (*api.BatchGetOnPremisesInstancesOutput, error) {
	if len(in.InstanceNames) == 0 {
		return nil, awserr.New(api.ErrCodeInstanceNameRequiredException, "instanceNames must name at least one instance.")
	}
	if err := checkBatch(len(in.InstanceNames), "instanceNames"); err != nil {
		return nil, err
	}
	out := &api.BatchGetOnPremisesInstancesOutput{InstanceInfos: []api.InstanceInfo{}}
	id := caller.From(ctx)
	for _, name := range in.InstanceNames {
		row, err := onPremises.Find(ctx, s.store, id.Account, id.Region, name)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out.InstanceInfos = append(out.InstanceInfos, renderOnPremises(&row.Doc))
	}
	return out, nil
}

func (s *Service) listOnPremisesInstances(ctx context.Context, in *api.ListOnPremisesInstancesInput) (*api.ListOnPremisesInstancesOutput, error) {
	want := ptr.Value(in.RegistrationStatus)
	switch want {
	case "", api.RegistrationStatusRegistered, api.RegistrationStatusDeregistered:
	default:
		return nil, awserr.New(api.ErrCodeInvalidRegistrationStatusException, "registrationStatus must be Registered or Deregistered, not %.40q.", want)
	}
	id := caller.From(ctx)
	rows, err := onPremises.Select(ctx, s.store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	filter := Settings{OnPremisesFilters: in.TagFilters}
	names := []string{}
	for _, row := range rows {
		o := &row.Doc
		if want != "" && o.DeregisteredAt.IsZero() != (want == api.RegistrationStatusRegistered) || len(in.TagFilters) > 0 && !filter.selectsOnPremises(o.Tags) {
			continue
		}
		names = append(names, o.Name)
	}
	names, next, err := page(names, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListOnPremisesInstancesOutput{InstanceNames: names, NextToken: next}, nil
}

// retag changes the tags of several on-premises instances at once.
func (s *Service) retag(ctx context.Context, names []string, change func(map[string]string)) error {
	if len(names) == 0 {
		return awserr.New(api.ErrCodeInstanceNameRequiredException, "instanceNames must name at least one instance.")
	}
	if err := checkBatch(len(names), "instanceNames"); err != nil {
		return err
	}
	id := caller.From(ctx)
	return s.store.Update(ctx, func(tx store.Tx) error {
		for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
			row, err := onPremises.Get(tx, id.Account, id.Region, name)
			if err != nil {
				return orElse(err, notRegistered(name))
			}
			if !row.Doc.DeregisteredAt.IsZero() {
				return notRegistered(name)
			}
			if row.Doc.Tags == nil {
				row.Doc.Tags = map[string]string{}
			}
			change(row.Doc.Tags)
			if len(row.Doc.Tags) > maxTags {
				return awserr.New(api.ErrCodeTagLimitExceededException, "An instance has at most %d tags.", maxTags)
			}
			if err := onPremises.Save(tx, row, "Tagged", nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) addTagsToOnPremisesInstances(ctx context.Context, in *api.AddTagsToOnPremisesInstancesInput) (*api.AddTagsToOnPremisesInstancesOutput, error) {
	add, err := tagMap(in.Tags)
	if err != nil {
		return nil, awserr.New(api.ErrCodeInvalidTagException, "%s", awserr.As(err).Message)
	}
	if len(add) == 0 {
		return nil, awserr.New(api.ErrCodeTagRequiredException, "tags must name at least one tag.")
	}
	if err := s.retag(ctx, in.InstanceNames, func(m map[string]string) { maps.Copy(m, add) }); err != nil {
		return nil, err
	}
	return &api.AddTagsToOnPremisesInstancesOutput{}, nil
}

func (s *Service) removeTagsFromOnPremisesInstances(ctx context.Context, in *api.RemoveTagsFromOnPremisesInstancesInput) (*api.RemoveTagsFromOnPremisesInstancesOutput, error) {
	if len(in.Tags) == 0 {
		return nil, awserr.New(api.ErrCodeTagRequiredException, "tags must name at least one tag.")
	}
	err := s.retag(ctx, in.InstanceNames, func(m map[string]string) {
		for _, t := range in.Tags {
			if v, ok := m[ptr.Value(t.Key)]; ok && (t.Value == nil || *t.Value == v) {
				delete(m, ptr.Value(t.Key))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &api.RemoveTagsFromOnPremisesInstancesOutput{}, nil
}
