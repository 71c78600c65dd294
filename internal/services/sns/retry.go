package sns

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// retryPolicy is a healthyRetryPolicy; delays are in seconds.
type retryPolicy struct {
	MinDelayTarget     int    `json:"minDelayTarget"`
	MaxDelayTarget     int    `json:"maxDelayTarget"`
	NumRetries         int    `json:"numRetries"`
	NumMaxDelayRetries int    `json:"numMaxDelayRetries"`
	NumNoDelayRetries  int    `json:"numNoDelayRetries"`
	NumMinDelayRetries int    `json:"numMinDelayRetries"`
	BackoffFunction    string `json:"backoffFunction"`
}

// defaultRetries are AWS's for HTTP and HTTPS (AWS: "Amazon SNS message
// delivery retries").
func defaultRetries() retryPolicy {
	return retryPolicy{MinDelayTarget: 20, MaxDelayTarget: 20, NumRetries: 3, BackoffFunction: "linear"}
}

// mailRetries are AWS's for SMTP: 50 attempts over six hours.
var mailRetries = retryPolicy{MinDelayTarget: 10, MaxDelayTarget: 600, NumRetries: 50, NumMinDelayRetries: 2, NumMaxDelayRetries: 38, BackoffFunction: "exponential"}

// maxRetrySeconds is the longest that all the waiting of a policy may take.
const maxRetrySeconds = 3600

type throttlePolicy struct {
	MaxReceivesPerSecond *float64 `json:"maxReceivesPerSecond,omitempty"`
}

type requestPolicy struct {
	HeaderContentType string `json:"headerContentType,omitempty"`
}

// topicDelivery is a topic's DeliveryPolicy, subDelivery a subscription's.
type topicDelivery struct {
	HTTP struct {
		Retry            *retryPolicy    `json:"defaultHealthyRetryPolicy,omitempty"`
		Throttle         *throttlePolicy `json:"defaultThrottlePolicy,omitempty"`
		Request          *requestPolicy  `json:"defaultRequestPolicy,omitempty"`
		DisableOverrides bool            `json:"disableSubscriptionOverrides"`
	} `json:"http"`
}

type subDelivery struct {
	Retry    *retryPolicy    `json:"healthyRetryPolicy,omitempty"`
	Throttle *throttlePolicy `json:"throttlePolicy,omitempty"`
	Request  *requestPolicy  `json:"requestPolicy,omitempty"`
	// sicklyRetryPolicy is in AWS's answers, always null.
	Sickly json.RawMessage `json:"sicklyRetryPolicy,omitempty"`
	// guaranteed is in AWS's answers as well.
	Guaranteed *bool `json:"guaranteed,omitempty"`
}

// UnmarshalJSON lets absent members have AWS's defaults.
func (p *retryPolicy) UnmarshalJSON(raw []byte) error {
	type plain retryPolicy
	d := plain(defaultRetries())
	if err := strict(raw, &d); err != nil {
		return err
	}
	*p = retryPolicy(d)
	return nil
}

func strict(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

func (p *retryPolicy) check() error {
	phases := p.NumNoDelayRetries + p.NumMinDelayRetries + p.NumMaxDelayRetries
	switch {
	case p.NumRetries < 0 || p.NumRetries > 100:
		return fmt.Errorf("numRetries must be between 0 and 100")
	case p.NumNoDelayRetries < 0 || p.NumMinDelayRetries < 0 || p.NumMaxDelayRetries < 0:
		return fmt.Errorf("the numbers of retries must not be negative")
	case phases > p.NumRetries:
		return fmt.Errorf("numRetries must be greater than or equal to total of numMinDelayRetries, numNoDelayRetries and numMaxDelayRetries")
	case p.MinDelayTarget < 1 || p.MinDelayTarget > maxRetrySeconds:
		return fmt.Errorf("minDelayTarget must be between 1 and %d", maxRetrySeconds)
	case p.MaxDelayTarget < p.MinDelayTarget || p.MaxDelayTarget > maxRetrySeconds:
		return fmt.Errorf("maxDelayTarget must be between minDelayTarget and %d", maxRetrySeconds)
	}
	switch p.BackoffFunction {
	case "linear", "arithmetic", "geometric", "exponential":
	default:
		return fmt.Errorf("backoffFunction must be one of linear, arithmetic, geometric, exponential")
	}
	total := time.Duration(0)
	for n := 1; n <= p.NumRetries; n++ {
		d, _ := p.delay(n)
		total += d
	}
	if total > maxRetrySeconds*time.Second {
		return fmt.Errorf("the total delay of all retries must not exceed %d seconds", maxRetrySeconds)
	}
	return nil
}

// delay is how long to wait before retry n (from 1), and whether there is one:
// first those without delay, then those with the least, then those that grow
// from the least to the longest, then those with the longest.
func (p *retryPolicy) delay(n int) (time.Duration, bool) {
	if n > p.NumRetries {
		return 0, false
	}
	least, longest := float64(p.MinDelayTarget), float64(p.MaxDelayTarget)
	growing := p.NumRetries - p.NumNoDelayRetries - p.NumMinDelayRetries - p.NumMaxDelayRetries
	if n -= p.NumNoDelayRetries; n <= 0 {
		return 0, true
	}
	if n -= p.NumMinDelayRetries; n <= 0 {
		return seconds(least), true
	}
	if n > growing {
		return seconds(longest), true
	}
	k, all := float64(n), float64(growing)
	share := k / all // linear
	switch p.BackoffFunction {
	case "arithmetic":
		share = k * (k + 1) / (all * (all + 1))
	case "exponential":
		share = (math.Exp2(k) - 1) / (math.Exp2(all) - 1)
	case "geometric":
		return seconds(least * math.Pow(longest/least, share)), true
	}
	return seconds(least + (longest-least)*share), true
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// effective is what applies to a subscription.
func effective(t *Topic, sub *Subscription) (retryPolicy, *throttlePolicy, string) {
	if sub.Protocol != "http" && sub.Protocol != "https" {
		return mailRetries, nil, ""
	}
	var top topicDelivery
	var own subDelivery
	// Both were checked when they were set.
	_ = json.Unmarshal([]byte(t.Attributes["DeliveryPolicy"]), &top)
	if !top.HTTP.DisableOverrides {
		_ = json.Unmarshal([]byte(sub.Attributes["DeliveryPolicy"]), &own)
	}
	p, throttle, contentType := defaultRetries(), top.HTTP.Throttle, "text/plain; charset=UTF-8"
	if top.HTTP.Retry != nil {
		p = *top.HTTP.Retry
	}
	if own.Retry != nil {
		p = *own.Retry
	}
	if own.Throttle != nil {
		throttle = own.Throttle
	}
	for _, r := range []*requestPolicy{top.HTTP.Request, own.Request} {
		if r != nil && r.HeaderContentType != "" {
			contentType = r.HeaderContentType
		}
	}
	return p, throttle, contentType
}

// checkTopicDelivery and checkSubDelivery judge a DeliveryPolicy attribute.
func checkTopicDelivery(raw string) error {
	if raw == "" {
		return nil
	}
	var d topicDelivery
	if err := strict([]byte(raw), &d); err != nil {
		return invalid("DeliveryPolicy: %v", err)
	}
	return checkPolicies(d.HTTP.Retry, d.HTTP.Throttle, d.HTTP.Request)
}

func checkSubDelivery(raw string) error {
	if raw == "" {
		return nil
	}
	var d subDelivery
	if err := strict([]byte(raw), &d); err != nil {
		return invalid("DeliveryPolicy: %v", err)
	}
	return checkPolicies(d.Retry, d.Throttle, d.Request)
}

// contentTypes are those that a request policy may name.
var contentTypes = map[string]bool{"application/json": true, "application/octet-stream": true, "application/xml": true, "application/xhtml+xml": true,
	"application/soap+xml": true, "application/x-www-form-urlencoded": true, "text/css": true, "text/csv": true, "text/html": true,
	"text/plain": true, "text/xml": true, "application/json; charset=UTF-8": true, "text/plain; charset=UTF-8": true}

func checkPolicies(p *retryPolicy, t *throttlePolicy, r *requestPolicy) error {
	if p != nil {
		if err := p.check(); err != nil {
			return invalid("DeliveryPolicy: %v", err)
		}
	}
	if t != nil && t.MaxReceivesPerSecond != nil && *t.MaxReceivesPerSecond < 1 {
		return invalid("DeliveryPolicy: throttlePolicy.maxReceivesPerSecond must be greater than or equal to 1")
	}
	if r != nil && r.HeaderContentType != "" && !contentTypes[r.HeaderContentType] {
		return invalid("DeliveryPolicy: requestPolicy.headerContentType %q is not supported", r.HeaderContentType)
	}
	return nil
}

// effectiveText is a subscription's EffectiveDeliveryPolicy.
func effectiveText(t *Topic, sub *Subscription) string {
	p, throttle, contentType := effective(t, sub)
	raw, _ := json.Marshal(struct { // plain values
		Retry    retryPolicy     `json:"healthyRetryPolicy"`
		Sickly   *retryPolicy    `json:"sicklyRetryPolicy"`
		Throttle *throttlePolicy `json:"throttlePolicy"`
		Request  requestPolicy   `json:"requestPolicy"`
		Sure     bool            `json:"guaranteed"`
	}{p, nil, throttle, requestPolicy{contentType}, false})
	return string(raw)
}
