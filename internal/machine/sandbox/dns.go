package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/containers/gvisor-tap-vsock/pkg/services/dns"
)

// runDNS serves the VPC's resolver, which is at the network's base plus two as
// in AWS, until ctx ends. Names of the outside are asked of the host's resolver.
func (v *vpc) runDNS(ctx context.Context) error {
	addr := net.JoinHostPort(vpcHost, "53")
	pc, err := v.listenPacket(ctx, "udp", addr)
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	defer pc.Close()
	ln, err := v.listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	defer ln.Close()
	srv, err := dns.NewWithUpstreamResolver(pc, ln, nil, resolver{Resolver: net.DefaultResolver})
	if err != nil {
		return fmt.Errorf("resolver: %w", err)
	}
	defer context.AfterFunc(ctx, func() { pc.Close(); ln.Close() })()
	var wg sync.WaitGroup
	var udpErr, tcpErr error
	wg.Go(func() { udpErr = srv.Serve(); ln.Close() })
	wg.Go(func() { tcpErr = srv.ServeTCP(); pc.Close() })
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("resolver: %w", errors.Join(udpErr, tcpErr))
}

const internalDomain = ".ec2.internal"

// resolver answers for the machines' own names and asks the host for all others.
type resolver struct{ *net.Resolver }

// LookupIPAddr knows ip-172-31-x-y.ec2.internal without asking anybody: the
// name is the address.
func (r resolver) LookupIPAddr(ctx context.Context, name string) ([]net.IPAddr, error) {
	n := strings.ToLower(strings.TrimSuffix(name, "."))
	host, ok := strings.CutSuffix(n, internalDomain)
	if !ok {
		return r.Resolver.LookupIPAddr(ctx, name)
	}
	ip := net.ParseIP(strings.ReplaceAll(strings.TrimPrefix(host, "ip-"), "-", ".")).To4()
	if _, all, _ := net.ParseCIDR(vpcCIDR); !strings.HasPrefix(host, "ip-") || ip == nil || !all.Contains(ip) {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return []net.IPAddr{{IP: ip}}, nil
}
