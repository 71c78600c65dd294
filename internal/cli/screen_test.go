package cli

import (
	"slices"
	"strings"
	"testing"
)

func TestFailuresAreWrappedNotCut(t *testing.T) {
	s := &screen{live: true, width: 31}
	got := s.wrap("Phase: BUILD, Message: Error while executing command: test -f no-such-file\nétoile: "+strings.Repeat("é", 30), "  ")
	want := []string{
		"  Phase: BUILD, Message: Error", "  while executing command:", "  test -f no-such-file",
		"  étoile: " + strings.Repeat("é", 20), "  " + strings.Repeat("é", 10),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nnot\n%q", got, want)
	}
	s.live = false
	if got := s.wrap("a "+strings.Repeat("b ", 40)+"\nc", "  "); len(got) != 2 {
		t.Errorf("plain output is wrapped: %q", got)
	}
}

func TestAFailedInstanceShowsWhatFailed(t *testing.T) {
	s := &screen{}
	got := targetView{Instance: "i-1", Status: "Failed", Total: 3, Done: 3, Events: []string{"AfterInstall Succeeded 2ms", "ValidateService Failed 1s", "AllowTraffic Skipped"}}.render(s)
	if !strings.HasSuffix(got, "ValidateService Failed 1s") {
		t.Error(got)
	}
}
