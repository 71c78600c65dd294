package dispatch

import (
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/awsjson"
	"slipway/internal/aws/awsquery"
	"slipway/internal/aws/ec2query"
	"slipway/internal/aws/model"
	"slipway/internal/aws/rest"
	"slipway/internal/aws/restjson"
	"slipway/internal/aws/restxml"
	"slipway/internal/aws/rpccbor"
)

// HeaderField begins the name of an awserr field that travels as a header of
// a REST error ("header:x-amz-delete-marker") instead of in its body.
const HeaderField = "header:"

// succeed encodes out and writes it.
func (x *exchange) succeed(out any) error {
	svc, shape := x.t.svc.model, x.op.output
	var body []byte
	var err error
	switch x.t.proto {
	case model.RESTXML:
		return x.succeedREST(out)
	case model.RESTJSON:
		return x.succeedRESTJSON(out)
	case model.JSON10, model.JSON11:
		if es, ok := eventStream(svc, shape, out); ok {
			return x.stream(es, out)
		}
		body, err = awsjson.Encode(svc, shape, out)
	case model.RPCCBOR:
		body, err = rpccbor.Encode(svc, shape, out)
	case model.EC2:
		body, err = ec2query.Encode(svc, x.op.name, shape, out, x.id)
	default:
		body, err = awsquery.Encode(svc, x.op.name, x.op.wrapper, shape, out, x.id)
	}
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	x.write(http.StatusOK, body)
	return nil
}

func (x *exchange) contentType() string {
	switch x.t.proto {
	case model.JSON10:
		return "application/x-amz-json-1.0"
	case model.RPCCBOR:
		return "application/cbor"
	case model.EC2:
		return "text/xml;charset=UTF-8"
	case model.Query:
		return "text/xml"
	case model.RESTXML:
		return "application/xml"
	case model.RESTJSON:
		return restjson.ContentType
	}
	return "application/x-amz-json-1.1"
}

// write sends a whole answer of all protocols but S3's. A content type that
// is set already stays.
func (x *exchange) write(status int, body []byte) {
	hd := x.w.Header()
	if hd.Get("Content-Type") == "" {
		hd.Set("Content-Type", x.contentType())
	}
	hd.Set("X-Amzn-Requestid", x.id)
	if x.t.proto == model.RPCCBOR {
		hd.Set("Smithy-Protocol", string(model.RPCCBOR))
	}
	if status != http.StatusNoContent { // has none (RFC 9110, 8.6)
		hd.Set("Content-Length", strconv.Itoa(len(body)))
	}
	x.status = status
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead && status != http.StatusNoContent {
		x.w.Write(body) // the client may be gone; there is nobody to tell
	}
}

func (x *exchange) succeedRESTJSON(out any) error {
	res, err := restjson.Encode(x.t.svc.model, x.op.output, out)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	for k, v := range res.Header {
		x.w.Header()[k] = v
	}
	x.w.Header().Set("X-Amzn-Requestid", x.id)
	status := http.StatusOK
	if x.op.status != 0 {
		status = x.op.status
	}
	if res.Status != 0 {
		status = res.Status
	}
	if res.Stream == nil {
		x.write(status, res.Body)
		return nil
	}
	return x.copyOut(status, res)
}

func (x *exchange) succeedREST(out any) error {
	res, err := restxml.Encode(x.t.svc.model, x.op.output, out)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	hd := x.w.Header()
	for k, v := range res.Header {
		hd[k] = v
	}
	x.s3Headers()
	status := http.StatusOK
	if x.op.status != 0 {
		status = x.op.status
	}
	if res.Status != 0 {
		status = res.Status
	}
	if status == http.StatusOK && hd.Get("Content-Range") != "" {
		status = http.StatusPartialContent // the models do not say so, S3's API reference does
	}
	return x.copyOut(status, res)
}

// copyOut sends an answer that may be a stream, and closes that.
func (x *exchange) copyOut(status int, res *rest.Response) error {
	if res.Stream != nil {
		defer res.Stream.Close()
	}
	hd := x.w.Header()
	switch {
	case res.Stream != nil && res.Length < 0:
	case res.Stream != nil || x.r.Method == http.MethodHead && res.Length >= 0:
		hd.Set("Content-Length", strconv.FormatInt(res.Length, 10))
	case status != http.StatusNoContent:
		hd.Set("Content-Length", strconv.Itoa(len(res.Body)))
	}
	x.status = status
	x.w.WriteHeader(status)
	if x.r.Method == http.MethodHead {
		return nil
	}
	if res.Stream == nil {
		x.w.Write(res.Body) // the client may be gone; there is nobody to tell
		return nil
	}
	n, err := io.Copy(x.w, res.Stream)
	if err != nil || res.Length >= 0 && n != res.Length {
		if x.ctx.Err() == nil {
			x.h.Log.Error("a body ended early", "request", x.id, "operation", x.t.op, "sent", n, "length", res.Length, "error", err)
		}
		panic(http.ErrAbortHandler) // the client must not take the part for the whole
	}
	return nil
}

func (x *exchange) s3Headers() {
	req, host := s3IDs(x.id)
	hd := x.w.Header()
	hd.Set("X-Amz-Request-Id", req)
	hd.Set("X-Amz-Id-2", host)
	hd.Set("Server", "Slipway")
}

// fail writes err in the protocol's own form. What is not an AWS error is
// Slipway's fault: it is logged, and the client learns only the request id.
func (x *exchange) fail(err error) {
	ae := awserr.As(err)
	if ae == nil || ae.Code == "" {
		if gone(x.ctx, err) {
			// Seldom read; but silence would be a 200 to a client that is still there.
			ae = awserr.New("ServiceUnavailable", "The request was interrupted. Please try again.").WithStatus(http.StatusServiceUnavailable)
		} else {
			ae = x.internal(err)
		}
	} else if ae.Status >= 500 && ae.Status != http.StatusNotImplemented {
		x.h.Log.Error("request failed", "request", x.id, "service", x.serviceName(), "operation", x.t.op, "error", err)
	} else if ae.Cause != nil {
		x.h.Log.Debug("request refused", "request", x.id, "operation", x.t.op, "error", err)
	}
	x.code = ae.Code
	if x.t.proto == model.RESTXML || x.t.proto == "" {
		x.failREST(ae)
		return
	}
	x.failRPC(ae)
}

func (x *exchange) internal(err error) *awserr.Error {
	x.h.Log.Error("request failed", "request", x.id, "service", x.serviceName(), "operation", x.t.op, "error", err)
	code := "InternalFailure"
	switch x.t.proto {
	case model.RESTXML, model.EC2:
		code = "InternalError"
	}
	return awserr.New(code, "We encountered an internal error. Please try again. Slipway's log has more under %s.", x.id).WithStatus(500)
}

func (x *exchange) failRPC(ae *awserr.Error) {
	var es model.ErrorShape
	var known bool
	var shape *model.Shape
	var svc *model.Service
	if x.t.svc != nil {
		svc = x.t.svc.model
		es, known = x.t.svc.errors[ae.Code]
		if es.Shape > 0 {
			shape = svc.Shape(es.Shape - 1)
		}
	}
	status := ae.Status
	if status == 0 {
		status = es.Status
	}
	if status == 0 {
		status = http.StatusBadRequest
	}
	sender := status < 500
	code, query := ae.Code, ae.Code
	if known {
		code, query = es.Code, es.Code
		if es.Query != "" {
			query = es.Query
		}
	}
	var body []byte
	var err error
	switch x.t.proto {
	case model.EC2:
		body = ec2query.EncodeError(code, ae.Message, x.id)
	case model.Query:
		if svc == nil {
			svc = &model.Service{}
		}
		body, err = awsquery.EncodeError(svc, query, ae.Message, sender, shape, ae.Fields, x.id)
	case model.RESTJSON:
		var res *rest.Response
		if res, err = restjson.EncodeError(svc, code, ae.Message, shape, ae.Fields); err == nil {
			body = res.Body
			for k, v := range res.Header {
				x.w.Header()[k] = v
			}
		}
	default:
		x.w.Header().Set("X-Amzn-Errortype", code)
		if svc != nil && speaks(svc, model.Query) && !x.t.firstParty {
			fault := "Sender"
			if !sender {
				fault = "Receiver"
			}
			x.w.Header().Set("X-Amzn-Query-Error", query+";"+fault)
		}
		if x.t.proto == model.RPCCBOR {
			body, err = rpccbor.EncodeError(svc, code, ae.Message, shape, ae.Fields)
		} else {
			body, err = awsjson.EncodeError(svc, code, ae.Message, shape, ae.Fields)
		}
	}
	if err != nil {
		x.h.Log.Error("encode an error", "request", x.id, "code", code, "error", err)
	}
	x.write(status, body)
}

func (x *exchange) failREST(ae *awserr.Error) {
	status := ae.Status
	if status == 0 && x.t.svc != nil {
		status = x.t.svc.errors[ae.Code].Status
	}
	// The model of S3 gives nearly every error 400; its documented list does not.
	if s := restStatus(ae.Code); s != 0 && ae.Status == 0 {
		status = s
	}
	if status == 0 {
		status = http.StatusBadRequest
	}
	hd := x.w.Header()
	var fields [][2]string
	for k, v := range ae.Fields {
		if name, ok := strings.CutPrefix(k, HeaderField); ok {
			hd.Set(name, fmt.Sprint(v))
			continue
		}
		fields = append(fields, [2]string{k, fmt.Sprint(v)})
	}
	if _, ok := ae.Fields["Key"]; !ok && strings.HasPrefix(ae.Code, "NoSuchKey") {
		fields = append(fields, [2]string{"Key", x.t.labels["Key"]})
	}
	if _, ok := ae.Fields["BucketName"]; !ok && strings.Contains(ae.Code, "Bucket") && x.t.labels["Bucket"] != "" {
		fields = append(fields, [2]string{"BucketName", x.t.labels["Bucket"]})
	}
	sort.Slice(fields, func(i, j int) bool { return fields[i][0] < fields[j][0] })
	x.s3Headers()
	x.status = status
	if x.r.Method == http.MethodHead || status == http.StatusNotModified {
		if status != http.StatusNotModified {
			hd.Set("Content-Type", "application/xml")
		}
		x.w.WriteHeader(status)
		return
	}
	req, host := s3IDs(x.id)
	body := restxml.EncodeError(ae.Code, ae.Message, fields, req, host)
	hd.Set("Content-Type", "application/xml")
	hd.Set("Content-Length", strconv.Itoa(len(body)))
	if x.rest != nil && !x.rest.Done() {
		hd.Set("Connection", "close") // the rest of the upload is not worth reading
	}
	x.w.WriteHeader(status)
	x.w.Write(body) // the client may be gone; there is nobody to tell
}

// restStatus is the status of S3's error codes where it is not 400 ("Error
// responses" in the S3 API reference).
func restStatus(code string) int {
	switch code {
	case "AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidObjectState", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidAccessKeyId", "NotSignedUp":
		return http.StatusForbidden
	case "BucketAlreadyExists", "BucketAlreadyOwnedByYou", "BucketNotEmpty", "InvalidBucketState", "OperationAborted", "RestoreAlreadyInProgress", "ConditionalRequestConflict":
		return http.StatusConflict
	case "MethodNotAllowed":
		return http.StatusMethodNotAllowed
	case "MissingContentLength":
		return http.StatusLengthRequired
	case "PreconditionFailed":
		return http.StatusPreconditionFailed
	case "InvalidRange":
		return http.StatusRequestedRangeNotSatisfiable
	case "NotModified":
		return http.StatusNotModified
	case "InternalError":
		return http.StatusInternalServerError
	case "NotImplemented":
		return http.StatusNotImplemented
	case "ServiceUnavailable", "SlowDown":
		return http.StatusServiceUnavailable
	}
	if strings.HasPrefix(code, "NoSuch") || strings.HasSuffix(code, "NotFoundError") || strings.HasSuffix(code, "NotFound") {
		return http.StatusNotFound
	}
	return 0
}
