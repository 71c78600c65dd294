package lazyre

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestAll compiles every pattern of this module's programs, because a process
// finds out only when it uses one.
func TestAll(t *testing.T) {
	found := 0
	for _, root := range []string{"../../internal", "../../cmd"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				fn, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || fn.Sel.Name != "New" {
					return true
				}
				if pkg, ok := fn.X.(*ast.Ident); !ok || pkg.Name != "lazyre" {
					return true
				}
				found++
				lit, ok := call.Args[0].(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: a pattern that is no literal cannot be checked here", path)
					return true
				}
				src, err := strconv.Unquote(lit.Value)
				if err == nil {
					_, err = regexp.Compile(src)
				}
				if err != nil {
					t.Errorf("%s: %v", path, err)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 30 {
		t.Errorf("only %d patterns found: is this looking in the right place?", found)
	}
}

func TestUse(t *testing.T) {
	r := New(`(a)(b*)`)
	if !r.MatchString("xabb") || r.MatchString("b") {
		t.Error("MatchString")
	}
	if !r.Match([]byte("xabb")) {
		t.Error("Match")
	}
	if got := r.FindStringSubmatch("xabb"); strings.Join(got, ",") != "abb,a,bb" {
		t.Error(got)
	}
	if got := r.FindAllString("ab abb", -1); strings.Join(got, ",") != "ab,abb" {
		t.Error(got)
	}
	if got := r.ReplaceAllString("xab", "$2"); got != "xb" {
		t.Error(got)
	}
	if got := r.ReplaceAllStringFunc("xab", strings.ToUpper); got != "xAB" {
		t.Error(got)
	}
}
