package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const maxJob = 4 << 20 // bytes of a job document

// Main is `slipway agent build`. Without flags it reads a Job from stdin and writes Events to stdout.
//
//	--job FILE      read the job from a file
//	--events FILE   write the events to a file (created, 0600): they outlive the connection to the server
//	--tail FILE     instead of running a build, print the events of such a file, follow it, and end after the
//	                done event; --from N starts with the event of that number
//
// With the events on stdout, the build dies with whoever reads them; use --events when it should not.
//
// SIGTERM and SIGINT stop the build: its phase becomes STOPPED. The exit status is 0 when the events were all
// written, whatever became of the build, 2 for bad usage or a bad job, 1 otherwise.
func Main(args []string) int {
	fl := flag.NewFlagSet("slipway agent build", flag.ContinueOnError)
	jobFile := fl.String("job", "", "file with the job (default stdin)")
	events := fl.String("events", "", "file for the events (default stdout)")
	tail := fl.String("tail", "", "print and follow this file of events")
	from := fl.Int64("from", 1, "with --tail: number of the first event to print")
	if err := fl.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var err error
	if *tail != "" {
		err = follow(ctx, *tail, *from, os.Stdout)
	} else {
		err = runJob(ctx, *jobFile, *events)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "slipway agent build:", err)
	var bad *badJob
	if errors.As(err, &bad) {
		return 2
	}
	return 1
}

type badJob struct{ err error }

func (b *badJob) Error() string { return "the job: " + b.err.Error() }

func runJob(ctx context.Context, jobFile, events string) error {
	in, out := os.Stdin, os.Stdout
	if jobFile != "" {
		f, err := os.Open(jobFile)
		if err != nil {
			return &badJob{err}
		}
		defer f.Close()
		in = f
	}
	d := json.NewDecoder(io.LimitReader(in, maxJob))
	d.DisallowUnknownFields()
	var job Job
	if err := d.Decode(&job); err != nil {
		return &badJob{err}
	}
	if events != "" {
		f, err := os.OpenFile(events, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	_, err := Run(ctx, job, newEmitter(out))
	return err
}

// follow copies whole event lines from number from on, waiting for the file to appear and to grow.
func follow(ctx context.Context, name string, from int64, w io.Writer) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var f *os.File
	var rest []byte
	buf := make([]byte, 64<<10)
	for {
		if f == nil {
			var err error
			if f, err = os.Open(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if f != nil {
				defer f.Close()
			}
		}
		for f != nil {
			n, err := f.Read(buf)
			rest = append(rest, buf[:n]...)
			done, left, werr := forward(rest, from, w)
			if rest = left; done || werr != nil {
				return werr
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func forward(data []byte, from int64, w io.Writer) (done bool, rest []byte, err error) {
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return false, data, nil
		}
		var ev struct {
			Seq  int64
			Type string
		}
		if err := json.Unmarshal(data[:i], &ev); err != nil {
			return false, data, fmt.Errorf("the file of events is damaged: %w", err)
		}
		if ev.Seq >= from {
			if _, err := w.Write(data[:i+1]); err != nil {
				return false, data, err
			}
		}
		if data = data[i+1:]; ev.Type == EventDone {
			return true, data, nil
		}
	}
}
