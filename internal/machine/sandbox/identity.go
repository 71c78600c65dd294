package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/guest"
	"slipway/internal/machine/sandbox/wire"
)

// identity is what makes a machine itself instead of the host: names,
// addresses, users, and the stand-ins. They lie below the image's layers, which
// may change users and commands but not the names and addresses: those are
// left out of snapshots.
func identity(spec machine.Spec) []wire.MaskEntry {
	sum := sha256.Sum256([]byte("machine-id:" + spec.ID))
	short, _, _ := strings.Cut(spec.Hostname, ".")
	hosts := "127.0.0.1\tlocalhost\n"
	if spec.PrivateIP != "" {
		hosts += fmt.Sprintf("%s\t%s.ec2.internal %s\n", spec.PrivateIP, short, short)
	} else {
		hosts += "127.0.1.1\t" + spec.Hostname + "\n"
	}
	file := func(path, data string, mode uint32) wire.MaskEntry {
		return wire.MaskEntry{Path: path, Kind: wire.MaskFile, Mode: mode, Data: data}
	}
	out := []wire.MaskEntry{
		file("etc/hostname", spec.Hostname+"\n", 0o644),
		file("etc/hosts", hosts, 0o644),
		file("etc/resolv.conf", "search ec2.internal\nnameserver "+vpcHost+"\noptions timeout:2 attempts:3\n", 0o644),
		file("etc/machine-id", hex.EncodeToString(sum[:16])+"\n", 0o444),
		{Path: "etc/mtab", Kind: wire.MaskLink, Data: "../proc/self/mounts"},
	}
	out = append(out, users()...)
	return append(out, guest.StandIns()...)
}

// users keeps the host's system accounts, without passwords, and replaces its
// people with ec2-user, who may do everything without a password.
func users() []wire.MaskEntry {
	var passwd, shadow, group strings.Builder
	keep := func(path string, nameField int, to *strings.Builder, each func(name string)) {
		b, _ := os.ReadFile(path)
		for line := range strings.Lines(string(b)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) < 4 || f[0] == "ec2-user" || (len(f[2]) > 3 && f[2] != "65534") {
				continue
			}
			f[1] = "x"
			if len(f) == 4 {
				f[3] = "" // members are the host's people
			}
			if f[0] == "root" && len(f) == 7 {
				f[5], f[6] = "/root", "/bin/bash"
			}
			to.WriteString(strings.Join(f, ":") + "\n")
			each(f[nameField])
		}
	}
	keep("/etc/passwd", 0, &passwd, func(name string) { shadow.WriteString(name + ":*:19000:0:99999:7:::\n") })
	keep("/etc/group", 0, &group, func(string) {})
	passwd.WriteString("ec2-user:x:1000:1000:EC2 Default User:/home/ec2-user:/bin/bash\n")
	shadow.WriteString("ec2-user:!:19000:0:99999:7:::\n")
	group.WriteString("ec2-user:x:1000:ec2-user\nwheel:x:990:ec2-user\n")
	return []wire.MaskEntry{
		{Path: "etc/passwd", Kind: wire.MaskFile, Mode: 0o644, Data: passwd.String()},
		{Path: "etc/group", Kind: wire.MaskFile, Mode: 0o644, Data: group.String()},
		{Path: "etc/shadow", Kind: wire.MaskFile, Mode: 0o600, Data: shadow.String()},
		{Path: "etc/sudoers", Kind: wire.MaskFile, Mode: 0o440, Data: "Defaults env_reset\nDefaults secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\n" +
			"root ALL=(ALL:ALL) ALL\nec2-user ALL=(ALL) NOPASSWD:ALL\n@includedir /etc/sudoers.d\n"},
		{Path: "home/ec2-user", Kind: wire.MaskDir, Mode: 0o755, UID: 1000, GID: 1000},
	}
}
