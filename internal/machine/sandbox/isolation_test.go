package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

func TestMaskHidesSecrets(t *testing.T) {
	root := t.TempDir()
	for path, mode := range map[string]os.FileMode{
		"etc/secret": 0o600, "etc/open": 0o644, "etc/private/key": 0o644, "etc/shadow": 0o640, "etc/docker/daemon.json": 0o644,
		"etc/pip.conf": 0o644, "var/lib/dpkg/status": 0o644, "var/lib/mysql/data": 0o644, "var/log/x": 0o644, "root/.ssh/id": 0o600,
		"srv2/x": 0o644, "data/slipway/x": 0o644, "usr/local/state/x": 0o644, "usr/bin/true": 0o755, "tmp/sock": 0o644,
	} {
		p := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		content := "x"
		if strings.HasSuffix(path, "pip.conf") {
			content = "index-url = https://me:secret@pypi.example/\n"
		}
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		for d := p; d != root; d = filepath.Dir(d) { // whatever the process's mask
			if d != p {
				mode = 0o755
			}
			if err := os.Chmod(d, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(filepath.Join(root, "etc/private"), 0o700); err != nil {
		t.Fatal(err)
	}
	mask, err := hostMask(root, []string{"/usr/local/state"})
	if err != nil {
		t.Fatal(err)
	}
	kind := map[string]byte{}
	for _, e := range mask {
		kind[e.Path] = e.Kind
	}
	hidden := func(path string) bool {
		for p := path; p != "."; p = filepath.Dir(p) {
			if k, ok := kind[p]; ok && k != wire.MaskDir {
				return true
			}
		}
		return false
	}
	for _, p := range []string{"etc/secret", "etc/private/key", "etc/shadow", "etc/docker/daemon.json", "etc/pip.conf", "var/lib/mysql/data", "var/log/x",
		"root/.ssh/id", "srv2/x", "data/slipway/x", "usr/local/state/x", "tmp/sock"} {
		if !hidden(p) {
			t.Errorf("/%s shows through", p)
		}
	}
	for _, p := range []string{"etc/open", "var/lib/dpkg/status", "usr/bin/true"} {
		if hidden(p) {
			t.Errorf("/%s is hidden", p)
		}
	}
}

// hostileCalls need no capability, or only one that a user namespace gives, and
// reach what belongs to the host: the key rings of its uid 0 above all.
var hostileCalls = []struct{ name, args string }{
	{"keyctl get user keyring", fmt.Sprint(unix.SYS_KEYCTL, ",0,-4,0,0,0")},
	{"add_key", fmt.Sprint(unix.SYS_ADD_KEY, ",b'user',b'x',b'x',1,-4")},
	{"request_key", fmt.Sprint(unix.SYS_REQUEST_KEY, ",b'user',b'x',0,-4")},
	{"bpf", fmt.Sprint(unix.SYS_BPF, ",0,0,0")},
	{"perf_event_open", fmt.Sprint(unix.SYS_PERF_EVENT_OPEN, ",0,0,-1,-1,0")},
	{"io_uring_setup", fmt.Sprint(unix.SYS_IO_URING_SETUP, ",8,ctypes.create_string_buffer(256)")},
	{"unshare a user namespace", fmt.Sprint(unix.SYS_UNSHARE, ",", unix.CLONE_NEWUSER)},
	{"unshare with further flags", fmt.Sprint(unix.SYS_UNSHARE, ",", unix.CLONE_NEWUSER|unix.CLONE_FS)},
	{"clone into a user namespace", fmt.Sprint(unix.SYS_CLONE, ",", unix.CLONE_NEWUSER|int(unix.SIGCHLD), ",0,0,0,0")},
	{"fsopen", fmt.Sprint(unix.SYS_FSOPEN, ",b'tmpfs',0")},
	{"open_by_handle_at", fmt.Sprint(unix.SYS_OPEN_BY_HANDLE_AT, ",-100,0,0")},
}

// What root inside a machine must not be able to do or see.
func TestIsolation(t *testing.T) {
	d := open(t)
	boot := func(id, ip string) {
		if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: ip, MemoryBytes: 64 << 20, VCPUs: 0.5, PidsLimit: 64}); err != nil {
			t.Fatal(err)
		}
	}
	boot("i-a", "172.31.0.80")
	boot("i-b", "172.31.32.80")
	for _, script := range []string{
		"mount -t tmpfs x /mnt", "mount -o remount,rw /sys", "mknod /tmp/d b 259 0", "umount /proc/sys", "unshare -n true", "chroot /proc/1/root nsenter -t 1 -n true",
		"echo 1 >/proc/sys/kernel/panic", "echo b >/proc/sysrq-trigger && cat /proc/sysrq-trigger | grep .", "cat /proc/kcore | head -c1 | grep .",
		"ip addr add 172.31.0.99/32 dev eth0", "dmesg | grep .", "hostname other", "echo x >/opt/slipway/bin/slipway", "echo x >/proc/1/exe",
		"ls -A /root /home/ubuntu /var/lib/slipway /mnt 2>/dev/null | grep -v : | grep .", "grep -v '[*!]' /etc/shadow", "test -e /run/docker.sock",
		"test -e " + d.paths.data, "cat /dev/vda", "test -d /proc/sys/net && echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter",
	} {
		if out, code := run(t, d, "i-a", "sh", "-c", script); code == 0 {
			t.Errorf("%s succeeded: %q", script, out)
		}
	}
	if out, _ := run(t, d, "i-a", "sh", "-c", "head -c 100m /dev/zero | tail -c 99m | wc -c"); strings.Contains(out, "103809024") {
		t.Errorf("64 MiB of memory held 99: %q", out)
	}
	for _, call := range hostileCalls {
		script := "import ctypes,sys\nl=ctypes.CDLL(None,use_errno=True)\nr=l.syscall(" + call.args + ")\nsys.exit(ctypes.get_errno() if r<0 else 0)"
		if out, code := run(t, d, "i-a", "python3", "-c", script); code != int(unix.EPERM) {
			t.Errorf("%s: exit %d, not EPERM: %s", call.name, code, out)
		}
	}
	if out, code := run(t, d, "i-a", "python3", "-c", "import threading; t=threading.Thread(target=print, args=('thread',)); t.start(); t.join()"); code != 0 {
		t.Errorf("threads: exit %d: %s", code, out)
	}
	// Builtins only: no further process can be had.
	out, _ := run(t, d, "i-a", "sh", "-c", "(for i in $(seq 200); do sleep 5 & done) 2>/dev/null; set -- /proc/[0-9]*; echo $#")
	if n, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || n > 64 || n < 10 {
		t.Errorf("64 processes became %q", out)
	}
	// The file capabilities and set-uid bits that exist do not give more than root has here.
	if out := must(t, d, "i-b", "grep CapEff /proc/self/status"); !strings.Contains(out, "00000000a00425fb") {
		t.Errorf("capabilities: %s", out)
	}
}

func TestMachinesMeet(t *testing.T) {
	d := open(t)
	for id, ip := range map[string]string{"i-a": "172.31.0.90", "i-b": "172.31.16.90"} {
		if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: ip}); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := d.ListenVPC(t.Context(), "tcp", "169.254.169.254:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		peer <- c.RemoteAddr().(*net.TCPAddr).IP.String()
		_, _ = c.Read(make([]byte, 4096)) // unread bytes would turn the close into a reset
		_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nmeta")
	}()
	// The connection alone is timed: it needs the kernel, and not a turn of curl's on a busy machine.
	out, seconds, _ := strings.Cut(must(t, d, "i-a", "curl -sS -m 60 -w ' %{time_connect}' http://169.254.169.254/"), " ")
	if out != "meta" {
		t.Errorf("metadata: %q", out)
	}
	if p := <-peer; p != "172.31.0.90" {
		t.Errorf("the metadata service saw %s", p)
	}
	if took, err := strconv.ParseFloat(seconds, 64); err != nil || took > 0.8 {
		t.Errorf("the first packet took %s s: a neighbour or carrier was waited for", seconds)
	}
	must(t, d, "i-b", "python3 -m http.server 80 >/dev/null 2>&1 & for i in $(seq 1000); do curl -sf -o /dev/null http://127.0.0.1/ && exit 0; sleep 0.05; done; exit 1")
	must(t, d, "i-a", "curl -sSf -m 60 -o /dev/null http://ip-172-31-16-90.ec2.internal/ || curl -sSf -m 60 -o /dev/null http://172.31.16.90/")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := d.DialVPC(ctx, "tcp", "172.31.16.90:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	// A forged source is dropped on the way: only raw sockets can try.
	forge := `import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_RAW)
import struct
def ip(a): return socket.inet_aton(a)
p=struct.pack('!BBHHHBBH4s4s',0x45,0,28,1,0,64,17,0,ip(sys.argv[1]),ip('172.31.16.90'))+struct.pack('!HHHH',1,7777,8,0)
[s.sendto(p,('172.31.16.90',0)) for _ in range(3)]`
	recv := `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('0.0.0.0',7777)); s.settimeout(60)
got=set()
open('/run/listening','w').close()
try:
  while True:
    got.add(s.recvfrom(100)[1][0])
    if '172.31.0.90' in got: s.settimeout(1) # the last that is sent
except OSError: pass
open('/run/got','w').write(','.join(sorted(got)))`
	for id, f := range map[string]string{"i-a": forge, "i-b": recv} {
		if err := d.WriteFile(t.Context(), id, machine.File{Path: "/opt/t.py", Data: []byte(f)}); err != nil {
			t.Fatal(err)
		}
	}
	must(t, d, "i-b", "python3 /opt/t.py >/dev/null 2>&1 & while ! test -e /run/listening; do sleep 0.01; done")
	must(t, d, "i-a", "python3 /opt/t.py 172.31.0.91; python3 /opt/t.py 8.8.8.8; python3 /opt/t.py 172.31.0.90")
	if out := eventually(t, d, "i-b", "grep . /run/got"); strings.TrimSpace(out) != "172.31.0.90" {
		t.Errorf("packets came from %q", out)
	}
}

// egressEnv tells the test binary that it has a network namespace to itself.
const egressEnv = "SLIPWAY_TEST_EGRESS"

// TestEgress plays the host in a network namespace of its own, whose only link
// leads nowhere: what the machines send out reaches no real network.
func TestEgress(t *testing.T) {
	if os.Getenv(egressEnv) == "" {
		if os.Getuid() != 0 {
			t.Skip("needs root: it makes namespaces")
		}
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestEgress$", "-test.v")
		cmd.Env = append(os.Environ(), egressEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	link := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
	link.Name = "nowhere"
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(link))
	}
	if err == nil {
		err = errors.Join(netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)}}), netlink.LinkSetUp(link))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Run("HostRefused", func(t *testing.T) { testEgress(t, false) })
	t.Run("HostReached", func(t *testing.T) { testEgress(t, true) })
}

func testEgress(t *testing.T, reachHost bool) {
	d := openWith(t, Options{ReachHost: reachHost})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-a", PrivateIP: "172.31.0.10"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, d, "i-a", "getent hosts ip-172-31-0-10.ec2.internal | grep -q ^172.31.0.10")
	for _, to := range []string{"172.31.9.9", "169.254.0.9", "127.0.0.2", "0.0.0.0"} {
		if out, code := run(t, d, "i-a", "curl", "-sS", "-m", "60", "http://"+to+":1/"); code != 7 {
			t.Errorf("%s: exit %d: %s", to, code, out)
		}
	}
	// Nobody pretends that a host answers.
	if out, code := run(t, d, "i-a", "python3", "-c", "import socket; s=socket.create_connection(('198.51.100.9',9),1)"); code == 0 {
		t.Errorf("a connection to nowhere was accepted: %s", out)
	}
	// A listener of the host on an address that is not its loopback is reached
	// only where that was asked for: its firewall does not see the connection.
	addr := hostAddress()
	if addr == "" {
		t.Fatal("the host has no address besides its loopback")
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		c.Close()
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	if !reachHost {
		if out, code := run(t, d, "i-a", "curl", "-sS", "-m", "60", "http://"+net.JoinHostPort(addr, port)+"/"); code != 7 {
			t.Errorf("the host's %s: exit %d: %s", addr, code, out)
		}
		return
	}
	script := "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),5)\nb=b'x'*100000\nimport threading\nthreading.Thread(target=lambda:(s.sendall(b),s.shutdown(1))).start()\nn=0\nwhile True:\n  d=s.recv(65536)\n  if not d: break\n  n+=len(d)\nprint(n)"
	var got strings.Builder
	if code, err := d.Exec(t.Context(), "i-a", machine.ExecSpec{Args: []string{"python3", "-c", script, addr, port}, Stdout: &got, Stderr: &got}); err != nil || code != 0 || got.String() != "100000\n" {
		t.Errorf("through egress: %d, %v, %q", code, err, got.String())
	}
}

func hostAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip, err := netip.ParsePrefix(a.String()); err == nil && mayLeave(ip.Addr()) {
			return ip.Addr().String()
		}
	}
	return ""
}

func TestMayLeave(t *testing.T) {
	for addr, want := range map[string]bool{"8.8.8.8": true, "10.1.2.3": true, "192.168.1.1": true, "127.0.0.1": false, "127.9.9.9": false, "169.254.169.254": false,
		"172.31.0.2": false, "172.31.255.255": false, "172.30.0.1": true, "0.0.0.0": false, "0.1.2.3": false, "224.0.0.1": false, "255.255.255.255": false,
		"::1": false, "::ffff:127.0.0.1": false, "2001:db8::1": false} {
		if got := mayLeave(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}
