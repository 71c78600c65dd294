package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/aws/validate"
	"slipway/internal/clock"
	"slipway/internal/reconcile"
	"slipway/internal/services/cloudwatch/collect"
	"slipway/internal/services/cloudwatch/metricstore"
	"slipway/internal/store"
)

// ScalingPolicies runs Auto Scaling policies for alarms. It is called when an
// alarm enters a state that names the policy, and each minute while it stays.
// state is the alarm's; value is the newest data point, NaN where there is none.
type ScalingPolicies interface {
	AlarmFired(ctx context.Context, account, region, policyARN, alarmName, state string, value, threshold float64) error
}

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Clock clock.Clock   // nil: clock.Real
	Mux   *dispatch.Mux // to call SNS and EC2
	Log   *slog.Logger  // nil: slog.Default
	// Dir holds the points; New makes it.
	Dir string
	// Ephemeral acknowledges points before the disk has them.
	Ephemeral bool
	// Policies may be nil, or set later with SetPolicies.
	Policies ScalingPolicies
	// Machines and Balancers are measured; nil: they are not.
	Machines  collect.Machines
	Balancers collect.Balancers
}

// Service is CloudWatch. All methods are safe for concurrent use.
type Service struct {
	store    store.Store
	clock    clock.Clock
	mux      *dispatch.Mux
	log      *slog.Logger
	policies ScalingPolicies
	metrics  *metricstore.Store
	engine   *engine
	outbox   *reconcile.Controller
	records  chan record
	collect  *collect.Collector
	models   *models
	trainer  *reconcile.Controller
}

// New opens the points in d.Dir. Close gives the files back.
func New(d Deps) (*Service, error) {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	m, err := metricstore.Open(metricstore.Options{Dir: d.Dir, Clock: d.Clock, Log: d.Log, NoSync: d.Ephemeral})
	if err != nil {
		return nil, err
	}
	s := &Service{store: d.Store, clock: d.Clock, mux: d.Mux, log: d.Log, policies: d.Policies, metrics: m, records: make(chan record, 1024)}
	s.engine = newEngine(s)
	s.outbox = &reconcile.Controller{
		Name: "CloudWatch alarm actions", Store: d.Store, Clock: d.Clock, Kind: actions.Kind, Workers: 4, Reconcile: s.deliver, Log: d.Log,
	}
	s.models = newModels(s)
	s.trainer = &reconcile.Controller{
		Name: "CloudWatch anomaly detectors", Store: d.Store, Clock: d.Clock, Kind: detectors.Kind, Workers: 1, Reconcile: s.trainDetector, Log: d.Log,
	}
	s.collect = collect.New(collect.Deps{Store: d.Store, Clock: d.Clock, Log: d.Log, Machines: d.Machines, Balancers: d.Balancers, Put: s.Put})
	return s, nil
}

// SetPolicies names who runs scaling policies; before Run.
func (s *Service) SetPolicies(p ScalingPolicies) { s.policies = p }

// Close makes what was put durable and closes the files; after Run has ended.
func (s *Service) Close() error { return s.metrics.Close() }

// Register serves the operations that are built.
func (s *Service) Register(mux *dispatch.Mux) {
	mux.Declare(api.Service)
	dispatch.Register(mux, api.OpPutMetricData, s.putMetricData)
	dispatch.Register(mux, api.OpGetMetricStatistics, s.getMetricStatistics)
	dispatch.Register(mux, api.OpListMetrics, s.listMetrics)
	dispatch.Register(mux, api.OpGetMetricData, s.getMetricData)
	dispatch.Register(mux, api.OpPutDashboard, s.putDashboard)
	dispatch.Register(mux, api.OpGetDashboard, s.getDashboard)
	dispatch.Register(mux, api.OpListDashboards, s.listDashboards)
	dispatch.Register(mux, api.OpDeleteDashboards, s.deleteDashboards)
	dispatch.Register(mux, api.OpPutMetricAlarm, s.putMetricAlarm)
	dispatch.Register(mux, api.OpPutCompositeAlarm, s.putCompositeAlarm)
	dispatch.Register(mux, api.OpDescribeAlarms, s.describeAlarms)
	dispatch.Register(mux, api.OpDescribeAlarmsForMetric, s.describeAlarmsForMetric)
	dispatch.Register(mux, api.OpDescribeAlarmHistory, s.describeAlarmHistory)
	dispatch.Register(mux, api.OpDeleteAlarms, s.deleteAlarms)
	dispatch.Register(mux, api.OpSetAlarmState, s.setAlarmState)
	dispatch.Register(mux, api.OpEnableAlarmActions, s.enableAlarmActions)
	dispatch.Register(mux, api.OpDisableAlarmActions, s.disableAlarmActions)
	dispatch.Register(mux, api.OpPutAnomalyDetector, s.putAnomalyDetector)
	dispatch.Register(mux, api.OpDescribeAnomalyDetectors, s.describeAnomalyDetectors)
	dispatch.Register(mux, api.OpDeleteAnomalyDetector, s.deleteAnomalyDetector)
	dispatch.Register(mux, api.OpTagResource, s.tagResource)
	dispatch.Register(mux, api.OpUntagResource, s.untagResource)
	dispatch.Register(mux, api.OpListTagsForResource, s.listTagsForResource)
}

// Run evaluates alarms, runs their actions and writes recorded points until
// ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	parts := []func(context.Context) error{s.engine.Run, s.outbox.Run, s.writeRecords, s.collect.Run, s.trainer.Run, s.sweepHistory}
	errs := make([]error, len(parts))
	for i, run := range parts {
		wg.Go(func() {
			if errs[i] = run(ctx); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Datum is a point that a producer in the process records.
type Datum = collect.Datum

type record struct {
	account, region, namespace string
	data                       []Datum
}

// Put keeps points of a service metric durably and lets alarms see them.
func (s *Service) Put(ctx context.Context, account, region, namespace string, data []Datum) error {
	now := s.clock.Now()
	points := make([]metricstore.Point, 0, len(data))
	for _, d := range data {
		dims := make([]metricstore.Dimension, 0, len(d.Dimensions))
		for k, v := range d.Dimensions {
			dims = append(dims, metricstore.Dimension{Name: k, Value: v})
		}
		p := metricstore.Point{
			Metric: metricstore.NewMetric(account, region, namespace, d.Name, dims...),
			Unit:   d.Unit, At: d.At, Resolution: 60, Set: d.Set,
		}
		if p.Unit == "" {
			p.Unit = api.StandardUnitNone
		}
		if p.At.IsZero() {
			p.At = now
		}
		if d.Resolution == 1 {
			p.Resolution = 1
		}
		if p.Set.Count == 0 {
			p.Set = metricstore.Of(d.Value, 1)
		}
		points = append(points, p)
	}
	return s.put(ctx, points)
}

// PutFrom keeps data by namespace durably, as PutMetricData does, and in the
// same write that source has been worked through up to position: data that come
// again after a crash, with a position that is known, are dropped. A source of
// "" has no position. refused says what CloudWatch does not take; the rest is
// kept.
func (s *Service) PutFrom(ctx context.Context, account, region, source string, position uint64, data map[string][]api.MetricDatum) (refused []error, err error) {
	now := s.clock.Now()
	var points []metricstore.Point
	for namespace, list := range data {
		for i := range list {
			d := &list[i]
			var p metricstore.Point
			err := validate.Input(api.Service, api.OpPutMetricData.Input, &api.PutMetricDataInput{Namespace: &namespace, MetricData: list[i : i+1]})
			if err == nil {
				p, err = readDatum(d, fmt.Sprintf("%s %s", namespace, ptr.Value(d.MetricName)), now)
			}
			if err != nil {
				refused = append(refused, err)
				continue
			}
			p.Metric = metricOf(account, region, namespace, ptr.Value(d.MetricName), d.Dimensions)
			points = append(points, p)
		}
	}
	if source == "" {
		return refused, s.put(ctx, points)
	}
	if err := s.metrics.PutAt(ctx, source, position, points); err != nil {
		return refused, fmt.Errorf("metric data: %w", err)
	}
	s.engine.arrived(points)
	return refused, nil
}

// Position is how far PutFrom has come with a source; 0 where it has not begun.
func (s *Service) Position(source string) uint64 { return s.metrics.Position(source) }

// Reset forgets all metrics; only an ephemeral server may do that. The rest
// of this service is rows.
func (s *Service) Reset() error {
	s.models.forget()
	return s.metrics.Forget()
}

func (s *Service) put(ctx context.Context, points []metricstore.Point) error {
	if err := s.metrics.Put(ctx, points); err != nil {
		return fmt.Errorf("metric data: %w", err)
	}
	s.engine.arrived(points)
	return nil
}

// Record is Put for producers that cannot wait: it returns at once, and where
// more than 1024 calls are waiting the points are dropped and logged.
func (s *Service) Record(account, region, namespace string, data ...Datum) {
	now := s.clock.Now()
	for i := range data {
		if data[i].At.IsZero() {
			data[i].At = now
		}
	}
	select {
	case s.records <- record{account, region, namespace, data}:
	default:
		s.log.Warn("service metrics dropped: too many are waiting", "namespace", namespace)
	}
}

func (s *Service) writeRecords(ctx context.Context) error {
	for {
		select {
		case r := <-s.records:
			if err := s.Put(ctx, r.account, r.region, r.namespace, r.data); err != nil && ctx.Err() == nil {
				s.log.Error("service metrics were not kept", "namespace", r.namespace, "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// where is the account and region of a request.
func where(ctx context.Context) (account, region string) {
	id := caller.From(ctx)
	return id.Account, id.Region
}

// orNil is nil for the zero value: absent on the wire.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
