package dispatch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codestarnotifications"
	"slipway/internal/api/ec2"
	"slipway/internal/api/logs"
	"slipway/internal/api/s3"
	"slipway/internal/api/sts"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/client"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/sigv4"
)

type keys struct{}

func (keys) Lookup(_ context.Context, id, _ string) (sigv4.Credential, error) {
	if id != "AKIATEST" {
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	}
	return sigv4.Credential{Secret: "secret", Account: "111122223333", PrincipalARN: "arn:aws:iam::111122223333:user/me", PrincipalID: "AIDAME"}, nil
}

var now = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)

// newMux serves a few operations of each protocol.
func newMux() *dispatch.Mux {
	m := dispatch.New()
	m.Declare(logs.Service)
	dispatch.Register(m, codedeploy.OpCreateDeployment, func(ctx context.Context, in *codedeploy.CreateDeploymentInput) (*codedeploy.CreateDeploymentOutput, error) {
		id := caller.From(ctx)
		switch *in.ApplicationName {
		case "panic":
			panic("oh")
		case "broken":
			return nil, errors.New("disk on fire")
		case "none":
			return nil, awserr.New("ApplicationDoesNotExistException", "No application found for name: none")
		case "wrapped":
			return nil, fmt.Errorf("inside: %w", awserr.New("ApplicationDoesNotExistException", "wrapped"))
		}
		return &codedeploy.CreateDeploymentOutput{DeploymentId: new(id.Account + "/" + id.Region + "/" + *in.ApplicationName)}, nil
	})
	dispatch.Register(m, autoscaling.OpSetDesiredCapacity, func(_ context.Context, in *autoscaling.SetDesiredCapacityInput) (*autoscaling.SetDesiredCapacityOutput, error) {
		return nil, awserr.New("ScalingActivityInProgress", "busy & <such>")
	})
	dispatch.Register(m, ec2.OpDescribeInstances, func(_ context.Context, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
		return &ec2.DescribeInstancesOutput{Reservations: []ec2.Reservation{{Instances: []ec2.Instance{{InstanceId: &in.InstanceIds[1], LaunchTime: &now}}}}}, nil
	})
	dispatch.Register(m, ec2.OpDeleteSubnet, func(context.Context, *ec2.DeleteSubnetInput) (*ec2.DeleteSubnetOutput, error) { return nil, nil })
	dispatch.Register(m, cloudwatch.OpGetDashboard, func(context.Context, *cloudwatch.GetDashboardInput) (*cloudwatch.GetDashboardOutput, error) {
		return nil, awserr.New("DashboardNotFoundError", "no dashboard")
	})
	dispatch.Register(m, sts.OpAssumeRoleWithWebIdentity, func(context.Context, *sts.AssumeRoleWithWebIdentityInput) (*sts.AssumeRoleWithWebIdentityOutput, error) {
		return &sts.AssumeRoleWithWebIdentityOutput{Provider: new("p")}, nil
	})
	dispatch.Register(m, codestarnotifications.OpUntagResource, func(_ context.Context, in *codestarnotifications.UntagResourceInput) (*codestarnotifications.UntagResourceOutput, error) {
		if strings.HasSuffix(*in.Arn, "none") {
			return nil, awserr.New("ResourceNotFoundException", "no %s with %v", *in.Arn, in.TagKeys)
		}
		return nil, nil
	})
	dispatch.Register(m, s3.OpPutObject, func(_ context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
		b, err := io.ReadAll(in.Body)
		if err != nil {
			return nil, err
		}
		return &s3.PutObjectOutput{ETag: new(fmt.Sprintf("%s|%s|%s|%d", *in.Bucket, *in.Key, b, *in.ContentLength))}, nil
	})
	dispatch.Register(m, s3.OpGetObject, func(_ context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
		if *in.Key == "none" {
			return nil, awserr.New("NoSuchKey", "The specified key does not exist.")
		}
		return &s3.GetObjectOutput{Body: io.NopCloser(strings.NewReader("0123456789")), ContentLength: new(int64(10)), Metadata: map[string]string{"Name": "v\r\nX-Evil: 1"}}, nil
	})
	return m
}

func serve(t *testing.T, change func(*dispatch.Config)) *httptest.Server {
	t.Helper()
	cfg := dispatch.Config{Keys: keys{}, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler), MaxBody: 1 << 20}
	if change != nil {
		change(&cfg)
	}
	s := httptest.NewServer(newMux().Handler(cfg))
	t.Cleanup(s.Close)
	return s
}

type req struct {
	method, target, body string
	headers              map[string]string
	service              string // signs for it, "" does not sign
	secret               string
}

func do(t *testing.T, s *httptest.Server, q req) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(q.method, s.URL+q.target, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range q.headers {
		r.Header.Set(k, v)
	}
	if q.secret == "" {
		q.secret = "secret"
	}
	if q.service != "" {
		r.Host = r.URL.Host
		sigv4.Sign(r, []byte(q.body), "AKIATEST", q.secret, "", "eu-west-1", q.service, now)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res, string(b)
}

func jsonCall(target, body string) req {
	return req{method: "POST", target: "/", body: body, service: "codedeploy", headers: map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}}
}

func form(service, body string) req {
	return req{method: "POST", target: "/", body: body, service: service, headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}}
}

func restJSON(target, body string) req {
	return req{method: "POST", target: target, body: body, service: "codestar-notifications", headers: map[string]string{"Content-Type": "application/json"}}
}

func (q req) with(f func(*req)) req { f(&q); return q }

func TestAnswers(t *testing.T) {
	s := serve(t, nil)
	const create = "CodeDeploy_20141006.CreateDeployment"
	tests := []struct {
		name   string
		req    req
		status int
		want   string // in the body
	}{
		{"json", jsonCall(create, `{"applicationName":"a","unknown":[{}]}`), 200, `{"deploymentId":"111122223333/eu-west-1/a"}`},
		{"json error", jsonCall(create, `{"applicationName":"none"}`), 400, `{"__type":"ApplicationDoesNotExistException","message":"No application found for name: none"}`},
		{"json wrapped error", jsonCall(create, `{"applicationName":"wrapped"}`), 400, `"message":"wrapped"`},
		{"json internal error", jsonCall(create, `{"applicationName":"broken"}`), 500, `"__type":"InternalFailure"`},
		{"json panic", jsonCall(create, `{"applicationName":"panic"}`), 500, `"__type":"InternalFailure"`},
		{"json wrong type", jsonCall(create, `{"applicationName":1}`), 400, `NUMBER_VALUE can not be converted to a String (member applicationName)`},
		{"json missing member", jsonCall(create, `{}`), 400, `"__type":"ApplicationNameRequiredException"`},
		{"json not built", jsonCall("CodeDeploy_20141006.GetDeployment", `{}`), 501, `Slipway does not implement CodeDeploy GetDeployment yet.`},
		{"json declared only", jsonCall("Logs_20140328.PutLogEvents", `{}`), 501, `CloudWatch Logs PutLogEvents`},
		{"json unknown operation", jsonCall("CodeDeploy_20141006.Nonsense", `{}`), 400, `UnknownOperationException`},
		{"json unknown service", jsonCall("Nonsense_1.CreateDeployment", `{}`), 400, `UnknownOperationException`},
		{"json unsigned", jsonCall(create, `{}`).with(func(q *req) { q.service = "" }), 400, `MissingAuthenticationTokenException`},
		{"json wrong secret", jsonCall(create, `{}`).with(func(q *req) { q.secret = "x" }), 400, `InvalidSignatureException`},
		{"json wrong service", jsonCall(create, `{}`).with(func(q *req) { q.service = "ec2" }), 400, `Credential should be scoped to correct service: 'codedeploy'`},
		{"json too large", jsonCall(create, strings.Repeat(" ", 1<<20+1)), 413, `RequestEntityTooLarge`},
		{"query error", form("autoscaling", "Action=SetDesiredCapacity&Version=2011-01-01&AutoScalingGroupName=g&DesiredCapacity=1"), 400, `<Type>Sender</Type><Code>ScalingActivityInProgress</Code><Message>busy &amp; &lt;such&gt;</Message>`},
		{"query validation", form("autoscaling", "Action=SetDesiredCapacity&Version=2011-01-01&DesiredCapacity=1"), 400, `<Code>ValidationError</Code><Message>1 validation error detected: Value null at &#39;autoScalingGroupName&#39; failed`},
		{"query number", form("autoscaling", "Action=SetDesiredCapacity&Version=2011-01-01&AutoScalingGroupName=g&DesiredCapacity=x"), 400, `<Code>MalformedInput</Code>`},
		{"query unknown action", form("autoscaling", "Action=Nonsense&Version=2011-01-01"), 400, `<Code>InvalidAction</Code>`},
		{"query unknown service", form("sqs", "Action=ListQueues&Version=2012-11-05"), 501, `Slipway does not implement the service sqs.`},
		{"query by get", req{method: "GET", target: "/?Action=DescribeInstances&Version=2016-11-15&InstanceId.1=i-1&InstanceId.2=i-2", service: "ec2"}, 200, `<instanceId>i-2</instanceId><launchTime>2026-11-23T01:00:00.000Z</launchTime>`},
		{"query unsigned operation", form("", "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn:aws:iam::1:role/abcdefgh&RoleSessionName=ab&WebIdentityToken=abcd"), 200, `<AssumeRoleWithWebIdentityResult><Provider>p</Provider></AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>`},
		{"ec2 missing parameter", form("ec2", "Action=DeleteSubnet&Version=2016-11-15"), 400, `<Response><Errors><Error><Code>MissingParameter</Code><Message>The request must contain the parameter SubnetId</Message></Error></Errors><RequestID>`},
		{"ec2 wrong secret", form("ec2", "Action=DeleteSubnet&Version=2016-11-15&SubnetId=s").with(func(q *req) { q.secret = "x" }), 401, `<Code>AuthFailure</Code>`},
		{"s3 put", req{method: "PUT", target: "/b//a%2Fb%20%C3%BC", body: "data", service: "s3"}, 200, ``},
		{"s3 wrong secret", req{method: "PUT", target: "/b/k", body: "data", service: "s3", secret: "x"}, 403, `<Code>SignatureDoesNotMatch</Code>`},
		{"s3 get", req{method: "GET", target: "/b/k", service: "s3"}, 200, `0123456789`},
		{"s3 no key", req{method: "GET", target: "/b/none", service: "s3"}, 404, `<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>none</Key><RequestId>`},
		{"s3 subresource", req{method: "GET", target: "/b/k?torrent", service: "s3"}, 501, `S3 GetObjectTorrent`},
		{"s3 bucket subresource", req{method: "GET", target: "/b?inventory&id=x", service: "s3"}, 501, `S3 GetBucketInventoryConfiguration`},
		{"s3 no such method", req{method: "PATCH", target: "/b/k", service: "s3"}, 405, `<Code>MethodNotAllowed</Code>`},
		{"rest-json", restJSON("/untagResource/arn%3Aaws%3Acodestar-notifications%3Aeu-west-1%3A111122223333%3Anotificationrule%2Fsome?tagKeys=a", ""), 200, `{}`},
		{"rest-json error", restJSON("/untagResource/arn%3Aaws%3Acodestar-notifications%3Aeu-west-1%3A111122223333%3Anotificationrule%2Fnone?tagKeys=a&tagKeys=b%20c", ""), 404, `{"message":"no arn:aws:codestar-notifications:eu-west-1:111122223333:notificationrule/none with [a b c]"}`},
		{"rest-json validation", restJSON("/untagResource/x?tagKeys=a", ""), 400, `1 validation error detected: Value 'x' at 'arn' failed`},
		{"rest-json missing parameter", restJSON("/untagResource/arn%3Aaws%3Acodestar-notifications%3Aeu-west-1%3A111122223333%3Anotificationrule%2Fsome", ""), 400, `Value null at 'tagKeys'`},
		{"rest-json not built", restJSON("/subscribe", "{}"), 501, `codestar notifications Subscribe`},
		{"rest-json unknown path", restJSON("/nonsense", "{}"), 404, `codestar notifications has no operation POST /nonsense.`},
		{"rest-json unknown method", restJSON("/subscribe", "").with(func(q *req) { q.method = "GET" }), 405, `has no operation GET /subscribe`},
		{"rest-json wrong secret", restJSON("/untagResource/x?tagKeys=a", "").with(func(q *req) { q.secret = "x" }), 403, `signature`},
		{"s3 anonymous", req{method: "GET", target: "/b/k"}, 403, `<Code>AccessDenied</Code>`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, body := do(t, s, tt.req)
			if res.StatusCode != tt.status || !strings.Contains(strings.ReplaceAll(body, "'", "&#39;"), tt.want) && !strings.Contains(body, tt.want) {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			if res.Header.Get("X-Amzn-Requestid") == "" && res.Header.Get("X-Amz-Request-Id") == "" {
				t.Error("no request id")
			}
			if strings.HasPrefix(tt.name, "rest-json") && (res.Header.Get("Content-Type") != "application/json" || (res.StatusCode >= 400) != (res.Header.Get("X-Amzn-Errortype") != "")) {
				t.Errorf("headers: %v", res.Header)
			}
			if tt.name == "s3 put" && res.Header.Get("Etag") != "b|/a/b ü|data|4" {
				t.Errorf("the handler saw %q", res.Header.Get("Etag"))
			}
			if tt.name == "s3 get" && (res.Header.Get("X-Evil") != "" || res.Header.Get("x-amz-meta-name") != "v  X-Evil: 1") {
				t.Errorf("headers: %v", res.Header)
			}
		})
	}
}

func TestCloudWatchProtocols(t *testing.T) {
	s := serve(t, nil)
	for name, tt := range map[string]struct {
		req        req
		body, head string
	}{
		"json": {req{method: "POST", target: "/", body: `{"DashboardName":"x"}`, service: "monitoring", headers: map[string]string{"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "GraniteServiceVersion20100801.GetDashboard"}},
			`"__type":"DashboardNotFoundError"`, "ResourceNotFound;Sender"},
		"cbor": {req{method: "POST", target: "/service/GraniteServiceVersion20100801/operation/GetDashboard", body: "\xa1mDashboardNameax", service: "monitoring", headers: map[string]string{"Content-Type": "application/cbor", "Smithy-Protocol": "rpc-v2-cbor"}},
			"f__typevDashboardNotFoundError", "ResourceNotFound;Sender"},
		"query": {form("monitoring", "Action=GetDashboard&Version=2010-08-01&DashboardName=x"), `<Code>ResourceNotFound</Code>`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := do(t, s, tt.req)
			// CBOR maps are sorted by their bytes: the longer key may come second.
			if res.StatusCode != 404 || !strings.Contains(body, tt.body) && !strings.Contains(body, "vDashboardNotFoundError") || res.Header.Get("X-Amzn-Query-Error") != tt.head {
				t.Errorf("got %d %q %v", res.StatusCode, body, res.Header)
			}
		})
	}
}

func TestGzip(t *testing.T) {
	s := serve(t, nil)
	pack := func(size int) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		fmt.Fprintf(w, `{"applicationName":"%s"}`, strings.Repeat("a", size))
		w.Close()
		return b.String()
	}
	for _, tt := range []struct {
		body   string
		status int
	}{{pack(10), 200}, {pack(1 << 21), 413}, {"no gzip", 400}, {pack(1000)[:20], 400}} {
		q := jsonCall("CodeDeploy_20141006.CreateDeployment", tt.body)
		q.headers["Content-Encoding"] = "gzip"
		if res, body := do(t, s, q); res.StatusCode != tt.status {
			t.Errorf("got %d %s, want %d", res.StatusCode, body, tt.status)
		}
	}
}

func TestHead(t *testing.T) {
	s := serve(t, nil)
	res, body := do(t, s, req{method: "HEAD", target: "/b/k", service: "s3"})
	if res.StatusCode != 501 || body != "" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
}

func TestVirtualHosts(t *testing.T) {
	s := serve(t, func(c *dispatch.Config) { c.AuthAny = true })
	for host, want := range map[string]string{
		"bucket.s3.localhost": "bucket|dir/key", "my.bucket.localhost:4566": "my.bucket|dir/key",
		"localhost": "dir|key", "s3.localhost:80": "dir|key", "127.0.0.1": "dir|key", "[::1]:80": "dir|key",
	} {
		r, _ := http.NewRequest("PUT", s.URL+"/dir/key", strings.NewReader("x"))
		r.Host = host
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Etag"); got != want+"|x|1" {
			t.Errorf("%s: got %q", host, got)
		}
	}
}

func TestAuthAny(t *testing.T) {
	s := serve(t, func(c *dispatch.Config) { c.AuthAny = true })
	q := jsonCall("CodeDeploy_20141006.CreateDeployment", `{"applicationName":"a"}`)
	q.secret = "whatever"
	if res, body := do(t, s, q); res.StatusCode != 200 || !strings.Contains(body, "111122223333/eu-west-1/a") {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	q.service = ""
	if res, body := do(t, s, q); res.StatusCode != 200 || !strings.Contains(body, "123456789012/us-east-1/a") {
		t.Errorf("unsigned: got %d %s", res.StatusCode, body)
	}
	q.headers["Sec-Fetch-Site"] = "cross-site"
	if res, _ := do(t, s, q); res.StatusCode != 403 {
		t.Errorf("from another site: got %d", res.StatusCode)
	}
}

func TestCallValidates(t *testing.T) {
	m := newMux()
	ctx := caller.ForService(t.Context(), "codepipeline", "111122223333", "us-east-2")
	out, err := dispatch.Call(ctx, m, codedeploy.OpCreateDeployment, &codedeploy.CreateDeploymentInput{ApplicationName: new("a")})
	if err != nil || *out.DeploymentId != "111122223333/us-east-2/a" {
		t.Errorf("got %v, %v", out, err)
	}
	if _, err := dispatch.Call(ctx, m, codedeploy.OpCreateDeployment, nil); !awserr.Is(err, "ApplicationNameRequiredException") {
		t.Errorf("got %v", err)
	}
	if _, err := dispatch.Call(ctx, m, codedeploy.OpGetDeployment, nil); !awserr.Is(err, "NotImplemented") {
		t.Errorf("got %v", err)
	}
}

// TestClient calls with the first-party client, whose signature is made with
// the machine's clock.
func TestClient(t *testing.T) {
	s := serve(t, func(c *dispatch.Config) { c.Now = time.Now })
	c, err := client.New(client.Config{Endpoint: s.URL, Region: "eu-west-1", AccessKeyID: "AKIATEST", SecretAccessKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.Call(t.Context(), c, ec2.OpDescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{"i-1", "i-2"}})
	if err != nil {
		t.Fatal(err)
	}
	if i := out.Reservations[0].Instances[0]; *i.InstanceId != "i-2" || !i.LaunchTime.Equal(now) {
		t.Errorf("got %+v", i)
	}
	_, err = client.Call(t.Context(), c, codedeploy.OpCreateDeployment, &codedeploy.CreateDeploymentInput{ApplicationName: new("none")})
	if !awserr.Is(err, "ApplicationDoesNotExistException") {
		t.Errorf("got %v", err)
	}
	s.Close()
	_, err = client.Call(t.Context(), c, ec2.OpDescribeInstances, nil)
	var ue *url.Error
	if !errors.As(err, &ue) {
		t.Errorf("a closed server: %v", err)
	}
}
