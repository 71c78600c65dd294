package cloudwatch

import (
	"fmt"
	"os"
	"strings"
	"time"

	"slipway/internal/lazyre"
)

var placeholder = lazyre.New(`\{[^{}]*\}`)

// checkPlaceholders refuses a name with a placeholder that nobody knows.
func checkPlaceholders(s string) error {
	for _, p := range placeholder.FindAllString(s, -1) {
		switch p {
		case "{instance_id}", "{hostname}", "{local_hostname}", "{ip_address}", "{date}", "{aws_region}":
		default:
			if !strings.HasPrefix(p, "{env:") {
				return fmt.Errorf("the placeholder %s in %q is not known", p, s)
			}
		}
	}
	return nil
}

// host is who the agent runs on.
type host struct {
	InstanceID, InstanceType, ImageID, Region, IP string
	Hostname                                      string // as the metadata service has it
}

// expand puts values in for the placeholders of a log group's or stream's name.
func (h *host) expand(s string, now time.Time) string {
	if !strings.Contains(s, "{") {
		return s
	}
	local, err := os.Hostname()
	if err != nil {
		local = h.InstanceID
	}
	return placeholder.ReplaceAllStringFunc(s, func(p string) string {
		switch p {
		case "{instance_id}":
			return orElse(h.InstanceID, local)
		case "{hostname}":
			return orElse(h.Hostname, local)
		case "{local_hostname}":
			return local
		case "{ip_address}":
			return orElse(h.IP, local)
		case "{date}":
			return now.Format("2006-01-02")
		case "{aws_region}":
			return h.Region
		}
		return os.Getenv(strings.TrimSuffix(strings.TrimPrefix(p, "{env:"), "}"))
	})
}

func orElse(v, other string) string {
	if v == "" {
		return other
	}
	return v
}
