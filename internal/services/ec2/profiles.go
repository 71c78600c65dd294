package ec2

import (
	"context"
	"slices"
	"strings"

	api "slipway/internal/api/ec2"
	iam "slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// findProfile asks IAM for an instance profile, named by ARN or by name.
func (s *Service) findProfile(ctx context.Context, arn, name string) (*profile, error) {
	switch {
	case arn != "" && name != "":
		return nil, awserr.New("InvalidParameterCombination", "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'")
	case arn != "":
		if !strings.HasPrefix(arn, "arn:") || !strings.Contains(arn, ":instance-profile/") {
			return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN", arn)
		}
		name = arn[strings.LastIndexByte(arn, '/')+1:]
	case name == "":
		return nil, awserr.New("MissingParameter", "The request must contain the parameter iamInstanceProfile.arn or iamInstanceProfile.name")
	}
	out, err := dispatch.Call(ctx, s.Mux, iam.OpGetInstanceProfile, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
	if awserr.Is(err, "NoSuchEntity") || err == nil && (out.InstanceProfile == nil || arn != "" && ptr.Value(out.InstanceProfile.Arn) != arn) {
		if arn != "" {
			return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN", arn)
		}
		return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", name)
	}
	if err != nil {
		return nil, err
	}
	p := out.InstanceProfile
	return &profile{Arn: ptr.Value(p.Arn), ID: ptr.Value(p.InstanceProfileId), Name: ptr.Value(p.InstanceProfileName)}, nil
}

func apiAssociation(i *Instance, state string) *api.IamInstanceProfileAssociation {
	p := i.Profile
	return &api.IamInstanceProfileAssociation{AssociationId: new(p.Association), InstanceId: new(i.ID), State: &state,
		IamInstanceProfile: &api.IamInstanceProfile{Arn: new(p.Arn), Id: new(p.ID)}, Timestamp: new(p.Since)}
}

func (s *Service) describeProfiles(ctx context.Context, in *api.DescribeIamInstanceProfileAssociationsInput) (*api.DescribeIamInstanceProfileAssociationsOutput, error) {
	all, err := s.views(ctx, nil)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v view) bool {
		return v.Profile == nil || v.State == stateTerminated || len(in.AssociationIds) > 0 && !slices.Contains(in.AssociationIds, v.Profile.Association)
	})
	by := fields[view]{"instance-id": instanceFields["instance-id"], "state": func(view) []string { return []string{"associated"} }}
	if all, err = filtered(all, in.Filters, by, nil); err != nil {
		return nil, err
	}
	key := func(v view) string { return v.Profile.Association }
	slices.SortFunc(all, func(a, b view) int { return strings.Compare(key(a), key(b)) })
	all, next, err := page(all, key, in.MaxResults, in.NextToken, 5, 1000)
	out := &api.DescribeIamInstanceProfileAssociationsOutput{NextToken: next}
	for _, v := range all {
		out.IamInstanceProfileAssociations = append(out.IamInstanceProfileAssociations, *apiAssociation(v.Instance, "associated"))
	}
	return out, err
}

func (s *Service) associateProfile(ctx context.Context, in *api.AssociateIamInstanceProfileInput) (*api.AssociateIamInstanceProfileOutput, error) {
	spec := ptr.Value(in.IamInstanceProfile)
	p, err := s.findProfile(ctx, ptr.Value(spec.Arn), ptr.Value(spec.Name))
	if err != nil {
		return nil, err
	}
	p.Association, p.Since = newID("iip-assoc"), s.Clock.Now()
	out := &api.AssociateIamInstanceProfileOutput{}
	_, err = s.updateInstances(ctx, []string{ptr.Value(in.InstanceId)}, nil, "ProfileAssociated", func(i *Instance) (bool, error) {
		if !i.live() {
			return false, awserr.New("IncorrectInstanceState", "The instance '%s' is not in the 'running' or 'stopped' state.", i.ID)
		}
		if i.Profile != nil {
			return false, awserr.New("IncorrectState", "There is an existing association for instance %s", i.ID)
		}
		i.Profile = p
		out.IamInstanceProfileAssociation = apiAssociation(i, "associating")
		return true, nil
	})
	return out, err
}

func (s *Service) disassociateProfile(ctx context.Context, in *api.DisassociateIamInstanceProfileInput) (*api.DisassociateIamInstanceProfileOutput, error) {
	account, region := where(ctx)
	out := &api.DisassociateIamInstanceProfileOutput{}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		rows, err := instances.List(tx, store.Query{Account: account, Region: region})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Doc.Profile != nil && row.Doc.Profile.Association == ptr.Value(in.AssociationId) {
				out.IamInstanceProfileAssociation = apiAssociation(&row.Doc, "disassociating")
				row.Doc.Profile = nil
				return instances.Save(tx, row, "ProfileDisassociated", nil)
			}
		}
		return awserr.New("InvalidAssociationID.NotFound", "An invalid association-id of '%s' was given", ptr.Value(in.AssociationId))
	})
	return out, err
}
