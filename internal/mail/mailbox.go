package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"slipway/internal/store"
)

// What the mailbox keeps at most: a forgotten alarm must not fill the disk.
const (
	maxMails = 1000
	// maxBody cuts what one mail may take, in bytes; SNS messages are smaller.
	maxBody = 512 << 10
)

// mails are the rows of the mailbox, newest last: ids begin with a number
// that grows.
var mails = store.NewTable[Message]("mail:message", func(m *Message) (string, string) { return m.ID, "" })

// account under which the mailbox counts: it belongs to the server.
const account = "mailbox"

// keep stores a mail, once for each id, and drops the oldest ones.
func (s *Service) keep(ctx context.Context, m Message) error {
	if len(m.Body) > maxBody {
		m.Body = m.Body[:maxBody] + "\n[cut]"
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		old, err := tx.List(store.Query{Kind: mails.Kind, Account: account, Parent: m.ID, Limit: 1})
		if err != nil || len(old) > 0 {
			return err
		}
		n, err := tx.Counter(mails.Key(account, "", "sequence"), 1)
		if err != nil {
			return err
		}
		if _, err := mails.Insert(tx, account, "", fmt.Sprintf("%016d", n), m, "Received", nil); err != nil {
			return err
		}
		have, err := mails.Count(tx, store.Query{Account: account})
		if err != nil || have <= maxMails {
			return err
		}
		oldest, err := mails.List(tx, store.Query{Account: account, Limit: have - maxMails})
		for _, row := range oldest {
			if err := mails.Delete(tx, row, "Dropped", nil); err != nil {
				return err
			}
		}
		return err
	})
}

// List returns the mails of the mailbox, oldest first.
func (s *Service) List(ctx context.Context) ([]Message, error) {
	rows, err := mails.Select(ctx, s.Store, store.Query{Account: account})
	out := make([]Message, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.Doc)
	}
	return out, err
}

// Clear empties the mailbox; with an id, it removes that mail alone and
// returns store.ErrNotFound where there is none.
func (s *Service) Clear(ctx context.Context, id string) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		rows, err := mails.List(tx, store.Query{Account: account, Parent: id})
		if err == nil && id != "" && len(rows) == 0 {
			err = store.ErrNotFound
		}
		for _, r := range rows {
			if err := mails.Delete(tx, r, "Deleted", nil); err != nil {
				return err
			}
		}
		return err
	})
}

// HandleList serves GET /_slipway/mailbox: the mails as a JSON list, oldest
// first; ?to=ADDRESS selects.
func (s *Service) HandleList(w http.ResponseWriter, r *http.Request) {
	box, err := s.List(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if to := r.URL.Query().Get("to"); to != "" {
		box = slices.DeleteFunc(box, func(m Message) bool { return !slices.Contains(m.To, to) })
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// The client may be gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(box)
}

// HandleClear serves DELETE /_slipway/mailbox and /_slipway/mailbox/{id}.
func (s *Service) HandleClear(w http.ResponseWriter, r *http.Request) {
	switch err := s.Clear(r.Context(), r.PathValue("id")); {
	case errors.Is(err, store.ErrNotFound):
		http.Error(w, "there is no such mail", http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
