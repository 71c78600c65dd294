// Package dispatch leads a request to its handler: headers to protocol, to
// operation, to a typed function, and back. It knows no service: services
// register the operations that they have built, and Declare names the rest.
package dispatch

import (
	"context"
	"fmt"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
	"slipway/internal/aws/validate"
)

// Mux holds the served operations of all services. Register everything
// before serving; afterwards it is read-only and safe for concurrent use.
type Mux struct {
	services map[string]*service
}

// New returns an empty Mux.
func New() *Mux { return &Mux{services: map[string]*service{}} }

// service is one declared API and what of it is built.
type service struct {
	model  *model.Service
	ops    map[string]*operation
	known  map[string]bool             // AWS's operations, built or not
	errors map[string]model.ErrorShape // by every code that a handler may use
}

// operation is a registered model.Op without its type parameters.
type operation struct {
	name          string
	wrapper       string
	input, output int
	status        int
	unsigned      bool
	newInput      func() any
	call          func(ctx context.Context, in any) (any, error)
}

// Declare makes services known of which nothing need be built: their
// operations answer 501 by name. Register declares by itself.
func (m *Mux) Declare(services ...*model.Service) {
	for _, s := range services {
		m.service(s)
	}
}

func (m *Mux) service(md *model.Service) *service {
	s := m.services[md.Name]
	if s != nil {
		return s
	}
	s = &service{model: md, ops: map[string]*operation{}, known: map[string]bool{}, errors: map[string]model.ErrorShape{}}
	for _, n := range md.Operations {
		s.known[n] = true
	}
	for _, e := range md.Errors { // any name leads to the shape, its own first
		s.errors[e.Code] = e
		if _, taken := s.errors[e.Query]; !taken && e.Query != "" {
			s.errors[e.Query] = e
		}
	}
	for n, e := range md.Errors {
		s.errors[n] = e
	}
	m.services[md.Name] = s
	return s
}

// Register serves op with h over every protocol of its service. It panics
// where the operation is registered twice: that is a mistake in wiring.
func Register[I, O any](m *Mux, op *model.Op[I, O], h func(ctx context.Context, in *I) (*O, error)) {
	s := m.service(op.Service)
	if s.ops[op.Name] != nil {
		panic(fmt.Sprintf("dispatch: %s.%s registered twice", op.Service.Name, op.Name))
	}
	s.ops[op.Name] = &operation{
		name: op.Name, wrapper: op.ResultWrapper, input: op.Input, output: op.Output,
		status: op.Status, unsigned: op.Unsigned,
		newInput: func() any { return new(I) },
		call: func(ctx context.Context, in any) (any, error) {
			out, err := h(ctx, in.(*I))
			if err != nil {
				return nil, err
			}
			if out == nil {
				out = new(O)
			}
			return out, nil
		},
	}
}

// Call makes a call to another service inside the process: validated like
// one from outside, with the same errors, as the identity in ctx (see
// caller.ForService).
func Call[I, O any](ctx context.Context, m *Mux, op *model.Op[I, O], in *I) (*O, error) {
	s := m.services[op.Service.Name]
	if s == nil || s.ops[op.Name] == nil {
		return nil, NotBuilt(op.Service, op.Name)
	}
	if in == nil {
		in = new(I)
	}
	if err := validate.Input(op.Service, op.Input, in); err != nil {
		return nil, err
	}
	out, err := s.ops[op.Name].call(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.(*O), nil
}

// Built returns the registered operations of a service by its package's name.
func (m *Mux) Built(name string) []string {
	var out []string
	if s := m.services[name]; s != nil {
		for _, op := range s.model.Operations {
			if s.ops[op] != nil {
				out = append(out, op)
			}
		}
	}
	return out
}

// NotBuilt is the answer to an operation that AWS has and Slipway does not.
func NotBuilt(s *model.Service, op string) error {
	return awserr.New("NotImplemented", "Slipway does not implement %s %s yet.", s.ID, op).WithStatus(501)
}
