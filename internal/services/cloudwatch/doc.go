// Package cloudwatch keeps metrics, watches them with alarms, and stores
// dashboards.
//
// Points go into metricstore. Every put and every second of the service's
// clock makes the engine (engine.go) evaluate the alarms whose outcome may
// have changed: package evaluate decides, without I/O, from the points in the
// alarm's window. An alarm's row (kind "cloudwatch:alarm", State is its
// StateValue) moves between any two of
//
//	INSUFFICIENT_DATA   as created; or no points in the evaluation range
//	OK                  the points do not breach
//	ALARM               enough of them do
//
// and each move writes, in one transaction, the row, a line of its history and
// one row per action (kind "cloudwatch:action"). Those rows are the outbox:
// deliver.go runs each until it has succeeded or failed for good, whatever
// crashes in between.
//
// An alarm may be compared with a band instead of a number: detectors.go keeps
// the anomaly detectors (kind "cloudwatch:anomaly", State is its StateValue,
// which a controller moves from PENDING_TRAINING to TRAINED or
// TRAINED_INSUFFICIENT_DATA and between these two) and computes their models,
// which package anomaly defines, from the points.
//
// Metric math is in package mathexpr, Metrics Insights in sql.go (the language)
// and insights.go (what it means), AWS's own service metrics are measured by
// package collect, which writes through Record like any producer in the
// process.
//
// Start reading at service.go.
package cloudwatch
