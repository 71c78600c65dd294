// Command junit reads what `go test -json` writes and makes a JUnit report of it.
//
//	go test -json ./... | junit -o reports/junit.xml
//
// It prints one line for each package and, for what failed, all its output. It
// ends with status 1 when a test or a package failed, when there was no test at
// all, or when the input is not what go test writes: a pipe hides the status of
// go test itself.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	out := flag.String("o", "junit.xml", "the report's file")
	flag.Parse()
	ok, err := run(os.Stdin, os.Stdout, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "junit:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run says whether every test passed. The report is written in any case.
func run(in io.Reader, terminal io.Writer, path string) (bool, error) {
	r, readErr := Read(in, terminal)
	if r == nil {
		return false, readErr
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	f, err := os.Create(path)
	if err != nil {
		return false, err
	}
	if err := r.WriteXML(f); err != nil {
		f.Close()
		return false, err
	}
	if err := f.Close(); err != nil {
		return false, err
	}
	fmt.Fprintf(terminal, "%d tests: %d failed, %d skipped\n", r.Tests, r.Failures+r.Errors, r.Skipped)
	if r.Tests == 0 && readErr == nil {
		readErr = fmt.Errorf("no tests were run")
	}
	return r.Failures+r.Errors == 0, readErr
}
