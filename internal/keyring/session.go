package keyring

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// Errors of OpenSession; compare with errors.Is.
var (
	ErrToken   = errors.New("keyring: the session token does not belong to the access key")
	ErrExpired = errors.New("keyring: the session has expired")
)

// Session is whom temporary credentials stand for.
type Session struct {
	Account      string    `json:"a"`
	PrincipalARN string    `json:"p"`
	PrincipalID  string    `json:"i"`
	Expires      time.Time `json:"e"`
}

// Credentials are temporary credentials as a client gets them.
type Credentials struct{ AccessKeyID, Secret, Token string }

// Mint makes credentials for s. They survive restarts and need no row: the
// token is s itself, sealed together with the access key id.
func (r *Ring) Mint(s Session) Credentials {
	id := NewID("ASIA", 16)
	s.Expires = s.Expires.UTC().Truncate(time.Second)
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings and a time always marshal
	}
	return Credentials{AccessKeyID: id, Secret: r.sessionSecret(id),
		Token: base64.StdEncoding.EncodeToString(r.Seal("session", id, b))}
}

// OpenSession checks a token against the access key id, and its expiry
// against now. It returns the secret and whom they stand for.
func (r *Ring) OpenSession(accessKeyID, token string, now time.Time) (string, Session, error) {
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return "", Session{}, ErrToken
	}
	b, err := r.Unseal("session", accessKeyID, raw)
	if err != nil {
		return "", Session{}, ErrToken
	}
	var s Session
	if err := json.Unmarshal(b, &s); err != nil {
		return "", Session{}, ErrToken
	}
	if !now.Before(s.Expires) {
		return "", s, ErrExpired
	}
	return r.sessionSecret(accessKeyID), s, nil
}

func (r *Ring) sessionSecret(accessKeyID string) string {
	m := hmac.New(sha256.New, r.key("session-secret"))
	m.Write([]byte(accessKeyID))
	return base64.StdEncoding.EncodeToString(m.Sum(nil)[:30]) // 40 characters, as AWS's
}

// idAlphabet is base 32, as in AWS's unique ids.
const idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// NewID is prefix followed by n random characters of AWS's alphabet of ids.
func NewID(prefix string, n int) string {
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = idAlphabet[b[i]%32]
	}
	return prefix + string(b)
}

// NewSecret is a random secret access key of 40 characters.
func NewSecret() string {
	b := make([]byte, 30)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}
