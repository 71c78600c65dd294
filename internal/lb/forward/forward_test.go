package forward

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// one routes everything to one endpoint and remembers the last finished exchange.
type one struct {
	ep   *Endpoint
	last chan [2]int // status, from target, of an exchange
	done atomic.Int64
}

func (o *one) Route(x *Exchange)      { x.Action, x.Endpoint = ActionForward, o.ep; o.ep.Acquire() }
func (o *one) Another(*Exchange) bool { return false }
func (o *one) Response(*Exchange)     {}
func (o *one) Done(x *Exchange) {
	if x.Endpoint != nil {
		x.Endpoint.Release()
	}
	o.done.Add(1)
	select {
	case o.last <- [2]int{x.Status, x.FromTarget}:
	default: // nobody took the one before
	}
}

// setup runs a server in front of a target whose connections f serves.
func setup(t *testing.T, f func(net.Conn)) (string, *one) {
	t.Helper()
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	target := listen()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			go f(c)
		}
	}()
	sw := NewSweeper()
	ctx, cancel := context.WithCancel(context.Background())
	swept := make(chan error, 1)
	go func() { swept <- sw.Run(ctx) }()
	r := &one{last: make(chan [2]int, 1), ep: NewEndpoint(sw, target.Addr().String(), nil, nil)}
	o := &Options{Scheme: "http", Port: 80, IdleTimeout: 5 * time.Second, ClientKeepAlive: time.Hour}
	srv := NewServer(sw, r, &Counters{}, o, nil)
	ln := listen()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		ln.Close()
		target.Close()
		<-served
		ctx2, cancel2 := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel2()
		srv.Shutdown(ctx2)
		r.ep.Close()
		r.ep.Cut()
		cancel()
		<-swept
	})
	return ln.Addr().String(), r
}

var (
	plainAnswer  = []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\n\r\nhello")
	plainRequest = []byte("GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
)

func serveRaw(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 8<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
			if _, err := c.Write(plainAnswer); err != nil {
				return
			}
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	addr, _ := setup(t, serveRaw)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4<<10)
	round := func() {
		if _, err := c.Write(plainRequest); err != nil {
			t.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], []byte("hello")); {
			k, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
	}
	for range 50 {
		round()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 2000
	for range n {
		round()
	}
	runtime.ReadMemStats(&after)
	// The sweeper and the date line allocate a few times per second, nothing per request.
	if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.1 {
		t.Errorf("%.2f allocations per request", per)
	}
}

func TestClientThatLeavesFreesTheTarget(t *testing.T) {
	reached, left := make(chan struct{}), make(chan struct{})
	addr, r := setup(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		close(reached)
		_, _ = io.Copy(io.Discard, c) // never answers; ends when the load balancer hangs up
		c.Close()
		close(left)
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(plainRequest); err != nil {
		t.Fatal(err)
	}
	<-reached
	c.Close()
	select {
	case got := <-r.last:
		if got != [2]int{460, 0} {
			t.Error("logged as", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("the request still waits")
	}
	<-left
	if r.ep.InFlight() != 0 {
		t.Error("still in flight")
	}
}

func TestBigBodiesBothWays(t *testing.T) {
	const size = 8 << 20
	addr, _ := setup(t, func(c net.Conn) { // echoes the body of the known length
		defer c.Close()
		var head []byte
		buf := make([]byte, 64<<10)
		for !bytes.Contains(head, []byte("\r\n\r\n")) {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			head = append(head, buf[:n]...)
		}
		_, body, _ := bytes.Cut(head, []byte("\r\n\r\n"))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n")
		_, _ = io.Copy(c, io.LimitReader(io.MultiReader(bytes.NewReader(body), c), size))
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	go func() {
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 8388608\r\n\r\n")
		_, _ = c.Write(sent)
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, body, _ := bytes.Cut(got, []byte("\r\n\r\n")); !bytes.Equal(body, sent) {
		t.Errorf("%d bytes came back, not the same %d", len(body), size)
	}
}

// A target that answers before it read the body: the client gets the whole answer,
// and its connection ends because the rest of the body is still in it.
func TestEarlyAnswer(t *testing.T) {
	addr, _ := setup(t, func(c net.Conn) {
		defer c.Close()
		buf := make([]byte, 1024)
		if _, err := c.Read(buf); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, c)
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nsome")
	got, err := io.ReadAll(c)
	if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 413 ")) || !bytes.HasSuffix(got, []byte("\r\n\r\nbig")) || !bytes.Contains(got, []byte("Connection: close")) {
		t.Errorf("%q, %v", got, err)
	}
}

// A client that sends all of its body before it reads the answer to it gets that
// answer, however big the body is.
func TestEarlyAnswerToABigBody(t *testing.T) {
	const size = 16 << 20
	addr, _ := setup(t, func(c net.Conn) {
		defer c.Close()
		if _, err := c.Read(make([]byte, 1024)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, c)
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nsome", size); err != nil {
		t.Fatal(err)
	}
	// It is answered by now, and nothing but the body is left.
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Write(make([]byte, size-len("some"))); err != nil {
		t.Fatalf("cut off after %d bytes: %v", n, err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.HasPrefix(got, []byte("TTP/1.1 413 ")) || !bytes.HasSuffix(got, []byte("\r\n\r\nbig")) {
		t.Errorf("%q, %v", got, err)
	}
}
