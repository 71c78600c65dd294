package restxml

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
)

func request(body string) *Request {
	return &Request{Labels: map[string]string{"Bucket": "b", "Key": "k"}, Query: url.Values{}, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body)), MaxBody: 1 << 16}
}

func TestBodies(t *testing.T) {
	for name, tt := range map[string]struct{ body, code string }{
		"fine":           {`<?xml version="1.0"?><Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet><Tag><Key>a&amp;b</Key><Value/></Tag></TagSet><Else/></Tagging>`, ""},
		"no namespace":   {`<Tagging><TagSet/></Tagging>`, ""},
		"empty":          {``, ""},
		"another root":   {`<Tags/>`, "MalformedXML"},
		"not XML":        {`{}`, "MalformedXML"},
		"not closed":     {`<Tagging><TagSet>`, "MalformedXML"},
		"two roots":      {`<Tagging/><Tagging/>`, "MalformedXML"},
		"a DTD":          {`<!DOCTYPE x [<!ENTITY a "aaaa">]><Tagging>&a;</Tagging>`, "MalformedXML"},
		"an entity":      {`<Tagging>&a;</Tagging>`, "MalformedXML"},
		"element inside": {`<Tagging><TagSet><Tag><Key><x/></Key></Tag></TagSet></Tagging>`, "MalformedXML"},
		"deep":           {strings.Repeat("<a>", 1000), "MalformedXML"},
		"too large":      {`<Tagging>` + strings.Repeat(" ", 1<<16) + `</Tagging>`, "MaxMessageLengthExceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &s3.PutObjectTaggingInput{}
			err := Decode(s3.Service, s3.OpPutObjectTagging.Input, request(tt.body), in)
			if awserr.Code(err) != tt.code {
				t.Fatalf("got %v", err)
			}
			if name == "fine" && *in.Tagging.TagSet[0].Key != "a&b" {
				t.Errorf("got %+v", in.Tagging)
			}
		})
	}
}

func TestBindings(t *testing.T) {
	r := request("data")
	r.Header.Set("X-Amz-Meta-Color", "blue")
	r.Header.Set("Content-Length", "4")
	r.Header.Set("X-Amz-Object-Lock-Retain-Until-Date", "2026-11-23T01:02:03Z")
	in := &s3.PutObjectInput{}
	if err := Decode(s3.Service, s3.OpPutObject.Input, r, in); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(in.Body)
	if *in.Bucket != "b" || *in.Key != "k" || in.Metadata["color"] != "blue" || *in.ContentLength != 4 || in.ObjectLockRetainUntilDate.Second() != 3 || string(b) != "data" {
		t.Errorf("got %+v", in)
	}
	r = request("")
	r.Query.Set("partNumber", "one")
	err := Decode(s3.Service, s3.OpUploadPart.Input, r, &s3.UploadPartInput{})
	if e := awserr.As(err); e == nil || e.Code != "InvalidArgument" || e.Fields["ArgumentName"] != "partNumber" {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"x"</ETag></Part></CompleteMultipartUpload>`))
	f.Add([]byte(`<CompleteMultipartUpload xmlns:a="b"><a:Part PartNumber="1"><![CDATA[x]]></a:Part></CompleteMultipartUpload>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		in := &s3.CompleteMultipartUploadInput{}
		err := Decode(s3.Service, s3.OpCompleteMultipartUpload.Input, request(string(body)), in)
		if err != nil && awserr.As(err) == nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkEncodeList(b *testing.B) {
	out := &s3.ListObjectsV2Output{}
	key, size := "a/key/of/some/length.tar.gz", int64(12345)
	for range 1000 {
		out.Contents = append(out.Contents, s3.Object{Key: &key, Size: &size, ETag: &key})
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := Encode(s3.Service, s3.OpListObjectsV2.Output, out)
		if err != nil || !bytes.Contains(r.Body, []byte("<ListBucketResult")) {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(r.Body)))
	}
}
