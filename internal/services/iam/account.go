package iam

import (
	"context"
	"errors"

	"slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// alias is the one alias of an account; its row's id is "alias".
var aliases = store.NewTable[string]("iam:alias", nil)

func (s *Service) registerAccount(m *dispatch.Mux) {
	dispatch.Register(m, iam.OpCreateAccountAlias, func(ctx context.Context, in *iam.CreateAccountAliasInput) (*iam.CreateAccountAliasOutput, error) {
		err := s.Store.Update(ctx, func(tx store.Tx) error {
			row, err := aliases.Get(tx, account(ctx), "", "alias")
			if errors.Is(err, store.ErrNotFound) {
				_, err = aliases.Insert(tx, account(ctx), "", "alias", ptr.Value(in.AccountAlias), "Created", nil)
				return err
			}
			if err != nil {
				return err
			}
			row.Doc = ptr.Value(in.AccountAlias)
			return aliases.Save(tx, row, "Changed", nil)
		})
		return &iam.CreateAccountAliasOutput{}, err
	})
	dispatch.Register(m, iam.OpDeleteAccountAlias, func(ctx context.Context, in *iam.DeleteAccountAliasInput) (*iam.DeleteAccountAliasOutput, error) {
		return &iam.DeleteAccountAliasOutput{}, s.Store.Update(ctx, func(tx store.Tx) error {
			row, err := aliases.Get(tx, account(ctx), "", "alias")
			if errors.Is(err, store.ErrNotFound) || err == nil && row.Doc != ptr.Value(in.AccountAlias) {
				return awserr.New("NoSuchEntity", "The account alias %s does not exist.", ptr.Value(in.AccountAlias)).WithStatus(404)
			}
			if err != nil {
				return err
			}
			return aliases.Delete(tx, row, "Deleted", nil)
		})
	})
	dispatch.Register(m, iam.OpListAccountAliases, func(ctx context.Context, in *iam.ListAccountAliasesInput) (*iam.ListAccountAliasesOutput, error) {
		out := &iam.ListAccountAliasesOutput{AccountAliases: []string{}, IsTruncated: new(false)}
		row, err := aliases.Find(ctx, s.Store, account(ctx), "", "alias")
		if errors.Is(err, store.ErrNotFound) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out.AccountAliases = append(out.AccountAliases, row.Doc)
		return out, nil
	})
	dispatch.Register(m, iam.OpGetAccountSummary, s.accountSummary)
}

// accountSummary counts what is there and names the quotas that are enforced.
func (s *Service) accountSummary(ctx context.Context, _ *iam.GetAccountSummaryInput) (*iam.GetAccountSummaryOutput, error) {
	sum := map[string]int64{"AccessKeysPerUserQuota": 2, "VersionsPerPolicyQuota": 5, "AccountAccessKeysPresent": 1,
		"AttachedPoliciesPerRoleQuota": 20, "AttachedPoliciesPerUserQuota": 20, "AttachedPoliciesPerGroupQuota": 20}
	err := s.Store.View(ctx, func(r store.Reader) error {
		for name, t := range map[string]func(store.Reader, store.Query) (int, error){
			"Users": users.Count, "Groups": groups.Count, "Roles": roles.Count, "InstanceProfiles": profiles.Count, "Policies": policies.Count,
		} {
			n, err := t(r, store.Query{Account: account(ctx)})
			if err != nil {
				return err
			}
			sum[name] = int64(n)
		}
		return nil
	})
	return &iam.GetAccountSummaryOutput{SummaryMap: sum}, err
}
