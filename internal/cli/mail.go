package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// message is a mail in the local mailbox.
type message struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	From    string    `json:"from"`
	To      []string  `json:"to"`
	Subject string    `json:"subject"`
	Body    string    `json:"body"`
}

func mailCommand(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "mail [NUMBER]", Short: "Read the mails that were sent to this server's own mailbox", Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			var box []message
			if err := s.admin(cmd.Context(), http.MethodGet, "mailbox", nil, &box); err != nil {
				return err
			}
			if asJSON {
				b, err := json.MarshalIndent(box, "", "  ")
				fmt.Println(string(b))
				return err
			}
			return showMail(box, args)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return c
}

func showMail(box []message, args []string) error {
	if len(args) == 0 {
		if len(box) == 0 {
			fmt.Println("no mail")
		}
		for i, m := range box {
			fmt.Printf("%3d  %s  %-28s  %s\n", i+1, m.At.Local().Format("01-02 15:04:05"), cut(strings.Join(m.To, ", "), 28), cut(m.Subject, 100))
		}
		return nil
	}
	var n int
	if _, err := fmt.Sscanf(args[0], "%d", &n); err != nil || n < 1 || n > len(box) {
		return fmt.Errorf("there is no mail %s; slipway mail lists 1 to %d", args[0], len(box))
	}
	m := box[n-1]
	fmt.Printf("From: %s\nTo: %s\nDate: %s\nSubject: %s\n\n", m.From, strings.Join(m.To, ", "), m.At.Format(time.RFC1123Z), m.Subject)
	for l := range strings.Lines(m.Body) {
		fmt.Println(cut(strings.TrimRight(l, "\r\n"), 4000))
	}
	return nil
}

// adminRaw fetches text from below /_slipway/.
func (s *session) adminRaw(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint+"/_slipway/"+path, nil)
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(s.keys.AccessKeyID, s.keys.SecretAccessKey)
	res, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s", strings.TrimSpace(string(b)))
	}
	return string(b), err
}
