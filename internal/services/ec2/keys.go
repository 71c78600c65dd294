package ec2

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// keyPair keeps the public half only, as EC2 does.
type keyPair struct {
	ID, Name, Fingerprint string
	Type                  string // "rsa" or "ed25519"
	PublicKey             string // authorized_keys line
	Created               time.Time
}

func (s *Service) createKeyPair(ctx context.Context, in *api.CreateKeyPairInput) (*api.CreateKeyPairOutput, error) {
	tags, err := specTags(in.TagSpecifications, "key-pair")
	if err != nil {
		return nil, err
	}
	if ptr.Value(in.KeyFormat) == "ppk" {
		return nil, awserr.New("Unsupported", "Slipway writes private keys in PEM only, not for PuTTY (ppk).")
	}
	kind := ptr.Value(in.KeyType)
	if kind == "" {
		kind = "rsa"
	}
	k := keyPair{ID: newID("key"), Name: ptr.Value(in.KeyName), Type: kind, Created: s.Clock.Now()}
	material, err := k.generate()
	if err != nil {
		return nil, err
	}
	if err := s.addKeyPair(ctx, k, tags, in.DryRun); err != nil {
		return nil, err
	}
	return &api.CreateKeyPairOutput{KeyFingerprint: &k.Fingerprint, KeyMaterial: &material, KeyName: &k.Name, KeyPairId: &k.ID, Tags: apiTags(tags)}, nil
}

// generate makes a key and fills in its public half. Fingerprints: SHA-1 of
// the PKCS8 private key for RSA keys that EC2 made, SHA-256 of the public
// key for ED25519 (EC2 User Guide, "Verify the fingerprint of your key pair").
func (k *keyPair) generate() (material string, err error) {
	var private crypto.Signer
	var block *pem.Block
	if k.Type == "ed25519" {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return "", err
		}
		if block, err = ssh.MarshalPrivateKey(key, ""); err != nil {
			return "", err
		}
		private = key
	} else {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return "", err
		}
		block = &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return "", err
		}
		k.Fingerprint = colons(sha1.Sum(pkcs8))
		private = key
	}
	pub, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return "", err
	}
	if k.Type == "ed25519" {
		k.Fingerprint = sha256Fingerprint(pub)
	}
	k.PublicKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))) + " " + k.Name
	return string(pem.EncodeToMemory(block)), nil
}

func sha256Fingerprint(pub ssh.PublicKey) string {
	sum := sha256.Sum256(pub.Marshal())
	return base64.StdEncoding.EncodeToString(sum[:])
}

func colons[B [20]byte | [16]byte](sum B) string {
	var raw []byte
	switch v := any(sum).(type) {
	case [20]byte:
		raw = v[:]
	case [16]byte:
		raw = v[:]
	}
	parts := make([]string, len(raw))
	for i, b := range raw {
		parts[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(parts, ":")
}

func (s *Service) importKeyPair(ctx context.Context, in *api.ImportKeyPairInput) (*api.ImportKeyPairOutput, error) {
	tags, err := specTags(in.TagSpecifications, "key-pair")
	if err != nil {
		return nil, err
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(in.PublicKeyMaterial)
	if err != nil {
		return nil, awserr.New("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
	}
	k := keyPair{ID: newID("key"), Name: ptr.Value(in.KeyName), Created: s.Clock.Now()}
	switch pub.Type() {
	case ssh.KeyAlgoED25519:
		k.Type, k.Fingerprint = "ed25519", sha256Fingerprint(pub)
	case ssh.KeyAlgoRSA:
		k.Type = "rsa"
		der, err := x509.MarshalPKIXPublicKey(pub.(ssh.CryptoPublicKey).CryptoPublicKey())
		if err != nil {
			return nil, err
		}
		k.Fingerprint = colons(md5.Sum(der))
	default:
		return nil, awserr.New("InvalidKey.Format", "Key is not in valid OpenSSH public key format: %s is neither RSA nor ED25519", pub.Type())
	}
	k.PublicKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))) + " " + k.Name
	if err := s.addKeyPair(ctx, k, tags, in.DryRun); err != nil {
		return nil, err
	}
	return &api.ImportKeyPairOutput{KeyFingerprint: &k.Fingerprint, KeyName: &k.Name, KeyPairId: &k.ID, Tags: apiTags(tags)}, nil
}

func (s *Service) addKeyPair(ctx context.Context, k keyPair, tags map[string]string, dry *bool) error {
	account, region := where(ctx)
	if k.Name == "" || len(k.Name) > 255 || strings.ContainsAny(k.Name, "\r\n") {
		return awserr.New("InvalidParameterValue", "Value (%s) for parameter KeyName is invalid. It must have 1 to 255 characters.", k.Name)
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		if _, err := keyPairs.Insert(tx, account, region, k.Name, k, "Created", nil); errors.Is(err, store.ErrExists) {
			return awserr.New("InvalidKeyPair.Duplicate", "The keypair already exists")
		} else if err != nil {
			return err
		}
		if err := putTags(tx, account, region, k.ID, "key-pair", tags); err != nil {
			return err
		}
		return dryRun(dry)
	})
}

func (s *Service) describeKeyPairs(ctx context.Context, in *api.DescribeKeyPairsInput) (*api.DescribeKeyPairsOutput, error) {
	account, region := where(ctx)
	var all []*keyPair
	var tags map[string]map[string]string
	err := s.Store.View(ctx, func(r store.Reader) error {
		rows, err := keyPairs.List(r, store.Query{Account: account, Region: region})
		if err != nil {
			return err
		}
		for _, row := range rows {
			all = append(all, &row.Doc)
		}
		tags, err = allTags(r, account, region, "key-pair")
		return err
	})
	if err != nil {
		return nil, err
	}
	wanted := append(append([]string(nil), in.KeyNames...), in.KeyPairIds...)
	for _, w := range wanted {
		if !slices.ContainsFunc(all, func(k *keyPair) bool { return k.Name == w || k.ID == w }) {
			return nil, awserr.New("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", w)
		}
	}
	if len(wanted) > 0 {
		all = slices.DeleteFunc(all, func(k *keyPair) bool { return !slices.Contains(wanted, k.Name) && !slices.Contains(wanted, k.ID) })
	}
	by := fields[*keyPair]{
		"key-name": one(func(k *keyPair) string { return k.Name }), "key-pair-id": one(func(k *keyPair) string { return k.ID }),
		"fingerprint": one(func(k *keyPair) string { return k.Fingerprint }),
	}
	if all, err = filtered(all, in.Filters, by, func(k *keyPair) map[string]string { return tags[k.ID] }); err != nil {
		return nil, err
	}
	out := &api.DescribeKeyPairsOutput{}
	for _, k := range all {
		info := api.KeyPairInfo{KeyPairId: new(k.ID), KeyFingerprint: new(k.Fingerprint), KeyName: new(k.Name), KeyType: new(k.Type), CreateTime: new(k.Created), Tags: apiTags(tags[k.ID])}
		if ptr.Value(in.IncludePublicKey) {
			info.PublicKey = new(k.PublicKey)
		}
		out.KeyPairs = append(out.KeyPairs, info)
	}
	return out, dryRun(in.DryRun)
}

// deleteKeyPair succeeds for a key pair that does not exist, as EC2 does.
func (s *Service) deleteKeyPair(ctx context.Context, in *api.DeleteKeyPairInput) (*api.DeleteKeyPairOutput, error) {
	account, region := where(ctx)
	if in.KeyName == nil && in.KeyPairId == nil {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
	}
	out := &api.DeleteKeyPairOutput{Return: new(true)}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		rows, err := keyPairs.List(tx, store.Query{Account: account, Region: region})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Doc.Name == ptr.Value(in.KeyName) || row.Doc.ID == ptr.Value(in.KeyPairId) {
				out.KeyPairId = new(row.Doc.ID)
				if err := dropTags(tx, account, region, row.Doc.ID); err != nil {
					return err
				}
				if err := keyPairs.Delete(tx, row, "Deleted", nil); err != nil {
					return err
				}
			}
		}
		return dryRun(in.DryRun)
	})
	return out, err
}
