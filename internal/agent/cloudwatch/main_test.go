package cloudwatch

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets the test's executable be the agent, so that it can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run-agent" {
		os.Exit(Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "run-server" {
		os.Exit(serveLogs(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// logStore keeps streams as CloudWatch Logs does. It fails on purpose: before storing, or after, without an answer.
type logStore struct {
	*httptest.Server
	mu      sync.Mutex
	streams map[string][]logEvent
	groups  map[string]int // retention
	metrics []map[string]any
	fail    func(op string) (before, after bool)
	calls   map[string]int
}

func newLogStore(t testing.TB) *logStore {
	s := &logStore{streams: map[string][]logEvent{}, groups: map[string]int{}, calls: map[string]int{}, fail: func(string) (bool, bool) { return false, false }}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *logStore) serve(w http.ResponseWriter, r *http.Request) {
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	before, after := s.fail(op)
	if before {
		panic(http.ErrAbortHandler)
	}
	status, answer := s.do(op, body)
	if after {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer)
}

func (s *logStore) do(op string, body []byte) (int, any) {
	var in struct {
		Group      string     `json:"logGroupName"`
		Stream     string     `json:"logStreamName"`
		Events     []logEvent `json:"logEvents"`
		Start      int64      `json:"startTime"`
		End        int64      `json:"endTime"`
		Retention  int        `json:"retentionInDays"`
		Next       string     `json:"nextToken"`
		Data       []map[string]any
		MetricData []map[string]any
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return 400, map[string]string{"__type": "SerializationException"}
	}
	key := in.Group + ":" + in.Stream
	_, haveGroup := s.groups[in.Group]
	_, haveStream := s.streams[key]
	refuse := func(code string) (int, any) { return 400, map[string]string{"__type": code, "message": key} }
	switch op {
	case "CreateLogGroup":
		if haveGroup {
			return refuse("ResourceAlreadyExistsException")
		}
		s.groups[in.Group] = 0
	case "PutRetentionPolicy":
		s.groups[in.Group] = in.Retention
	case "CreateLogStream":
		if haveStream {
			return refuse("ResourceAlreadyExistsException")
		}
		s.streams[key] = nil
	case "PutLogEvents":
		if !haveStream {
			return refuse("ResourceNotFoundException")
		}
		bytes := 0
		for i, e := range in.Events {
			bytes += len(e.Message) + 26
			if i > 0 && e.Timestamp < in.Events[i-1].Timestamp || len(e.Message) == 0 {
				return refuse("InvalidParameterException")
			}
		}
		if len(in.Events) > 10000 || bytes > 1<<20 || len(in.Events) == 0 {
			return refuse("InvalidParameterException")
		}
		s.streams[key] = append(s.streams[key], in.Events...)
	case "GetLogEvents":
		if !haveStream {
			return refuse("ResourceNotFoundException")
		}
		found := []logEvent{}
		for _, e := range s.streams[key] {
			if in.Next == "" && e.Timestamp >= in.Start && e.Timestamp < in.End {
				found = append(found, e)
			}
		}
		return 200, map[string]any{"events": found, "nextForwardToken": "f/1"}
	case "PutMetricData":
		s.metrics = append(s.metrics, in.MetricData...)
	default:
		return refuse("UnknownOperationException")
	}
	return 200, struct{}{}
}

func (s *logStore) messages(group, stream string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, e := range s.streams[group+":"+stream] {
		out = append(out, e.Message)
	}
	return out
}

// agentProcess starts the agent with a configuration.
func agentProcess(t testing.TB, endpoint, dir, cfg string) *exec.Cmd {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "file_a.json"), []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "run-agent", "--endpoint", endpoint, "--config-dir", filepath.Join(dir, "etc"), "--state-dir", filepath.Join(dir, "state"),
		"--host", "i-1", "--region", "us-east-1")
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=AKID", "AWS_SECRET_ACCESS_KEY=secret")
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time:", what)
		}
	}
}

// killed is an agent that is started again whenever it has been killed.
type killed struct {
	mu    sync.Mutex
	cmd   *exec.Cmd
	start func() *exec.Cmd
	n     int
}

func (k *killed) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	k.cmd.Process.Kill()
	k.cmd.Wait()
	k.cmd = k.start()
}

// TestNothingLostNothingDoubled writes lines into a file that is rotated, while the agent is killed at random instants
// and, worst of all, between the storing of a batch and its answer; and the service swallows requests before and
// answers after it has stored. Identical lines are among them.
func TestNothingLostNothingDoubled(t *testing.T) {
	for name, format := range map[string]string{"with timestamps": `"timestamp_format": "%Y-%m-%dT%H:%M:%S", "timezone": "UTC",`, "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newLogStore(t)
			rng := rand.New(rand.NewPCG(1, uint64(len(name))))
			dir := t.TempDir()
			log := filepath.Join(dir, "app.log")
			cfg := fmt.Sprintf(`{"logs": {"force_flush_interval": 1, "logs_collected": {"files": {"collect_list": [
				{"file_path": %q, "log_group_name": "/g", %s "log_stream_name": "{instance_id}"}]}}}}`, log, format)
			k := &killed{start: func() *exec.Cmd { return agentProcess(t, store.URL, dir, cfg) }}
			k.cmd = k.start()
			swallowed := 0
			store.fail = func(op string) (bool, bool) {
				switch n := rng.IntN(12); {
				case op == "PutLogEvents" && n < 3:
					swallowed++
					k.kill() // it has been stored, and nobody will hear of it
					return false, true
				case op == "PutLogEvents" && n < 5:
					swallowed++
					return false, true
				case n == 11:
					return true, false
				}
				return false, false
			}
			lines, total := writeRotating(t, log, 16, rng.Uint64())
			eventually(t, 3*time.Minute, "all lines", func() bool { return len(store.messages("/g", "i-1")) >= total })
			store.mu.Lock()
			store.fail = func(string) (bool, bool) { return false, false }
			store.mu.Unlock()
			time.Sleep(2 * time.Second) // doubles would come now
			k.cmd.Process.Signal(os.Interrupt)
			if err := k.cmd.Wait(); err != nil {
				t.Error("the agent ended with", err)
			}
			got := map[string]int{}
			for _, m := range store.messages("/g", "i-1") {
				got[m]++
			}
			for line, n := range lines {
				if got[line] != n {
					t.Errorf("%q is stored %d times, was written %d times", line, got[line], n)
				}
			}
			if len(got) != len(lines) {
				t.Errorf("%d different lines are stored, %d were written", len(got), len(lines))
			}
			if swallowed == 0 {
				t.Error("no answer was swallowed: the test shows nothing")
			}
			t.Logf("%d lines, %d calls, %d answers swallowed, killed %d times", total, store.calls["PutLogEvents"], swallowed, k.n)
		})
	}
}

// writeRotating writes lines for some seconds and rotates the file. It returns how often each was written.
func writeRotating(t *testing.T, log string, rounds int, seed uint64) (lines map[string]int, total int) {
	rng := rand.New(rand.NewPCG(2, seed))
	lines = map[string]int{}
	open := func() *os.File {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := open()
	for round := range rounds {
		for i := range 60 {
			line := fmt.Sprintf("%s line %d.%d", time.Now().UTC().Format("2006-01-02T15:04:05"), round, i)
			if i%4 == 0 {
				line = time.Now().UTC().Format("2006-01-02T15:04:05") + " the same again"
			}
			lines[line]++
			total++
			fmt.Fprintln(f, line)
			time.Sleep(time.Duration(rng.IntN(16)) * time.Millisecond)
		}
		if round%3 == 2 || round == 7 { // now and then two while nobody looks
			f.Close()
			for n := 8; n > 0; n-- {
				os.Rename(fmt.Sprint(log, ".", n), fmt.Sprint(log, ".", n+1)) // most are not there yet
			}
			if err := os.Rename(log, log+".1"); err != nil {
				t.Fatal(err)
			}
			f = open()
		}
	}
	f.Close()
	return lines, total
}
