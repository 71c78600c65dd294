package scenarios

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// load sends requests at a steady rate until it is stopped, half of them
// over kept connections and half over new ones, and remembers what failed.
type load struct {
	url       string
	sent      atomic.Int64
	stop      chan struct{}
	done      sync.WaitGroup
	mu        sync.Mutex
	failed    []string
	byVersion map[string]int
}

// startLoad begins; rate is requests per second.
func startLoad(url string, rate int) *load {
	l := &load{url: url, stop: make(chan struct{}), byVersion: map[string]int{}}
	kept := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	fresh := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	slots := make(chan struct{}, 256)
	l.done.Go(func() {
		began := time.Now()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			// What a busy machine did not come to is made up for.
			for due := int(time.Since(began).Seconds() * float64(rate)); i < due; i++ {
				client := kept
				if i%2 == 0 {
					client = fresh
				}
				slots <- struct{}{}
				l.done.Go(func() {
					defer func() { <-slots }()
					l.one(client, i)
				})
			}
		}
	})
	return l
}

func (l *load) one(c *http.Client, i int) {
	path := "/tasks"
	if i%4 == 0 {
		path = "/"
	}
	began := time.Now()
	res, err := c.Get(l.url + path)
	l.sent.Add(1)
	if err != nil {
		l.fail(fmt.Sprintf("%s after %v: %v", began.Format("15:04:05.000"), time.Since(began), err))
		return
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		l.fail(fmt.Sprintf("%s: body: %v", began.Format("15:04:05.000"), err))
		return
	}
	if res.StatusCode != 200 {
		l.fail(fmt.Sprintf("%s: %s from %s", began.Format("15:04:05.000"), res.Status, res.Header.Get("Server")))
		return
	}
	l.mu.Lock()
	l.byVersion[res.Header.Get("X-Todo-Version")]++
	l.mu.Unlock()
}

func (l *load) fail(why string) {
	l.mu.Lock()
	l.failed = append(l.failed, why)
	l.mu.Unlock()
}

// end stops and returns how many were sent and the failures.
func (l *load) end() (sent int64, failed []string) {
	close(l.stop)
	l.done.Wait()
	return l.sent.Load(), l.failed
}
