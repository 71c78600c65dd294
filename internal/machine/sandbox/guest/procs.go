package guest

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// process is what /proc says of one.
type process struct {
	pid, ppid int
	dead      bool // a zombie
}

// processes lists the machine's processes by number.
func processes() map[int]process {
	out := map[int]process{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything: fields follow the last one.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 2 {
			continue
		}
		ppid, _ := strconv.Atoi(f[1])
		out[pid] = process{pid: pid, ppid: ppid, dead: f[0] == "Z" || f[0] == "X"}
	}
	return out
}

func ppidOf(pid int) int { return processes()[pid].ppid }

func (p process) hasEnv(kv string) bool {
	if p.pid == 1 {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
	if err != nil {
		return false
	}
	for e := range bytes.SplitSeq(b, []byte{0}) {
		if string(e) == kv {
			return true
		}
	}
	return false
}

// watch waits for a process that is not our child by fork but became one when
// its parent ended. The channel receives once, at once if it is gone already.
func (r *reaper) watch(pid int) <-chan syscall.WaitStatus {
	ch := make(chan syscall.WaitStatus, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait[pid] = ch
	if syscall.Kill(pid, 0) != nil {
		delete(r.wait, pid)
		ch <- 0
	}
	return ch
}
