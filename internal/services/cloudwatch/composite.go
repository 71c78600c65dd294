package cloudwatch

import (
	"context"
	"errors"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/store"
)

type ruleExpr interface{}

func (w *watched) prepareComposite() error { return nil }

func (e *engine) evaluateComposite(ctx context.Context, w *watched) error { return nil }

func (s *Service) relatives(ctx context.Context, in *api.DescribeAlarmsInput) (map[string]bool, error) {
	return nil, nil
}

func checkDelete(tx store.Reader, account, region string, names []string) error { return nil }

var errNone = errors.New("x")
