package ec2

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

func flag(get func(instanceType) bool) func(instanceType) []string {
	return func(t instanceType) []string { return []string{strconv.FormatBool(get(t))} }
}

// instanceTypeFields are the filters of DescribeInstanceTypes.
var instanceTypeFields = fields[instanceType]{
	"instance-type":                           one(func(t instanceType) string { return t.Name }),
	"vcpu-info.default-vcpus":                 one(func(t instanceType) string { return strconv.FormatInt(t.VCPUs, 10) }),
	"memory-info.size-in-mib":                 one(func(t instanceType) string { return strconv.FormatInt(t.MemoryMiB, 10) }),
	"processor-info.supported-architecture":   one(func(t instanceType) string { return t.Arch }),
	"burstable-performance-supported":         flag(func(t instanceType) bool { return t.Burstable }),
	"current-generation":                      flag(func(t instanceType) bool { return !strings.HasPrefix(t.Name, "m4.") }),
	"free-tier-eligible":                      flag(func(t instanceType) bool { return t.Name == "t2.micro" || t.Name == "t3.micro" }),
	"bare-metal":                              flag(func(instanceType) bool { return false }),
	"instance-storage-supported":              flag(func(instanceType) bool { return false }),
	"hibernation-supported":                   flag(func(instanceType) bool { return false }),
	"dedicated-hosts-supported":               flag(func(instanceType) bool { return false }),
	"auto-recovery-supported":                 flag(func(instanceType) bool { return true }),
	"supported-virtualization-type":           func(instanceType) []string { return []string{"hvm"} },
	"supported-root-device-type":              func(instanceType) []string { return []string{"ebs"} },
	"supported-usage-class":                   func(instanceType) []string { return []string{"on-demand", "spot"} },
	"hypervisor":                              one(func(t instanceType) string { return hypervisor(t) }),
	"network-info.maximum-network-interfaces": func(instanceType) []string { return []string{"1"} },
}

func hypervisor(t instanceType) string {
	if strings.HasPrefix(t.Name, "t2.") || strings.HasPrefix(t.Name, "m4.") {
		return "xen"
	}
	return "nitro"
}

func (s *Service) describeInstanceTypes(_ context.Context, in *api.DescribeInstanceTypesInput) (*api.DescribeInstanceTypesOutput, error) {
	var all []instanceType
	for _, name := range in.InstanceTypes {
		t, ok := typeTable[name]
		if !ok {
			return nil, awserr.New("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
		}
		all = append(all, t)
	}
	if len(in.InstanceTypes) == 0 {
		for _, name := range typeNames {
			all = append(all, typeTable[name])
		}
	}
	all, err := filtered(all, in.Filters, instanceTypeFields, nil)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b instanceType) int { return strings.Compare(a.Name, b.Name) })
	all, next, err := page(all, func(t instanceType) string { return t.Name }, in.MaxResults, in.NextToken, 5, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeInstanceTypesOutput{NextToken: next}
	for _, t := range all {
		out.InstanceTypes = append(out.InstanceTypes, t.api())
	}
	return out, dryRun(in.DryRun)
}

func (t instanceType) api() api.InstanceTypeInfo {
	threads := int64(2)
	if t.Arch == "arm64" || t.VCPUs == 1 || strings.HasPrefix(t.Name, "t2.") {
		threads = 1
	}
	field := func(name string) bool { return instanceTypeFields[name](t)[0] == "true" }
	return api.InstanceTypeInfo{
		InstanceType: new(t.Name), CurrentGeneration: new(field("current-generation")), FreeTierEligible: new(field("free-tier-eligible")),
		SupportedUsageClasses: []string{"on-demand", "spot"}, SupportedRootDeviceTypes: []string{"ebs"}, SupportedVirtualizationTypes: []string{"hvm"},
		BareMetal: new(false), Hypervisor: new(hypervisor(t)),
		ProcessorInfo:            &api.ProcessorInfo{SupportedArchitectures: []string{t.Arch}, Manufacturer: new(manufacturer(t))},
		VCpuInfo:                 &api.VCpuInfo{DefaultVCpus: new(t.VCPUs), DefaultCores: new(max(1, t.VCPUs/threads)), DefaultThreadsPerCore: new(threads)},
		MemoryInfo:               &api.MemoryInfo{SizeInMiB: new(t.MemoryMiB)},
		InstanceStorageSupported: new(false),
		EbsInfo:                  &api.EbsInfo{EbsOptimizedSupport: new("default"), EncryptionSupport: new("unsupported"), NvmeSupport: new("required")},
		NetworkInfo: &api.NetworkInfo{NetworkPerformance: new(networkPerformance(t)), MaximumNetworkInterfaces: new(int64(1)), MaximumNetworkCards: new(int64(1)),
			DefaultNetworkCardIndex: new(int64(0)), Ipv4AddressesPerInterface: new(int64(1)), Ipv6AddressesPerInterface: new(int64(0)), Ipv6Supported: new(false),
			EnaSupport: new("required"), EfaSupported: new(false), EncryptionInTransitSupported: new(false), EnaSrdSupported: new(false),
			NetworkCards: []api.NetworkCardInfo{{NetworkCardIndex: new(int64(0)), NetworkPerformance: new(networkPerformance(t)), MaximumNetworkInterfaces: new(int64(1))}}},
		PlacementGroupInfo:   &api.PlacementGroupInfo{SupportedStrategies: []string{"partition", "spread"}},
		HibernationSupported: new(false), BurstablePerformanceSupported: new(t.Burstable), DedicatedHostsSupported: new(false), AutoRecoverySupported: new(true),
		SupportedBootModes: []string{"legacy-bios", "uefi"}, NitroEnclavesSupport: new("unsupported"), NitroTpmSupport: new("unsupported"), PhcSupport: new("unsupported"),
	}
}

func manufacturer(t instanceType) string {
	family, _, _ := strings.Cut(t.Name, ".")
	switch {
	case t.Arch == "arm64":
		return "AWS"
	case strings.HasSuffix(family, "a"):
		return "AMD"
	}
	return "Intel"
}

// offering is one type in one place.
type offering struct{ kind, location string }

func (s *Service) describeInstanceTypeOfferings(ctx context.Context, in *api.DescribeInstanceTypeOfferingsInput) (*api.DescribeInstanceTypeOfferingsOutput, error) {
	account, region := where(ctx)
	locationType := ptr.Value(in.LocationType)
	var places []string
	switch locationType {
	case "", "region":
		locationType, places = "region", []string{region}
	case "availability-zone", "availability-zone-id":
		for _, sn := range defaultVPC(account, region).Subnets {
			if locationType == "availability-zone" {
				places = append(places, sn.Zone)
			} else {
				places = append(places, sn.ZoneID)
			}
		}
	case "outpost":
	default:
		return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter locationType is invalid.", locationType)
	}
	var all []offering
	for _, name := range typeNames {
		for _, p := range places {
			all = append(all, offering{name, p})
		}
	}
	by := fields[offering]{
		"instance-type": one(func(o offering) string { return o.kind }),
		"location":      one(func(o offering) string { return o.location }),
	}
	all, err := filtered(all, in.Filters, by, nil)
	if err != nil {
		return nil, err
	}
	key := func(o offering) string { return fmt.Sprintf("%s %s", o.kind, o.location) }
	slices.SortFunc(all, func(a, b offering) int { return strings.Compare(key(a), key(b)) })
	all, next, err := page(all, key, in.MaxResults, in.NextToken, 5, 1000)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeInstanceTypeOfferingsOutput{NextToken: next}
	for _, o := range all {
		out.InstanceTypeOfferings = append(out.InstanceTypeOfferings, api.InstanceTypeOffering{InstanceType: new(o.kind), LocationType: &locationType, Location: new(o.location)})
	}
	return out, dryRun(in.DryRun)
}
