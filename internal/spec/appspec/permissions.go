package appspec

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"slipway/internal/spec/yamlpos"
)

// Permission is one entry of the permissions section. It applies to what the deployment copies or creates
// under Object, and to nothing else.
type Permission struct {
	Object   string
	Pattern  string // "**" for everything, otherwise a name with * for one level
	Except   []string
	Types    []string // file, directory
	Owner    string
	Group    string
	Mode     *os.FileMode // permission bits with set-id and sticky as in chmod(1): the octal number itself
	ACLs     []string
	Context  *Context
	Explicit struct{ Pattern, Except, Type bool } // which the file names; a plain file takes none of them
	At       yamlpos.Value
}

// Context is an SELinux label.
type Context struct{ User, Type, Range string }

func (s *Spec) permissions(v yamlpos.Value) error {
	if v.Null() {
		return nil
	}
	items, err := v.List()
	if err != nil {
		return err
	}
	for _, it := range items {
		p, err := s.permission(it)
		if err != nil {
			return err
		}
		s.Permissions = append(s.Permissions, p)
	}
	return nil
}

func (s *Spec) permission(v yamlpos.Value) (Permission, error) {
	p := Permission{Pattern: "**", Types: []string{"file", "directory"}, At: v}
	fields, err := s.entry(v, "object", "pattern", "except", "type", "owner", "group", "mode", "acls", "context")
	if err != nil {
		return p, err
	}
	if p.Object, err = required(v, fields, "object"); err != nil {
		return p, err
	}
	for key, dst := range map[string]*string{"pattern": &p.Pattern, "owner": &p.Owner, "group": &p.Group} {
		if f, ok := fields[key]; ok && !f.Null() {
			if *dst, err = f.Text(); err != nil {
				return p, err
			}
			p.Explicit.Pattern = p.Explicit.Pattern || key == "pattern"
		}
	}
	for key, dst := range map[string]*[]string{"except": &p.Except, "type": &p.Types, "acls": &p.ACLs} {
		if f, ok := fields[key]; ok && !f.Null() {
			if *dst, err = f.Texts(false); err != nil {
				return p, err
			}
			p.Explicit.Except = p.Explicit.Except || key == "except"
			p.Explicit.Type = p.Explicit.Type || key == "type"
		}
	}
	for i, t := range p.Types {
		if t != "file" && t != "directory" {
			return p, fields["type"].Errorf("item %d must be file or directory, but is %q", i, t).Hinted(yamlpos.Suggest(t, "file", "directory"))
		}
	}
	if m, ok := fields["mode"]; ok && !m.Null() {
		if p.Mode, err = s.mode(m); err != nil {
			return p, err
		}
	}
	if err := checkACLs(fields["acls"], p.ACLs); err != nil {
		return p, err
	}
	if c, ok := fields["context"]; ok && !c.Null() {
		p.Context, err = s.context(c)
	}
	return p, err
}

// mode follows the agent: the YAML value is turned into text, padded with zeros, and that text is octal. An
// unquoted 0644 is the YAML integer 420 and so means mode 0420; the author is warned.
func (s *Spec) mode(v yamlpos.Value) (*os.FileMode, error) {
	written, err := v.Text()
	if err != nil {
		return nil, err
	}
	digits, hint := written, ""
	if !v.Quoted() && len(written) > 1 && written[0] == '0' {
		if n, err := v.Int(); err == nil {
			digits = strconv.Itoa(n)
			hint = "YAML reads an unquoted leading zero as octal: write \"" + written + "\" in quotes"
		}
	}
	n, err := strconv.ParseUint(digits, 8, 16)
	if err != nil || len(digits) > 4 {
		return nil, v.Errorf("must be one to four octal digits, but is %s", digits).Hinted(hint)
	}
	if hint != "" {
		s.warn(v.Errorf("the mode becomes %s", digits).Hinted(hint))
	}
	m := os.FileMode(n)
	return &m, nil
}

// checkACLs checks the form [default:](user|group|mask|other):[name]:perms of each entry.
func checkACLs(at yamlpos.Value, acls []string) error {
	for i, a := range acls {
		parts := strings.Split(a, ":")
		if len(parts) > 1 && (parts[0] == "default" || parts[0] == "d") {
			parts = parts[1:]
		}
		if len(parts) == 2 { // user:perms, mask:perms
			parts = []string{parts[0], "", parts[1]}
		}
		if len(parts) != 3 {
			return at.Errorf("item %d must have the form [default:]user|group|mask|other:name:permissions, but is %q", i, a)
		}
		if !slices.Contains([]string{"user", "u", "group", "g", "mask", "m", "other", "o"}, parts[0]) {
			return at.Errorf("item %d starts with %q; it must be user, group, mask or other", i, parts[0]).Hinted(yamlpos.Suggest(parts[0], "user", "group", "mask", "other"))
		}
		if strings.Trim(parts[2], "rwx-") != "" && !(len(parts[2]) == 1 && parts[2] >= "0" && parts[2] <= "7") {
			return at.Errorf("item %d has the permissions %q; they must be made of r, w, x, - or be one octal digit", i, parts[2])
		}
	}
	return nil
}

func (s *Spec) context(v yamlpos.Value) (*Context, error) {
	fields, err := s.entry(v, "user", "name", "type", "range")
	if err != nil {
		return nil, err
	}
	c := &Context{}
	for key, dst := range map[string]*string{"user": &c.User, "name": &c.User, "type": &c.Type, "range": &c.Range} {
		if f, ok := fields[key]; ok && !f.Null() {
			if *dst, err = f.Text(); err != nil {
				return nil, err
			}
		}
	}
	if c.Type == "" {
		return nil, v.Errorf("the required key %q is missing", "type")
	}
	return c, nil
}
