package sns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// errForbidden is about addresses that notifications never go to.
var errForbidden = errors.New("notifications are not sent to this address")

// vpc is the network of the instances: only DialVPC leads there, never the
// host's own network, where these addresses may be somebody else's.
var vpc = netip.MustParsePrefix("172.31.0.0/16")

// newClient posts notifications: no proxy, no redirects, and every address
// is judged when it is dialled, after its name was looked up.
func (s *Service) newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: s.dial, TLSClientConfig: &tls.Config{RootCAs: s.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: maxAtOnce, MaxIdleConns: 64, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (s *Service) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ips, err := addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, ip := range ips {
		c, err := s.dialIP(ctx, network, ip, port)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (s *Service) dialIP(ctx context.Context, network string, ip netip.Addr, port string) (net.Conn, error) {
	addr := net.JoinHostPort(ip.String(), port)
	switch {
	case forbidden(ip):
		return nil, fmt.Errorf("%w: %s", errForbidden, ip)
	case vpc.Contains(ip) && s.DialVPC == nil:
		return nil, fmt.Errorf("%w: %s is in the VPC, and there are no machines here", errForbidden, ip)
	case vpc.Contains(ip):
		return s.DialVPC(ctx, "tcp", addr)
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	return d.DialContext(ctx, network, addr)
}

// addresses looks a host up; instances' private names are read, not looked up.
func addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.WithZone("").Unmap()}, nil
	}
	if ip, ok := privateName(host); ok {
		return []netip.Addr{ip}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for n := range ips {
		ips[n] = ips[n].Unmap()
	}
	return ips, err
}

// privateName reads names like ip-172-31-16-10.ec2.internal.
func privateName(host string) (netip.Addr, bool) {
	first, rest, _ := strings.Cut(strings.ToLower(host), ".")
	digits, ok := strings.CutPrefix(first, "ip-")
	if !ok || rest != "" && !strings.HasSuffix(rest, "internal") {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(digits, "-", "."))
	return ip, err == nil && vpc.Contains(ip)
}

// inVPC says whether a host of an endpoint's URL is an instance.
func inVPC(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return vpc.Contains(ip.Unmap())
	}
	_, ok := privateName(host)
	return ok
}

// nat are prefixes whose addresses have an IPv4 address inside, and where.
var nat = []struct {
	prefix netip.Prefix
	at     int
}{{netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("2002::/16"), 2}, {netip.MustParsePrefix("::/96"), 12}}

// forbidden says that an address is no place for a notification: metadata
// services and other link-local addresses, multicast, and IPv6 addresses that
// lead to such ones or around into the VPC.
func forbidden(ip netip.Addr) bool {
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true
	}
	if !ip.Is6() || ip.IsLoopback() {
		return false
	}
	raw := ip.As16()
	for _, n := range nat {
		if n.prefix.Contains(ip) {
			inner := netip.AddrFrom4([4]byte(raw[n.at : n.at+4]))
			return vpc.Contains(inner) || forbidden(inner) || inner.IsLoopback()
		}
	}
	return ip == netip.MustParseAddr("fd00:ec2::254")
}
