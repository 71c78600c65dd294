package h1

import "testing"

func TestClassification(t *testing.T) {
	const h = "Host: x\r\n"
	tests := []struct {
		head   string
		class  Class
		reason Reason
	}{
		{"GET / HTTP/1.1\r\n" + h, Compliant, ""},
		{"GET / HTTP/1.1\r\n" + h + "Content-Length: 0\r\n", Acceptable, GetHeadZeroContentLength},
		{"GET / HTTP/1.1\r\n" + h + "A: \xc3\xa9\r\n", Acceptable, NonCompliantHeader},
		{"GET / HTTP/1.2\r\n" + h, Acceptable, NonCompliantVersion},
		{"GET /a b HTTP/1.1\r\n" + h, Acceptable, SpaceInURI},
		{"GET /a\x01b HTTP/1.1\r\n" + h, Ambiguous, AmbiguousURI},
		{"POST / HTTP/1.1\r\n" + h + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Ambiguous, BothTeClPresent},
		{"POST / HTTP/1.1\r\n" + h + "Content-Length: 3\r\nContent-Length: 3\r\n", Ambiguous, DuplicateContentLength},
		{"GET / HTTP/1.1\r\n" + h + ": x\r\n", Ambiguous, EmptyHeader},
		{"GET / HTTP/1.1\r\n" + h + "Transfer_Encoding: chunked\r\n", Ambiguous, SuspiciousHeader},
		{"GET / HTTP/1.1\r\n" + h + "Content-Length: 3\r\n", Ambiguous, UndefinedContentLengthSemantics},
		{"GET / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n", Ambiguous, UndefinedTransferEncodingSemantics},
		{"POST / HTTP/1.1\r\n" + h + "Content-Length: x\r\n", Severe, BadContentLength},
		{"GET / HTTP/1.1\r\n" + h + "A: \x00\r\n", Severe, BadHeader},
		{"POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: ch(unked\r\n", Severe, BadTransferEncoding},
		{"GET x HTTP/1.1\r\n" + h, Severe, BadURI},
		{"G(T / HTTP/1.1\r\n" + h, Severe, BadMethod},
		{"GET / HTTP/11\r\n" + h, Severe, BadVersion},
		{"POST / HTTP/1.1\r\n" + h + "Content-Length: 3\r\nContent-Length: 4\r\n", Severe, MultipleContentLength},
		{"POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked, chunked\r\n", Severe, MultipleTransferEncodingChunked},
	}
	for _, tt := range tests {
		var r Request
		n, err := r.Parse([]byte(tt.head + "\r\n"))
		class, reason := r.Class, r.Reason
		if err != nil {
			class, reason = Severe, err.Reason
		} else if n == 0 {
			t.Errorf("%q is not complete", tt.head)
		}
		if class != tt.class || reason != tt.reason {
			t.Errorf("%q: %v %s, want %v %s", tt.head, class, reason, tt.class, tt.reason)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	head := []byte("GET /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nUser-Agent: x\r\nAccept: */*\r\nCookie: a=b\r\n\r\n")
	var r Request
	if n := testing.AllocsPerRun(100, func() {
		if n, err := r.Parse(head); n != len(head) || err != nil {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Error(n, "allocations per request")
	}
}
