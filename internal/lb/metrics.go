package lb

import (
	"math"
	"time"
)

// Metrics are counters since Started (of the process: a later Started means that
// all counters began again at zero). The reader takes differences.
type Metrics struct {
	Started time.Time `json:"started"`
	At      time.Time `json:"at"`
	// LoadBalancers has the metrics whose dimension is LoadBalancer alone.
	LoadBalancers []LBMetrics `json:"loadBalancers"`
	// Targets has those of a target group in a zone, per target.
	Targets []TargetMetrics `json:"targets"`
	// What has left the configuration is there for another two minutes, so that
	// its last counts are read.
}

// LBMetrics are one load balancer's counters, keyed by AWS's metric names
// (RequestCount, HTTPCode_ELB_5XX_Count, ProcessedBytes, ...; absent is zero).
type LBMetrics struct {
	ARN string `json:"arn"`
	// Serial tells this balancer from a former one with the same ARN, whose
	// counters it does not go on with.
	Serial   int64              `json:"serial"`
	Counters map[string]float64 `json:"counters"`
	// Gone says that it has left the configuration.
	Gone bool `json:"gone,omitempty"`
	// PaidRules counts the rule evaluations beyond a request's ten free ones.
	PaidRules float64 `json:"paidRules"`
	// ActiveConnections is how many client and target connections were open at
	// once, at most, since the reading before: Metrics is for one reader.
	ActiveConnections int64 `json:"activeConnections"`
}

// TargetMetrics are one target's counters, keyed by AWS's metric names
// (RequestCount, HTTPCode_Target_2XX_Count, TargetConnectionErrorCount, ...).
// A reader sums them over targets for the group's and the zone's metrics.
type TargetMetrics struct {
	LoadBalancer string      `json:"loadBalancer"`
	TargetGroup  string      `json:"targetGroup"`
	ID           string      `json:"id"`
	Port         int         `json:"port"`
	Serial       int64       `json:"serial"` // as of LBMetrics
	Zone         string      `json:"zone"`
	State        HealthState `json:"state"`
	// FailOpen says that too few targets of the group are healthy, so that all
	// get requests.
	FailOpen     bool               `json:"failOpen,omitempty"`
	Counters     map[string]float64 `json:"counters"`
	ResponseTime Histogram          `json:"responseTime"`
}

// Histogram counts durations in logarithmic buckets: bucket i holds values v
// (seconds) with BucketBound(i-1) < v <= BucketBound(i). A bucket's value is
// within 1 % of everything in it.
type Histogram struct {
	Count   int64         `json:"count"`
	Sum     float64       `json:"sum"` // seconds
	Buckets map[int]int64 `json:"buckets,omitempty"`
}

const (
	histogramBase   = 1.02
	histogramFirst  = 1e-6 // seconds: bucket 0 ends here
	histogramLength = 1120 // up to 4000 s and more
)

// BucketBound returns the upper bound of bucket i in seconds.
func BucketBound(i int) float64 { return histogramFirst * math.Pow(histogramBase, float64(i)) }

// BucketValue returns the value that stands for bucket i in seconds: off by at
// most 1 % from any value in it.
func BucketValue(i int) float64 { return BucketBound(i) * 2 / (1 + histogramBase) }
