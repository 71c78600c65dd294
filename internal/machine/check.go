package machine

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/lazyre"
)

// The default VPC and the addresses in it that are not machines: the network's
// first ones are the router's, the resolver's and for future use (AWS: "Subnet
// sizing for IPv4").
const (
	VPCCIDR = "172.31.0.0/16"
	// VPCHost is the resolver, and where machines find Slipway's API.
	VPCHost = "172.31.0.2"
)

var (
	idPattern   = lazyre.New(`^[a-z][a-z0-9-]{0,62}$`)
	vpcReserved = []string{"172.31.0.0", "172.31.0.1", VPCHost, "172.31.0.3", "172.31.255.255"}
)

// CheckSpec completes a Spec (Hostname) and refuses a wrong one with ErrInvalid,
// naming the field. Drivers call it first.
func CheckSpec(s *Spec) error {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, field, fmt.Sprintf(format, args...))
	}
	if !idPattern.MatchString(s.ID) {
		return bad("ID", "%q must be 1 to 63 of a-z, 0-9 and -, starting with a letter", s.ID)
	}
	if s.PrivateIP != "" {
		ip := net.ParseIP(s.PrivateIP).To4()
		if _, vpcNet, _ := net.ParseCIDR(VPCCIDR); ip == nil || !vpcNet.Contains(ip) || ip.String() != s.PrivateIP {
			return bad("PrivateIP", "%q is not an address of %s", s.PrivateIP, VPCCIDR)
		}
		if slices.Contains(vpcReserved, s.PrivateIP) {
			return bad("PrivateIP", "%s is reserved", s.PrivateIP)
		}
	}
	if s.VCPUs < 0 || (s.VCPUs > 0 && s.VCPUs < 0.01) {
		return bad("VCPUs", "%g is less than 0.01", s.VCPUs)
	}
	if s.MemoryBytes < 0 || (s.MemoryBytes > 0 && s.MemoryBytes < 16<<20) {
		return bad("MemoryBytes", "%d is less than 16 MiB", s.MemoryBytes)
	}
	if s.Hostname == "" && s.PrivateIP != "" {
		s.Hostname = "ip-" + strings.ReplaceAll(s.PrivateIP, ".", "-")
	} else if s.Hostname == "" {
		s.Hostname = s.ID
	}
	if len(s.Hostname) > 64 || strings.ContainsAny(s.Hostname, "/\n\x00 ") {
		return bad("Hostname", "%q is not a host name of at most 64 characters", s.Hostname)
	}
	for i, m := range s.Mounts {
		if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) == "/" {
			return bad(fmt.Sprintf("Mounts[%d].Target", i), "%q must be an absolute path below /", m.Target)
		}
		if !filepath.IsAbs(m.Source) && !idPattern.MatchString(m.Source) {
			return bad(fmt.Sprintf("Mounts[%d].Source", i), "%q is neither an absolute path nor a volume name", m.Source)
		}
	}
	for i, a := range s.Agents {
		if !idPattern.MatchString(a.Name) || len(a.Args) == 0 {
			return bad(fmt.Sprintf("Agents[%d]", i), "needs a name of a-z, 0-9 and -, and a command")
		}
	}
	return nil
}
