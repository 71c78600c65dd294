package lb

import (
	"time"

	"slipway/internal/lb/forward"
)

// stickyConf is a target group's stickiness, compiled.
type stickyConf struct {
	enabled  bool
	app      string // the application's cookie; empty for lb_cookie
	duration time.Duration
}

func compileSticky(a *attributes) stickyConf {
	s := stickyConf{enabled: a.flag("stickiness.enabled")}
	if a.oneOf("stickiness.type", "lb_cookie", "app_cookie") == 1 {
		s.app = a.m["stickiness.app_cookie.cookie_name"]
		s.duration = a.seconds("stickiness.app_cookie.duration_seconds", 86400, 1, 604800)
		return s
	}
	s.duration = a.seconds("stickiness.lb_cookie.duration_seconds", 86400, 1, 604800)
	return s
}

func (f *front) stickyGroup(_ *forward.Exchange, fw *compiledForward) *group { return fw.group() }

func (f *front) stickyTarget(_ *forward.Exchange, _ *group) *target { return nil }

func (f *front) setCookies(_ *forward.Exchange) {}
