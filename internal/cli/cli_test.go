package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCutKeepsColoursAndStopsControlCharacters(t *testing.T) {
	for _, tc := range []struct {
		in    string
		width int
		want  string
	}{
		{"hello", 10, "hello"},
		{"hello", 3, "hel"},
		{"\x1b[31mhello\x1b[0m", 3, "\x1b[31mhel\x1b[0m"},
		{"a\rb\x07c", 10, "a b c"},
		{"żółw", 2, "żó"},
		{"\x1b[2Jgone", 10, " [2Jgone"},
	} {
		if got := cut(tc.in, tc.width); got != tc.want {
			t.Errorf("cut(%q, %d) = %q, want %q", tc.in, tc.width, got, tc.want)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 250 * time.Millisecond: "250ms", 1500 * time.Millisecond: "1.5s", 95 * time.Second: "1m35s"} {
		if got := short(d); got != want {
			t.Errorf("short(%v) = %s, want %s", d, got, want)
		}
	}
}

func dir(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	d := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	for f, content := range files {
		if err := os.WriteFile(filepath.Join(d, f), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

const (
	goodBuild = "version: 0.2\nphases:\n  build:\n    commands: [make]\nartifacts:\n  files: ['**/*']\n"
	goodApp   = "version: 0.0\nos: linux\nfiles:\n  - source: /\n    destination: /opt/x\n"
)

func TestCheckApplicationSaysWhatIsMissingAndWhere(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  []string // parts of the complaint; none: it is fine
	}{
		"good":          {map[string]string{"buildspec.yml": goodBuild, "appspec.yml": goodApp}, nil},
		"other endings": {map[string]string{"buildspec.yaml": goodBuild, "appspec.yaml": goodApp}, nil},
		"empty":         {nil, []string{"buildspec.yml", "appspec.yml"}},
		"no appspec":    {map[string]string{"buildspec.yml": goodBuild}, []string{"no appspec.yml"}},
		"broken":        {map[string]string{"buildspec.yml": "version: 0.2\nphases:\n  biuld:\n    commands: [x]\n", "appspec.yml": goodApp}, []string{"buildspec.yml", "3", "biuld"}},
	} {
		err := checkApplication(dir(t, "app", tc.files))
		if (err == nil) != (tc.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range tc.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", name, err, w)
			}
		}
	}
	if err := checkApplication("/no/such/place"); err == nil || !strings.Contains(err.Error(), "no such directory") {
		t.Errorf("%v", err)
	}
}

func TestSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		dir, yml string
		want     settings
		bad      string
	}{
		"none":        {dir: "My_App", want: settings{Name: "my-app", HealthCheckPath: "/", InstanceType: "t2.micro"}},
		"all":         {dir: "x", yml: "name: shop\nhealth_check_path: /up\nvolume: /data\ninstance_type: t3.small\n", want: settings{"shop", "/up", "/data", "t3.small"}},
		"unknown key": {dir: "app", yml: "nmae: x\n", bad: "nmae"},
		"bad name":    {dir: "app", yml: "name: Shop!\n", bad: "no name for an application"},
		"bad path":    {dir: "app", yml: "health_check_path: up\n", bad: "health_check_path"},
		"bad volume":  {dir: "app", yml: "volume: data\n", bad: "volume"},
	} {
		files := map[string]string{}
		if tc.yml != "" {
			files["slipway.yml"] = tc.yml
		}
		got, err := readSettings(dir(t, tc.dir, files))
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func TestFractionGrowsWithTheWork(t *testing.T) {
	v := &view{Status: "InProgress", Stages: []stageView{
		{Name: "Source", Status: "Succeeded"},
		{Name: "Build", Status: "InProgress", Build: &buildView{Done: 3, Total: 11}},
		{Name: "Deploy"},
	}}
	a := v.fraction()
	v.Stages[1].Status = "Succeeded"
	b := v.fraction()
	v.Stages[2].Deploy = &deployView{Targets: []targetView{{Done: 13, Total: 13}, {Done: 1, Total: 13}}}
	c := v.fraction()
	v.Status = "Succeeded"
	if !(0 < a && a < b && b < c && c < 1 && v.fraction() == 1) {
		t.Errorf("%v %v %v", a, b, c)
	}
}
