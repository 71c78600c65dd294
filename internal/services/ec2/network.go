package ec2

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/store"
)

// Every region of every account has one default VPC, 172.31.0.0/16, with a
// subnet in each of three zones (VPC User Guide, "Default VPCs"). None of it
// has a row: ids are derived, tags lie in the tag table.

type subnet struct {
	ID, Zone, ZoneID string
	CIDR             netip.Prefix
}

// vpcNet is the default VPC of one account and region.
type vpcNet struct {
	Account, Region                     string
	VPC, RouteTable, Gateway, ACL, DHCP string
	Group                               string // id of the default security group
	Subnets                             []subnet
}

const vpcCIDR = "172.31.0.0/16"

var subnetCIDRs = []string{"172.31.0.0/20", "172.31.16.0/20", "172.31.32.0/20"}

func defaultVPC(account, region string) vpcNet {
	id := func(prefix string) string { return derivedID(prefix, account, region) }
	n := vpcNet{Account: account, Region: region, VPC: id("vpc"), RouteTable: id("rtb"), Gateway: id("igw"),
		ACL: id("acl"), DHCP: id("dopt"), Group: id("sg")}
	for i, cidr := range subnetCIDRs {
		zone := region + string(rune('a'+i))
		n.Subnets = append(n.Subnets, subnet{
			ID: derivedID("subnet", account, region, zone), Zone: zone,
			ZoneID: zoneID(region, i+1), CIDR: netip.MustParsePrefix(cidr),
		})
	}
	return n
}

// zoneID abbreviates a region as AWS does: us-east-1 -> use1-az1,
// ap-southeast-2 -> apse2-az1.
func zoneID(region string, n int) string {
	parts := strings.Split(region, "-")
	var b strings.Builder
	for i, p := range parts {
		switch {
		case i == 0:
			b.WriteString(p)
		case len(p) > 5 && (strings.HasPrefix(p, "north") || strings.HasPrefix(p, "south")):
			b.WriteString(p[:1] + p[5:6])
		default:
			b.WriteString(p[:min(1, len(p))])
		}
	}
	return b.String() + "-az" + string(rune('0'+n))
}

func (n vpcNet) subnetByID(id string) (subnet, bool) {
	for _, s := range n.Subnets {
		if s.ID == id {
			return s, true
		}
	}
	return subnet{}, false
}

func (n vpcNet) subnetByZone(zone string) (subnet, bool) {
	for _, s := range n.Subnets {
		if s.Zone == zone || s.ZoneID == zone {
			return s, true
		}
	}
	return subnet{}, false
}

// usable says whether an address of the subnet may be given out: EC2 keeps
// the first four and the last (VPC User Guide, "Subnet sizing").
func (s subnet) usable(ip netip.Addr) bool {
	if !s.CIDR.Contains(ip) {
		return false
	}
	host := hostNumber(s.CIDR, ip)
	return host >= 4 && host < 1<<(32-s.CIDR.Bits())-1
}

func hostNumber(p netip.Prefix, ip netip.Addr) uint32 {
	a, b := ip.As4(), p.Masked().Addr().As4()
	return binary.BigEndian.Uint32(a[:]) - binary.BigEndian.Uint32(b[:])
}

func (s subnet) host(n uint32) netip.Addr {
	b := s.CIDR.Masked().Addr().As4()
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(a)
}

// leaseAddress takes a free address of the subnet for an instance, or the
// wanted one. Addresses are unique over all accounts and regions because all
// machines share one network; random ones are not soon used again.
func leaseAddress(tx store.Tx, s subnet, want string, a address) (string, error) {
	insert := func(ip netip.Addr) error {
		_, err := addresses.Insert(tx, "", "", ip.String(), a, "Leased", nil)
		return err
	}
	if want != "" {
		ip, err := netip.ParseAddr(want)
		if err != nil || !ip.Is4() {
			return "", awserr.New("InvalidParameterValue", "Value (%s) for parameter privateIpAddress is invalid. It is not an IPv4 address.", want)
		}
		if !s.usable(ip) {
			return "", awserr.New("InvalidParameterValue", "Address %s does not fall within the subnet's address range", want)
		}
		if err := insert(ip); errors.Is(err, store.ErrExists) {
			return "", awserr.New("InvalidIPAddress.InUse", "Address %s is in use.", want)
		} else if err != nil {
			return "", err
		}
		return ip.String(), nil
	}
	size := uint32(1)<<(32-s.CIDR.Bits()) - 5
	var b [4]byte
	rand.Read(b[:])
	first := binary.BigEndian.Uint32(b[:]) % size
	for i := range size {
		ip := s.host(4 + (first+i)%size)
		err := insert(ip)
		if err == nil {
			return ip.String(), nil
		}
		if !errors.Is(err, store.ErrExists) {
			return "", err
		}
	}
	return "", awserr.New("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", s.ID)
}

// releaseAddress gives an address back; releasing twice is harmless.
func releaseAddress(tx store.Tx, ip, instance string) error {
	row, err := addresses.Get(tx, "", "", ip)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if row.Doc.Instance != instance {
		return nil
	}
	return addresses.Delete(tx, row, "Released", nil)
}

// freeAddresses counts what is left of a subnet.
func (s *Service) freeAddresses(ctx context.Context, sn subnet) (int64, error) {
	used := 0
	err := s.Store.View(ctx, func(r store.Reader) error {
		rows, err := addresses.List(r, store.Query{})
		for _, row := range rows {
			if ip, err := netip.ParseAddr(row.ID); err == nil && sn.CIDR.Contains(ip) {
				used++
			}
		}
		return err
	})
	return int64(1)<<(32-sn.CIDR.Bits()) - 5 - int64(used), err
}
