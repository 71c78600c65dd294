package dispatch

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"reflect"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/awsjson"
	"slipway/internal/aws/model"
)

// eventStream finds the output's event stream member: its index, if it is set.
func eventStream(svc *model.Service, shape int, out any) (int, bool) {
	sh := svc.Shape(shape)
	for i := range sh.Members {
		if svc.Shape(sh.Members[i].Shape).Kind == model.EventStream {
			v := reflect.ValueOf(out).Elem().Field(i)
			return i, !v.IsNil()
		}
	}
	return 0, false
}

// stream answers with events (application/vnd.amazon.eventstream) until the
// handler's function returns or the client leaves.
func (x *exchange) stream(member int, out any) error {
	svc := x.t.svc.model
	m := svc.Shape(x.op.output).Members[member]
	v := reflect.ValueOf(out).Elem()
	run := v.Field(member)
	hd := x.w.Header()
	hd.Set("Content-Type", "application/vnd.amazon.eventstream")
	hd.Set("X-Amzn-Requestid", x.id)
	x.status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(x.w)
	emit := func(kind, name string, body []byte) error {
		if _, err := x.w.Write(frame(kind, name, body)); err != nil {
			return err
		}
		return flush.Flush()
	}
	if err := emit("event", "initial-response", []byte("{}")); err != nil {
		return nil // the client is gone
	}
	send := reflect.MakeFunc(run.Type().In(1), func(args []reflect.Value) []reflect.Value {
		err := x.sendEvent(m.Shape, args[0].Elem(), emit)
		res := reflect.New(reflect.TypeFor[error]()).Elem()
		if err != nil {
			res.Set(reflect.ValueOf(err))
		}
		return []reflect.Value{res}
	})
	res := run.Call([]reflect.Value{reflect.ValueOf(x.ctx), send})[0]
	if res.IsNil() || x.ctx.Err() != nil {
		return nil
	}
	err := res.Interface().(error)
	ae := awserr.As(err)
	if ae == nil {
		ae = x.internal(err)
	}
	x.code = ae.Code
	body, err := awsjson.EncodeError(svc, ae.Code, ae.Message, nil, nil)
	if err == nil {
		err = emit("exception", ae.Code, body)
	}
	if err != nil && x.ctx.Err() == nil && err != context.Canceled {
		x.h.Log.Debug("an event stream ended", "request", x.id, "error", err)
	}
	return nil
}

// sendEvent writes the one member that is set in an event union.
func (x *exchange) sendEvent(shape int, v reflect.Value, emit func(kind, name string, body []byte) error) error {
	svc := x.t.svc.model
	sh := svc.Shape(shape)
	for i := range sh.Members {
		f, ok := model.Deref(v.Field(i))
		if !ok {
			continue
		}
		body, err := awsjson.Encode(svc, sh.Members[i].Shape, f.Interface())
		if err != nil {
			return err
		}
		return emit("event", sh.Members[i].Name, body)
	}
	return fmt.Errorf("dispatch: an empty event for %s", sh.Name)
}

// frame is one message of the event stream encoding: prelude, headers,
// payload, each guarded by CRC-32.
func frame(kind, name string, body []byte) []byte {
	typeHeader := ":event-type"
	if kind == "exception" {
		typeHeader = ":exception-type"
	}
	var headers []byte
	for _, h := range [][2]string{{":message-type", kind}, {typeHeader, name}, {":content-type", "application/json"}} {
		headers = append(append(headers, byte(len(h[0]))), h[0]...)
		headers = append(headers, 7) // a string
		headers = binary.BigEndian.AppendUint16(headers, uint16(len(h[1])))
		headers = append(headers, h[1]...)
	}
	total := 12 + len(headers) + len(body) + 4
	b := binary.BigEndian.AppendUint32(make([]byte, 0, total), uint32(total))
	b = binary.BigEndian.AppendUint32(b, uint32(len(headers)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	b = append(append(b, headers...), body...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}
