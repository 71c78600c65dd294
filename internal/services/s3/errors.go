package s3

import (
	"context"
	"errors"
	"net"
	"strings"
	"unicode/utf8"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/blob"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

func noBucket(name string) error {
	return awserr.New("NoSuchBucket", "The specified bucket does not exist").WithStatus(404).WithField("BucketName", name)
}

func noKey(key string) error {
	return awserr.New("NoSuchKey", "The specified key does not exist.").WithStatus(404).WithField("Key", key)
}

func noVersion(key, id string) error {
	return awserr.New("NoSuchVersion", "The specified version does not exist.").WithStatus(404).WithField("Key", key).WithField("VersionId", id)
}

func precondition(condition string) error {
	return awserr.New("PreconditionFailed", "At least one of the pre-conditions you specified did not hold").WithStatus(412).WithField("Condition", condition)
}

func invalidArgument(name, value, format string, args ...any) error {
	return awserr.New("InvalidArgument", format, args...).WithStatus(400).WithField("ArgumentName", name).WithField("ArgumentValue", value)
}

// disk turns what blob says about the disk into S3's answers.
func disk(err error) error {
	switch {
	case errors.Is(err, blob.ErrFull), errors.Is(err, store.ErrFull):
		return awserr.New("ServiceUnavailable", "The disk of the data directory is full: nothing was written.").WithStatus(503).WithCause(err)
	case errors.Is(err, blob.ErrNotFound):
		return awserr.New("InternalError", "The object's content is missing from the data directory.").WithStatus(500).WithCause(err)
	}
	return err
}

var (
	bucketName   = lazyre.New(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	badPrefixes  = []string{"xn--", "sthree-", "amzn-s3-demo-"}
	badSuffixes  = []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"}
	maxKeyLength = 1024
)

// checkBucketName applies the "General purpose bucket naming rules" of the S3
// user guide.
func checkBucketName(name string) error {
	bad := !bucketName.MatchString(name) || strings.Contains(name, "..") || strings.Contains(name, ".-") || strings.Contains(name, "-.") || net.ParseIP(name) != nil
	for _, p := range badPrefixes {
		bad = bad || strings.HasPrefix(name, p)
	}
	for _, p := range badSuffixes {
		bad = bad || strings.HasSuffix(name, p)
	}
	if bad {
		return awserr.New("InvalidBucketName", "The specified bucket is not valid.").WithStatus(400).WithField("BucketName", name)
	}
	return nil
}

func checkKey(key string) error {
	switch {
	case len(key) > maxKeyLength:
		return awserr.New("KeyTooLongError", "Your key is too long").WithStatus(400).WithField("Size", len(key)).WithField("MaxSizeAllowed", maxKeyLength)
	case key == "" || !utf8.ValidString(key) || strings.ContainsRune(key, 0):
		return awserr.New("InvalidURI", "Couldn't parse the specified URI: the key must be UTF-8 without zero bytes.").WithStatus(400)
	}
	return nil
}

// bucket finds a bucket of the caller's account.
func (s *Service) bucket(ctx context.Context, name, owner *string) (*store.Row[bucket], error) {
	var row *store.Row[bucket]
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		row, err = bucketIn(ctx, r, name, owner)
		return err
	})
	return row, err
}

func bucketIn(ctx context.Context, r store.Reader, name, owner *string) (*store.Row[bucket], error) {
	row, err := buckets.Get(r, "", "", ptr.Value(name))
	if errors.Is(err, store.ErrNotFound) {
		if err := checkBucketName(ptr.Value(name)); err != nil {
			return nil, err
		}
		return nil, noBucket(ptr.Value(name))
	}
	if err != nil {
		return nil, err
	}
	if row.Doc.Account != caller.From(ctx).Account || owner != nil && *owner != row.Doc.Account {
		return nil, awserr.New("AccessDenied", "Access Denied").WithStatus(403)
	}
	return row, nil
}
