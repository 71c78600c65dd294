package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestCurrent generates everything again: what is committed must be what the
// lists, the overlays and the pinned models give, byte for byte.
func TestCurrent(t *testing.T) {
	models, err := modelDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		t.Run(s.pkg, func(t *testing.T) {
			out := t.TempDir()
			if err := generate(s, models, ".", out); err != nil {
				t.Fatal(err)
			}
			files, err := os.ReadDir(out)
			if err != nil || len(files) == 0 {
				t.Fatalf("nothing was generated: %v", err)
			}
			for _, f := range files {
				want, err := os.ReadFile(filepath.Join(out, f.Name()))
				if err != nil {
					t.Fatal(err)
				}
				got, err := os.ReadFile(filepath.Join("..", "..", "internal", "api", s.pkg, f.Name()))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s is not current: run make generate (%v)", f.Name(), err)
				}
			}
		})
	}
}

func TestEnumName(t *testing.T) {
	for in, want := range map[string]string{
		"IN_PROGRESS": "InProgress", "t2.micro": "T2Micro", "Succeeded": "Succeeded", "CODEDEPLOY:X": "CodedeployX",
		"a-b c": "ABC", "": "Empty", "*": "Empty", "1.0": "10",
	} {
		if got := enumName(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestMerge(t *testing.T) {
	var m, over apiModel
	parse := func(v any, s string) {
		t.Helper()
		if err := json.Unmarshal([]byte(s), v); err != nil {
			t.Fatal(err)
		}
	}
	parse(&m, `{"operations":{"A":{"name":"A","http":{"method":"POST","requestUri":"/"},"input":{"shape":"S"}}},
		"shapes":{"S":{"type":"structure","required":["x","y"],"members":{"y":{"shape":"T"},"x":{"shape":"T"}}},"T":{"type":"string","max":3,"enum":["a"]}}}`)
	parse(&over, `{"operations":{"A":{"authtype":"none"},"B":{"http":{"method":"GET","requestUri":"/"}}},
		"shapes":{"S":{"members":{"z":{"shape":"T"}},"slipwayOptional":["x"]},"T":{"enum":["b","a"],"slipwayRelax":["max"]}}}`)
	merge(&m, &over)
	s, tt := m.Shapes["S"], m.Shapes["T"]
	if len(s.Members) != 3 || s.Members[0].name != "y" || s.Members[2].name != "z" || len(s.Required) != 1 || s.Required[0] != "y" {
		t.Errorf("S: %+v", s)
	}
	if tt.Max != nil || len(tt.Enum) != 2 || tt.Enum[1] != "b" {
		t.Errorf("T: %+v", tt)
	}
	if a := m.Operations["A"]; a.AuthType != "none" || a.Input == nil || a.HTTP.Method != "POST" || m.Operations["B"].Name != "B" {
		t.Errorf("operations: %+v", m.Operations)
	}
}
