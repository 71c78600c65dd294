package guest

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// cloudConfig are the modules of cloud-init's #cloud-config that are acted
// upon; the names are those of its documentation.
type cloudConfig struct {
	Bootcmd       []yaml.Node `yaml:"bootcmd"`
	Runcmd        []yaml.Node `yaml:"runcmd"`
	Packages      []yaml.Node `yaml:"packages"`
	PackageUpdate bool        `yaml:"package_update"`
	Hostname      string      `yaml:"hostname"`
	WriteFiles    []struct {
		Path        string `yaml:"path"`
		Content     string `yaml:"content"`
		Encoding    string `yaml:"encoding"`
		Owner       string `yaml:"owner"`
		Permissions string `yaml:"permissions"`
		Append      bool   `yaml:"append"`
	} `yaml:"write_files"`
	Users []yaml.Node `yaml:"users"`
}

// known are the keys above and those that mean nothing here.
var knownKeys = []string{"bootcmd", "runcmd", "packages", "package_update", "package_upgrade", "hostname", "write_files", "users", "output",
	"repo_update", "repo_upgrade", "ssh_authorized_keys", "cloud_final_modules"}

func (r *runner) cloudConfig(data []byte) error {
	var c cloudConfig
	if err := yaml.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("cloud-config: %w", err)
	}
	var keys map[string]yaml.Node
	if err := yaml.Unmarshal(data, &keys); err == nil {
		for k, n := range keys {
			if !contains(knownKeys, k) {
				fmt.Fprintf(r.out, "cloud-config: line %d: %s is not supported and ignored\n", n.Line, k)
			}
		}
	}
	var errs []error
	for _, n := range c.Bootcmd {
		errs = append(errs, r.node("bootcmd", n))
	}
	for i := range c.WriteFiles {
		errs = append(errs, c.writeFile(i))
	}
	for _, n := range c.Users {
		errs = append(errs, r.user(n))
	}
	if c.PackageUpdate {
		errs = append(errs, r.run([]string{"apt-get", "update", "-q"}, nil))
	}
	var packages []string
	for _, n := range c.Packages {
		if n.Kind == yaml.ScalarNode {
			packages = append(packages, n.Value)
		} else if len(n.Content) > 0 {
			packages = append(packages, n.Content[0].Value) // [name, version]
		}
	}
	if len(packages) > 0 {
		errs = append(errs, r.run(append([]string{"dnf", "install", "-y"}, packages...), nil))
	}
	// As in cloud-init, a command that fails does not stop the next.
	for _, n := range c.Runcmd {
		errs = append(errs, r.node("runcmd", n))
	}
	return errors.Join(errs...)
}

// node runs one command: a string for the shell, or a list of arguments.
func (r *runner) node(module string, n yaml.Node) error {
	var args []string
	switch n.Kind {
	case yaml.ScalarNode:
		args = []string{"/bin/sh", "-c", n.Value}
	case yaml.SequenceNode:
		if err := n.Decode(&args); err != nil {
			return fmt.Errorf("%s, line %d: %w", module, n.Line, err)
		}
	default:
		return fmt.Errorf("%s, line %d: must be a string or a list", module, n.Line)
	}
	if err := r.run(args, nil); err != nil {
		return fmt.Errorf("%s, line %d: %w", module, n.Line, err)
	}
	return nil
}

func (c *cloudConfig) writeFile(i int) error {
	f := c.WriteFiles[i]
	fail := func(err error) error { return fmt.Errorf("write_files[%d] %s: %w", i, f.Path, err) }
	if !filepath.IsAbs(f.Path) {
		return fail(errors.New("path must be absolute"))
	}
	data := []byte(f.Content)
	var err error
	switch f.Encoding {
	case "", "text/plain":
	case "b64", "base64":
		data, err = base64.StdEncoding.DecodeString(strings.TrimSpace(f.Content))
	case "gz+b64", "gz+base64", "gzip+base64", "gzip+b64":
		if data, err = base64.StdEncoding.DecodeString(strings.TrimSpace(f.Content)); err == nil {
			data, err = decompress(data)
		}
	default:
		err = fmt.Errorf("encoding %q is not known", f.Encoding)
	}
	if err != nil {
		return fail(err)
	}
	mode := uint64(0o644)
	if f.Permissions != "" {
		if mode, err = strconv.ParseUint(strings.TrimPrefix(f.Permissions, "0o"), 8, 12); err != nil {
			return fail(fmt.Errorf("permissions %q are not octal", f.Permissions))
		}
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return fail(err)
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if f.Append {
		flags = os.O_CREATE | os.O_WRONLY | os.O_APPEND
	}
	w, err := os.OpenFile(f.Path, flags, 0o600)
	if err != nil {
		return fail(err)
	}
	_, err = w.Write(data)
	if err = errors.Join(err, w.Close(), os.Chmod(f.Path, os.FileMode(mode))); err != nil {
		return fail(err)
	}
	if f.Owner != "" {
		_, cred, err := lookUser(f.Owner)
		if err != nil {
			return fail(err)
		}
		return os.Chown(f.Path, int(cred.Uid), int(cred.Gid))
	}
	return nil
}

// user adds an account: a name, or name, groups, shell and uid.
func (r *runner) user(n yaml.Node) error {
	var u struct {
		Name, Groups, Shell, Homedir, UID string
		System                            bool
	}
	if n.Kind == yaml.ScalarNode {
		u.Name = n.Value
	} else if err := n.Decode(&u); err != nil {
		return fmt.Errorf("users, line %d: %w", n.Line, err)
	}
	if u.Name == "" || u.Name == "default" || u.Name == "ec2-user" {
		return nil // there already
	}
	if _, _, err := lookUser(u.Name); err == nil {
		return nil
	}
	args := []string{"useradd", "-m"}
	for opt, v := range map[string]string{"-s": u.Shell, "-G": strings.ReplaceAll(u.Groups, " ", ""), "-d": u.Homedir, "-u": u.UID} {
		if v != "" {
			args = append(args, opt, v)
		}
	}
	if u.System {
		args = append(args, "-r")
	}
	if err := r.run(append(args, u.Name), nil); err != nil {
		return fmt.Errorf("users, line %d: %w", n.Line, err)
	}
	return nil
}

// multipart runs the parts of a MIME message in order, as cloud-init does.
func (r *runner) multipart(data []byte) error {
	tr := textproto.NewReader(bufio.NewReader(bytes.NewReader(data)))
	h, err := tr.ReadMIMEHeader()
	if err != nil {
		return fmt.Errorf("multipart user data: %w", err)
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return fmt.Errorf("multipart user data: Content-Type %q", h.Get("Content-Type"))
	}
	mr := multipart.NewReader(tr.R, params["boundary"])
	var errs []error
	for i := 1; i <= 100; i++ {
		p, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("multipart user data: %w", err)
		}
		var body io.Reader = p
		if strings.EqualFold(p.Header.Get("Content-Transfer-Encoding"), "base64") {
			body = base64.NewDecoder(base64.StdEncoding, p)
		}
		b, err := io.ReadAll(io.LimitReader(body, userDataMost))
		if err != nil {
			return fmt.Errorf("multipart user data, part %d: %w", i, err)
		}
		switch {
		case bytes.HasPrefix(b, []byte("#cloud-config")) || strings.HasPrefix(p.Header.Get("Content-Type"), "text/cloud-config"):
			errs = append(errs, r.cloudConfig(b))
		case bytes.HasPrefix(b, []byte("#!")):
			errs = append(errs, r.script(fmt.Sprintf("part-%03d", i), b))
		default:
			errs = append(errs, fmt.Errorf("part %d is neither a script nor cloud-config", i))
		}
	}
	return errors.Join(errs...)
}
