package iam

import (
	"context"
	"errors"
	"slices"
	"sort"
	"strings"

	"slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// attachable refuses an ARN that names no policy of the account or AWS's.
func (s *Service) attachable(ctx context.Context, arn *string) error {
	if arn == nil || awsManaged(*arn) {
		return nil
	}
	if !strings.HasPrefix(*arn, "arn:aws:iam::") || !strings.Contains(*arn, ":policy/") {
		return awserr.New("InvalidInput", "ARN %s is not valid.", *arn)
	}
	_, err := policies.Find(ctx, s.Store, account(ctx), "", *arn)
	if errors.Is(err, store.ErrNotFound) {
		return awserr.New("NoSuchEntity", "Policy %s does not exist or is not attachable.", *arn).WithStatus(404)
	}
	return err
}

func (s *Service) putInline(ctx context.Context, c class, name, policyName, doc *string) error {
	if err := checkDocument(doc, false); err != nil {
		return err
	}
	_, err := s.change(ctx, c, name, "PolicyPut", func(e *entity) error {
		if e.Inline == nil {
			e.Inline = map[string]string{}
		}
		e.Inline[ptr.Value(policyName)] = ptr.Value(doc)
		return nil
	})
	return err
}

func noInline(c class, policyName *string) error {
	return awserr.New("NoSuchEntity", "The %s policy with name %s cannot be found.", c.word, ptr.Value(policyName)).WithStatus(404)
}

func (s *Service) getInline(ctx context.Context, c class, name, policyName *string) (*entity, string, error) {
	e, err := s.get(ctx, c, name)
	if err != nil {
		return nil, "", err
	}
	doc, ok := e.Inline[ptr.Value(policyName)]
	if !ok {
		return nil, "", noInline(c, policyName)
	}
	return e, doc, nil
}

func (s *Service) deleteInline(ctx context.Context, c class, name, policyName *string) error {
	_, err := s.change(ctx, c, name, "PolicyDeleted", func(e *entity) error {
		if _, ok := e.Inline[ptr.Value(policyName)]; !ok {
			return noInline(c, policyName)
		}
		delete(e.Inline, ptr.Value(policyName))
		return nil
	})
	return err
}

func (s *Service) attach(ctx context.Context, c class, name, arn *string) error {
	if err := s.attachable(ctx, arn); err != nil {
		return err
	}
	_, err := s.change(ctx, c, name, "PolicyAttached", func(e *entity) error {
		if slices.Contains(e.Attached, *arn) {
			return store.ErrUnchanged
		}
		if len(e.Attached) >= 20 {
			return awserr.New("LimitExceeded", "Cannot exceed quota for PoliciesPer%s: 20", c.title()).WithStatus(409)
		}
		e.Attached = append(e.Attached, *arn)
		sort.Strings(e.Attached)
		return nil
	})
	return err
}

func (s *Service) detach(ctx context.Context, c class, name, arn *string) error {
	_, err := s.change(ctx, c, name, "PolicyDetached", func(e *entity) error {
		i := slices.Index(e.Attached, ptr.Value(arn))
		if i < 0 {
			return noPolicy(ptr.Value(arn))
		}
		e.Attached = slices.Delete(e.Attached, i, i+1)
		return nil
	})
	return err
}

func attachedARN(p iam.AttachedPolicy) string { return ptr.Value(p.PolicyArn) }

func (s *Service) attached(ctx context.Context, c class, name, pathPrefix *string) ([]iam.AttachedPolicy, error) {
	e, err := s.get(ctx, c, name)
	if err != nil {
		return nil, err
	}
	out := []iam.AttachedPolicy{}
	for _, arn := range e.Attached {
		path, name := splitPolicy(arn)
		if strings.HasPrefix(path, ptr.Value(pathPrefix)) {
			out = append(out, iam.AttachedPolicy{PolicyArn: &arn, PolicyName: &name})
		}
	}
	return out, nil
}

func (s *Service) setBoundary(ctx context.Context, c class, name, arn *string) error {
	if err := s.attachable(ctx, arn); err != nil {
		return err
	}
	_, err := s.change(ctx, c, name, "BoundaryChanged", func(e *entity) error {
		if arn == nil && e.Boundary == "" {
			return awserr.New("NoSuchEntity", "No permissions boundary was found for %s %s.", c.word, e.Name).WithStatus(404)
		}
		e.Boundary = ptr.Value(arn)
		return nil
	})
	return err
}

// usage finds out what a policy is attached to.
func (s *Service) usage(r store.Reader, acct string, used func(h holder, arn string, boundary bool)) error {
	for _, c := range []class{users, groups, roles} {
		rows, err := c.List(r, store.Query{Account: acct})
		if err != nil {
			return err
		}
		for _, row := range rows {
			for _, arn := range row.Doc.Attached {
				used(holder{c, &row.Doc}, arn, false)
			}
			if row.Doc.Boundary != "" {
				used(holder{c, &row.Doc}, row.Doc.Boundary, true)
			}
		}
	}
	return nil
}

func (s *Service) counts(ctx context.Context) (map[string]counts, error) {
	out := map[string]counts{}
	err := s.Store.View(ctx, func(r store.Reader) error {
		clear(out)
		return s.usage(r, account(ctx), func(_ holder, arn string, boundary bool) {
			c := out[arn]
			if boundary {
				c.boundary++
			} else {
				c.attached++
			}
			out[arn] = c
		})
	})
	return out, err
}
