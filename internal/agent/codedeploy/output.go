package codedeploy

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// maxLine is the length in bytes at which an output line is broken, so that output without line ends costs
// bounded memory.
const maxLine = 32 << 10

// output pumps a script's stdout and stderr into the log. The pipes are ours and not exec.Cmd's, so that a
// child which outlives the script and keeps them open does not hold Wait up.
type output struct {
	read, write [2]*os.File
	done        chan struct{} // both outputs are at their end
	pumps       sync.WaitGroup
}

func captureOutput(cmd *exec.Cmd, log *scriptLog) (*output, error) {
	o := &output{done: make(chan struct{})}
	for i, tag := range []string{"[stdout]", "[stderr]"} {
		r, w, err := os.Pipe()
		if err != nil {
			o.close()
			o.started()
			return nil, err
		}
		o.read[i], o.write[i] = r, w
		o.pumps.Go(func() { pump(r, tag, log) })
	}
	cmd.Stdout, cmd.Stderr = o.write[0], o.write[1]
	go func() { o.pumps.Wait(); close(o.done) }()
	return o, nil
}

// pump copies lines until end of file or until the pipe is closed here.
func pump(r io.Reader, tag string, log *scriptLog) {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := b.ReadSlice('\n')
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		} else if n == 0 && err != nil {
			return
		}
		log.line(tag + string(line))
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// started closes our ends for writing: the script has its own now.
func (o *output) started() {
	for i, f := range o.write {
		if f != nil {
			f.Close()
			o.write[i] = nil
		}
	}
}

// drain waits for the last lines, at most d.
func (o *output) drain(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-o.done:
	case <-t.C:
	}
}

// close ends the pumps and gives everything back.
func (o *output) close() {
	o.started()
	for _, f := range o.read {
		if f != nil {
			f.Close()
		}
	}
	o.pumps.Wait()
}
