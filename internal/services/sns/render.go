package sns

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"slipway/internal/mail"
)

// field is one member of an envelope, in AWS's order.
type field struct {
	key, value string
	signed     bool
}

// envelope is the JSON that http, https and email-json subscribers get,
// signed. base is the API's URL as the receiver sees it.
func (s *Service) envelope(t *Topic, sub *Subscription, m *message, base string) ([]byte, error) {
	version := t.Attributes["SignatureVersion"]
	if version == "" {
		version = "1"
	}
	f := []field{{"Type", m.Type, true}, {"MessageId", m.ID, true}}
	if m.Type != typeNotification {
		f = append(f, field{"Token", m.Token, true})
	}
	f = append(f, field{"TopicArn", m.TopicARN, true})
	if m.Subject != "" {
		f = append(f, field{"Subject", m.Subject, true})
	}
	f = append(f, field{"Message", m.body(sub.Protocol), true})
	if m.Type != typeNotification {
		f = append(f, field{"SubscribeURL", confirmURL(base, m.TopicARN, m.Token), true})
	}
	f = append(f, field{"Timestamp", stamp(m.At), true}, field{"SignatureVersion", version, false})
	sig, err := s.signer.sign(version, toSign(f))
	if err != nil {
		return nil, err
	}
	f = append(f, field{"Signature", sig, false}, field{"SigningCertURL", s.certURL(base), false})
	if m.Type == typeNotification {
		f = append(f, field{"UnsubscribeURL", unsubscribeURL(base, sub.ARN), false})
	}
	return writeEnvelope(f, m.Attributes)
}

// toSign lists the signed members in byte order of their names (AWS: "Verify
// the signatures of Amazon SNS messages").
func toSign(fields []field) string {
	var b strings.Builder
	for _, key := range []string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"} {
		for _, f := range fields {
			if f.signed && f.key == key {
				b.WriteString(f.key + "\n" + f.value + "\n")
			}
		}
	}
	return b.String()
}

func writeEnvelope(fields []field, attrs map[string]attribute) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("{\n")
	for n, f := range fields {
		if n > 0 {
			b.WriteString(",\n")
		}
		b.WriteString("  " + quote(f.key) + " : " + quote(f.value))
	}
	if len(attrs) > 0 {
		raw := map[string]any{}
		for name, a := range attrs {
			raw[name] = map[string]string{"Type": a.Type, "Value": a.Value}
		}
		text, err := json.MarshalIndent(raw, "  ", "  ")
		if err != nil {
			return nil, err
		}
		b.WriteString(",\n  \"MessageAttributes\" : ")
		b.Write(text)
	}
	b.WriteString("\n}")
	return b.Bytes(), nil
}

// quote is a JSON string without the escapes that HTML needs.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func confirmURL(base, topic, token string) string {
	return base + "/?Action=ConfirmSubscription&TopicArn=" + url.QueryEscape(topic) + "&Token=" + token + "&Version=2010-03-31"
}

func unsubscribeURL(base, sub string) string {
	return base + "/?Action=Unsubscribe&SubscriptionArn=" + url.QueryEscape(sub) + "&Version=2010-03-31"
}

func (s *Service) certURL(base string) string {
	if s.CertBase != "" {
		return strings.TrimSuffix(s.CertBase, "/") + "/" + s.signer.name
	}
	return base + PagesPrefix + s.signer.name
}

// defaultSender is shown where a topic has no DisplayName.
const defaultSender = "AWS Notifications"

// mailOf writes the mail of a message, with the words of AWS's mails.
func (s *Service) mailOf(t *Topic, sub *Subscription, m *message) (mail.Message, error) {
	base := s.Mail.Links()
	if base == "" {
		base = s.base("")
	}
	sender := t.Attributes["DisplayName"]
	if sender == "" || strings.ContainsAny(sender, "\r\n\"\\<>") {
		sender = defaultSender
	}
	out := mail.Message{ID: m.ID + "." + sub.UUID, At: m.At, From: fmt.Sprintf("%q <%s>", sender, s.Mail.From()), To: []string{sub.Endpoint}, Subject: m.Subject}
	switch m.Type {
	case typeSubscribe:
		out.Subject, out.Body = "AWS Notification - Subscription Confirmation", s.confirmationText(sub, m, base)
		if sub.Protocol == "email" {
			return out, nil
		}
	case typeUnsubscribe:
		out.Subject = "AWS Notification - Unsubscribe Confirmation"
		out.Body = "Your subscription to the topic below was deactivated:\n" + sub.TopicARN + "\n\nIf this was in error, visit the link below to subscribe again:\n" + pageURL(base, "confirmation", sub, m.Token) + "\n"
		if sub.Protocol == "email" {
			return out, nil
		}
	case typeWelcome:
		out.Subject = "AWS Notification - Subscription Confirmation"
		out.Body = m.Body + "\n"
		return out, nil
	default:
		out.Unsubscribe = pageURL(base, "unsubscribe", sub, "")
	}
	if out.Subject == "" {
		out.Subject = "AWS Notification Message"
	}
	if sub.Protocol == "email-json" {
		body, err := s.envelope(t, sub, m, base)
		out.Body = string(body) + "\n"
		return out, err
	}
	out.Body = m.body(sub.Protocol) + "\n\n--\n" +
		"If you wish to stop receiving notifications from this topic, please click or visit the link below to unsubscribe:\n" + out.Unsubscribe +
		"\n\nPlease do not reply directly to this email. It was sent by Slipway on " + strings.TrimPrefix(strings.TrimPrefix(base, "http://"), "https://") + ".\n"
	return out, nil
}

func (s *Service) confirmationText(sub *Subscription, m *message, base string) string {
	return "You have chosen to subscribe to the topic:\n" + sub.TopicARN +
		"\n\nTo confirm this subscription, click or visit the link below (If this was in error no action is necessary):\n" +
		pageURL(base, "confirmation", sub, m.Token) + "\n\nPlease do not reply directly to this email.\n"
}

// pageURL is the link of one of the pages for people.
func pageURL(base, page string, sub *Subscription, token string) string {
	q := url.Values{}
	if token != "" {
		q.Set("TopicArn", sub.TopicARN)
		q.Set("Token", token)
	} else {
		q.Set("SubscriptionArn", sub.ARN)
	}
	q.Set("Endpoint", sub.Endpoint)
	return base + PagesPrefix + page + "?" + q.Encode()
}
