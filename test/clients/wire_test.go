package clients

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// call is one hand-made request.
type call struct {
	service, region, secret, key string
	at                           time.Time
	path, body                   string
	header                       map[string]string
	unsigned                     bool
}

func (s *server) call(c call) (status int, body string) {
	s.t.Helper()
	if c.path == "" {
		c.path = "/"
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.endpoint+c.path, strings.NewReader(c.body))
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	if !c.unsigned {
		s.sign(req, c)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// sign signs as AWS describes it (Signature Version 4), apart from the code
// under test.
func (s *server) sign(req *http.Request, c call) {
	orDefault := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	orDefault(&c.region, "us-east-1")
	orDefault(&c.key, s.key)
	orDefault(&c.secret, s.secret)
	if c.at.IsZero() {
		c.at = time.Now()
	}
	stamp := c.at.UTC().Format("20060102T150405Z")
	req.Header.Set("X-Amz-Date", stamp)
	sum := sha256.Sum256([]byte(c.body))
	canonical := strings.Join([]string{"POST", c.path, "", "host:" + req.URL.Host, "x-amz-date:" + stamp, "", "host;x-amz-date", hex.EncodeToString(sum[:])}, "\n")
	hashed := sha256.Sum256([]byte(canonical))
	scope := stamp[:8] + "/" + c.region + "/" + c.service + "/aws4_request"
	mac := func(key []byte, data string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(data))
		return h.Sum(nil)
	}
	key := []byte("AWS4" + c.secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = mac(key, part)
	}
	sig := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(hashed[:])))
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+c.key+"/"+scope+", SignedHeaders=host;x-amz-date, Signature="+sig)
}

var (
	form = map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	js   = func(target string) map[string]string {
		return map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
	}
	cbor = map[string]string{"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor", "Accept": "application/cbor"}
)

const whoAmI = "Action=GetCallerIdentity&Version=2011-06-15"

func TestSignatures(t *testing.T) {
	t.Parallel()
	s := start(t)
	logs := js("Logs_20140328.DescribeLogGroups")
	for _, tc := range []struct {
		name   string
		call   call
		status int
		want   string
	}{
		{"right, query", call{service: "sts", body: whoAmI, header: form}, 200, "123456789012"},
		{"right, JSON", call{service: "logs", body: "{}", header: logs}, 200, "logGroups"},
		{"unsigned, query", call{service: "sts", body: whoAmI, header: form, unsigned: true}, 403, "MissingAuthenticationToken"},
		{"unsigned, JSON", call{service: "logs", body: "{}", header: logs, unsigned: true}, 400, "MissingAuthenticationTokenException"},
		{"wrong secret, query", call{service: "sts", body: whoAmI, header: form, secret: "wrong"}, 403, "SignatureDoesNotMatch"},
		{"wrong secret, JSON", call{service: "logs", body: "{}", header: logs, secret: "wrong"}, 400, "InvalidSignatureException"},
		{"unknown key, query", call{service: "sts", body: whoAmI, header: form, key: "AKIAIOSFODNN7NOBODY0"}, 403, "InvalidClientTokenId"},
		{"unknown key, JSON", call{service: "logs", body: "{}", header: logs, key: "AKIAIOSFODNN7NOBODY0"}, 400, "UnrecognizedClientException"},
		{"an hour old, query", call{service: "sts", body: whoAmI, header: form, at: time.Now().Add(-time.Hour)}, 403, "SignatureDoesNotMatch"},
		{"an hour ahead, JSON", call{service: "logs", body: "{}", header: logs, at: time.Now().Add(time.Hour)}, 400, "InvalidSignatureException"},
		{"signed for another service", call{service: "s3", body: "{}", header: logs}, 400, "InvalidSignatureException"},
		{"another region is another place", call{service: "logs", region: "eu-central-1", body: "{}", header: logs}, 200, "logGroups"},
	} {
		status, body := s.call(tc.call)
		if status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d %s, want %d with %s", tc.name, status, body, tc.status, tc.want)
		}
	}
}

func TestAnyCredentials(t *testing.T) {
	t.Parallel()
	s := start(t, "--auth=any")
	for _, c := range []call{
		{service: "sts", body: whoAmI, header: form, unsigned: true}, {service: "sts", body: whoAmI, header: form, key: "test", secret: "test"},
	} {
		if status, body := s.call(c); status != 200 || !strings.Contains(body, "123456789012") {
			t.Errorf("%+v: %d %s", c, status, body)
		}
	}
	foreign := map[string]string{"Content-Type": form["Content-Type"], "Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
	if status, body := s.call(call{service: "sts", body: whoAmI, header: foreign, unsigned: true}); status != 403 {
		t.Errorf("a foreign page may call: %d %s", status, body)
	}
}

// TestUnbuiltNamesItself: what AWS has and Slipway has not must never look as
// if it had been done.
func TestUnbuiltNamesItself(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, tc := range []struct {
		name string
		call call
		want string
	}{
		{"JSON", call{service: "codecommit", body: "{}", header: js("CodeCommit_20150413.CreatePullRequest")}, "CreatePullRequest"},
		{"query", call{service: "iam", body: "Action=CreateSAMLProvider&Version=2010-05-08", header: form}, "CreateSAMLProvider"},
		{"EC2", call{service: "ec2", body: "Action=CreateTransitGateway&Version=2016-11-15", header: form}, "CreateTransitGateway"},
		{"CBOR", call{service: "monitoring", path: "/service/GraniteServiceVersion20100801/operation/PutInsightRule", body: "\xa0", header: cbor}, "PutInsightRule"},
	} {
		if status, body := s.call(tc.call); status != 501 || !strings.Contains(body, tc.want) || !strings.Contains(body, "NotImplemented") {
			t.Errorf("%s: %d %s", tc.name, status, body)
		}
	}
}

// TestMetricsOverThreeProtocols writes a point in each and sees them all.
func TestMetricsOverThreeProtocols(t *testing.T) {
	t.Parallel()
	s := start(t)
	cw := "/service/GraniteServiceVersion20100801/operation/"
	for _, c := range []call{
		{service: "monitoring", body: "Action=PutMetricData&Version=2010-08-01&Namespace=P&MetricData.member.1.MetricName=query&MetricData.member.1.Value=1", header: form},
		{service: "monitoring", body: `{"Namespace":"P","MetricData":[{"MetricName":"json","Value":1}]}`, header: map[string]string{"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData"}},
		// {"Namespace": "P", "MetricData": [{"MetricName": "cbor", "Value": 1.0}]}
		{service: "monitoring", path: cw + "PutMetricData", body: "\xa2\x69Namespace\x61P\x6aMetricData\x81\xa2\x6aMetricName\x64cbor\x65Value\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", header: cbor},
	} {
		if status, body := s.call(c); status != 200 {
			t.Fatalf("%+v: %d %s", c, status, body)
		}
	}
	for _, c := range []call{
		{service: "monitoring", body: "Action=ListMetrics&Version=2010-08-01&Namespace=P", header: form},
		{service: "monitoring", body: `{"Namespace":"P"}`, header: map[string]string{"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "GraniteServiceVersion20100801.ListMetrics"}},
		{service: "monitoring", path: cw + "ListMetrics", body: "\xa1\x69Namespace\x61P", header: cbor},
	} {
		status, body := s.call(c)
		for _, name := range []string{"query", "json", "cbor"} {
			if status != 200 || !strings.Contains(body, name) {
				t.Errorf("%v: %d, no %s in %q", c.header, status, name, body)
			}
		}
	}
	// A wrong shape is refused in words, in CBOR as well.
	if status, body := s.call(call{service: "monitoring", path: cw + "PutMetricData", body: "\xa1\x69Namespace\x01", header: cbor}); status != 400 {
		t.Errorf("a number for a name: %d %q", status, body)
	}
}
