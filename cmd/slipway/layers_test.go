package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers are the rules of docs/architecture.md about who imports whom, by
// package path below internal/. The first rule that fits a package counts.
var layers = []struct {
	of  string   // packages at and below this path
	may []string // import these and what is below them, and their own
}{
	{"services/*", []string{"api", "aws", "store", "reconcile", "clock", "blob", "machine", "lb", "git", "mail", "keyring", "spec", "statechange", "agent/build"}},
	{"cli", []string{"api", "aws", "admin", "hostinfo", "spec", "clock"}},
	{"agent/*", []string{"agent", "api", "aws", "clock", "spec"}},
	{"lb", []string{"clock"}},
	{"aws", []string{"api", "clock"}},
	{"api", []string{"aws/model"}},
	{"store", []string{"clock"}},
	{"reconcile", []string{"store", "clock"}},
	{"clock", nil},
	{"lazyre", nil},
	{"lean", nil},
	{"blob", []string{"clock"}},
	{"machine", []string{"agent/cloudwatch", "clock"}},
}

// leaves import nothing of this module, so that all may import them.
var leaves = []string{"lazyre", "lean"}

// below tells whether path is root or in it; a root that ends in /* names each
// directory in it apart.
func below(path, root string) (own string, ok bool) {
	if dir, each := strings.CutSuffix(root, "/*"); each {
		rest, in := strings.CutPrefix(path, dir+"/")
		name, _, _ := strings.Cut(rest, "/")
		return dir + "/" + name, in
	}
	return root, path == root || strings.HasPrefix(path, root+"/")
}

// A service never imports another one, and nothing below knows what is above.
func TestImportsGoOneWay(t *testing.T) {
	const module = "slipway/internal/"
	files := 0
	err := filepath.WalkDir("../../internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../../internal/")
		for _, l := range layers {
			own, ok := below(pkg, l.of)
			if !ok {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			files++
			for _, im := range f.Imports {
				name, _ := strconv.Unquote(im.Path.Value)
				name, ours := strings.CutPrefix(name, module)
				if !ours {
					continue
				}
				allowed := false
				for _, root := range slices.Concat([]string{own}, l.may, leaves) {
					_, in := below(name, root)
					allowed = allowed || in
				}
				if !allowed {
					t.Errorf("%s imports internal/%s; packages of internal/%s may import only %s (docs/architecture.md)", path, name, own, strings.Join(l.may, ", "))
				}
			}
			break
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 300 {
		t.Errorf("only %d files were looked at", files)
	}
}
