package ec2

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) describeTemplates(ctx context.Context, in *api.DescribeLaunchTemplatesInput) (*api.DescribeLaunchTemplatesOutput, error) {
	account, region := where(ctx)
	var all []*template
	var tags map[string]map[string]string
	err := s.Store.View(ctx, func(r store.Reader) error {
		for _, id := range in.LaunchTemplateIds {
			row, err := findTemplate(r, account, region, id, "")
			if err != nil {
				return err
			}
			all = append(all, &row.Doc)
		}
		for _, name := range in.LaunchTemplateNames {
			row, err := findTemplate(r, account, region, "", name)
			if err != nil {
				return err
			}
			all = append(all, &row.Doc)
		}
		if len(in.LaunchTemplateIds)+len(in.LaunchTemplateNames) == 0 {
			rows, err := templates.List(r, store.Query{Account: account, Region: region})
			if err != nil {
				return err
			}
			for _, row := range rows {
				all = append(all, &row.Doc)
			}
		}
		var err error
		tags, err = allTags(r, account, region, "launch-template")
		return err
	})
	if err != nil {
		return nil, err
	}
	by := fields[*template]{
		"launch-template-name": one(func(t *template) string { return t.Name }),
		"create-time":          one(func(t *template) string { return t.Created.Format("2006-01-02T15:04:05.000Z") }),
	}
	if all, err = filtered(all, in.Filters, by, func(t *template) map[string]string { return tags[t.ID] }); err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b *template) int { return strings.Compare(a.ID, b.ID) })
	all, next, err := page(all, func(t *template) string { return t.ID }, in.MaxResults, in.NextToken, 1, 200)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeLaunchTemplatesOutput{NextToken: next}
	for _, t := range all {
		out.LaunchTemplates = append(out.LaunchTemplates, *apiTemplate(t, tags[t.ID]))
	}
	return out, dryRun(in.DryRun)
}

// pair is a version with its template.
type pair struct {
	t *template
	v *templateVersion
}

func (s *Service) describeTemplateVersions(ctx context.Context, in *api.DescribeLaunchTemplateVersionsInput) (*api.DescribeLaunchTemplateVersionsOutput, error) {
	var all []pair
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		all, err = selectVersions(ctx, r, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	by := fields[pair]{
		"image-id":           one(func(p pair) string { return ptr.Value(p.v.Data.ImageId) }),
		"instance-type":      one(func(p pair) string { return ptr.Value(p.v.Data.InstanceType) }),
		"kernel-id":          one(func(p pair) string { return ptr.Value(p.v.Data.KernelId) }),
		"ram-disk-id":        one(func(p pair) string { return ptr.Value(p.v.Data.RamDiskId) }),
		"is-default-version": one(func(p pair) string { return strconv.FormatBool(p.v.Number == p.t.Default) }),
		"ebs-optimized":      one(func(p pair) string { return strconv.FormatBool(ptr.Value(p.v.Data.EbsOptimized)) }),
		"create-time":        one(func(p pair) string { return p.v.Created.Format("2006-01-02T15:04:05.000Z") }),
		"iam-instance-profile": one(func(p pair) string {
			ip := ptr.Value(p.v.Data.IamInstanceProfile)
			return ptr.Value(ip.Arn) + ptr.Value(ip.Name)
		}),
	}
	if all, err = filtered(all, in.Filters, by, nil); err != nil {
		return nil, err
	}
	key := func(p pair) string { return fmt.Sprintf("%s/%08d", p.t.ID, 99999999-p.v.Number) } // newest first
	slices.SortStableFunc(all, func(a, b pair) int { return strings.Compare(key(a), key(b)) })
	all, next, err := page(all, key, in.MaxResults, in.NextToken, 1, 200)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeLaunchTemplateVersionsOutput{NextToken: next}
	for _, p := range all {
		v, err := apiVersion(p.t, p.v)
		if err != nil {
			return nil, err
		}
		out.LaunchTemplateVersions = append(out.LaunchTemplateVersions, *v)
	}
	return out, dryRun(in.DryRun)
}

// selectVersions reads the versions that a describe call names: some or all
// of one template, or $Latest and $Default of every template.
func selectVersions(ctx context.Context, r store.Reader, in *api.DescribeLaunchTemplateVersionsInput) ([]pair, error) {
	account, region := where(ctx)
	if in.LaunchTemplateId == nil && in.LaunchTemplateName == nil {
		return selectAliases(r, account, region, in.Versions)
	}
	t, err := findTemplate(r, account, region, ptr.Value(in.LaunchTemplateId), ptr.Value(in.LaunchTemplateName))
	if err != nil {
		return nil, err
	}
	var all []pair
	if len(in.Versions) > 0 {
		for _, which := range in.Versions {
			v, err := findVersion(r, t, which)
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(all, func(p pair) bool { return p.v.Number == v.Doc.Number }) {
				all = append(all, pair{&t.Doc, &v.Doc})
			}
		}
		return all, nil
	}
	low, high := int64(1), t.Doc.Latest
	for _, bound := range []struct {
		text *string
		to   *int64
	}{{in.MinVersion, &low}, {in.MaxVersion, &high}} {
		if bound.text == nil {
			continue
		}
		v, err := findVersion(r, t, *bound.text)
		if err != nil {
			return nil, err
		}
		*bound.to = v.Doc.Number
	}
	rows, err := templateVersions.List(r, store.Query{Account: account, Region: region, Parent: t.ID})
	for _, row := range rows {
		if row.Doc.Number >= low && row.Doc.Number <= high {
			all = append(all, pair{&t.Doc, &row.Doc})
		}
	}
	return all, err
}

func selectAliases(r store.Reader, account, region string, which []string) ([]pair, error) {
	if len(which) == 0 || slices.ContainsFunc(which, func(v string) bool { return v != "$Latest" && v != "$Default" }) {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter LaunchTemplateId or LaunchTemplateName, or ask for $Latest or $Default only")
	}
	rows, err := templates.List(r, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	var all []pair
	for _, t := range rows {
		for n, alias := range which {
			v, err := findVersion(r, t, alias)
			if err != nil {
				return nil, err
			}
			if n == 0 || all[len(all)-1].v.Number != v.Doc.Number || all[len(all)-1].t.ID != t.ID {
				all = append(all, pair{&t.Doc, &v.Doc})
			}
		}
	}
	return all, nil
}

func (s *Service) getTemplateData(ctx context.Context, in *api.GetLaunchTemplateDataInput) (*api.GetLaunchTemplateDataOutput, error) {
	all, err := s.views(ctx, []string{ptr.Value(in.InstanceId)})
	if err != nil {
		return nil, err
	}
	i := all[0]
	d := &api.ResponseLaunchTemplateData{ImageId: new(i.Image), InstanceType: new(i.Type), KeyName: orNil(i.KeyName), UserData: orNil(i.UserData),
		EbsOptimized: new(i.EbsOptimized), DisableApiTermination: new(i.NoTerminate), InstanceInitiatedShutdownBehavior: new(i.OnShutdown),
		Monitoring: &api.LaunchTemplatesMonitoring{Enabled: new(i.Monitoring)}, Placement: &api.LaunchTemplatePlacement{AvailabilityZone: new(i.Zone), Tenancy: new("default"), GroupName: new("")}}
	for _, g := range i.Groups {
		d.SecurityGroupIds = append(d.SecurityGroupIds, g.ID)
	}
	if i.Profile != nil {
		d.IamInstanceProfile = &api.LaunchTemplateIamInstanceProfileSpecification{Arn: new(i.Profile.Arn)}
	}
	var tags []api.Tag
	for _, t := range apiTags(i.Tags) {
		if !strings.HasPrefix(*t.Key, "aws:") {
			tags = append(tags, t)
		}
	}
	if len(tags) > 0 {
		d.TagSpecifications = []api.LaunchTemplateTagSpecification{{ResourceType: new("instance"), Tags: tags}}
	}
	return &api.GetLaunchTemplateDataOutput{LaunchTemplateData: d}, dryRun(in.DryRun)
}
