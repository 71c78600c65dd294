package logs

import (
	"context"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

// registerSubscriptions serves subscription filters as far as there is
// anything that could receive events: AWS delivers to Kinesis, Firehose,
// Lambda and OpenSearch, and Slipway has none of them, so every destination is
// refused, as one that does not exist.
func (s *Service) registerSubscriptions(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpPutSubscriptionFilter, func(ctx context.Context, in *logs.PutSubscriptionFilterInput) (*logs.PutSubscriptionFilterOutput, error) {
		if _, err := parsePattern(in.FilterPattern); err != nil {
			return nil, err
		}
		if _, err := s.findGroup(ctx, ptr.Value(in.LogGroupName)); err != nil {
			return nil, err
		}
		return nil, invalid("Could not deliver a test message to the destination %s: Slipway has no Kinesis streams, Firehose streams, Lambda functions or OpenSearch domains.", ptr.Value(in.DestinationArn))
	})
	dispatch.Register(m, logs.OpDescribeSubscriptionFilters, func(ctx context.Context, in *logs.DescribeSubscriptionFiltersInput) (*logs.DescribeSubscriptionFiltersOutput, error) {
		_, err := s.findGroup(ctx, ptr.Value(in.LogGroupName))
		return &logs.DescribeSubscriptionFiltersOutput{SubscriptionFilters: []logs.SubscriptionFilter{}}, err
	})
	dispatch.Register(m, logs.OpDeleteSubscriptionFilter, func(ctx context.Context, in *logs.DeleteSubscriptionFilterInput) (*logs.DeleteSubscriptionFilterOutput, error) {
		if _, err := s.findGroup(ctx, ptr.Value(in.LogGroupName)); err != nil {
			return nil, err
		}
		return nil, awserr.New("ResourceNotFoundException", "The specified subscription filter does not exist.")
	})
}
