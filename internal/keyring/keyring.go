// Package keyring holds the one secret key of an installation and what is
// derived from it: sealed values (SSM's SecureStrings) and temporary
// credentials that need no row, because the token itself says whose they are.
// All methods are safe for concurrent use; nothing here is ever logged.
package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	keyFile = "server.key"
	keySize = 32
)

// ErrSealed says that a sealed value was not made with this key and this
// context, or was changed.
var ErrSealed = errors.New("keyring: the value was not sealed with this key")

// Ring derives keys from the installation's secret.
type Ring struct{ secret []byte }

// Open reads the key file in dir (mode 0600), or makes it at first start.
func Open(dir string) (*Ring, error) {
	path := filepath.Join(dir, keyFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, keySize)
		rand.Read(b)
		if err := WriteSecret(path, b); err != nil {
			return nil, err
		}
		return &Ring{b}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if len(b) != keySize {
		return nil, fmt.Errorf("keyring: %s holds %d bytes instead of %d: restore it from a backup; without it sealed values cannot be read", path, len(b), keySize)
	}
	return &Ring{b}, nil
}

// Ephemeral is a ring that lives in memory only.
func Ephemeral() *Ring {
	b := make([]byte, keySize)
	rand.Read(b)
	return &Ring{b}
}

// WriteSecret writes a file of mode 0600 so that it is there whole, and
// durable, or not at all.
func WriteSecret(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".secret-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("keyring: write %s: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// key derives the key for one purpose (HKDF, RFC 5869).
func (r *Ring) key(purpose string) []byte {
	k, err := hkdf.Key(sha256.New, r.secret, nil, "slipway:"+purpose, keySize)
	if err != nil {
		panic(err) // only for lengths that keySize is not
	}
	return k
}

func (r *Ring) aead(purpose string) cipher.AEAD {
	block, err := aes.NewCipher(r.key(purpose))
	if err != nil {
		panic(err) // only for key sizes that keySize is not
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return a
}

// Seal encrypts data for a purpose; Unseal needs the same purpose and context.
func (r *Ring) Seal(purpose, context string, data []byte) []byte {
	return r.aead(purpose).Seal(nil, nil, data, []byte(context))
}

// Unseal gives back what Seal was given, or ErrSealed.
func (r *Ring) Unseal(purpose, context string, sealed []byte) ([]byte, error) {
	b, err := r.aead(purpose).Open(nil, nil, sealed, []byte(context))
	if err != nil {
		return nil, ErrSealed
	}
	return b, nil
}
