package cloudwatch

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"slipway/internal/agent/awscall"
	"slipway/internal/aws/dispatch"
	"slipway/internal/services/logs"
	"slipway/internal/store"
)

// serveLogs is Slipway's CloudWatch Logs as a process of its own: `run-server ADDRESS DIR`.
func serveLogs(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := os.MkdirAll(args[1], 0o700); err != nil {
		return 1
	}
	st, err := store.Open(ctx, store.Options{Dir: args[1]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer st.Close()
	mux := dispatch.New()
	svc := logs.New(logs.Deps{Store: st, Dir: filepath.Join(args[1], "logs"), Durable: true})
	svc.Register(mux)
	l, err := net.Listen("tcp", args[0])
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l, err = net.Listen("tcp", args[0]) // a connection of somebody may have the port for a moment
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go http.Serve(l, mux.Handler(dispatch.Config{AuthAny: true, Account: "123456789012", Now: time.Now, Log: slog.Default()}))
	svc.Run(ctx)
	return 0
}

// stored reads a whole stream.
func stored(t *testing.T, client api, group, stream string) map[string]int {
	t.Helper()
	got, token := map[string]int{}, ""
	for {
		in := map[string]any{"logGroupName": group, "logStreamName": stream, "startFromHead": true}
		if token != "" {
			in["nextToken"] = token
		}
		var out struct {
			Events []logEvent `json:"events"`
			Next   string     `json:"nextForwardToken"`
		}
		if err := client.JSON(t.Context(), "logs", "Logs_20140328.GetLogEvents", nil, in, &out); err != nil {
			return got // not there yet, or the server is down
		}
		for _, e := range out.Events {
			got[e.Message]++
		}
		if out.Next == token {
			return got
		}
		token = out.Next
	}
}

// TestWithTheRealService runs Slipway's own CloudWatch Logs and the agent, and kills both again and again while lines
// are written and the file is rotated.
func TestWithTheRealService(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := t.TempDir()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	probe.Close()
	server := &killed{start: func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "run-server", address, filepath.Join(dir, "data"))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Error(err)
		}
		return cmd
	}}
	log := filepath.Join(dir, "app.log")
	cfg := fmt.Sprintf(`{"logs": {"force_flush_interval": 1, "logs_collected": {"files": {"collect_list": [
		{"file_path": %q, "log_group_name": "/g", "timestamp_format": "%%Y-%%m-%%dT%%H:%%M:%%S", "timezone": "UTC", "retention_in_days": 7}]}}}}`, log)
	agent := &killed{start: func() *exec.Cmd { return agentProcess(t, "http://"+address, dir, cfg) }}
	server.cmd = server.start()
	agent.cmd = agent.start()
	defer func() {
		for _, k := range []*killed{server, agent} {
			k.cmd.Process.Kill()
			k.cmd.Wait()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		rng := rand.New(rand.NewPCG(7, 7))
		for i := 0; ; i++ {
			pause(ctx, time.Duration(300+rng.IntN(1500))*time.Millisecond)
			if ctx.Err() != nil {
				return
			}
			[]*killed{server, agent}[i%2].kill()
		}
	}()
	lines, total := writeRotating(t, log, 24, 3)
	cancel()
	<-ended
	client, err := awscall.New("http://"+address, "us-east-1", awscall.Static{AccessKeyID: "a", SecretAccessKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	eventually(t, 3*time.Minute, "all lines", func() bool {
		n := 0
		got = stored(t, client, "/g", "i-1")
		for _, c := range got {
			n += c
		}
		return n >= total
	})
	pause(t.Context(), 2*time.Second) // doubles would come now
	got = stored(t, client, "/g", "i-1")
	for line, n := range lines {
		if got[line] != n {
			t.Errorf("%q is stored %d times, was written %d times", line, got[line], n)
		}
	}
	t.Logf("%d lines; the server was killed %d times, the agent %d times", total, server.n, agent.n)
}
