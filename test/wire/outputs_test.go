package wire

import (
	"bufio"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"slipway/internal/aws/awsquery"
	"slipway/internal/aws/ec2query"
	"slipway/internal/aws/model"
	"slipway/internal/aws/restxml"
)

//go:embed parse_outputs.py
var parseOutputs string

// special outputs that botocore does not read by its model.
var special = map[string]string{
	"GetBucketLocation": "botocore has a parser of its own for it",
	"HeadObject":        "its Expires is text here, and botocore wants a date",
}

// TestXMLOutputs fills every member of every XML answer, encodes it, and lets
// botocore parse it with AWS's own model: what comes out must be what went in.
func TestXMLOutputs(t *testing.T) {
	if err := exec.Command("python3", "-c", "import botocore").Run(); err != nil {
		t.Skip("needs python3 with botocore")
	}
	file := filepath.Join(t.TempDir(), "outputs.jsonl")
	written := writeOutputs(t, file)
	b, err := exec.Command("python3", "-c", parseOutputs, file).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var checked int
	if _, err := fmt.Sscanf(lines[len(lines)-1], "checked %d", &checked); err != nil || checked < written/2 {
		t.Fatalf("%d of %d outputs checked: %s", checked, written, lines[len(lines)-1])
	}
	for _, l := range lines[:len(lines)-1] {
		t.Error(l)
	}
	t.Logf("%d outputs checked", checked)
}

func writeOutputs(t *testing.T, file string) int {
	t.Helper()
	w, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	buf := bufio.NewWriter(w)
	enc := json.NewEncoder(buf)
	names := map[string]string{"autoscaling": "autoscaling", "cloudwatch": "cloudwatch", "ec2": "ec2", "elasticloadbalancingv2": "elbv2", "iam": "iam", "s3": "s3", "sns": "sns", "sts": "sts"}
	n := 0
	for module, name := range names {
		for _, op := range served[module] {
			if special[op.OpName()] != "" {
				continue
			}
			line, err := output(op)
			if err != nil {
				t.Fatalf("%s: %v", op.OpName(), err)
			}
			line["svc"] = name
			if err := enc.Encode(line); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if err := buf.Flush(); err != nil {
		t.Fatal(err)
	}
	return n
}

// output is one filled answer: its body, its headers, and what is in it.
func output(op model.AnyOp) (map[string]any, error) {
	out := op.NewOutput()
	svc := op.Of()
	_, shape := op.Schemas()
	f := &filler{svc: svc, stack: map[int]int{}}
	want := f.fill(shape, reflect.ValueOf(out).Elem())
	headers := map[string]string{}
	var body []byte
	var err error
	switch {
	case svc.Protocols[0] == model.RESTXML:
		var r *restxml.Response
		if r, err = restxml.Encode(svc, shape, out); err == nil {
			body = r.Body
			for k, v := range r.Header {
				headers[k] = v[0]
			}
		}
	case svc.Protocols[0] == model.EC2:
		body, err = ec2query.Encode(svc, op.OpName(), shape, out, "id")
	default:
		wrapper := reflect.ValueOf(op).Elem().FieldByName("ResultWrapper").String()
		body, err = awsquery.Encode(svc, op.OpName(), wrapper, shape, out, "id")
	}
	return map[string]any{"op": op.OpName(), "body": string(body), "headers": headers, "want": want}, err
}

// filler fills every member with a value of its own and remembers them by
// AWS's names. stack counts the shapes above: recursion ends at the second.
type filler struct {
	svc   *model.Service
	n     int
	stack map[int]int
}

func (f *filler) fill(shape int, v reflect.Value) any {
	sh := f.svc.Shape(shape)
	if f.stack[shape] > 1 {
		return nil
	}
	f.stack[shape]++
	defer func() { f.stack[shape]-- }()
	f.n++
	switch sh.Kind {
	case model.Structure:
		e := model.Alloc(v)
		out := map[string]any{}
		for i, m := range sh.Members {
			if x := f.fill(m.Shape, e.Field(i)); x != nil {
				out[m.Name] = x
			}
		}
		return out
	case model.List:
		if f.stack[sh.Elem.Shape] > 1 {
			return nil
		}
		l := reflect.MakeSlice(v.Type(), 2, 2)
		out := []any{}
		for i := range 2 {
			x := f.fill(sh.Elem.Shape, l.Index(i))
			if x == nil {
				return nil
			}
			out = append(out, x)
		}
		v.Set(l)
		return out
	case model.Map:
		mm := reflect.MakeMap(v.Type())
		out := map[string]any{}
		for i := range 2 {
			e := reflect.New(v.Type().Elem()).Elem()
			k := fmt.Sprintf("key%d", i)
			out[k] = f.fill(sh.Elem.Shape, e)
			mm.SetMapIndex(reflect.ValueOf(k), e)
		}
		v.Set(mm)
		return out
	}
	return f.scalar(sh, v)
}

func (f *filler) scalar(sh *model.Shape, v reflect.Value) any {
	switch sh.Kind {
	case model.String:
		s := fmt.Sprintf("s%d <&>", f.n)
		model.Alloc(v).SetString(s)
		return s
	case model.Integer:
		model.Alloc(v).SetInt(int64(f.n))
		return f.n
	case model.Float:
		model.Alloc(v).SetFloat(float64(f.n) + .5)
		return float64(f.n) + .5
	case model.Boolean:
		model.Alloc(v).SetBool(true)
		return true
	case model.Timestamp:
		t := time.Unix(1700000000+int64(f.n), 0).UTC()
		model.Alloc(v).Set(reflect.ValueOf(t))
		return map[string]any{"$t": t.Unix()}
	case model.Blob:
		b := []byte(fmt.Sprint(f.n))
		v.SetBytes(b)
		return map[string]any{"$b": base64.StdEncoding.EncodeToString(b)}
	}
	return nil
}
