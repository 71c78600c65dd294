// Package awserr is the error that crosses the edge of Slipway: an AWS error
// code, a message for a person, and an HTTP status. Inside, code wraps plain
// errors with %w; a service turns them into an *Error where it knows which
// code AWS would give.
package awserr

import (
	"errors"
	"fmt"
)

// Error is an AWS error. It is immutable once returned.
type Error struct {
	// Code is AWS's error code, for example "InvalidParameterValue".
	Code string
	// Message says what is wrong and what to do, naming the field.
	Message string
	// Status is the HTTP status; 0 lets the dispatcher take it from the
	// service's model, or 400 where the model does not know the code.
	Status int
	// Fields are further members of a modelled error shape, by member name.
	Fields map[string]any
	// Cause is kept for the server's own log and never sent.
	Cause error
}

// New makes an error whose status comes from the service's model.
func New(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithStatus returns a copy of e with an explicit HTTP status.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// WithCause returns a copy of e that remembers err for the server's log.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.Cause = err
	return &c
}

// WithField returns a copy of e with one more member of its error shape.
func (e *Error) WithField(name string, value any) *Error {
	c := *e
	c.Fields = make(map[string]any, len(e.Fields)+1)
	for k, v := range e.Fields {
		c.Fields[k] = v
	}
	c.Fields[name] = value
	return &c
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Code + ": " + e.Message + ": " + e.Cause.Error()
	}
	return e.Code + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Cause }

// As returns the AWS error in err's chain, or nil.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// Is reports whether err's chain holds an AWS error with this code.
func Is(err error, code string) bool {
	e := As(err)
	return e != nil && e.Code == code
}

// Code returns the AWS code of err, or "" where it has none.
func Code(err error) string {
	if e := As(err); e != nil {
		return e.Code
	}
	return ""
}
