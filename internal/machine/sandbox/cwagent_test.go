package sandbox

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/logs"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/machine"
	"slipway/internal/services/logs"
	"slipway/internal/store"
)

// metadataStub is the little of the instance metadata that an agent asks for.
func metadataStub(id string) http.Handler {
	answers := map[string]string{
		"/latest/dynamic/instance-identity/document":      `{"accountId": "123456789012", "region": "us-east-1", "instanceId": "` + id + `", "privateIp": "172.31.0.45"}`,
		"/latest/meta-data/iam/security-credentials/":     "role",
		"/latest/meta-data/iam/security-credentials/role": `{"AccessKeyId": "AKID", "SecretAccessKey": "s", "Token": "t", "Expiration": "2100-01-01T00:00:00Z", "Code": "Success"}`,
		"/latest/meta-data/hostname":                      "ip-172-31-0-45.ec2.internal",
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			w.Write([]byte("token"))
			return
		}
		if a, ok := answers[r.URL.Path]; ok {
			w.Write([]byte(a))
			return
		}
		http.NotFound(w, r)
	})
}

// TestCloudWatchAgent drives the agent with its switch, as deployment scripts
// do, and reads what it sends from Slipway's CloudWatch Logs.
func TestCloudWatchAgent(t *testing.T) {
	d := open(t)
	const id = "i-cwagent"
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	mux := dispatch.New()
	svc := logs.New(logs.Deps{Store: st, Dir: t.TempDir()})
	svc.Register(mux)
	for addr, h := range map[string]http.Handler{"172.31.0.2:4566": mux.Handler(dispatch.Config{AuthAny: true, Account: "123456789012", Now: time.Now}), "169.254.169.254:80": metadataStub(id)} {
		l, err := d.ListenVPC(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go http.Serve(l, h)
	}
	if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: "172.31.0.45", Env: []string{"AWS_ENDPOINT_URL=http://172.31.0.2:4566"}}); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join("..", "..", "..", "examples", "todo", "config", "amazon-cloudwatch-agent.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile(t.Context(), id, machine.File{Path: "/root/agent.json", Data: config}); err != nil {
		t.Fatal(err)
	}
	const ctl = "/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl "
	if out := must(t, d, id, ctl+"-a status"); !strings.Contains(out, `"status": "stopped"`) || !strings.Contains(out, `"configstatus": "not configured"`) {
		t.Errorf("before: %s", out)
	}
	must(t, d, id, ctl+"-a fetch-config -m ec2 -c file:/root/agent.json -s")
	if out := must(t, d, id, ctl+"-a status"); !strings.Contains(out, `"status": "running"`) || !strings.Contains(out, `"configstatus": "configured"`) {
		t.Errorf("after: %s", out)
	}
	must(t, d, id, `mkdir -p /var/log/nginx; echo '1.2.3.4 - - [`+time.Now().Format("02/Jan/2006:15:04:05 -0700")+`] "GET / HTTP/1.1" 200 1' >>/var/log/nginx/access.log`)
	ctx := caller.With(t.Context(), caller.Identity{Account: "123456789012", Region: "us-east-1"})
	waitEvents(t, ctx, mux, id, 1)
	must(t, d, id, "kill -9 $(pgrep -f ^/opt/aws/amazon-cloudwatch-agent/bin); echo second >>/var/log/nginx/access.log")
	waitEvents(t, ctx, mux, id, 2)
	t.Log(must(t, d, id, "grep -E 'VmRSS|RssAnon' /proc/$(pgrep -f ^/opt/aws/amazon-cloudwatch-agent/bin)/status"))
	must(t, d, id, ctl+"-a stop")
	if out := must(t, d, id, ctl+"-a status"); !strings.Contains(out, `"status": "stopped"`) {
		t.Errorf("after stop: %s", out)
	}
	if out, code := run(t, d, id, "sh", "-c", "echo '{' >/root/bad.json; "+ctl+"-a fetch-config -m ec2 -c file:/root/bad.json -s 2>&1"); code == 0 || !strings.Contains(out, "bad.json:2:1") {
		t.Errorf("a bad configuration: %d %s", code, out)
	}
}

func waitEvents(t *testing.T, ctx context.Context, mux *dispatch.Mux, stream string, want int) {
	t.Helper()
	var err error
	n := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var out *api.GetLogEventsOutput
		out, err = dispatch.Call(ctx, mux, api.OpGetLogEvents, &api.GetLogEventsInput{LogGroupName: new("/todo/nginx/access"), LogStreamName: &stream})
		if err != nil {
			continue
		}
		if n = len(out.Events); n == want {
			return
		}
	}
	t.Fatalf("%d events, want %d; %v", n, want, err)
}
