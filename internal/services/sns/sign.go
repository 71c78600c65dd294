package sns

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"slipway/internal/clock"
)

// keyFile holds the signing key and its certificate.
const keyFile = "sns-signing.pem"

// signer signs messages as SNS does; receivers check it with the certificate
// that Pages serves.
type signer struct {
	key *rsa.PrivateKey
	pem []byte // the certificate
	// name is the last part of the certificate's URL.
	name string
}

// openSigner reads the key, or makes one at the first start.
func openSigner(dir string) (*signer, error) {
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeSigner(path)
	}
	if err != nil {
		return nil, fmt.Errorf("SNS's signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("SNS's signing key %s can be read by others (mode %04o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("SNS's signing key: %w", err)
	}
	s, err := parseSigner(raw)
	if err != nil {
		return nil, fmt.Errorf("SNS's signing key %s cannot be used; remove the file to get a new one: %w", path, err)
	}
	return s, nil
}

func parseSigner(raw []byte) (*signer, error) {
	keyBlock, rest := pem.Decode(raw)
	certBlock, _ := pem.Decode(rest)
	if keyBlock == nil || certBlock == nil {
		return nil, errors.New("it does not hold a key and a certificate")
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	public, ok2 := cert.PublicKey.(*rsa.PublicKey)
	if !ok || !ok2 || !private.PublicKey.Equal(public) {
		return nil, errors.New("key and certificate do not belong together")
	}
	sum := sha256.Sum256(certBlock.Bytes)
	return &signer{private, pem.EncodeToMemory(certBlock), "SimpleNotificationService-" + hex.EncodeToString(sum[:16]) + ".pem"}, nil
}

func makeSigner(path string) (*signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	now := clock.Real.Now() // receivers compare with their own clock
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "sns.amazonaws.com", Organization: []string{"Slipway"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(30, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: []string{"sns.amazonaws.com"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	raw := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if err := writeSecret(path, raw); err != nil {
		return nil, fmt.Errorf("SNS's signing key: %w", err)
	}
	return parseSigner(raw)
}

// writeSecret writes a file whole, for its owner only.
func writeSecret(path string, raw []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(raw); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// sign makes the signature of text for SignatureVersion "1" (SHA-1) or "2"
// (SHA-256), PKCS #1 v1.5.
func (s *signer) sign(version, text string) (string, error) {
	hash, sum := crypto.SHA1, []byte(nil)
	if version == "2" {
		hash = crypto.SHA256
		h := sha256.Sum256([]byte(text))
		sum = h[:]
	} else {
		h := sha1.Sum([]byte(text))
		sum = h[:]
	}
	sig, err := rsa.SignPKCS1v15(nil, s.key, hash, sum)
	return base64.StdEncoding.EncodeToString(sig), err
}
