package imds

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"slipway/internal/clock"
)

// tokenBook issues session tokens that need no memory: an expiry and a MAC
// over it and the instance. A restart of the server makes them invalid, and
// every SDK then asks for a new one, as after a 401 of EC2's.
type tokenBook struct {
	key [32]byte
	now func() time.Time // session tokens live in the instance's real time
}

func newTokenBook() *tokenBook {
	b := &tokenBook{now: clock.Real.Now}
	rand.Read(b.key[:]) // never fails (crypto/rand)
	return b
}

func (b *tokenBook) mac(instance string, expiry uint64) []byte {
	m := hmac.New(sha256.New, b.key[:])
	var e [8]byte
	binary.BigEndian.PutUint64(e[:], expiry)
	m.Write(e[:])
	m.Write([]byte(instance))
	return m.Sum(nil)
}

func (b *tokenBook) issue(instance string, ttl time.Duration) string {
	expiry := uint64(b.now().Add(ttl).UnixNano())
	raw := binary.BigEndian.AppendUint64(nil, expiry)
	return base64.URLEncoding.EncodeToString(append(raw, b.mac(instance, expiry)...))
}

func (b *tokenBook) valid(instance, token string) bool {
	raw, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(raw) != 8+sha256.Size {
		return false
	}
	expiry := binary.BigEndian.Uint64(raw[:8])
	return hmac.Equal(raw[8:], b.mac(instance, expiry)) && uint64(b.now().UnixNano()) < expiry
}
