package lb

import (
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"slipway/internal/lb/forward"
)

// targetStats are one target's counters; all only grow.
type targetStats struct {
	requests   atomic.Int64
	codes      [6]atomic.Int64 // by first digit of the status
	connErrors atomic.Int64
	tlsErrors  atomic.Int64
	failOpen   atomic.Int64
	micros     atomic.Int64 // sum of response times
	count      atomic.Int64
	buckets    [histogramLength]atomic.Int64
}

// failed counts the connections that an exchange failed to make.
func (s *targetStats) failed(x *forward.Exchange) {
	s.connErrors.Add(int64(x.ConnErrors))
	s.tlsErrors.Add(int64(x.TLSErrors))
}

var logBase = math.Log(histogramBase)

func (s *targetStats) observe(d time.Duration) {
	s.micros.Add(d.Microseconds())
	s.count.Add(1)
	i := 0
	if v := d.Seconds() / histogramFirst; v > 1 {
		i = min(int(math.Ceil(math.Log(v)/logBase)), histogramLength-1)
	}
	s.buckets[i].Add(1)
}

func (s *targetStats) histogram() Histogram {
	h := Histogram{Count: s.count.Load(), Sum: float64(s.micros.Load()) / 1e6, Buckets: map[int]int64{}}
	for i := range s.buckets {
		if n := s.buckets[i].Load(); n > 0 {
			h.Buckets[i] = n
		}
	}
	return h
}

func put(m map[string]float64, name string, n int64) {
	if n != 0 {
		m[name] = float64(n)
	}
}

func (s *targetStats) counters() map[string]float64 {
	m := map[string]float64{}
	put(m, "RequestCount", s.requests.Load())
	for d := 2; d <= 5; d++ {
		put(m, "HTTPCode_Target_"+strconv.Itoa(d)+"XX_Count", s.codes[d].Load())
	}
	put(m, "TargetConnectionErrorCount", s.connErrors.Load())
	put(m, "TargetTLSNegotiationErrorCount", s.tlsErrors.Load())
	put(m, "UnhealthyRoutingRequestCount", s.failOpen.Load())
	return m
}

// lbStats are one load balancer's own counters.
type lbStats struct {
	requests, fixed, redirects, redirectLimit        atomic.Int64
	rules, paidRules                                 atomic.Int64
	nonSticky, desync, dropped, forwardedInvalid     atomic.Int64
	ipv6, ipv6Bytes                                  atomic.Int64
	elb3, elb4, elb5, elb500, elb502, elb503, elb504 atomic.Int64
}

// freeRules is how many evaluated rules of a request are not paid for (Elastic
// Load Balancing pricing, "LCU details").
const freeRules = 10

// evaluated counts the rules that a request was held against, the default rule
// left out.
func (s *lbStats) evaluated(n int64) {
	s.rules.Add(n)
	if n > freeRules {
		s.paidRules.Add(n - freeRules)
	}
}

func (s *lbStats) selfMade(status int) {
	switch {
	case status >= 500:
		s.elb5.Add(1)
		switch status {
		case 500:
			s.elb500.Add(1)
		case 502:
			s.elb502.Add(1)
		case 503:
			s.elb503.Add(1)
		case 504:
			s.elb504.Add(1)
		}
	case status >= 400:
		s.elb4.Add(1)
	case status >= 300:
		s.elb3.Add(1)
	}
}

func (s *lbStats) counters() map[string]float64 {
	m := map[string]float64{}
	put(m, "RequestCount", s.requests.Load())
	put(m, "RuleEvaluations", s.rules.Load())
	put(m, "HTTP_Fixed_Response_Count", s.fixed.Load())
	put(m, "HTTP_Redirect_Count", s.redirects.Load())
	put(m, "HTTP_Redirect_Url_Limit_Exceeded_Count", s.redirectLimit.Load())
	put(m, "NonStickyRequestCount", s.nonSticky.Load())
	put(m, "DesyncMitigationMode_NonCompliant_Request_Count", s.desync.Load())
	put(m, "DroppedInvalidHeaderRequestCount", s.dropped.Load())
	put(m, "ForwardedInvalidHeaderRequestCount", s.forwardedInvalid.Load())
	put(m, "IPv6RequestCount", s.ipv6.Load())
	put(m, "IPv6ProcessedBytes", s.ipv6Bytes.Load())
	put(m, "HTTPCode_ELB_3XX_Count", s.elb3.Load())
	put(m, "HTTPCode_ELB_4XX_Count", s.elb4.Load())
	put(m, "HTTPCode_ELB_5XX_Count", s.elb5.Load())
	put(m, "HTTPCode_ELB_500_Count", s.elb500.Load())
	put(m, "HTTPCode_ELB_502_Count", s.elb502.Load())
	put(m, "HTTPCode_ELB_503_Count", s.elb503.Load())
	put(m, "HTTPCode_ELB_504_Count", s.elb504.Load())
	return m
}
