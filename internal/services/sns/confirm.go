package sns

import (
	"context"
	"crypto/subtle"
	"strings"

	api "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) confirmSubscription(ctx context.Context, in *api.ConfirmSubscriptionInput) (*api.ConfirmSubscriptionOutput, error) {
	signed := caller.From(ctx).PrincipalARN != ""
	auth := strings.EqualFold(ptr.Value(in.AuthenticateOnUnsubscribe), "true")
	if auth && !signed {
		return nil, awserr.New(api.ErrCodeAuthorizationErrorException, "AuthenticateOnUnsubscribe can be set by authenticated callers only")
	}
	sub, err := s.confirm(ctx, ptr.Value(in.TopicArn), ptr.Value(in.Token), signed, auth)
	if err != nil {
		return nil, err
	}
	return &api.ConfirmSubscriptionOutput{SubscriptionArn: &sub.ARN}, nil
}

// confirm turns a token into a confirmed subscription; with the token of one
// that is confirmed it changes nothing. Who has the token needs no credentials.
func (s *Service) confirm(ctx context.Context, topic, token string, signed, auth bool) (*Subscription, error) {
	a, err := parseARN("TopicArn", topic, false)
	if err != nil {
		return nil, err
	}
	var found *Subscription
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		if _, err := getTopic(tx, a); err != nil {
			return err
		}
		rows, err := subscriptions.List(tx, store.Query{Account: a.account, Region: a.region, Parent: a.topic})
		if err != nil {
			return err
		}
		for _, row := range rows {
			sub := &row.Doc
			if sub.Token == "" || subtle.ConstantTimeCompare([]byte(sub.Token), []byte(token)) != 1 {
				continue
			}
			found = sub
			if sub.State == stateConfirmed {
				return nil
			}
			if !sub.Until.After(s.Clock.Now()) {
				return invalid("Token Reason: the token has expired")
			}
			sub.State, sub.AuthUnsubscribe, sub.AuthConfirmed = stateConfirmed, auth, signed
			return subscriptions.Save(tx, row, "Confirmed", nil)
		}
		return invalid("Token")
	})
	return found, err
}

func (s *Service) unsubscribe(ctx context.Context, in *api.UnsubscribeInput) (*api.UnsubscribeOutput, error) {
	who := caller.From(ctx)
	if who.PrincipalARN == "" {
		return &api.UnsubscribeOutput{}, s.unsubscribeLink(ctx, ptr.Value(in.SubscriptionArn))
	}
	a, err := parseARN("SubscriptionArn", ptr.Value(in.SubscriptionArn), true)
	if err != nil {
		return nil, err
	}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getSubscription(tx, a)
		if awserr.Is(err, api.ErrCodeNotFoundException) {
			return nil // it is gone already
		}
		switch {
		case err != nil:
			return err
		case who.Account != row.Doc.Owner && who.Account != a.account:
			return denied(who, "Unsubscribe", a.topicARN())
		case row.Doc.State == statePending:
			return invalid("SubscriptionArn Reason: Cannot unsubscribe a subscription that is pending confirmation")
		}
		return subscriptions.Delete(tx, row, "Unsubscribed", nil)
	})
	return &api.UnsubscribeOutput{}, err
}

// unsubscribeLink ends a subscription for somebody without credentials, and
// tells the endpoint how to take that back (API reference, Unsubscribe).
func (s *Service) unsubscribeLink(ctx context.Context, value string) error {
	a, err := parseARN("SubscriptionArn", value, true)
	if err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getSubscription(tx, a)
		if awserr.Is(err, api.ErrCodeNotFoundException) {
			return nil
		}
		if err != nil {
			return err
		}
		sub := &row.Doc
		switch {
		case sub.State == stateDeleted:
			return nil
		case sub.State == statePending:
			return invalid("SubscriptionArn Reason: Cannot unsubscribe a subscription that is pending confirmation")
		case sub.AuthUnsubscribe:
			return awserr.New(api.ErrCodeAuthorizationErrorException, "This subscription can be ended by authenticated callers only")
		}
		sub.State, sub.Token, sub.Until = stateDeleted, newToken(), s.Clock.Now().Add(deletedLife)
		if err := subscriptions.Save(tx, row, "Unsubscribed", nil); err != nil {
			return err
		}
		return s.tell(tx, row, typeUnsubscribe)
	})
}
