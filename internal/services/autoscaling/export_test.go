package autoscaling

import (
	"context"

	api "slipway/internal/api/autoscaling"
)

// PutSchedule and DescribeSchedules reach a service that is not the mux's.
func (s *Service) PutSchedule(ctx context.Context, in *api.PutScheduledUpdateGroupActionInput) (*api.PutScheduledUpdateGroupActionOutput, error) {
	return s.putSchedule(ctx, in)
}

func (s *Service) DescribeSchedules(ctx context.Context, in *api.DescribeScheduledActionsInput) (*api.DescribeScheduledActionsOutput, error) {
	return s.describeSchedules(ctx, in)
}
