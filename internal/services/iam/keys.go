package iam

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"slipway/internal/aws/sigv4"
	"slipway/internal/clock"
	"slipway/internal/keyring"
	"slipway/internal/store"
)

// RootCredentials open everything in the account.
type RootCredentials struct {
	AccessKeyID string `json:"AccessKeyId"`
	Secret      string `json:"SecretAccessKey"`
}

const rootFile = "root-credentials.json"

// NewRoot makes root credentials that live in memory only.
func NewRoot() RootCredentials {
	return RootCredentials{AccessKeyID: keyring.NewID("AKIA", 16), Secret: keyring.NewSecret()}
}

// OpenRoot reads the root credentials in dir, or makes them at first start
// (root-credentials.json, mode 0600).
func OpenRoot(dir string) (RootCredentials, error) {
	var c RootCredentials
	path := filepath.Join(dir, rootFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		c = NewRoot()
		if b, err = json.MarshalIndent(c, "", "  "); err != nil {
			return c, err
		}
		return c, keyring.WriteSecret(path, append(b, '\n'))
	}
	if err != nil {
		return c, fmt.Errorf("iam: root credentials: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil || c.AccessKeyID == "" || c.Secret == "" {
		return c, fmt.Errorf("iam: %s is damaged: it must hold AccessKeyId and SecretAccessKey; remove it to get new ones", path)
	}
	return c, nil
}

// accessKey is a long-lived key of a user.
type accessKey struct {
	ID       string
	UserName string
	Active   bool
	Sealed   []byte // the secret
	LastUsed int64  // unused: 0
}

// accessKeys are looked up before the account is known, so that their rows
// have no account in the key; Owner in the document names it.
var accessKeys = store.NewTable("iam:access-key", func(k *keyRow) (string, string) { return ownerKey(k.Owner, k.UserName), k.status() })

type keyRow struct {
	accessKey
	Owner string // the account
}

func ownerKey(account, user string) string { return account + "/" + strings.ToLower(user) }

func (k *keyRow) status() string {
	if k.Active {
		return "Active"
	}
	return "Inactive"
}

// Lookup implements sigv4.Keys. Expiry is compared with real time, for the
// clients' programs compare it with theirs.
func (s *Service) Lookup(ctx context.Context, id, token string) (sigv4.Credential, error) {
	if strings.HasPrefix(id, "ASIA") {
		return s.lookupSession(id, token)
	}
	if subtle.ConstantTimeCompare([]byte(id), []byte(s.Root.AccessKeyID)) == 1 && id != "" {
		return sigv4.Credential{Secret: s.Root.Secret, Account: s.Account,
			PrincipalARN: "arn:aws:iam::" + s.Account + ":root", PrincipalID: s.Account}, nil
	}
	row, err := accessKeys.Find(ctx, s.Store, "", "", id)
	if errors.Is(err, store.ErrNotFound) || err == nil && !row.Doc.Active {
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	}
	if err != nil {
		return sigv4.Credential{}, err
	}
	secret, err := s.Ring.Unseal("access-key", id, row.Doc.Sealed)
	if err != nil {
		return sigv4.Credential{}, fmt.Errorf("iam: access key %s: %w", id, err)
	}
	user, err := users.Find(ctx, s.Store, row.Doc.Owner, "", strings.ToLower(row.Doc.UserName))
	if errors.Is(err, store.ErrNotFound) {
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	}
	if err != nil {
		return sigv4.Credential{}, err
	}
	return sigv4.Credential{Secret: string(secret), Account: row.Doc.Owner, PrincipalARN: user.Doc.ARN, PrincipalID: user.Doc.ID}, nil
}

func (s *Service) lookupSession(id, token string) (sigv4.Credential, error) {
	if token == "" {
		return sigv4.Credential{}, sigv4.ErrInvalidToken
	}
	secret, ses, err := s.Ring.OpenSession(id, token, clock.Real.Now())
	switch {
	case errors.Is(err, keyring.ErrExpired):
		return sigv4.Credential{}, sigv4.ErrExpiredToken
	case err != nil:
		return sigv4.Credential{}, sigv4.ErrInvalidToken
	}
	return sigv4.Credential{Secret: secret, Account: ses.Account, PrincipalARN: ses.PrincipalARN,
		PrincipalID: ses.PrincipalID, Expires: ses.Expires}, nil
}
