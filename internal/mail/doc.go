// Package mail sends what Slipway has to tell people: through the SMTP server
// that smtp.json in the data directory names, or, where there is no such
// file, into a mailbox of Slipway's own that `slipway mail` and
// GET /_slipway/mailbox show.
//
// Addresses below slipway.local are the mailbox's own and always go there.
package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"strings"
	"time"

	"slipway/internal/clock"
	"slipway/internal/store"
)

// LocalDomain is the domain of Slipway's own mailbox.
const LocalDomain = "slipway.local"

// Message is one mail to one or more people.
type Message struct {
	// ID names the message; sending the same id twice leaves one in the
	// mailbox, and SMTP servers see the same Message-ID.
	ID string `json:"id"`
	// At is when it was written; it becomes the Date.
	At      time.Time `json:"at"`
	From    string    `json:"from"` // "Name <user@host>"
	To      []string  `json:"to"`
	Subject string    `json:"subject"` // UTF-8, one line
	Body    string    `json:"body"`    // plain text, UTF-8
	// Unsubscribe is a link for the List-Unsubscribe header, or "".
	Unsubscribe string `json:"unsubscribe,omitempty"`
}

// ErrPermanent says that sending again cannot help: the server refused the
// mail for good, or it is no mail.
var ErrPermanent = errors.New("mail: refused for good")

// Deps is what the service needs.
type Deps struct {
	Store store.Store
	Clock clock.Clock  // nil: clock.Real
	Log   *slog.Logger // nil: slog.Default
	// Dir is the data directory, where smtp.json may be.
	Dir string
}

// Service sends mail. All methods are safe for concurrent use.
type Service struct {
	Deps
	smtp *smtp // nil: the mailbox takes everything
}

// Open reads smtp.json, if there is one. A file that others may read, or
// that makes no sense, is an error that names it.
func Open(d Deps) (*Service, error) {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	s := &Service{Deps: d}
	cfg, err := readSettings(d.Dir)
	if err != nil || cfg == nil {
		return s, err
	}
	s.smtp = &smtp{*cfg}
	return s, nil
}

// UsesSMTP says that an SMTP server is configured.
func (s *Service) UsesSMTP() bool { return s.smtp != nil }

// From is the sender address that mails have: the configured one, or AWS's.
func (s *Service) From() string {
	if s.smtp != nil {
		return s.smtp.From
	}
	return "no-reply@sns.amazonaws.com"
}

// Links is the URL that links in mails begin with, or "" where none is
// configured.
func (s *Service) Links() string {
	if s.smtp != nil {
		return strings.TrimSuffix(s.smtp.Links, "/")
	}
	return ""
}

// Local says whether an address is in the mailbox's own domain.
func Local(address string) bool {
	_, domain, ok := strings.Cut(address, "@")
	return ok && strings.EqualFold(domain, LocalDomain)
}

// Send hands a mail over. When it returns nil, the mailbox has it durably, or
// the SMTP server has taken responsibility for it. An error that wraps
// ErrPermanent will not go away.
func (s *Service) Send(ctx context.Context, m Message) error {
	if err := check(&m); err != nil {
		return err
	}
	var inside, outside []string
	for _, to := range m.To {
		if a, _ := mail.ParseAddress(to); s.smtp == nil || Local(a.Address) {
			inside = append(inside, to)
		} else {
			outside = append(outside, to)
		}
	}
	if len(outside) > 0 {
		out := m
		out.To = outside
		if err := s.smtp.send(ctx, &out); err != nil {
			return err
		}
	}
	if len(inside) == 0 {
		return nil
	}
	m.To = inside
	return s.keep(ctx, m)
}

// check refuses what would let text in one header become another header.
func check(m *Message) error {
	if m.ID == "" || len(m.To) == 0 {
		return fmt.Errorf("%w: a mail needs an id and a receiver", ErrPermanent)
	}
	for _, a := range append([]string{m.From}, m.To...) {
		if _, err := mail.ParseAddress(a); err != nil || strings.ContainsAny(a, "\r\n") {
			return fmt.Errorf("%w: %q is no mail address", ErrPermanent, a)
		}
	}
	if strings.ContainsAny(m.Subject+m.ID+m.Unsubscribe, "\r\n\x00") {
		return fmt.Errorf("%w: the subject of mail %q has more than one line", ErrPermanent, m.ID)
	}
	return nil
}
