package sns

import (
	"errors"
	"html/template"
	"net/http"
	"strings"

	"slipway/internal/aws/awserr"
)

// PagesPrefix is where Pages is mounted.
const PagesPrefix = "/_slipway/sns/"

// Pages serves what messages link to, without credentials: the signing
// certificate, and pages for people who confirm or end a subscription. Ending
// one takes a click, because mail scanners follow links.
func (s *Service) Pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PagesPrefix+"confirmation", s.pageConfirm)
	mux.HandleFunc("GET "+PagesPrefix+"unsubscribe", s.pageAsk)
	mux.HandleFunc("POST "+PagesPrefix+"unsubscribe", s.pageUnsubscribe)
	mux.HandleFunc("GET "+PagesPrefix+"{name}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") != s.signer.name {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Header().Set("Cache-Control", "public, max-age=86400")
		_, _ = w.Write(s.signer.pem)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// view is what a page shows.
type view struct {
	Title, Text string
	// ARN is a subscription that the page can end; Ask makes it a question.
	ARN, Link string
	Ask       bool
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem;color:#1b2733}
h1{font-size:1.4rem}code{overflow-wrap:anywhere}button{font:inherit;padding:.5rem 1rem}</style>
<p>Simple Notification Service</p><h1>{{.Title}}</h1><p>{{.Text}}</p>
{{if .ARN}}<p><code>{{.ARN}}</code></p>{{end}}
{{if .Ask}}<form method="post" action="unsubscribe"><input type="hidden" name="SubscriptionArn" value="{{.ARN}}"><button>Unsubscribe</button></form>{{end}}
{{if .Link}}<p>If it was not your intention to subscribe, <a href="{{.Link}}">click here to unsubscribe</a>.</p>{{end}}
</html>
`))

func show(w http.ResponseWriter, status int, v view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	// The reader may be gone; there is nobody to tell.
	_ = page.Execute(w, v)
}

// sorry shows an AWS error as a page.
func (s *Service) sorry(w http.ResponseWriter, err error) {
	v, status := view{Title: "Something went wrong", Text: "The request could not be carried out now. Please try again later."}, http.StatusInternalServerError
	var e *awserr.Error
	if errors.As(err, &e) {
		v, status = view{Title: "This link does not work", Text: e.Message}, http.StatusBadRequest
	} else {
		s.Log.Error("a subscription page failed", "error", err)
	}
	show(w, status, v)
}

func (s *Service) pageConfirm(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	sub, err := s.confirm(r.Context(), q.Get("TopicArn"), q.Get("Token"), false, false)
	if err != nil {
		s.sorry(w, err)
		return
	}
	show(w, http.StatusOK, view{Title: "Subscription confirmed!", Text: "You have successfully subscribed. Your subscription's id is:",
		ARN: sub.ARN, Link: "unsubscribe?SubscriptionArn=" + template.URLQueryEscaper(sub.ARN)})
}

func (s *Service) pageAsk(w http.ResponseWriter, r *http.Request) {
	a, err := parseARN("SubscriptionArn", r.URL.Query().Get("SubscriptionArn"), true)
	if err != nil {
		s.sorry(w, err)
		return
	}
	show(w, http.StatusOK, view{Title: "Unsubscribe?", Text: "You will get no more notifications from the topic " + a.topic + ". Subscription:", ARN: a.String(), Ask: true})
}

func (s *Service) pageUnsubscribe(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	value := r.FormValue("SubscriptionArn")
	if err := s.unsubscribeLink(r.Context(), value); err != nil {
		s.sorry(w, err)
		return
	}
	show(w, http.StatusOK, view{Title: "Subscription removed!", Text: "You will get no more notifications from this topic. Your subscription's id was:", ARN: strings.TrimSpace(value)})
}
