package codedeploy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// staleAfter is the age after which a note of an ongoing command is dropped: the service has given up long ago.
const staleAfter = 24 * time.Hour

// tracker remembers on disk which commands run and which results the service does not have yet, so that a
// killed agent can say what became of them.
type tracker struct{ l layout }

// begin notes that a command runs for a deployment.
func (t tracker) begin(deployment, id string) error {
	if err := replaceFile(filepath.Join(t.l.ongoing(), deployment), []byte(id), 0o644); err != nil {
		return fmt.Errorf("noting the ongoing command: %w", err)
	}
	return nil
}

// end removes the note.
func (t tracker) end(deployment string) error {
	err := os.Remove(filepath.Join(t.l.ongoing(), deployment))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t tracker) pendingFile(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(t.l.pending(), hex.EncodeToString(sum[:16])+".json")
}

// keep stores a result until delivered is called.
func (t tracker) keep(c completion) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := replaceFile(t.pendingFile(c.HostCommandIdentifier), b, 0o600); err != nil {
		return fmt.Errorf("keeping the result: %w", err)
	}
	return nil
}

func (t tracker) delivered(id string) error {
	err := os.Remove(t.pendingFile(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// recover returns what an earlier agent process left behind: results that were not delivered, and a failure
// with code 7 for every command that it was running when it died.
func (t tracker) recover(now time.Time) ([]completion, error) {
	left, err := t.readPending(now)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, c := range left {
		have[c.HostCommandIdentifier] = true
	}
	entries, err := os.ReadDir(t.l.ongoing())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		name := filepath.Join(t.l.ongoing(), e.Name())
		id, fresh, err := readNote(name, now)
		if err != nil {
			return nil, err
		}
		if fresh && id != "" && !have[id] && !strings.HasPrefix(e.Name(), ".") {
			c := complete(id, diagnostics{ErrorCode: codeAgentRestarted, Message: "The CodeDeploy agent was restarted while it ran this lifecycle event."})
			if err := t.keep(c); err != nil {
				return nil, err
			}
			left = append(left, c)
		}
		if err := os.Remove(name); err != nil {
			return nil, err
		}
	}
	return left, nil
}

func (t tracker) readPending(now time.Time) ([]completion, error) {
	entries, err := os.ReadDir(t.l.pending())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var left []completion
	for _, e := range entries {
		name := filepath.Join(t.l.pending(), e.Name())
		text, fresh, err := readNote(name, now)
		if err != nil {
			return nil, err
		}
		var c completion
		if fresh && json.Unmarshal([]byte(text), &c) == nil && c.HostCommandIdentifier != "" {
			left = append(left, c)
			continue
		}
		if err := os.Remove(name); err != nil { // stale, or a half-written temporary file
			return nil, err
		}
	}
	return left, nil
}

func readNote(name string, now time.Time) (text string, fresh bool, err error) {
	st, err := os.Stat(name)
	if err != nil {
		return "", false, err
	}
	b, err := os.ReadFile(name)
	return string(b), now.Sub(st.ModTime()) < staleAfter, err
}
