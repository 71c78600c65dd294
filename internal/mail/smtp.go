package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	netmail "net/mail"

	gomail "github.com/wneessen/go-mail"
)

// SettingsFile is the name of the SMTP settings in the data directory.
const SettingsFile = "smtp.json"

// Settings are the contents of smtp.json. The file must be readable by its
// owner only, for it holds a password.
type Settings struct {
	Host string `json:"host"`
	Port int    `json:"port"` // 0: 587, or 465 with "tls": "implicit"
	// From is the sender's address; receivers' servers check it.
	From     string `json:"from"`
	Username string `json:"username"`
	Password string `json:"password"`
	// TLS: "starttls" (required; the default), "implicit", or "none", which
	// is refused together with a password unless the server is this machine.
	TLS string `json:"tls"`
	// CAFile holds further certificate authorities (PEM), or is "".
	CAFile string `json:"caFile"`
	// Links is the URL at which the receivers reach this server, for the
	// links in mails; "" is the API's own endpoint.
	Links string `json:"links"`

	roots *x509.CertPool
}

// readSettings returns nil without an error where there is no file.
func readSettings(dir string) (*Settings, error) {
	path := filepath.Join(dir, SettingsFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("SMTP settings: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("SMTP settings: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o) and may hold a password: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	var s Settings
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := s.complete(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &s, nil
}

// complete checks the settings and fills in defaults.
func (s *Settings) complete() error {
	if s.TLS == "" {
		s.TLS = "starttls"
	}
	if s.Port == 0 {
		s.Port = map[string]int{"starttls": 587, "implicit": 465, "none": 25}[s.TLS]
	}
	switch {
	case s.Host == "":
		return errors.New("host is missing: the name or address of the SMTP server")
	case s.TLS != "starttls" && s.TLS != "implicit" && s.TLS != "none":
		return fmt.Errorf("tls is %q: it must be starttls, implicit or none", s.TLS)
	case s.Port < 1 || s.Port > 65535:
		return fmt.Errorf("port is %d: it must be between 1 and 65535", s.Port)
	case s.TLS == "none" && s.Password != "" && !loopback(s.Host):
		return errors.New("tls is none: a password is sent over TLS only, unless the server is this machine")
	}
	from, err := netmail.ParseAddress(s.From)
	if err != nil {
		return fmt.Errorf("from is %q: it must be a mail address", s.From)
	}
	s.From = from.Address // the name is the topic's
	if u, err := url.Parse(s.Links); s.Links != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "") {
		return fmt.Errorf("links is %q: it must be a URL like https://ops.example.com", s.Links)
	}
	if s.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return fmt.Errorf("caFile: %w", err)
	}
	if s.roots, err = x509.SystemCertPool(); err != nil {
		s.roots = x509.NewCertPool()
	}
	if !s.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("caFile: %s holds no certificate", s.CAFile)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sendTimeout bounds one delivery to the SMTP server: real time, for the
// server does not know ours.
const sendTimeout = 60 * time.Second

// smtp sends through the configured server, one connection for each mail:
// alerts are rare, and a kept connection would have to be watched.
type smtp struct{ Settings }

func (c *smtp) client() (*gomail.Client, error) {
	opts := []gomail.Option{
		gomail.WithPort(c.Port), gomail.WithTimeout(sendTimeout / 2),
		gomail.WithTLSConfig(&tls.Config{ServerName: c.Host, RootCAs: c.roots, MinVersion: tls.VersionTLS12}),
	}
	switch c.TLS {
	case "implicit":
		opts = append(opts, gomail.WithSSL())
	case "none":
		opts = append(opts, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if c.Username != "" {
		auth := gomail.SMTPAuthAutoDiscover
		if c.TLS == "none" { // this machine only, see complete
			auth = gomail.SMTPAuthPlainNoEnc
		}
		opts = append(opts, gomail.WithSMTPAuth(auth), gomail.WithUsername(c.Username), gomail.WithPassword(c.Password))
	}
	return gomail.NewClient(c.Host, opts...)
}

func (c *smtp) send(ctx context.Context, m *Message) error {
	msg, err := compose(m)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	client, err := c.client()
	if err != nil {
		return fmt.Errorf("SMTP client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err = client.DialAndSendWithContext(ctx, msg)
	if msg.IsDelivered() {
		return nil // only the goodbye failed
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("SMTP server %s: %w", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), err)
	var refused *gomail.SendError
	if errors.As(err, &refused) && refused.ErrorCode() >= 500 {
		return fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	return err
}

// compose writes the mail as RFC 5322 wants it.
func compose(m *Message) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithEncoding(gomail.EncodingQP))
	if err := msg.From(m.From); err != nil {
		return nil, err
	}
	if err := msg.To(m.To...); err != nil {
		return nil, err
	}
	msg.Subject(m.Subject)
	msg.SetDateWithValue(m.At)
	host := LocalDomain
	if a, err := netmail.ParseAddress(m.From); err == nil {
		_, host, _ = strings.Cut(a.Address, "@")
	}
	msg.SetMessageIDWithValue(m.ID + "@" + host)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	if m.Unsubscribe != "" {
		msg.SetGenHeaderPreformatted("List-Unsubscribe", "<"+m.Unsubscribe+">")
	}
	msg.SetBodyString(gomail.TypeTextPlain, m.Body)
	return msg, nil
}
