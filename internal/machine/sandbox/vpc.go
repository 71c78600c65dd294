package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"slipway/internal/machine"
)

// Addresses of the VPC that are not machines. 172.31.0.0/16 is the default
// VPC's range (AWS: "Default VPCs"), +2 its resolver, and the link-local ones
// are where EC2 and ECS serve metadata and credentials.
const (
	vpcCIDR    = machine.VPCCIDR
	vpcHost    = machine.VPCHost
	egressAddr = "172.31.0.1"
	gatewayIP  = "169.254.1.1"
	gatewayMAC = "02:00:a9:fe:01:01"
)

var vpcLocal = []string{vpcHost, "169.254.169.254", "169.254.170.2"}

// vpc is the network namespace in which all machines of an installation meet.
// It outlives the server by a mount. Safe for concurrent use.
type vpc struct {
	path string // of the mount that keeps it
	ns   netns.NsHandle
	host *os.File // the namespace this process started in
	nl   *netlink.Handle
}

// openVPC makes the namespace, or takes over the one that is there.
func openVPC(path string) (_ *vpc, err error) {
	v := &vpc{path: path, ns: -1}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	if v.host, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if !isNSMount(path) {
		if err := makeNS(path); err != nil {
			return nil, fmt.Errorf("%w: cannot make a network namespace: %v; run it as root outside a restricted container, or with --machines=simulated, which boots nothing", machine.ErrUnsupported, err)
		}
	}
	if v.ns, err = netns.GetFromPath(path); err != nil {
		return nil, fmt.Errorf("open the VPC's namespace: %w", err)
	}
	if v.nl, err = netlink.NewHandleAt(v.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink in the VPC: %w", err)
	}
	if err := v.configure(); err != nil {
		return nil, fmt.Errorf("configure the VPC: %w", err)
	}
	return v, nil
}

func isNSMount(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// makeNS makes a network namespace and keeps it by a mount at path.
func makeNS(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	done := make(chan error, 1)
	go func() {
		// The thread goes back to where it was: it may be the process's first
		// one, which never ends and whose namespace /proc/self shows.
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = unix.Close(home) }()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread dies with the goroutine
		}
		done <- err
	}()
	return <-done
}

// do runs f on a thread inside the VPC. Sockets, processes and files of
// /proc/sys/net that f opens belong to the VPC.
func (v *vpc) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(v.ns), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the VPC: %w", err)
			return
		}
		err := f()
		if unix.Setns(int(v.host.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread dies with the goroutine
		}
		done <- err
	}()
	return <-done
}

// configure is idempotent. The unreachable route comes first: from then on no
// packet for the VPC's range can leave by any default route added later.
func (v *vpc) configure() error {
	_, all, _ := net.ParseCIDR(vpcCIDR)
	_, linkLocal, _ := net.ParseCIDR("169.254.0.0/16")
	for _, dst := range []*net.IPNet{all, linkLocal} {
		if err := v.nl.RouteReplace(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE}); err != nil {
			return fmt.Errorf("unreachable %s: %w", dst, err)
		}
	}
	lo, err := v.nl.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range vpcLocal {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a).To4(), Mask: net.CIDRMask(32, 32)}}
		if err := v.nl.AddrReplace(lo, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	if err := v.nl.LinkSetUp(lo); err != nil {
		return err
	}
	return v.do(func() error {
		var errs []error
		for file, value := range map[string]string{
			"ipv4/ip_forward": "1",
			// Strict reverse path: a machine's packets must come from its own
			// address, because only that is routed to its link (RFC 3704).
			"ipv4/conf/all/rp_filter": "1", "ipv4/conf/default/rp_filter": "1",
			"ipv4/conf/all/accept_redirects": "0", "ipv4/conf/all/send_redirects": "0",
			"ipv4/conf/default/send_redirects": "0", "ipv4/ip_unprivileged_port_start": "0",
			"ipv4/ip_local_port_range": "10240 65000", "ipv4/tcp_tw_reuse": "1",
		} {
			if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil {
				errs = append(errs, err)
			}
		}
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0) // absent without IPv6
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		return errors.Join(errs...)
	})
}

// attach gives the process's namespace an eth0 and routes address to it.
func (v *vpc) attach(link, address string, pid int) error {
	mac, err := net.ParseMAC(machineMAC(address))
	if err != nil {
		return err
	}
	gw, _ := net.ParseMAC(gatewayMAC)
	la := netlink.NewLinkAttrs()
	la.Name, la.HardwareAddr, la.MTU = link, gw, mtu
	// The kernel announces a carrier at once only for a link whose index differs
	// from its peer's, else up to a second later; eth0 gets a small index.
	la.Index = 1<<20 + mathrand.IntN(1<<29)
	veth := &netlink.Veth{LinkAttrs: la, PeerName: "eth0", PeerHardwareAddr: mac, PeerMTU: mtu, PeerNamespace: netlink.NsPid(pid)}
	if err := v.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	l, err := v.nl.LinkByName(link)
	if err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	if err := v.nl.LinkSetUp(l); err != nil {
		return fmt.Errorf("link %s up: %w", link, err)
	}
	ip := net.ParseIP(address).To4()
	idx := l.Attrs().Index
	if err := v.nl.NeighSet(&netlink.Neigh{LinkIndex: idx, State: netlink.NUD_PERMANENT, IP: ip, HardwareAddr: mac}); err != nil {
		return fmt.Errorf("neighbour: %w", err)
	}
	route := &netlink.Route{LinkIndex: idx, Scope: netlink.SCOPE_LINK, Src: net.ParseIP(vpcHost).To4(),
		Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}}
	if err := v.nl.RouteReplace(route); err != nil {
		return fmt.Errorf("route to %s: %w", address, err)
	}
	// The machine answers ARP for its gateway from a permanent entry, and the
	// gateway's address exists nowhere: nothing else needs to be set up.
	return nil
}

// detach removes a link at once; it is used when a boot failed. A dead machine's
// link vanishes with its namespace, which the kernel does in its own time.
func (v *vpc) detach(link string) {
	if l, err := v.nl.LinkByName(link); err == nil {
		_ = v.nl.LinkDel(l)
	}
}

// unplug ends all traffic of a link at once, in both directions: what a machine
// says while its processes are killed one by one must not be heard.
func (v *vpc) unplug(link string) {
	if link == "" {
		return
	}
	if l, err := v.nl.LinkByName(link); err == nil {
		_ = v.nl.LinkSetDown(l) // at worst the machine's last words get out
	}
}

// machineMAC derives a locally administered address from an IPv4 address.
func machineMAC(address string) string {
	ip := net.ParseIP(address).To4()
	return fmt.Sprintf("06:00:%02x:%02x:%02x:%02x", ip[0], ip[1], ip[2], ip[3])
}

// links names the machines' links that exist in the VPC.
func (v *vpc) links() []string {
	all, err := v.nl.LinkList()
	if err != nil {
		return nil
	}
	var out []string
	for _, l := range all {
		if l.Type() == "veth" {
			out = append(out, l.Attrs().Name)
		}
	}
	return out
}

func (v *vpc) listen(ctx context.Context, network, addr string) (ln net.Listener, err error) {
	err = v.do(func() error {
		var lc net.ListenConfig
		ln, err = lc.Listen(ctx, network, addr)
		return err
	})
	return ln, err
}

func (v *vpc) listenPacket(ctx context.Context, network, addr string) (pc net.PacketConn, err error) {
	err = v.do(func() error {
		var lc net.ListenConfig
		pc, err = lc.ListenPacket(ctx, network, addr)
		return err
	})
	return pc, err
}

// dial connects from inside the VPC. The address must be numeric: a name would
// be looked up on another thread, and two addresses be raced on others.
func (v *vpc) dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("%w: address %q: not numeric", machine.ErrInvalid, addr)
	}
	err = v.do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

func (v *vpc) start(cmd *exec.Cmd, prepare func(hostFD int)) error {
	cmd.ExtraFiles = append(cmd.ExtraFiles, v.host)
	if prepare != nil {
		prepare(2 + len(cmd.ExtraFiles))
	}
	return v.do(cmd.Start)
}

func (v *vpc) close() {
	if v.nl != nil {
		v.nl.Close()
	}
	if v.ns >= 0 {
		v.ns.Close()
	}
	if v.host != nil {
		v.host.Close()
	}
}

// destroy lets the namespace go; it ends with the last process in it.
func (v *vpc) destroy() error {
	v.close()
	if err := unix.Unmount(v.path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("let go of the VPC: %w", err)
	}
	if err := os.Remove(v.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
