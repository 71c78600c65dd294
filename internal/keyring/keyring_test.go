package keyring_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"slipway/internal/keyring"
)

func TestSessionSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	r, err := keyring.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "server.key"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v %v", fi, err)
	}
	now := time.Unix(1_000_000, 0)
	c := r.Mint(keyring.Session{Account: "123456789012", PrincipalARN: "arn:x", PrincipalID: "AROA:i", Expires: now.Add(time.Hour)})
	if r, err = keyring.Open(dir); err != nil {
		t.Fatal(err)
	}
	secret, s, err := r.OpenSession(c.AccessKeyID, c.Token, now)
	if err != nil || secret != c.Secret || s.PrincipalARN != "arn:x" {
		t.Fatalf("got %v %v", s, err)
	}
	if _, _, err := r.OpenSession("ASIAAAAAAAAAAAAAAAAA", c.Token, now); !errors.Is(err, keyring.ErrToken) {
		t.Errorf("another key's token: %v", err)
	}
	if _, _, err := r.OpenSession(c.AccessKeyID, c.Token[:20], now); !errors.Is(err, keyring.ErrToken) {
		t.Errorf("a cut token: %v", err)
	}
	if _, _, err := r.OpenSession(c.AccessKeyID, c.Token, now.Add(time.Hour)); !errors.Is(err, keyring.ErrExpired) {
		t.Errorf("an expired token: %v", err)
	}
	if _, _, err := keyring.Ephemeral().OpenSession(c.AccessKeyID, c.Token, now); !errors.Is(err, keyring.ErrToken) {
		t.Errorf("another installation's token: %v", err)
	}
}

func TestSealIsBoundToItsContext(t *testing.T) {
	r := keyring.Ephemeral()
	sealed := r.Seal("ssm", "/a", []byte("secret"))
	if b, err := r.Unseal("ssm", "/a", sealed); err != nil || string(b) != "secret" {
		t.Fatal(string(b), err)
	}
	if _, err := r.Unseal("ssm", "/b", sealed); !errors.Is(err, keyring.ErrSealed) {
		t.Errorf("another context: %v", err)
	}
}

func TestDamagedKeyFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "server.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(dir); err == nil {
		t.Fatal("a damaged key was taken")
	}
}
