package ec2

import (
	"slices"
	"strconv"
	"strings"
)

// instanceType is what limits a machine of that type and what the describe
// calls tell of it. Facts: EC2 instance type specifications.
type instanceType struct {
	Name      string
	VCPUs     int64
	MemoryMiB int64
	Arch      string // "x86_64" or "arm64"
	Burstable bool
	Current   bool
}

// families give memory per vCPU in MiB; burstable sizes are listed apart
// because they do not scale.
var families = []struct {
	name    string
	perCPU  int64
	arch    string
	maxCPUs int64
}{
	{"m4", 4096, "x86_64", 64}, {"m5", 4096, "x86_64", 96}, {"m5a", 4096, "x86_64", 96}, {"m6i", 4096, "x86_64", 128}, {"m6a", 4096, "x86_64", 192},
	{"m6g", 4096, "arm64", 64}, {"m7i", 4096, "x86_64", 192}, {"m7a", 4096, "x86_64", 192}, {"m7g", 4096, "arm64", 64},
	{"c5", 2048, "x86_64", 96}, {"c5a", 2048, "x86_64", 96}, {"c6i", 2048, "x86_64", 128}, {"c6a", 2048, "x86_64", 192},
	{"c6g", 2048, "arm64", 64}, {"c7i", 2048, "x86_64", 192}, {"c7a", 2048, "x86_64", 192}, {"c7g", 2048, "arm64", 64},
	{"r5", 8192, "x86_64", 96}, {"r5a", 8192, "x86_64", 96}, {"r6i", 8192, "x86_64", 128}, {"r6a", 8192, "x86_64", 192},
	{"r6g", 8192, "arm64", 64}, {"r7i", 8192, "x86_64", 192}, {"r7g", 8192, "arm64", 64},
}

var sizes = []struct {
	name string
	cpus int64
}{
	{"large", 2}, {"xlarge", 4}, {"2xlarge", 8}, {"4xlarge", 16}, {"8xlarge", 32}, {"12xlarge", 48},
	{"16xlarge", 64}, {"24xlarge", 96}, {"32xlarge", 128}, {"48xlarge", 192},
}

// burstable: vCPUs and MiB by size for the t families.
var burstable = map[string][2]int64{
	"nano": {2, 512}, "micro": {2, 1024}, "small": {2, 2048}, "medium": {2, 4096},
	"large": {2, 8192}, "xlarge": {4, 16384}, "2xlarge": {8, 32768},
}

var typeTable = buildTypes()

func buildTypes() map[string]instanceType {
	t := map[string]instanceType{}
	add := func(name string, cpus, mem int64, arch string, burst bool) {
		t[name] = instanceType{name, cpus, mem, arch, burst, true}
	}
	for _, f := range []string{"t3", "t3a", "t4g"} {
		arch := "x86_64"
		if f == "t4g" {
			arch = "arm64"
		}
		for size, v := range burstable {
			add(f+"."+size, v[0], v[1], arch, true)
		}
	}
	for size, v := range burstable {
		cpus := v[0]
		if size == "nano" || size == "micro" || size == "small" {
			cpus = 1 // the t2 generation has one vCPU up to small
		}
		add("t2."+size, cpus, v[1], "x86_64", true)
	}
	for _, f := range families {
		for _, s := range sizes {
			if s.cpus <= f.maxCPUs && (f.maxCPUs%s.cpus == 0 || s.cpus == 48 || s.cpus == 64 || s.cpus == 32) {
				add(f.name+"."+s.name, s.cpus, s.cpus*f.perCPU, f.arch, false)
			}
		}
		if f.arch == "arm64" {
			add(f.name+".medium", 1, f.perCPU, f.arch, false)
		}
	}
	return t
}

// typeNames are all known types, ordered by family and then by vCPUs and memory.
var typeNames = func() []string {
	names := sortedKeys(typeTable)
	slices.SortStableFunc(names, func(a, b string) int {
		fa, _, _ := strings.Cut(a, ".")
		fb, _, _ := strings.Cut(b, ".")
		if fa != fb {
			return strings.Compare(fa, fb)
		}
		x, y := typeTable[a], typeTable[b]
		if x.VCPUs != y.VCPUs {
			return int(x.VCPUs - y.VCPUs)
		}
		return int(x.MemoryMiB - y.MemoryMiB)
	})
	return names
}()

func networkPerformance(t instanceType) string {
	switch {
	case t.Burstable:
		return "Up to 5 Gigabit"
	case t.VCPUs <= 16:
		return "Up to 10 Gigabit"
	default:
		return strconv.FormatInt(max(10, t.VCPUs/4), 10) + " Gigabit"
	}
}
