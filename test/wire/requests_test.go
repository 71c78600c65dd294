// Package wire replays the requests and responses that AWS's SDK modules
// carry as snapshots: every operation with every member filled in.
package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"slipway/internal/aws/awsjson"
	"slipway/internal/aws/awsquery"
	"slipway/internal/aws/ec2query"
	"slipway/internal/aws/model"
	"slipway/internal/aws/rest"
	"slipway/internal/aws/restjson"
	"slipway/internal/aws/restxml"
	"slipway/internal/aws/rpccbor"
	"slipway/internal/aws/xmlbody"
)

// changed are the requests whose snapshot contradicts AWS's documented model.
var changed = map[string]string{
	"GetObjectAttributes": "the part number marker is a string in the SDK since late 2026, an integer in every older one",
	"ListParts":           "the part number marker is a string in the SDK since late 2026, an integer in every older one",
}

// TestRequests decodes every request and compares the values that arrived
// with those that were sent: none may be missing, and each string names the
// member that it belongs to.
func TestRequests(t *testing.T) {
	eachSnapshot(t, "request_snapshot", ".request.snap", func(t *testing.T, op model.AnyOp, s snapshot) {
		if why := changed[op.OpName()]; why != "" {
			t.Skip(why)
		}
		in := op.NewInput()
		shape, _ := op.Schemas()
		sent, err := decode(op, shape, s, in)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		walk(t, op.Of(), shape, reflect.ValueOf(in).Elem(), "", got)
		var missing []string
		for v, n := range sent {
			if got[v] < n {
				missing = append(missing, fmt.Sprintf("%s x%d", v, n-got[v]))
			}
		}
		sort.Strings(missing)
		if len(missing) > 0 {
			t.Errorf("did not arrive: %s", strings.Join(missing, ", "))
		}
	})
}

func decode(op model.AnyOp, shape int, s snapshot, in any) (map[string]int, error) {
	svc := op.Of()
	sent := map[string]int{}
	switch {
	case s.header.Get("Smithy-Protocol") != "":
		var raw any
		if err := cbor.Unmarshal(s.body, &raw); err != nil {
			return nil, err
		}
		leaves(raw, "", sent)
		return sent, rpccbor.Decode(svc, shape, s.body, in)
	case s.header.Get("X-Amz-Target") != "":
		var raw any
		d := json.NewDecoder(bytes.NewReader(s.body))
		d.UseNumber()
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		leaves(raw, "", sent)
		return sent, awsjson.Decode(svc, shape, s.body, in)
	case svc.Protocols[0] == model.RESTXML:
		return sent, decodeREST(svc, shape, s, in, sent)
	case svc.Protocols[0] == model.RESTJSON:
		return sent, decodeRESTJSON(op, shape, s, in, sent)
	}
	vals, err := url.ParseQuery(string(s.body))
	if err != nil {
		return nil, err
	}
	for k, v := range vals {
		if k != "Action" && k != "Version" {
			sent[normal(v[0])]++
		}
	}
	form, err := awsquery.ParseForm(string(s.body))
	if err != nil {
		return nil, err
	}
	if svc.Protocols[0] == model.EC2 {
		return sent, ec2query.Decode(svc, shape, form, in)
	}
	return sent, awsquery.Decode(svc, shape, form, in)
}

func decodeREST(svc *model.Service, shape int, s snapshot, in any, sent map[string]int) error {
	_, uri, _ := strings.Cut(s.first, " ")
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		return err
	}
	q := u.Query()
	for k, v := range q {
		if k != "x-id" && v[0] != "" && k != "list-type" && k != "select-type" {
			for _, one := range v {
				sent[normal(one)]++
			}
		}
	}
	for k, v := range s.header {
		if k == "Content-Type" && !member(svc, shape, k) || k == "X-Amz-Content-Sha256" || k == "Content-Length" {
			continue
		}
		if k == "X-Amz-Object-Attributes" || k == "X-Amz-Optional-Object-Attributes" {
			v = strings.Split(strings.ReplaceAll(strings.Join(v, ","), " ", ""), ",")
		}
		for _, one := range v {
			sent[normal(one)]++
		}
	}
	labels := map[string]string{"Bucket": "__Bucket__"} // the SDK puts it into the host
	if key := strings.TrimPrefix(u.Path, "/"); key != "" {
		labels["Key"] = key
		sent[normal(key)]++
	}
	if n, err := xmlbody.Parse(s.body); err == nil {
		xmlLeaves(n, sent)
	} else if len(s.body) > 0 {
		sent[normal(string(s.body))]++
	}
	return restxml.Decode(svc, shape, &restxml.Request{Labels: labels, Query: q, Header: s.header,
		Body: io.NopCloser(bytes.NewReader(s.body)), MaxBody: 1 << 20}, in)
}

// decodeRESTJSON also looks for the operation's own route among the service's.
func decodeRESTJSON(op model.AnyOp, shape int, s snapshot, in any, sent map[string]int) error {
	svc := op.Of()
	method, uri, _ := strings.Cut(s.first, " ")
	path, query, _ := strings.Cut(uri, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	var labels map[string]string
	for _, rt := range svc.Routes {
		got, _, ok := rest.Match(rt.Path, path)
		if ok && rt.Method == method && rt.Op == op.OpName() {
			labels = got
		}
	}
	if labels == nil {
		return fmt.Errorf("%s leads nowhere", s.first)
	}
	for _, v := range labels {
		sent[normal(v)]++
	}
	for _, v := range q {
		for _, one := range v {
			sent[normal(one)]++
		}
	}
	for k, v := range s.header {
		if member(svc, shape, k) {
			sent[normal(strings.Join(v, ","))]++
		}
	}
	if len(s.body) > 0 {
		var raw any
		d := json.NewDecoder(bytes.NewReader(s.body))
		d.UseNumber()
		if err := d.Decode(&raw); err != nil {
			return err
		}
		leaves(raw, "", sent)
	}
	return restjson.Decode(svc, shape, &rest.Request{Labels: labels, Query: q, Header: s.header}, s.body, in)
}

// member says whether a structure has a member in this header.
func member(svc *model.Service, shape int, header string) bool {
	for _, m := range svc.Shape(shape).Members {
		if m.Where == model.Header && strings.EqualFold(m.WireName(), header) {
			return true
		}
	}
	return false
}

func xmlLeaves(n *xmlbody.Node, sent map[string]int) {
	for _, a := range n.Attrs {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			sent[normal(a.Value)]++
		}
	}
	for _, c := range n.Children {
		xmlLeaves(c, sent)
	}
	if len(n.Children) == 0 && n.Text != "" {
		sent[normal(n.Text)]++
	}
}

// leaves collects the scalar values of decoded JSON or CBOR.
func leaves(v any, path string, out map[string]int) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			leaves(e, path+"."+k, out)
		}
	case map[any]any:
		for k, e := range v {
			leaves(e, path+"."+fmt.Sprint(k), out)
		}
	case []any:
		for _, e := range v {
			leaves(e, path, out)
		}
	case cbor.Tag:
		leaves(v.Content, path, out)
	case time.Time:
		out[normal(v.UTC().Format(time.RFC3339))]++
	case []byte:
		out[normal(string(v))]++
	case nil:
	default:
		out[normal(fmt.Sprint(v))]++
	}
}

// normal brings the protocols' spellings of one value together.
func normal(s string) string {
	switch s {
	case "YmxvYg==":
		return "blob"
	case "1.0", "1E0":
		return "1"
	case "946684800", "9.466848e+08", "2000-01-01T00:00:00.000Z", "Sat, 01 Jan 2000 00:00:00 GMT":
		return "2000-01-01T00:00:00Z"
	}
	return s
}

// walk collects the values of a decoded struct. A string "__Name__" must
// sit in the field Name.
func walk(t *testing.T, svc *model.Service, shape int, v reflect.Value, field string, out map[string]int) {
	sh := svc.Shape(shape)
	if sh.Kind == model.Stream {
		if rc, ok := v.Interface().(io.Reader); ok {
			b, _ := io.ReadAll(rc)
			out[normal(string(b))]++
		}
		return
	}
	v, ok := model.Deref(v)
	if !ok {
		return
	}
	switch sh.Kind {
	case model.Structure:
		for i := range sh.Members {
			name := sh.Members[i].Name
			walk(t, svc, sh.Members[i].Shape, v.Field(i), strings.ToUpper(name[:1])+name[1:], out)
		}
	case model.List:
		for i := range v.Len() {
			walk(t, svc, sh.Elem.Shape, v.Index(i), "Member", out)
		}
	case model.Map:
		for _, k := range v.MapKeys() {
			if k.String() == "key0" {
				out["key0"]++
			}
			walk(t, svc, sh.Elem.Shape, v.MapIndex(k), "Value", out)
		}
	case model.Blob:
		out[normal(string(v.Bytes()))]++
	case model.Timestamp:
		out[normal(v.Interface().(time.Time).Format(time.RFC3339))]++
	case model.EventStream:
	default:
		s := model.Text(v, sh.Kind, "")
		if strings.HasPrefix(s, "__") && !strings.EqualFold(s, "__"+field+"__") {
			t.Errorf("the field %s holds %s", field, s)
		}
		out[normal(s)]++
	}
}
