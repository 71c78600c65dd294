package sigv4

import (
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
)

// canonical is the canonical request.
func canonical(r *http.Request, s *Request, path, payloadHash string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + path + "\n" + canonicalQuery(r.URL.RawQuery) + "\n")
	for _, name := range s.Signed {
		b.WriteString(name + ":" + headerValue(r, name) + "\n")
	}
	b.WriteString("\n" + strings.Join(s.Signed, ";") + "\n" + payloadHash)
	return b.String()
}

// headerValue joins a header's lines with commas and collapses its spaces.
// net/http keeps Host, and at times Content-Length, outside of the map.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		if r.Header.Get("Content-Length") == "" {
			return strconv.FormatInt(max(r.ContentLength, 0), 10)
		}
	case "transfer-encoding":
		return strings.Join(r.TransferEncoding, ",")
	}
	vals := r.Header.Values(name)
	out := make([]string, len(vals))
	for i, v := range vals {
		out[i] = strings.Join(strings.FieldsFunc(v, func(r rune) bool { return r == ' ' }), " ")
	}
	return strings.Join(out, ",")
}

// canonicalPaths are the spellings of the path that a correct client may have
// signed. S3 encodes once; all others encode the encoded path again.
func canonicalPaths(r *http.Request, s3 bool) []string {
	raw := rawPath(r)
	if raw == "" {
		raw = "/"
	}
	if !s3 {
		return unique(encodePath(raw), raw)
	}
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return []string{raw}
	}
	return unique(raw, encodePath(decoded))
}

// rawPath is the path as the client sent it: net/url's own rendering can
// differ in what it escapes.
func rawPath(r *http.Request) string {
	if uri := r.RequestURI; strings.HasPrefix(uri, "/") {
		path, _, _ := strings.Cut(uri, "?")
		return path
	}
	return r.URL.EscapedPath()
}

func unique(a, b string) []string {
	if a == b {
		return []string{a}
	}
	return []string{a, b}
}

func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	type pair struct{ k, v string }
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		k, v = reencode(k), reencode(v)
		if k != "X-Amz-Signature" {
			pairs = append(pairs, pair{k, v})
		}
	}
	sort.Slice(pairs, func(i, j int) bool {
		if pairs[i].k != pairs[j].k {
			return pairs[i].k < pairs[j].k
		}
		return pairs[i].v < pairs[j].v
	})
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = p.k + "=" + p.v
	}
	return strings.Join(out, "&")
}

func reencode(s string) string {
	d, err := url.QueryUnescape(s)
	if err != nil {
		d = s
	}
	return encode(d, false)
}

func encodePath(s string) string { return encode(s, true) }

// encode is AWS's UriEncode: all but RFC 3986's unreserved characters.
func encode(s string, keepSlash bool) string {
	const upper = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~', c == '/' && keepSlash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upper[c>>4])
			b.WriteByte(upper[c&15])
		}
	}
	return b.String()
}
