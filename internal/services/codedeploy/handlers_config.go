package codedeploy

import (
	"context"
	"errors"
	"fmt"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) registerConfigs(m *dispatch.Mux) {
	dispatch.Register(m, api.OpCreateDeploymentConfig, s.createDeploymentConfig)
	dispatch.Register(m, api.OpGetDeploymentConfig, s.getDeploymentConfig)
	dispatch.Register(m, api.OpListDeploymentConfigs, s.listDeploymentConfigs)
	dispatch.Register(m, api.OpDeleteDeploymentConfig, s.deleteDeploymentConfig)
}

const defaultConfig = "CodeDeployDefault.OneAtATime"

// builtin are the configurations that AWS predefines for the Server
// platform (AWS: "Working with deployment configurations").
var builtin = []Config{
	builtinConfig(3, "CodeDeployDefault.AllAtOnce", api.MinimumHealthyHostsTypeFleetPercent, 0),
	builtinConfig(2, "CodeDeployDefault.HalfAtATime", api.MinimumHealthyHostsTypeFleetPercent, 50),
	builtinConfig(1, defaultConfig, mostConcurrency, 1),
}

func builtinConfig(n int, name, kind string, value int) Config {
	return Config{ID: fmt.Sprintf("00000000-0000-0000-0000-%012d", n), Name: name, Platform: api.ComputePlatformServer, Minimum: MinimumHealthy{kind, value}}
}

// config finds a predefined or custom configuration.
func config(r store.Reader, id caller.Identity, name string) (*Config, error) {
	for i := range builtin {
		if builtin[i].Name == name {
			return &builtin[i], nil
		}
	}
	row, err := configs.Get(r, id.Account, id.Region, name)
	if err != nil {
		return nil, orElse(err, noConfig(name))
	}
	return &row.Doc, nil
}

func (s *Service) createDeploymentConfig(ctx context.Context, in *api.CreateDeploymentConfigInput) (*api.CreateDeploymentConfigOutput, error) {
	if err := validConfigName(in.DeploymentConfigName); err != nil {
		return nil, err
	}
	name := *in.DeploymentConfigName
	switch platform := ptr.Value(in.ComputePlatform); platform {
	case "", api.ComputePlatformServer:
	case api.ComputePlatformLambda, api.ComputePlatformEcs:
		return nil, notBuilt("Slipway does not deploy to the %s compute platform: use Server.", platform)
	default:
		return nil, awserr.New(api.ErrCodeInvalidComputePlatformException, "computePlatform must be Server, Lambda or ECS, not %.40q.", platform)
	}
	if in.TrafficRoutingConfig != nil {
		return nil, awserr.New(api.ErrCodeInvalidTrafficRoutingConfigurationException, "trafficRoutingConfig is for the Lambda and ECS compute platforms.")
	}
	c := Config{ID: newUUID(), Name: name, Platform: api.ComputePlatformServer, CreatedAt: s.clock.Now()}
	if in.MinimumHealthyHosts == nil {
		return nil, awserr.New(api.ErrCodeInvalidMinimumHealthyHostValueException, "minimumHealthyHosts must be specified.")
	}
	var err error
	if c.Minimum, err = minimumOf("minimumHealthyHosts", in.MinimumHealthyHosts.Type, in.MinimumHealthyHosts.Value); err != nil {
		return nil, err
	}
	if c.Zonal, err = zonalOf(in.ZonalConfig); err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	err = s.store.Update(ctx, func(tx store.Tx) error {
		if _, err := config(tx, id, name); err == nil {
			return awserr.New(api.ErrCodeDeploymentConfigAlreadyExistsException, "A deployment configuration named %s already exists.", name)
		}
		n, err := configs.Count(tx, store.Query{Account: id.Account, Region: id.Region})
		if err != nil {
			return err
		}
		if n >= maxConfigs {
			return awserr.New(api.ErrCodeDeploymentConfigLimitExceededException, "An account has at most %d custom deployment configurations in a region.", maxConfigs)
		}
		_, err = configs.Insert(tx, id.Account, id.Region, name, c, "Created", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateDeploymentConfigOutput{DeploymentConfigId: &c.ID}, nil
}

func minimumOf(field string, kind *string, value *int64) (MinimumHealthy, error) {
	invalid := func(format string, args ...any) (MinimumHealthy, error) {
		return MinimumHealthy{}, awserr.New(api.ErrCodeInvalidMinimumHealthyHostValueException, format, args...)
	}
	if value == nil || *value < 0 || *value > 1_000_000 {
		return invalid("%s.value must be a number of 0 or more.", field)
	}
	switch ptr.Value(kind) {
	case api.MinimumHealthyHostsTypeHostCount:
	case api.MinimumHealthyHostsTypeFleetPercent:
		if *value > 100 {
			return invalid("%s.value must be at most 100 for FLEET_PERCENT.", field)
		}
	default:
		return invalid("%s.type must be HOST_COUNT or FLEET_PERCENT, not %.40q.", field, ptr.Value(kind))
	}
	return MinimumHealthy{*kind, int(*value)}, nil
}

func zonalOf(in *api.ZonalConfig) (*Zonal, error) {
	if in == nil {
		return nil, nil
	}
	z := &Zonal{}
	for _, f := range []struct {
		name string
		from *int64
		to   *int
	}{{"monitorDurationInSeconds", in.MonitorDurationInSeconds, &z.MonitorSeconds}, {"firstZoneMonitorDurationInSeconds", in.FirstZoneMonitorDurationInSeconds, &z.FirstMonitorSeconds}} {
		if f.from == nil {
			continue
		}
		if *f.from < 0 || *f.from > 604_800 {
			return nil, awserr.New(api.ErrCodeInvalidZonalDeploymentConfigurationException, "zonalConfig.%s must be 0 to 604800 seconds.", f.name)
		}
		*f.to = int(*f.from)
	}
	if in.FirstZoneMonitorDurationInSeconds == nil {
		z.FirstMonitorSeconds = z.MonitorSeconds
	}
	if m := in.MinimumHealthyHostsPerZone; m != nil {
		minimum, err := minimumOf("zonalConfig.minimumHealthyHostsPerZone", m.Type, m.Value)
		if err != nil {
			return nil, err
		}
		z.Minimum = &minimum
	}
	return z, nil
}

func (s *Service) getDeploymentConfig(ctx context.Context, in *api.GetDeploymentConfigInput) (*api.GetDeploymentConfigOutput, error) {
	if err := validConfigName(in.DeploymentConfigName); err != nil {
		return nil, err
	}
	c, err := find(ctx, s.store, func(r store.Reader) (*Config, error) {
		return config(r, caller.From(ctx), *in.DeploymentConfigName)
	})
	if err != nil {
		return nil, err
	}
	info := &api.DeploymentConfigInfo{
		DeploymentConfigId: new(c.ID), DeploymentConfigName: new(c.Name), ComputePlatform: new(c.Platform), CreateTime: optTime(c.CreatedAt),
		MinimumHealthyHosts: &api.MinimumHealthyHosts{Type: new(c.Minimum.Type), Value: new(int64(c.Minimum.Value))},
	}
	if z := c.Zonal; z != nil {
		info.ZonalConfig = &api.ZonalConfig{
			MonitorDurationInSeconds: new(int64(z.MonitorSeconds)), FirstZoneMonitorDurationInSeconds: new(int64(z.FirstMonitorSeconds)),
		}
		if z.Minimum != nil {
			info.ZonalConfig.MinimumHealthyHostsPerZone = &api.MinimumHealthyHostsPerZone{Type: new(z.Minimum.Type), Value: new(int64(z.Minimum.Value))}
		}
	}
	return &api.GetDeploymentConfigOutput{DeploymentConfigInfo: info}, nil
}

func (s *Service) listDeploymentConfigs(ctx context.Context, in *api.ListDeploymentConfigsInput) (*api.ListDeploymentConfigsOutput, error) {
	id := caller.From(ctx)
	rows, err := configs.Select(ctx, s.store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range builtin {
		names = append(names, c.Name)
	}
	for _, row := range rows {
		names = append(names, row.Doc.Name)
	}
	names, next, err := page(names, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListDeploymentConfigsOutput{DeploymentConfigsList: names, NextToken: next}, nil
}

func (s *Service) deleteDeploymentConfig(ctx context.Context, in *api.DeleteDeploymentConfigInput) (*api.DeleteDeploymentConfigOutput, error) {
	if err := validConfigName(in.DeploymentConfigName); err != nil {
		return nil, err
	}
	id, name := caller.From(ctx), *in.DeploymentConfigName
	for _, c := range builtin {
		if c.Name == name {
			return nil, awserr.New(api.ErrCodeInvalidOperationException, "%s is predefined and cannot be deleted.", name)
		}
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		row, err := configs.Get(tx, id.Account, id.Region, name)
		if errors.Is(err, store.ErrNotFound) {
			return noConfig(name)
		}
		if err != nil {
			return err
		}
		gs, err := groups.List(tx, store.Query{Account: id.Account, Region: id.Region})
		if err != nil {
			return err
		}
		for _, g := range gs {
			if g.Doc.Settings.ConfigName == name {
				return awserr.New(api.ErrCodeDeploymentConfigInUseException, "The deployment configuration %s is used by deployment group %s of application %s.", name, g.Doc.Name, g.Doc.Application)
			}
		}
		return configs.Delete(tx, row, "Deleted", nil)
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteDeploymentConfigOutput{}, nil
}
