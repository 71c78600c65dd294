package lean

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOwnConstants(t *testing.T) {
	const exe = "/opt/slipway/bin/slipway"
	for line, want := range map[string]piece{
		"00400000-0152c000 r-xp 00000000 fe:00 9978082                            " + exe:                  {0x400000, 0x152c000},
		"0152c000-02947000 r--p 0112c000 fe:00 9978082                            " + exe:                  {0x152c000, 0x2947000},
		"02947000-02c6a000 rw-p 02547000 fe:00 9978082                            " + exe:                  {}, // holds values
		"02947000-02c6a000 r--s 02547000 fe:00 9978082                            " + exe:                  {},
		"7f9238a40000-7f9238e00000 r--p 00000000 00:00 0 ":                                                 {},
		"7f91c000-7f91e000 r-xp 00000000 fe:00 1                                  /usr/lib/libc.so.6":      {},
		"0152c000-02947000 r--p 0112c000 fe:00 9978082                            /other" + exe + " (del)": {},
		"0152c000": {},
	} {
		if got, ok := ownConstants(line, exe); got != want || ok != (want != piece{}) {
			t.Errorf("%s: %v, %v", line, got, ok)
		}
	}
}

// TestGivesBack runs on this very process: fewer pages of the binary are
// resident afterwards, and the program still works.
func TestGivesBack(t *testing.T) {
	ps, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if len(ps) == 0 {
		t.Fatal("a process without a mapping of its binary")
	}
	before := resident(t)
	for _, p := range ps {
		if err := advise(p, unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	if after := resident(t); after >= before {
		t.Errorf("%d pages of files resident, %d before", after, before)
	}
}

// resident is the file-backed resident memory in pages: statm's third field.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range strings.Fields(string(b))[2] {
		n = 10*n + int(c-'0')
	}
	return n
}
