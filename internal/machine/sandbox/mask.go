package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"slipway/internal/lazyre"
	"slipway/internal/machine/sandbox/wire"
)

// The default image is the host's own operating system. What a machine may see
// of it is a list of what is let through, not of what is hidden: everything
// else at the top and in /var is shown empty. In /etc, where both kinds live,
// whatever an ordinary user of the host cannot read is gone, and so are known
// places of keys, of the host's own services and of credentials in URLs.

// topKept are the top-level directories that show through.
var topKept = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "var"}

// topEmpty are shown as empty directories; all other top-level names are gone.
var topEmpty = []string{"boot", "dev", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp"}

// varLibKept is the state that package managers need; the rest of /var/lib is
// shown as empty directories.
var varLibKept = []string{"dpkg", "apt", "ucf", "pam", "misc", "python", "xml-core", "sgml-base", "dnf", "rpm", "alternatives"}

// varKept are the directories of /var whose content shows through.
var varKept = []string{"lib"}

// etcGone are removed, etcEmpty shown as empty directories.
var (
	etcGone = []string{"shadow", "gshadow", "sudoers", "passwd", "group", "hostname", "hosts", "resolv.conf", "mtab", "crypttab", "fstab", "krb5.keytab", "machine-id", "shadow-", "gshadow-", "passwd-", "group-",
		"subuid", "subgid", "subuid-", "subgid-", "rc.local", "crontab", "exports", "hostid"}
	etcEmpty = []string{"ssh", "ssl/private", "sudoers.d", "docker", "containers", "containerd", "kubernetes", "rancher", "k3s",
		"wireguard", "openvpn", "ipsec.d", "letsencrypt", "NetworkManager", "netplan", "network", "systemd/system", "systemd/network",
		"credstore", "credstore.encrypted", "cron.d", "cron.daily", "cron.hourly", "cron.monthly", "cron.weekly", "apt/auth.conf.d",
		"nginx/sites-enabled", "nginx/sites-available", "nginx/conf.d", "nginx/ssl", "apache2/sites-enabled", "slipway", "ppp", "samba",
		"boto", "aws", "gcloud", "azure", "vault.d", "consul.d", "nomad.d"}
)

// credentialInURL finds user:password@ in settings that are world-readable.
var credentialInURL = lazyre.New(`://[^/\s:@]+:[^/\s@]+@`)

// hostMask computes what to lay over root ("/" but in tests). secrets are further
// absolute paths to hide, such as the data directory.
func hostMask(root string, secrets []string) ([]wire.MaskEntry, error) {
	m := &maskBuilder{root: root, seen: map[string]bool{}}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("read the host's root: %w", err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case slices.Contains(topKept, name):
		case slices.Contains(topEmpty, name):
			m.empty(name)
		default:
			m.gone(name)
		}
	}
	for _, name := range topEmpty {
		m.require(name, 0o755)
	}
	m.maskVar()
	if err := m.maskEtc(); err != nil {
		return nil, err
	}
	for _, p := range secrets {
		m.hide(strings.TrimPrefix(filepath.Clean(p), "/"))
	}
	return m.entries, nil
}

// maskBuilder collects entries, parents first, each path once.
type maskBuilder struct {
	root    string
	seen    map[string]bool
	entries []wire.MaskEntry
}

func (m *maskBuilder) add(e wire.MaskEntry) {
	if m.seen[e.Path] {
		return
	}
	m.parents(e.Path)
	m.seen[e.Path] = true
	m.entries = append(m.entries, e)
}

// parents keeps the attributes of the directories above an entry, because the
// topmost layer's are the ones that count.
func (m *maskBuilder) parents(path string) {
	dir := filepath.Dir(path)
	if dir == "." || m.seen[dir] {
		return
	}
	m.parents(dir)
	m.seen[dir] = true
	e := wire.MaskEntry{Path: dir, Kind: wire.MaskDir, Mode: 0o755}
	m.attributes(&e)
	m.entries = append(m.entries, e)
}

func (m *maskBuilder) attributes(e *wire.MaskEntry) (found bool) {
	info, err := os.Lstat(filepath.Join(m.root, e.Path))
	if err != nil {
		return false
	}
	st := info.Sys().(*syscall.Stat_t)
	e.Mode, e.UID, e.GID = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	return true
}

// empty shows a directory of the host without its content.
func (m *maskBuilder) empty(path string) {
	e := wire.MaskEntry{Path: path, Kind: wire.MaskOpaque}
	if m.attributes(&e) {
		m.add(e)
	}
}

// require shows an empty directory whether or not the host has it.
func (m *maskBuilder) require(path string, mode uint32) {
	e := wire.MaskEntry{Path: path, Kind: wire.MaskOpaque, Mode: mode}
	m.add(e)
}

func (m *maskBuilder) gone(path string) {
	if _, err := os.Lstat(filepath.Join(m.root, path)); err == nil {
		m.add(wire.MaskEntry{Path: path, Kind: wire.MaskGone})
	}
}

// hide makes a path of the host vanish, whatever it is.
func (m *maskBuilder) hide(path string) {
	for dir := path; dir != "."; dir = filepath.Dir(dir) {
		for _, e := range m.entries {
			if e.Path == dir && e.Kind != wire.MaskDir {
				return // already hidden with a parent
			}
		}
	}
	m.gone(path)
}

func (m *maskBuilder) maskVar() {
	list := func(dir string, kept []string) {
		entries, _ := os.ReadDir(filepath.Join(m.root, dir))
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch {
			case slices.Contains(kept, e.Name()), e.Type()&fs.ModeSymlink != 0:
			case e.IsDir():
				m.empty(path)
			default:
				m.gone(path)
			}
		}
	}
	list("var", varKept)
	list("var/lib", varLibKept)
	// Debian's packages expect these inside directories that are shown empty.
	for _, d := range []string{"var/www", "var/www/html", "var/log", "var/log/nginx", "var/cache", "var/cache/apt", "var/cache/apt/archives",
		"var/cache/apt/archives/partial", "var/spool", "var/lib/cloud"} {
		if !m.seen[d] {
			m.require(d, 0o755)
		}
	}
	for _, d := range []string{"var/tmp"} {
		m.seen[d] = false
		m.require(d, 0o1777)
	}
}

func (m *maskBuilder) maskEtc() error {
	for _, name := range etcEmpty {
		m.empty(filepath.Join("etc", name))
	}
	for _, name := range etcGone {
		m.gone(filepath.Join("etc", name))
	}
	etc := filepath.Join(m.root, "etc")
	err := filepath.WalkDir(etc, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(m.root, path)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed while we look
			}
			return err
		}
		if m.seen[rel] && d.IsDir() && m.masked(rel) {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil || m.seen[rel] {
			return nil
		}
		perm := info.Mode().Perm()
		switch {
		case d.IsDir() && perm&0o005 != 0o005:
			m.empty(rel)
			return fs.SkipDir
		case d.IsDir() || d.Type()&fs.ModeSymlink != 0:
		case !d.Type().IsRegular(), perm&0o004 == 0, holdsCredential(path, info):
			m.gone(rel)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for secrets in /etc: %w", err)
	}
	return nil
}

func (m *maskBuilder) masked(path string) bool {
	for _, e := range m.entries {
		if e.Path == path {
			return e.Kind != wire.MaskDir
		}
	}
	return false
}

// holdsCredential looks into the few files of /etc in which programs keep
// addresses of repositories and proxies.
func holdsCredential(path string, info fs.FileInfo) bool {
	if info.Size() > 1<<16 {
		return false
	}
	switch base := filepath.Base(path); {
	case base == "pip.conf", base == "gitconfig", base == "npmrc", base == "environment", base == "wgetrc", base == "curlrc",
		strings.Contains(path, "/apt/"), strings.Contains(path, "/profile.d/"), strings.Contains(path, "/yum.repos.d/"):
		b, err := os.ReadFile(path)
		return err != nil || credentialInURL.Match(b)
	}
	return false
}
