package cli

import "testing"

func TestHintsNameTheDataDirectoryOnlyWhereTheyMust(t *testing.T) {
	t.Setenv("SLIPWAY_DATA_DIR", "/srv/slipway")
	for dir, want := range map[string]string{
		"/srv/slipway":  "slipway",
		"/tmp/other":    "slipway --data-dir /tmp/other",
		"/tmp/it's new": `slipway --data-dir '/tmp/it'\''s new'`,
		"":              "slipway --data-dir ''",
	} {
		saved := selfName
		selfName = func() string { return "slipway" }
		got := command(dir)
		selfName = saved
		if got != want {
			t.Errorf("%q: %s, not %s", dir, got, want)
		}
	}
}
