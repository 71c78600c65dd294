// Package lean keeps the programs small that wait inside instances. They are
// the same binary as the server, which has 40 MB of code and tables; starting
// touches much of it that waiting never touches again, and it all counts as
// resident. Source: madvise(2), proc_pid_maps(5).
package lean

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// soon is how long after a piece of work a program is taken to be idle.
	soon = 3 * time.Second
	// collect is how long after a garbage collection another one is due. Go's
	// runtime collects after two minutes even if nothing happens; doing it after
	// work that came before that costs hardly more, and leaves nothing mapped.
	collect = 45 * time.Second
	// chunk is how much of the binary one mapping shows. When a page is missing
	// Linux maps its neighbours as well: 64 KiB of them, and since Linux 6.18
	// the whole large folio, up to 2 MiB, but never beyond a mapping.
	chunk = 64 << 10
)

// piece is a part of this process's mappings of its own binary.
type piece struct{ from, to uintptr }

// work wakes Keep.
var work = make(chan struct{}, 1)

// Worked says that this program did something that it does not do while it is
// idle, such as a request: what that needed is given back shortly after. It may
// be called from any goroutine, whether Keep runs or not, and does not wait.
func Worked() {
	select {
	case work <- struct{}{}:
	default:
	}
}

// Keep gives memory back shortly after the start, and after each Worked, until
// ctx ends: free pages of the heap, and the pages of the binary's code and
// constants that are mapped. Those that are needed come back from the page
// cache, without reading the disk unless memory is so short that the kernel
// has dropped them. An error, which is of no consequence for the program,
// ends it and is returned.
func Keep(ctx context.Context) error {
	pieces, err := binary()
	if err != nil {
		return err
	}
	var collected time.Time
	for {
		if !sleep(ctx, soon) {
			return nil
		}
		if time.Since(collected) > collect {
			debug.FreeOSMemory()
			collected = time.Now()
		}
		for _, p := range pieces {
			if err := advise(p, unix.MADV_DONTNEED); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-work:
		}
	}
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// binary finds the read-only mappings of this process's binary, and splits
// them into chunks: neighbours with different advice about reading ahead are
// mappings of their own. The writable one must not be given back: its pages
// may hold values that are not in the file.
func binary() ([]piece, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []piece
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		p, ok := ownConstants(lines.Text(), exe)
		if ok {
			out = append(out, p)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for _, p := range out {
		for at := p.from; at < p.to; at += 2 * chunk {
			if err := advise(piece{at, min(at+chunk, p.to)}, unix.MADV_RANDOM); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// ownConstants reads a line of /proc/self/maps: false unless it is a private
// mapping of exe that cannot be written.
func ownConstants(line, exe string) (piece, bool) {
	f := strings.Fields(line)
	if len(f) < 6 || !strings.HasSuffix(line, " "+exe) || len(f[1]) != 4 || f[1][0] != 'r' || f[1][1] != '-' || f[1][3] != 'p' {
		return piece{}, false
	}
	var p piece
	if _, err := fmt.Sscanf(f[0], "%x-%x", &p.from, &p.to); err != nil || p.to <= p.from {
		return piece{}, false
	}
	return p, true
}

// advise is madvise(2) by address: the memory is no Go object.
func advise(p piece, advice uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, p.from, p.to-p.from, advice); errno != 0 {
		return fmt.Errorf("madvise: %w", errno)
	}
	return nil
}
