package lb

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"time"

	"slipway/internal/lb/forward"
	"slipway/internal/lb/h1"
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

// The names are AWS's (ALB user guide, "Sticky sessions").
const (
	cookieTarget = "AWSALB"
	cookieGroup  = "AWSALBTG"
	cookieApp    = "AWSALBAPP-0"
	cookieLife   = 7 * 24 * time.Hour // what Expires says, always
)

// sealer makes the cookies' opaque values: the hash of what is bound and the time
// from which its duration counts, encrypted and authenticated.
type sealer struct{ aead cipher.AEAD }

func newSealer(key []byte) (sealer, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	a, err := cipher.NewGCM(b)
	return sealer{a}, err
}

func (s sealer) seal(name string, bound uint64, now time.Time) string {
	var plain [16]byte
	binary.BigEndian.PutUint64(plain[:], bound)
	binary.BigEndian.PutUint64(plain[8:], uint64(now.Unix()))
	nonce := make([]byte, s.aead.NonceSize(), 64)
	_, _ = rand.Read(nonce) // crypto/rand does not fail
	return base64.StdEncoding.EncodeToString(s.aead.Seal(nonce, nonce, plain[:], []byte(name)))
}

// open returns what a cookie binds; false for a forged or expired one.
func (s sealer) open(name string, value []byte, life time.Duration, now time.Time) (uint64, bool) {
	if len(value) > 256 {
		return 0, false
	}
	b, err := base64.StdEncoding.AppendDecode(nil, value)
	if err != nil || len(b) < s.aead.NonceSize() {
		return 0, false
	}
	n := s.aead.NonceSize()
	plain, err := s.aead.Open(nil, b[:n], b[n:], []byte(name))
	if err != nil || len(plain) != 16 {
		return 0, false
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(plain[8:])), 0)
	return binary.BigEndian.Uint64(plain), now.Sub(made) < life
}

// cookie returns the value of a request's cookie.
func cookie(r *h1.Request, name string) ([]byte, bool) {
	if r.Cookies == 0 {
		return nil, false
	}
	for i := range r.Fields {
		if r.Fields[i].ID != h1.Cookie {
			continue
		}
		for rest := r.Fields[i].Value; len(rest) > 0; {
			var one []byte
			one, rest, _ = bytes.Cut(rest, []byte(";"))
			k, v, ok := bytes.Cut(bytes.TrimSpace(one), []byte("="))
			if ok && string(k) == name {
				return v, true
			}
		}
	}
	return nil, false
}

func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write(append([]byte(p), 0)) // a hash takes everything
	}
	return h.Sum64()
}

// stickyGroup chooses the target group: the cookie's when groups are sticky, else
// by weight.
func (f *front) stickyGroup(x *forward.Exchange, fw *compiledForward) *group {
	if fw.sticky == 0 || len(fw.groups) < 2 {
		return fw.group()
	}
	if v, ok := cookie(&x.Req, cookieGroup); ok {
		if bound, ok := f.sealer.open(cookieGroup, v, fw.sticky, x.Start); ok {
			for _, g := range fw.groups {
				if hash(g.arn) == bound {
					return g
				}
			}
		}
	}
	g := fw.group()
	if g != nil {
		x.Extra = f.appendCookie(x.Extra, cookieGroup, f.sealer.seal(cookieGroup, hash(g.arn), x.Start), x)
	}
	return g
}

// stickyTarget returns the acquired target that the request's cookie binds; nil
// when there is none or it may not be chosen.
func (f *front) stickyTarget(x *forward.Exchange, g *group) *target {
	conf := &g.conf.Load().sticky
	if !conf.enabled {
		return nil
	}
	name := cookieTarget
	if conf.app != "" {
		name = cookieApp
		if _, ok := cookie(&x.Req, conf.app); !ok {
			f.lb.stats.nonSticky.Add(1)
			return nil
		}
	}
	// A request without a cookie counts as well: AWS names a new client's first
	// one as an example.
	v, ok := cookie(&x.Req, name)
	bound := uint64(0)
	if ok {
		bound, ok = f.sealer.open(name, v, conf.duration, x.Start)
	}
	if ok {
		set, _ := g.candidates()
		for _, t := range set {
			if t.hash == bound && t.ep.Acquire() {
				return t
			}
		}
	}
	f.lb.stats.nonSticky.Add(1)
	return nil
}

// setCookies binds the client to the target that answered: the load balancer's own
// cookie with every response, the application's when the target sets that.
func (f *front) setCookies(x *forward.Exchange) {
	t := x.Tag.(*target)
	conf := &t.group.conf.Load().sticky
	if !conf.enabled {
		return
	}
	name := cookieTarget
	if conf.app != "" {
		if name = cookieApp; !setsCookie(x.Res, conf.app) {
			return
		}
	}
	x.Extra = f.appendCookie(x.Extra, name, f.sealer.seal(name, t.hash, x.Start), x)
}

func setsCookie(r *h1.Response, name string) bool {
	if !r.SetCookie {
		return false
	}
	for i := range r.Fields {
		if r.Fields[i].ID == h1.SetCookie {
			if k, _, ok := bytes.Cut(r.Fields[i].Value, []byte("=")); ok && string(bytes.TrimSpace(k)) == name {
				return true
			}
		}
	}
	return false
}

// appendCookie appends the cookie and, but for the application's, its twin for
// cross-origin requests.
func (f *front) appendCookie(b []byte, name, value string, x *forward.Exchange) []byte {
	expires := x.Start.Add(cookieLife).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
	b = append(b, "Set-Cookie: "+name+"="+value+"; Expires="+expires+"; Path=/\r\n"...)
	if name == cookieApp {
		return b
	}
	b = append(b, "Set-Cookie: "+name+"CORS="+value+"; Expires="+expires+"; Path=/; SameSite=None"...)
	if x.Options.Scheme == "https" {
		b = append(b, "; Secure"...)
	}
	return append(b, "\r\n"...)
}
