package h1

// Class is how far a request is from the letter of the RFC (ALB user guide,
// "Desync mitigation mode").
type Class uint8

// The classes, from good to bad. A severe request is never forwarded.
const (
	Compliant Class = iota
	Acceptable
	Ambiguous
	Severe
)

func (c Class) String() string {
	return [...]string{"Compliant", "Acceptable", "Ambiguous", "Severe"}[c]
}

// Reason says which rule of the classification a request met; the names are
// AWS's, as they stand in access logs.
type Reason string

// The reasons.
const (
	GetHeadZeroContentLength           Reason = "GetHeadZeroContentLength"
	NonCompliantHeader                 Reason = "NonCompliantHeader"
	NonCompliantVersion                Reason = "NonCompliantVersion"
	SpaceInURI                         Reason = "SpaceInUri"
	AmbiguousURI                       Reason = "AmbiguousUri"
	BothTeClPresent                    Reason = "BothTeClPresent"
	DuplicateContentLength             Reason = "DuplicateContentLength"
	EmptyHeader                        Reason = "EmptyHeader"
	SuspiciousHeader                   Reason = "SuspiciousHeader"
	UndefinedContentLengthSemantics    Reason = "UndefinedContentLengthSemantics"
	UndefinedTransferEncodingSemantics Reason = "UndefinedTransferEncodingSemantics"
	BadContentLength                   Reason = "BadContentLength"
	BadHeader                          Reason = "BadHeader"
	BadTransferEncoding                Reason = "BadTransferEncoding"
	BadURI                             Reason = "BadUri"
	BadMethod                          Reason = "BadMethod"
	BadVersion                         Reason = "BadVersion"
	MultipleContentLength              Reason = "MultipleContentLength"
	MultipleTransferEncodingChunked    Reason = "MultipleTransferEncodingChunked"
)

// Error refuses a head. Status is what the client gets.
type Error struct {
	Status int
	Reason Reason // empty when the refusal has nothing to do with desync
	Detail string
}

func (e *Error) Error() string {
	if e.Reason != "" {
		return e.Detail + " (" + string(e.Reason) + ")"
	}
	return e.Detail
}

func severe(r Reason, detail string) *Error { return &Error{Status: 400, Reason: r, Detail: detail} }

// Refusals are values, so that hostile traffic costs no allocation either.
var (
	errBadMethod     = severe(BadMethod, "malformed method")
	errBadURI        = severe(BadURI, "malformed request target")
	errBadVersion    = severe(BadVersion, "malformed HTTP version")
	errBadLine       = severe(BadHeader, "bare CR or LF, or a line without a colon")
	errBadName       = severe(BadHeader, "malformed header name")
	errBadValue      = severe(BadHeader, "CR or NUL in a header value")
	errFolded        = severe(BadHeader, "folded header")
	errLength        = severe(BadContentLength, "malformed Content-Length")
	errLengths       = severe(MultipleContentLength, "different Content-Length fields")
	errEncoding      = severe(BadTransferEncoding, "malformed Transfer-Encoding")
	errEncodings     = severe(MultipleTransferEncodingChunked, "chunked twice")
	errHost          = &Error{Status: 400, Detail: "missing, repeated or malformed Host"}
	errVersion       = &Error{Status: 505, Detail: "HTTP version not supported"}
	errNotImpl       = &Error{Status: 501, Detail: "transfer coding not supported"}
	errURILong       = &Error{Status: 414, Detail: "request line over 16 KiB"}
	errFieldLong     = &Error{Status: 400, Detail: "header field over 16 KiB"}
	errHeadLong      = &Error{Status: 400, Detail: "header over 64 KiB"}
	errMethodMissing = &Error{Status: 405, Detail: "method not allowed"}
)

// suspicious reports a name that a lax parser may take for a framing field.
func suspicious(name []byte) bool {
	const te, cl = "transferencoding", "contentlength"
	if len(name) < len(cl) || len(name) > 2*len(te) {
		return false
	}
	var flat [2 * len(te)]byte
	n := 0
	for _, c := range name {
		if c = lower[c]; c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			flat[n] = c
			n++
		}
	}
	return string(flat[:n]) == te || string(flat[:n]) == cl
}
