package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
)

// logFile is standard output, or a file that can be opened anew after it was
// rotated away. Writes may come from several goroutines.
type logFile struct {
	path string
	mu   sync.Mutex
	f    *os.File
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path, f: os.Stdout}
	if path == "" {
		return l, nil
	}
	f, err := openAppend(path)
	if err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	l.f = f
	return l, nil
}

func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(b)
}

// Close closes the file; standard output stays open.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" {
		return nil
	}
	return l.f.Close()
}

// reopenOn opens the file anew at each signal until ctx ends. If that fails the
// old one is kept: a log in the wrong place is better than none.
func (l *logFile) reopenOn(ctx context.Context, sig os.Signal) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sig)
	defer signal.Stop(ch)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ch:
			if l.path != "" {
				l.reopen()
			}
		}
	}
}

func (l *logFile) reopen() {
	f, err := openAppend(l.path)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		fmt.Fprintf(l.f, "{\"level\":\"ERROR\",\"msg\":\"log file not reopened\",\"error\":%q}\n", err.Error())
		return
	}
	l.f.Close()
	l.f = f
}
