package logs

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/store"
)

// group is a log group.
type group struct {
	Name       string
	Dir        string // of its events; see Service.log
	Created    int64  // milliseconds since the epoch, as everywhere in this API
	Retention  int64  // days; 0: for ever
	Class      string
	KMSKey     string            `json:",omitempty"` // stored only
	Protected  bool              `json:",omitempty"` // from deletion
	Tags       map[string]string `json:",omitempty"`
	NextStream uint32            // number of the next stream
}

// stream is a log stream.
type stream struct {
	Group, Name string
	Number      uint32 // in the group's segments; never used twice
	Created     int64
}

var (
	groups  = store.NewTable[group]("logs:group", nil)
	streams = store.NewTable("logs:stream", func(s *stream) (string, string) { return s.Group, "" })
)

// streamID: neither name can contain a colon.
func streamID(group, stream string) string { return group + ":" + stream }

func groupARN(id caller.Identity, name string) string {
	return "arn:aws:logs:" + id.Region + ":" + id.Account + ":log-group:" + name
}

func invalid(format string, args ...any) error {
	return awserr.New("InvalidParameterException", format, args...)
}

func noGroup() error {
	return awserr.New("ResourceNotFoundException", "The specified log group does not exist.")
}

func noStream() error {
	return awserr.New("ResourceNotFoundException", "The specified log stream does not exist.")
}

// groupName takes the name out of a name, an ARN, or an ARN that ends in ":*".
func groupName(name, identifier *string) (string, error) {
	if name != nil && identifier != nil {
		return "", invalid("LogGroupName and LogGroupIdentifier cannot be specified together.")
	}
	if name != nil {
		return *name, nil
	}
	if identifier == nil {
		return "", invalid("Either LogGroupName or LogGroupIdentifier must be specified.")
	}
	return fromARN(*identifier), nil
}

func fromARN(s string) string {
	if parts := strings.SplitN(s, ":", 7); len(parts) == 7 && parts[0] == "arn" {
		return strings.TrimSuffix(parts[6], ":*")
	}
	return s
}

func getGroup(ctx context.Context, r store.Reader, name string) (*store.Row[group], error) {
	id := caller.From(ctx)
	row, err := groups.Get(r, id.Account, id.Region, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noGroup()
	}
	return row, err
}

func getStream(ctx context.Context, r store.Reader, group, name string) (*store.Row[stream], error) {
	id := caller.From(ctx)
	row, err := streams.Get(r, id.Account, id.Region, streamID(group, name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noStream()
	}
	return row, err
}

// find reads a group and one of its streams.
func (s *Service) find(ctx context.Context, name, streamName string) (g *store.Row[group], st *store.Row[stream], err error) {
	err = s.Store.View(ctx, func(r store.Reader) error {
		if g, err = getGroup(ctx, r, name); err != nil {
			return err
		}
		st, err = getStream(ctx, r, name, streamName)
		return err
	})
	return g, st, err
}

func (s *Service) findGroup(ctx context.Context, name string) (g *store.Row[group], err error) {
	err = s.Store.View(ctx, func(r store.Reader) error {
		g, err = getGroup(ctx, r, name)
		return err
	})
	return g, err
}

func encodeToken(s string) *string { return new(base64.RawURLEncoding.EncodeToString([]byte(s))) }

func decodeToken(t *string) (string, error) {
	if t == nil {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*t)
	if err != nil {
		return "", badToken()
	}
	return string(b), nil
}

func badToken() error { return invalid("The specified nextToken is invalid.") }
