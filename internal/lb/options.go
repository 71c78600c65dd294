package lb

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/internal/lb/forward"
)

func sortRules(rs []rule) {
	slices.SortStableFunc(rs, func(a, b rule) int { return cmp.Compare(a.priority, b.priority) })
}

// attributes reads AWS's string attributes with their defaults; the first bad
// value is kept in err.
type attributes struct {
	of  string
	m   map[string]string
	err error
}

func (a *attributes) fail(key string) {
	if a.err == nil {
		a.err = fmt.Errorf("%s: attribute %s has the value %q", a.of, key, a.m[key])
	}
}

func (a *attributes) number(key string, def, lo, hi int) int {
	v, ok := a.m[key]
	if !ok || v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		a.fail(key)
		return def
	}
	return n
}

func (a *attributes) seconds(key string, def, lo, hi int) time.Duration {
	return time.Duration(a.number(key, def, lo, hi)) * time.Second
}

func (a *attributes) flag(key string) bool { return a.oneOf(key, "false", "true") == 1 }

// oneOf returns the index of the value among the choices; the first is the default.
func (a *attributes) oneOf(key string, choices ...string) int {
	v, ok := a.m[key]
	if !ok || v == "" {
		return 0
	}
	i := slices.Index(choices, v)
	if i < 0 {
		a.fail(key)
		return 0
	}
	return i
}

func compileOptions(b *LoadBalancer, l *Listener) (forward.Options, error) {
	a := &attributes{of: b.ARN, m: b.Attributes}
	o := forward.Options{
		Scheme:          strings.ToLower(l.Protocol),
		Port:            l.Port,
		IdleTimeout:     a.seconds("idle_timeout.timeout_seconds", 60, 1, 4000),
		ClientKeepAlive: a.seconds("client_keep_alive.seconds", 3600, 60, 604800),
		Desync:          forward.Desync(a.oneOf("routing.http.desync_mitigation_mode", "defensive", "monitor", "strictest")),
		DropInvalid:     a.flag("routing.http.drop_invalid_header_fields.enabled"),
		PreserveHost:    a.flag("routing.http.preserve_host_header.enabled"),
		XFF:             forward.XFFMode(a.oneOf("routing.http.xff_header_processing.mode", "append", "preserve", "remove")),
		XFFPort:         a.flag("routing.http.xff_client_port.enabled"),
		TLSHeaders:      a.flag("routing.http.x_amzn_tls_version_and_cipher_suite.enabled"),
		HideServer:      l.Attributes["routing.http.response.server.enabled"] == "false",
	}
	if ap, err := netip.ParseAddrPort(l.Address); err == nil {
		o.RealPort = int(ap.Port())
	}
	if o.Scheme != "http" && o.Scheme != "https" {
		return o, fmt.Errorf("listener %s: protocol %q", l.ARN, l.Protocol)
	}
	return o, a.err
}

// compileGroup checks and compiles a target group.
func compileGroup(g *TargetGroup) (*groupConf, error) {
	if g.ProtocolVersion != "" && g.ProtocolVersion != "HTTP1" {
		return nil, fmt.Errorf("target group %s: protocol version %s is not built", g.Name, g.ProtocolVersion)
	}
	a := &attributes{of: "target group " + g.Name, m: g.Attributes}
	c := &groupConf{TargetGroup: *g}
	c.Targets = nil // they live in group.targets
	c.least = a.oneOf("load_balancing.algorithm.type", "round_robin", "least_outstanding_requests", "weighted_random") == 1
	c.slowStart = a.seconds("slow_start.duration_seconds", 0, 0, 900)
	c.delay = a.seconds("deregistration_delay.timeout_seconds", 300, 0, 3600)
	if g.Attributes["target_group_health.unhealthy_state_routing.minimum_healthy_targets.count"] != "off" {
		c.minOK = a.number("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", 1, 1, 1000)
	}
	c.sticky = compileSticky(a)
	var err error
	if c.check, err = compileCheck(g); err != nil {
		return nil, err
	}
	return c, a.err
}

// compileTLS makes the front-end TLS configuration; crypto/tls chooses among the
// certificates by SNI and the client's capabilities, the first one by default.
func compileTLS(l *Listener, http2 bool) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	switch p := l.SSLPolicy; {
	case strings.Contains(p, "TLS13-1-3"):
		conf.MinVersion = tls.VersionTLS13
	case p == "", p == "ELBSecurityPolicy-2016-08", p == "ELBSecurityPolicy-2015-05", strings.Contains(p, "TLS-1-0"),
		strings.Contains(p, "TLS13-1-0"), p == "ELBSecurityPolicy-FS-2018-06":
		conf.MinVersion = tls.VersionTLS10
	case strings.Contains(p, "TLS13-1-1"), strings.Contains(p, "TLS-1-1"), strings.Contains(p, "FS-1-1"):
		conf.MinVersion = tls.VersionTLS11
	}
	if http2 {
		conf.NextProtos = []string{"h2", "http/1.1"}
	}
	certs := slices.Clone(l.Certificates)
	slices.SortStableFunc(certs, func(a, b Certificate) int {
		switch {
		case a.Default == b.Default:
			return 0
		case a.Default:
			return -1
		}
		return 1
	})
	for i := range certs {
		c, err := tls.X509KeyPair([]byte(certs[i].ChainPEM), []byte(certs[i].KeyPEM))
		if err != nil {
			return nil, fmt.Errorf("listener %s: certificate %s: %w", l.ARN, certs[i].ARN, err)
		}
		conf.Certificates = append(conf.Certificates, c)
	}
	if len(conf.Certificates) == 0 {
		return nil, fmt.Errorf("listener %s: HTTPS without a certificate", l.ARN)
	}
	return conf, nil
}
