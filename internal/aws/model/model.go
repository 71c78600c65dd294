// Package model describes AWS services as data: what the generated packages
// under internal/api contain besides their shapes. It knows no service.
package model

import "sync"

// Protocol is a wire protocol, by the name AWS's models give it.
type Protocol string

const (
	JSON10   Protocol = "json-1.0"
	JSON11   Protocol = "json-1.1"
	Query    Protocol = "query"
	EC2      Protocol = "ec2"
	RESTXML  Protocol = "rest-xml"
	RPCCBOR  Protocol = "rpc-v2-cbor"
	RESTJSON Protocol = "rest-json"
)

// ErrorShape is how a modelled error looks on the wire.
type ErrorShape struct {
	Code   string // the code on the wire, which can differ from the shape's name
	Status int    // HTTP status
	Sender bool   // the caller's fault
	// Shape is the error's index + 1 in Service.Schema, 0 where it has no
	// members but its message.
	Shape int
	// Query is the code in the query protocol where a service that speaks
	// JSON as well has other names there (x-amzn-query-error).
	Query string
}

// Service is one AWS API.
type Service struct {
	Name         string // the package's name: "codedeploy"
	ID           string // AWS's service id: "CodeDeploy"
	SigningName  string // in the credential scope
	APIVersion   string // "2014-10-06"
	Protocols    []Protocol
	TargetPrefix string // X-Amz-Target prefix of the JSON protocols
	// AltTargetPrefix and AltSigningName reach the same service by another
	// name: the CodeDeploy agent has two.
	AltTargetPrefix, AltSigningName string
	// CBORName is the service's name in rpc-v2-cbor's path.
	CBORName     string
	XMLNamespace string
	// TimeFormat of timestamps in XML answers; "" is ISO 8601 with milliseconds.
	TimeFormat string
	// ValidationCode is the code of violated limits where the protocol's usual
	// one is not it.
	ValidationCode string
	// Global services are signed for us-east-1 whatever the region.
	Global bool
	// Errors by shape name.
	Errors map[string]ErrorShape
	// Operations are the names of all of the service's operations, built or
	// not: an unbuilt one answers 501 with its name, another is unknown.
	Operations []string
	// Routes lead from an HTTP request to an operation in the REST protocols;
	// the unbuilt operations are here too, lest their requests look like others.
	Routes []Route
	// Schema makes the shapes of the generated operations. It is a function,
	// and called when the first shape is asked for, because the tables of all
	// services together are megabytes: the programs inside instances are the
	// same binary and need none of them.
	Schema func() []Shape

	once   sync.Once
	shapes []Shape
}

// Shape is the shape with an index, such as an Op's Input. It may be called
// from several goroutines; the shapes are for reading only.
func (s *Service) Shape(i int) *Shape {
	s.once.Do(func() { s.shapes = s.Schema() })
	return &s.shapes[i]
}

// Op is one operation: I and O are its generated input and output structs.
type Op[I, O any] struct {
	Service *Service
	Name    string
	// Method and URI are used by the REST protocols only.
	Method string
	URI    string
	// ResultWrapper is the query protocol's element around the output.
	ResultWrapper string
	// Input and Output are the shapes of I and O in Service.Schema.
	Input, Output int
	// Checksum says that the operation takes a flexible checksum or Content-MD5.
	Checksum bool
	// InputLocation is the REST-XML root element of the input, if any.
	InputLocation string
	// Status is the HTTP status of success where it is not 200.
	Status int
	// Unsigned operations are served without a signature.
	Unsigned bool
}

// Route is how a REST request looks that means one operation.
type Route struct {
	Op, Method string
	Path       string   // "/", "/{Bucket}", "/{Bucket}/{Key+}"
	Query      []string // "uploads", "list-type=2": what the query string must hold
	Headers    []string // headers that must be there
}

// AnyOp is an Op whatever its types.
type AnyOp interface {
	Of() *Service
	OpName() string
	// Schemas are the indexes of input and output in Service.Schema.
	Schemas() (input, output int)
	NewInput() any
	NewOutput() any
}

// Of returns the service.
func (o *Op[I, O]) Of() *Service { return o.Service }

// OpName returns the operation's name.
func (o *Op[I, O]) OpName() string { return o.Name }

// Schemas returns the indexes of input and output in Service.Schema.
func (o *Op[I, O]) Schemas() (input, output int) { return o.Input, o.Output }

// NewInput returns a new *I.
func (o *Op[I, O]) NewInput() any { return new(I) }

// NewOutput returns a new *O.
func (o *Op[I, O]) NewOutput() any { return new(O) }
