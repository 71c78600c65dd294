package ec2

import (
	"context"
	"encoding/base64"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// updateInstances changes several instances in one transaction: all of them,
// or none where fn refuses one.
func (s *Service) updateInstances(ctx context.Context, ids []string, dry *bool, event string, fn func(*Instance) (changed bool, err error)) ([]api.InstanceStateChange, error) {
	account, region := where(ctx)
	var out []api.InstanceStateChange
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		out = nil
		rows, err := instancesByID(tx, account, region, ids)
		if err != nil {
			return err
		}
		for _, row := range rows {
			before := row.Doc.State
			changed, err := fn(&row.Doc)
			if err != nil {
				return err
			}
			if changed {
				if err := instances.Save(tx, row, event, nil); err != nil {
					return err
				}
			}
			out = append(out, api.InstanceStateChange{InstanceId: new(row.ID), CurrentState: apiState(row.Doc.State), PreviousState: apiState(before)})
		}
		return dryRun(dry)
	})
	return out, err
}

func (s *Service) terminateInstances(ctx context.Context, in *api.TerminateInstancesInput) (*api.TerminateInstancesOutput, error) {
	now := s.Clock.Now()
	changes, err := s.updateInstances(ctx, in.InstanceIds, in.DryRun, "ShuttingDown", func(i *Instance) (bool, error) {
		if !i.live() {
			return false, nil
		}
		if i.NoTerminate {
			return false, awserr.New("OperationNotPermitted", "The instance '%s' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", i.ID)
		}
		i.to(stateShuttingDown)
		i.Reason, i.Transition = reasonUser, userInitiated(now)
		return true, nil
	})
	return &api.TerminateInstancesOutput{TerminatingInstances: changes}, err
}

func (s *Service) stopInstances(ctx context.Context, in *api.StopInstancesInput) (*api.StopInstancesOutput, error) {
	if ptr.Value(in.Hibernate) {
		return nil, awserr.New("UnsupportedHibernationConfiguration", "The instance was not launched with the hibernation option; Slipway's instances cannot hibernate.")
	}
	now := s.Clock.Now()
	changes, err := s.updateInstances(ctx, in.InstanceIds, in.DryRun, "Stopping", func(i *Instance) (bool, error) {
		switch i.State {
		case stateStopped, stateStopping:
			return false, nil
		case statePending, stateRunning:
		default:
			return false, awserr.New("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be stopped.", i.ID)
		}
		if i.NoStop {
			return false, awserr.New("OperationNotPermitted", "The instance '%s' may not be stopped. Modify its 'disableApiStop' instance attribute and try again.", i.ID)
		}
		if i.State == statePending && !i.Booted {
			return false, awserr.New("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be stopped.", i.ID)
		}
		i.to(stateStopping)
		i.Reboot = false
		i.Reason, i.Transition = reasonUser, userInitiated(now)
		return true, nil
	})
	return &api.StopInstancesOutput{StoppingInstances: changes}, err
}

func (s *Service) startInstances(ctx context.Context, in *api.StartInstancesInput) (*api.StartInstancesOutput, error) {
	now := s.Clock.Now()
	changes, err := s.updateInstances(ctx, in.InstanceIds, in.DryRun, "Starting", func(i *Instance) (bool, error) {
		switch i.State {
		case statePending, stateRunning:
			return false, nil
		case stateStopped:
			i.to(statePending)
			i.LaunchTime, i.Reason, i.Transition = now, reason{}, ""
			return true, nil
		}
		return false, awserr.New("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be started.", i.ID)
	})
	return &api.StartInstancesOutput{StartingInstances: changes}, err
}

func (s *Service) rebootInstances(ctx context.Context, in *api.RebootInstancesInput) (*api.RebootInstancesOutput, error) {
	_, err := s.updateInstances(ctx, in.InstanceIds, in.DryRun, "Rebooting", func(i *Instance) (bool, error) {
		switch i.State {
		case stateRunning:
			i.Reboot = true
			return true, nil
		case statePending:
			return false, nil // it is booting
		}
		return false, awserr.New("IncorrectState", "The instance '%s' is not in a state from which it can be rebooted: it is %s.", i.ID, i.State)
	})
	return &api.RebootInstancesOutput{}, err
}

func (s *Service) setMonitoring(ctx context.Context, ids []string, dry *bool, on bool) ([]api.InstanceMonitoring, error) {
	changes, err := s.updateInstances(ctx, ids, dry, "Monitoring", func(i *Instance) (bool, error) {
		changed := i.Monitoring != on
		i.Monitoring = on
		return changed, nil
	})
	var out []api.InstanceMonitoring
	for _, c := range changes {
		state := "disabled"
		if on {
			state = "enabled"
		}
		out = append(out, api.InstanceMonitoring{InstanceId: c.InstanceId, Monitoring: &api.Monitoring{State: &state}})
	}
	return out, err
}

func (s *Service) describeInstanceAttribute(ctx context.Context, in *api.DescribeInstanceAttributeInput) (*api.DescribeInstanceAttributeOutput, error) {
	all, err := s.views(ctx, []string{ptr.Value(in.InstanceId)})
	if err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	i := all[0]
	yes := func(b bool) *api.AttributeBooleanValue { return &api.AttributeBooleanValue{Value: &b} }
	text := func(v string) *api.AttributeValue { return &api.AttributeValue{Value: orNil(v)} }
	out := &api.DescribeInstanceAttributeOutput{InstanceId: new(i.ID)}
	switch ptr.Value(in.Attribute) {
	case "instanceType":
		out.InstanceType = text(i.Type)
	case "userData":
		out.UserData = text(i.UserData)
	case "disableApiTermination":
		out.DisableApiTermination = yes(i.NoTerminate)
	case "disableApiStop":
		out.DisableApiStop = yes(i.NoStop)
	case "instanceInitiatedShutdownBehavior":
		out.InstanceInitiatedShutdownBehavior = text(i.OnShutdown)
	case "rootDeviceName":
		out.RootDeviceName = text(i.rootDevice())
	case "sourceDestCheck":
		out.SourceDestCheck = yes(!i.NoSourceDestCheck)
	case "groupSet":
		out.Groups = i.apiGroups()
	case "ebsOptimized":
		out.EbsOptimized = yes(i.EbsOptimized)
	case "enaSupport":
		out.EnaSupport = yes(true)
	case "enclaveOptions":
		out.EnclaveOptions = &api.EnclaveOptions{Enabled: new(false)}
	case "sriovNetSupport":
		out.SriovNetSupport = text("simple")
	case "kernel":
		out.KernelId = text("")
	case "ramdisk":
		out.RamdiskId = text("")
	case "productCodes":
	case "blockDeviceMapping":
		out.BlockDeviceMappings = apiInstance("", i.Instance, nil).BlockDeviceMappings
	default:
		return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Unknown attribute.", ptr.Value(in.Attribute))
	}
	return out, nil
}

func (s *Service) modifyInstanceAttribute(ctx context.Context, in *api.ModifyInstanceAttributeInput) (*api.ModifyInstanceAttributeOutput, error) {
	if err := wholeAttribute(in); err != nil {
		return nil, err
	}
	account, region := where(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		rows, err := instancesByID(tx, account, region, []string{ptr.Value(in.InstanceId)})
		if err != nil {
			return err
		}
		row := rows[0]
		i := &row.Doc
		if err := i.modify(in); err != nil {
			return err
		}
		if len(in.Groups) > 0 {
			all, err := securityGroups(tx, account, region)
			if err != nil {
				return err
			}
			found, err := pickGroups(all, in.Groups, nil)
			if err != nil {
				return err
			}
			i.Groups = nil
			for _, g := range found {
				i.Groups = append(i.Groups, group{g.ID, g.Name})
			}
		}
		if err := dryRun(in.DryRun); err != nil {
			return err
		}
		return instances.Save(tx, row, "Modified", nil)
	})
	return &api.ModifyInstanceAttributeOutput{}, err
}

// wholeAttribute turns the generic form (Attribute and Value) into the named
// member that means the same.
func wholeAttribute(in *api.ModifyInstanceAttributeInput) error {
	if in.Attribute == nil {
		return nil
	}
	value := ptr.Value(in.Value)
	flag := func(to **api.AttributeBooleanValue) error {
		switch strings.ToLower(value) {
		case "true", "false":
			*to = &api.AttributeBooleanValue{Value: new(strings.ToLower(value) == "true")}
			return nil
		}
		return awserr.New("InvalidParameterValue", "Value (%s) for parameter value is invalid. It must be true or false.", value)
	}
	switch *in.Attribute {
	case "instanceType":
		in.InstanceType = &api.AttributeValue{Value: &value}
	case "userData":
		raw, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return awserr.New("InvalidParameterValue", "Invalid BASE64 encoding of user data.")
		}
		in.UserData = &api.BlobAttributeValue{Value: raw}
	case "instanceInitiatedShutdownBehavior":
		in.InstanceInitiatedShutdownBehavior = &api.AttributeValue{Value: &value}
	case "disableApiTermination":
		return flag(&in.DisableApiTermination)
	case "disableApiStop":
		return flag(&in.DisableApiStop)
	case "sourceDestCheck":
		return flag(&in.SourceDestCheck)
	case "ebsOptimized":
		return flag(&in.EbsOptimized)
	default:
		return awserr.New("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. It cannot be modified.", *in.Attribute)
	}
	return nil
}

// modify applies what may change; type and user data only while stopped.
func (i *Instance) modify(in *api.ModifyInstanceAttributeInput) error {
	needsStop := func() error {
		if i.State != stateStopped {
			return awserr.New("IncorrectInstanceState", "The instance '%s' is not in the 'stopped' state.", i.ID)
		}
		return nil
	}
	if in.InstanceType != nil {
		if err := needsStop(); err != nil {
			return err
		}
		name := ptr.Value(in.InstanceType.Value)
		if _, ok := typeTable[name]; !ok {
			return awserr.New("InvalidParameterValue", "Invalid value '%s' for InstanceType.", name)
		}
		return awserr.New("Unsupported", "Slipway cannot change the type of an existing instance: launch a new one of type %s.", name)
	}
	if in.UserData != nil {
		if err := needsStop(); err != nil {
			return err
		}
		return awserr.New("Unsupported", "User data runs once, at the first boot, and cannot be changed afterwards.")
	}
	if b := in.InstanceInitiatedShutdownBehavior; b != nil {
		v := ptr.Value(b.Value)
		if v != "stop" && v != "terminate" {
			return awserr.New("InvalidParameterValue", "Value (%s) for parameter instanceInitiatedShutdownBehavior is invalid. It must be stop or terminate.", v)
		}
		i.OnShutdown = v
	}
	if b := in.DisableApiTermination; b != nil {
		i.NoTerminate = ptr.Value(b.Value)
	}
	if b := in.DisableApiStop; b != nil {
		i.NoStop = ptr.Value(b.Value)
	}
	if b := in.SourceDestCheck; b != nil {
		i.NoSourceDestCheck = !ptr.Value(b.Value)
	}
	if b := in.EbsOptimized; b != nil {
		i.EbsOptimized = ptr.Value(b.Value)
	}
	return nil
}

func (s *Service) modifyMetadataOptions(ctx context.Context, in *api.ModifyInstanceMetadataOptionsInput) (*api.ModifyInstanceMetadataOptionsOutput, error) {
	out := &api.ModifyInstanceMetadataOptionsOutput{InstanceId: in.InstanceId}
	_, err := s.updateInstances(ctx, []string{ptr.Value(in.InstanceId)}, in.DryRun, "Modified", func(i *Instance) (bool, error) {
		i.Metadata.set(in.HttpTokens, in.HttpEndpoint, in.HttpProtocolIpv6, in.InstanceMetadataTags, in.HttpPutResponseHopLimit)
		out.InstanceMetadataOptions = i.Metadata.api()
		return true, nil
	})
	return out, err
}

func (s *Service) describeCredits(ctx context.Context, in *api.DescribeInstanceCreditSpecificationsInput) (*api.DescribeInstanceCreditSpecificationsOutput, error) {
	all, err := s.views(ctx, in.InstanceIds)
	if err != nil {
		return nil, err
	}
	if all, err = filtered(all, in.Filters, fields[view]{"instance-id": instanceFields["instance-id"]}, nil); err != nil {
		return nil, err
	}
	out := &api.DescribeInstanceCreditSpecificationsOutput{}
	for _, v := range all {
		if t := typeOf(v.Type); t.Burstable && v.live() {
			mode := "unlimited"
			if strings.HasPrefix(v.Type, "t2.") {
				mode = "standard"
			}
			out.InstanceCreditSpecifications = append(out.InstanceCreditSpecifications, api.InstanceCreditSpecification{InstanceId: new(v.ID), CpuCredits: &mode})
		}
	}
	return out, nil
}
