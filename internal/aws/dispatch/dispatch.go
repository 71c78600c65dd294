// Package dispatch leads a request to its handler: headers to protocol, to
// operation, to a typed function, and back.
package dispatch

import (
	"context"
	"fmt"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
)

// Mux holds the served operations of all services. Register everything
// before serving; afterwards it is read-only and safe for concurrent use.
type Mux struct {
	services map[string]*service
}

// New returns an empty Mux.
func New() *Mux { return &Mux{services: map[string]*service{}} }

type service struct {
	model *model.Service
	ops   map[string]*operation
}

type operation struct {
	name     string
	newInput func() any
	call     func(ctx context.Context, in any) (any, error)
	op       any // the *model.Op[I, O]
}

// Register serves op with h over every protocol of its service. It panics
// where the operation is registered twice: that is a mistake in wiring.
func Register[I, O any](m *Mux, op *model.Op[I, O], h func(ctx context.Context, in *I) (*O, error)) {
	s := m.services[op.Service.Name]
	if s == nil {
		s = &service{model: op.Service, ops: map[string]*operation{}}
		m.services[op.Service.Name] = s
	}
	if s.ops[op.Name] != nil {
		panic(fmt.Sprintf("dispatch: %s.%s registered twice", op.Service.Name, op.Name))
	}
	s.ops[op.Name] = &operation{
		name:     op.Name,
		newInput: func() any { return new(I) },
		call: func(ctx context.Context, in any) (any, error) {
			out, err := h(ctx, in.(*I))
			if err != nil {
				return nil, err
			}
			return out, nil
		},
		op: op,
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
	out, err := s.ops[op.Name].call(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.(*O), nil
}

// NotBuilt is the answer to an operation that AWS has and Slipway does not.
func NotBuilt(s *model.Service, op string) error {
	return awserr.New("NotImplemented", "Slipway does not implement %s %s yet.", s.ID, op).WithStatus(501)
}
