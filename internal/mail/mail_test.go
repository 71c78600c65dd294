package mail

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"slipway/internal/store"
)

func open(t *testing.T, dir string) (*Service, error) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return Open(Deps{Store: st, Dir: dir})
}

func sample(id string) Message {
	return Message{ID: id, At: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), From: `"Todo" <no-reply@example.com>`, To: []string{"ann@example.com"}, Subject: `ALARM: "cpu" in US East (N. Virginia)`,
		Body: "Über\n.dot\n" + strings.Repeat("long ", 400) + "\n"}
}

func TestMailboxKeepsEachMailOnce(t *testing.T) {
	s, err := open(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, id := range []string{"a", "b"} {
			if err := s.Send(t.Context(), sample(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	rec := httptest.NewRecorder()
	s.HandleList(rec, httptest.NewRequest("GET", "/_slipway/mailbox?to=ann@example.com", nil))
	var box []Message
	if err := json.Unmarshal(rec.Body.Bytes(), &box); err != nil || len(box) != 2 || box[0].ID != "a" || box[1].ID != "b" || box[0].Body != sample("a").Body {
		t.Fatalf("%v %+v", err, box)
	}
	if err := s.Clear(t.Context(), "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("clearing a mail that is not there: %v", err)
	}
	if err := s.Clear(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if box, _ := s.List(t.Context()); len(box) != 1 || box[0].ID != "b" {
		t.Errorf("left: %+v", box)
	}
	if err := s.Clear(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if box, _ := s.List(t.Context()); len(box) != 0 {
		t.Errorf("left: %+v", box)
	}
}

func TestMailboxIsBounded(t *testing.T) {
	s, err := open(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxMails + 5 {
		m := sample(fmt.Sprint(n))
		m.Body = "x"
		if err := s.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	box, err := s.List(t.Context())
	if err != nil || len(box) != maxMails || box[0].ID != "5" {
		t.Errorf("%d mails, the oldest is %s, %v", len(box), box[0].ID, err)
	}
}

func TestHostileMails(t *testing.T) {
	s, err := open(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Message){
		"subject": func(m *Message) { m.Subject = "x\r\nBcc: y@z" }, "to": func(m *Message) { m.To = []string{"a@b\r\nBcc: y@z"} },
		"from": func(m *Message) { m.From = "x" }, "nobody": func(m *Message) { m.To = nil }, "link": func(m *Message) { m.Unsubscribe = "http://x\n" },
	} {
		m := sample("x")
		change(&m)
		if err := s.Send(t.Context(), m); !errors.Is(err, ErrPermanent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"readable by others": {`{"host":"h","from":"a@b.c"}`, 0o644, "chmod 600"},
		"no JSON":            {`{`, 0o600, SettingsFile},
		"unknown member":     {`{"host":"h","from":"a@b.c","pasword":"x"}`, 0o600, "pasword"},
		"no host":            {`{"from":"a@b.c"}`, 0o600, "host"},
		"no sender":          {`{"host":"h"}`, 0o600, "from"},
		"tls":                {`{"host":"h","from":"a@b.c","tls":"maybe"}`, 0o600, "tls"},
		"password in clear":  {`{"host":"h.example","from":"a@b.c","tls":"none","password":"p"}`, 0o600, "TLS"},
		"port":               {`{"host":"h","from":"a@b.c","port":70000}`, 0o600, "port"},
		"authority":          {`{"host":"h","from":"a@b.c","caFile":"/nonexistent/ca.pem"}`, 0o600, "caFile"},
		"links":              {`{"host":"h","from":"a@b.c","links":"ops.example.com"}`, 0o600, "links"},
		"good":               {`{"host":"h","from":"A <a@b.c>","links":"https://ops.example.com/","username":"u","password":"p"}`, 0o600, ""},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, SettingsFile)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		s, err := open(t, dir)
		if c.want == "" {
			if err != nil || !s.UsesSMTP() || s.smtp.Port != 587 || s.smtp.TLS != "starttls" || s.From() != "a@b.c" || s.Links() != "https://ops.example.com" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), `"p"`) {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
	}
}

// server is a real SMTP server that keeps what it gets.
type server struct {
	mu     sync.Mutex
	mails  [][]byte
	to     []string
	logins int
	tls    bool
	refuse *gosmtp.SMTPError
	addr   string
}

type session struct {
	s    *server
	conn *gosmtp.Conn
	auth bool
}

func (s *server) NewSession(c *gosmtp.Conn) (gosmtp.Session, error) {
	return &session{s: s, conn: c}, nil
}
func (x *session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (x *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "ann" || password != "secret" {
			return gosmtp.ErrAuthFailed
		}
		x.auth = true
		x.s.mu.Lock()
		x.s.logins++
		_, x.s.tls = x.conn.TLSConnectionState()
		x.s.mu.Unlock()
		return nil
	}), nil
}
func (x *session) Mail(string, *gosmtp.MailOptions) error {
	if !x.auth {
		return gosmtp.ErrAuthRequired
	}
	return nil
}
func (x *session) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.s.refuse != nil {
		return x.s.refuse
	}
	x.s.to = append(x.s.to, to)
	return nil
}
func (x *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.mails = append(x.s.mails, b)
	return err
}
func (x *session) Reset()        {}
func (x *session) Logout() error { return nil }

// serve starts the server with a certificate of its own, and writes settings
// that lead to it.
func serve(t *testing.T, dir string) *server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	srv := gosmtp.NewServer(s)
	srv.Domain, srv.ReadTimeout, srv.WriteTimeout = "localhost", 10*time.Second, 10*time.Second
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(Settings{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, From: "alerts@example.com", Username: "ann", Password: "secret", CAFile: ca})
	if err := os.WriteFile(filepath.Join(dir, SettingsFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSMTPWithSTARTTLSAndLogin(t *testing.T) {
	dir := t.TempDir()
	srv := serve(t, dir)
	s, err := open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	m := sample("0001")
	m.To = []string{"ann@example.com", "own@slipway.local"}
	m.Unsubscribe = "http://127.0.0.1:4566/_slipway/sns/unsubscribe?SubscriptionArn=arn%3Aaws"
	if err := s.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if len(srv.mails) != 1 || srv.logins != 1 || !srv.tls || len(srv.to) != 1 || srv.to[0] != "ann@example.com" {
		t.Fatalf("the server got %d mails to %v, %d logins, TLS %v", len(srv.mails), srv.to, srv.logins, srv.tls)
	}
	got, err := netmail.ReadMessage(bytes.NewReader(srv.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"Subject": m.Subject, "Message-Id": "<0001@example.com>", "From": `"Todo" <no-reply@example.com>`, "Date": "Mon, 23 Nov 2026 12:00:00 +0000",
		"List-Unsubscribe": "<" + m.Unsubscribe + ">", "Auto-Submitted": "auto-generated", "Content-Transfer-Encoding": "quoted-printable"} {
		if v := strings.Join(strings.Fields(got.Header.Get(k)), " "); v != want {
			t.Errorf("%s: %q, want %q", k, v, want)
		}
	}
	body, err := io.ReadAll(quoted(got.Body))
	if err != nil || strings.ReplaceAll(string(body), "\r\n", "\n") != m.Body {
		t.Errorf("body: %v %q", err, body)
	}
	if box, _ := s.List(t.Context()); len(box) != 1 || len(box[0].To) != 1 || box[0].To[0] != "own@slipway.local" {
		t.Errorf("the own mailbox: %+v", box)
	}
	srv.refuse = &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such person"}
	if err := s.Send(t.Context(), sample("0002")); !errors.Is(err, ErrPermanent) {
		t.Errorf("550: %v", err)
	}
	srv.refuse = &gosmtp.SMTPError{Code: 451, EnhancedCode: gosmtp.EnhancedCode{4, 3, 0}, Message: "later"}
	if err := s.Send(t.Context(), sample("0003")); err == nil || errors.Is(err, ErrPermanent) {
		t.Errorf("451: %v", err)
	}
}

func TestSMTPDistrustsForeignCertificates(t *testing.T) {
	dir := t.TempDir()
	srv := serve(t, dir)
	raw, err := os.ReadFile(filepath.Join(dir, SettingsFile))
	if err != nil {
		t.Fatal(err)
	}
	var c Settings
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	c.CAFile = ""
	raw, _ = json.Marshal(c)
	if err := os.WriteFile(filepath.Join(dir, SettingsFile), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = s.Send(ctx, sample("0001"))
	if err == nil || errors.Is(err, ErrPermanent) || srv.logins != 0 || strings.Contains(err.Error(), "secret") {
		t.Errorf("a certificate of nobody: %v, %d logins", err, srv.logins)
	}
}

func quoted(r io.Reader) io.Reader { return quotedprintable.NewReader(r) }
