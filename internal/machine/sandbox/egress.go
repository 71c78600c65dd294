package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// egress is the machines' way to the outside world: a TUN device in the VPC is
// the default route, a TCP/IP stack in this process terminates what arrives
// there, and each flow is continued by an ordinary socket of the host. The
// host's forwarding, firewall and routes are not touched. The device is held by
// this process: egress ends with the server and returns with it.
type egress struct {
	tun   *os.File
	ep    *channel.Endpoint
	stack *stack.Stack
	ctx   context.Context // of Run; flows end with it
	host  bool            // Options.ReachHost
	flows sync.WaitGroup
	slots chan struct{} // bounds flows at one time
}

const (
	egressLink = "egress0"
	// mtu is that of EC2's networks; large frames make the user-space stack cheap.
	mtu = 9001
	// maxFlows bounds sockets that all machines together hold on the host.
	maxFlows    = 4096
	dialTime    = 20 * time.Second
	udpIdleTime = 60 * time.Second
)

// mayLeave says whether a machine may reach addr through the host: not the host's
// loopback (for its other addresses see ownAddress), nor anything that is only meant inside: the VPC, link-local
// addresses (the metadata service of a cloud that the host runs on), multicast.
func mayLeave(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.Is4() && addr.IsGlobalUnicast() && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() &&
		!netip.MustParsePrefix(vpcCIDR).Contains(addr) && !netip.MustParsePrefix("0.0.0.0/8").Contains(addr)
}

// runEgress serves until ctx ends.
func (v *vpc) runEgress(ctx context.Context, reachHost bool) error {
	e := &egress{ctx: ctx, host: reachHost, slots: make(chan struct{}, maxFlows)}
	if err := v.do(e.openTUN); err != nil {
		return fmt.Errorf("egress device (is /dev/net/tun there?): %w", err)
	}
	defer e.tun.Close()
	if err := v.routeEgress(); err != nil {
		return fmt.Errorf("egress route: %w", err)
	}
	if err := e.makeStack(); err != nil {
		return fmt.Errorf("egress stack: %w", err)
	}
	inner, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(inner, func() { e.tun.Close() })()
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() { defer cancel(); readErr = e.inbound() })
	wg.Go(func() { defer cancel(); e.outbound(inner) })
	wg.Wait()
	e.stack.Close()
	e.flows.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("egress: %w", readErr)
}

func (e *egress) openTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	var req struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], egressLink)
	req.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); errno != 0 {
		unix.Close(fd)
		return errno
	}
	e.tun = os.NewFile(uintptr(fd), "tun")
	return nil
}

func (v *vpc) routeEgress() error {
	l, err := v.nl.LinkByName(egressLink)
	if err != nil {
		return err
	}
	if err := v.nl.LinkSetMTU(l, mtu); err != nil {
		return err
	}
	if err := v.nl.LinkSetUp(l); err != nil {
		return err
	}
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	return v.nl.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK})
}

func (e *egress) makeStack() error {
	e.ep = channel.New(512, mtu, "")
	e.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := e.stack.CreateNIC(1, e.ep); err != nil {
		return errors.New(err.String())
	}
	// Every address is ours to answer for, and to speak as.
	e.stack.SetPromiscuousMode(1, true)
	e.stack.SetSpoofing(1, true)
	e.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}})
	sack := tcpip.TCPSACKEnabled(true)
	_ = e.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	e.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(e.stack, 0, 1024, e.tcpFlow).HandlePacket)
	e.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(e.stack, e.udpFlow).HandlePacket)
	return nil
}

// inbound carries packets from the machines into the stack.
func (e *egress) inbound() error {
	buf := make([]byte, mtu+64)
	for {
		n, err := e.tun.Read(buf)
		if err != nil {
			return err
		}
		h := header.IPv4(buf[:n])
		// The stack would answer pings on everybody's behalf: only what it can
		// really carry goes in.
		if !h.IsValid(n) || (h.TransportProtocol() != header.TCPProtocolNumber && h.TransportProtocol() != header.UDPProtocolNumber) {
			continue
		}
		if dst := h.DestinationAddress(); !mayLeave(netip.AddrFrom4(dst.As4())) {
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(append([]byte(nil), buf[:n]...))})
		e.ep.InjectInbound(header.IPv4ProtocolNumber, pkt)
		pkt.DecRef()
	}
}

// outbound carries packets from the stack to the machines.
func (e *egress) outbound(ctx context.Context) {
	for {
		pkt := e.ep.ReadContext(ctx)
		if pkt == nil {
			return
		}
		v := pkt.ToView()
		_, err := e.tun.Write(v.AsSlice())
		v.Release()
		pkt.DecRef()
		if errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// hold reserves room for a flow; the result gives it back, nil means there is none.
func (e *egress) hold() func() {
	if e.ctx.Err() != nil {
		return nil
	}
	select {
	case e.slots <- struct{}{}:
		e.flows.Add(1)
		return func() { <-e.slots; e.flows.Done() }
	default:
		return nil
	}
}

// ownAddress says whether addr is one of this host's. A connection to it goes
// over the loopback, past the host's firewall, to whatever listens on all
// addresses: databases, consoles, this server's own door. Where the addresses
// cannot be read, every one could be ours.
func ownAddress(addr netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		own, ok := netip.AddrFromSlice(n.IP)
		return ok && own.Unmap() == addr.Unmap()
	})
}

func (e *egress) dial(network string, id stack.TransportEndpointID) (net.Conn, error) {
	addr := netip.AddrFrom4(id.LocalAddress.As4())
	if !mayLeave(addr) || !e.host && ownAddress(addr) {
		return nil, fmt.Errorf("%s may not be reached", addr)
	}
	ctx, cancel := context.WithTimeout(e.ctx, dialTime)
	defer cancel()
	var d net.Dialer
	return d.DialContext(ctx, network, net.JoinHostPort(addr.String(), strconv.Itoa(int(id.LocalPort))))
}

// tcpFlow runs in a goroutine of its own. The machine's SYN is answered only
// when the outside has answered, so that a refusal stays one.
func (e *egress) tcpFlow(r *tcp.ForwarderRequest) {
	free := e.hold()
	if free == nil {
		r.Complete(true)
		return
	}
	defer free()
	out, err := e.dial("tcp", r.ID())
	if err != nil {
		r.Complete(true)
		return
	}
	defer out.Close()
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(false)
	if terr != nil {
		return
	}
	in := gonet.NewTCPConn(&wq, ep)
	defer in.Close()
	defer context.AfterFunc(e.ctx, func() { in.Close(); out.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() { halfPipe(out.(*net.TCPConn), in) })
	halfPipe(in, out)
	wg.Wait()
}

type halfCloser interface {
	io.Writer
	CloseWrite() error
}

func halfPipe(to halfCloser, from io.Reader) {
	_, _ = io.Copy(to, from) // either side's end is the flow's, not an error of ours
	_ = to.CloseWrite()
}

// udpFlow is called by the stack itself and must not wait.
func (e *egress) udpFlow(r *udp.ForwarderRequest) {
	free := e.hold()
	if free == nil {
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		free()
		return
	}
	in := gonet.NewUDPConn(&wq, ep)
	id := r.ID()
	go func() {
		defer free()
		defer in.Close()
		out, err := e.dial("udp", id)
		if err != nil {
			return
		}
		defer out.Close()
		defer context.AfterFunc(e.ctx, func() { in.Close(); out.Close() })()
		var wg sync.WaitGroup
		wg.Go(func() { datagrams(out, in); out.Close() })
		datagrams(in, out)
		in.Close()
		wg.Wait()
	}()
}

// datagrams copies until one side is silent for udpIdleTime.
func datagrams(to, from net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		_ = from.SetReadDeadline(time.Now().Add(udpIdleTime))
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
