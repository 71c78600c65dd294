package ec2

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

// template is a launch template; its versions have rows of their own.
type template struct {
	ID, Name, CreatedBy string
	Created             time.Time
	Default, Latest     int64
	// Next is the number of the next version: numbers are never used again.
	Next int64
}

type templateVersion struct {
	Template    string
	Number      int64
	Description string `json:",omitempty"`
	CreatedBy   string
	Created     time.Time
	Data        api.RequestLaunchTemplateData
}

func (v *templateVersion) number() string { return strconv.FormatInt(v.Number, 10) }

func versionID(template string, n int64) string { return fmt.Sprintf("%s/%08d", template, n) }

var templateName = lazyre.New(`^[a-zA-Z0-9().\-/_]{3,128}$`)

// findTemplate reads a template by id or by name, of which exactly one is given.
func findTemplate(r store.Reader, account, region, id, name string) (*store.Row[template], error) {
	switch {
	case id == "" && name == "":
		return nil, awserr.New("MissingParameter", "The request must contain the parameter LaunchTemplateId or LaunchTemplateName")
	case id != "" && name != "":
		return nil, awserr.New("InvalidParameterCombination", "The parameters LaunchTemplateId and LaunchTemplateName cannot be used together")
	case id == "":
		n, err := templateNames.Get(r, account, region, name)
		if errors.Is(err, store.ErrNotFound) {
			return nil, awserr.New("InvalidLaunchTemplateName.NotFoundException", "At least one of the launch templates specified in the request does not exist. The template name is %s.", name)
		}
		if err != nil {
			return nil, err
		}
		id = n.Doc.ID
	default:
		if err := checkID("lt", id, "InvalidLaunchTemplateId.Malformed"); err != nil {
			return nil, err
		}
	}
	row, err := templates.Get(r, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
	}
	return row, err
}

// findVersion reads a version by number, $Latest or $Default ("" too).
func findVersion(r store.Reader, t *store.Row[template], which string) (*store.Row[templateVersion], error) {
	n := t.Doc.Default
	switch which {
	case "", "$Default":
	case "$Latest":
		n = t.Doc.Latest
	default:
		var err error
		if n, err = strconv.ParseInt(which, 10, 64); err != nil || n < 1 {
			return nil, awserr.New("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version %s: it must be a number, $Latest or $Default.", which)
		}
	}
	v, err := templateVersions.Get(r, t.Account, t.Region, versionID(t.ID, n))
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New("InvalidLaunchTemplateId.VersionNotFound", "Could not find the specified version %d for the launch template with ID %s.", n, t.ID)
	}
	return v, err
}

// resolveTemplate finds the template and version that a launch names.
func (s *Service) resolveTemplate(ctx context.Context, account, region string, spec *api.LaunchTemplateSpecification) (t *template, v *templateVersion, err error) {
	err = s.Store.View(ctx, func(r store.Reader) error {
		row, err := findTemplate(r, account, region, ptr.Value(spec.LaunchTemplateId), ptr.Value(spec.LaunchTemplateName))
		if err != nil {
			return err
		}
		version, err := findVersion(r, row, ptr.Value(spec.Version))
		if err != nil {
			return err
		}
		t, v = &row.Doc, &version.Doc
		return nil
	})
	return t, v, err
}

func apiTemplate(t *template, tags map[string]string) *api.LaunchTemplate {
	return &api.LaunchTemplate{LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), CreateTime: new(t.Created), CreatedBy: new(t.CreatedBy),
		DefaultVersionNumber: new(t.Default), LatestVersionNumber: new(t.Latest), Tags: apiTags(tags)}
}

func apiVersion(t *template, v *templateVersion) (*api.LaunchTemplateVersion, error) {
	data, err := convert[api.ResponseLaunchTemplateData](&v.Data)
	return &api.LaunchTemplateVersion{LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Name), VersionNumber: new(v.Number),
		VersionDescription: orNil(v.Description), CreateTime: new(v.Created), CreatedBy: new(v.CreatedBy),
		DefaultVersion: new(v.Number == t.Default), LaunchTemplateData: &data}, err
}

func (s *Service) createTemplate(ctx context.Context, in *api.CreateLaunchTemplateInput) (*api.CreateLaunchTemplateOutput, error) {
	account, region := where(ctx)
	name := ptr.Value(in.LaunchTemplateName)
	if !templateName.MatchString(name) {
		return nil, awserr.New("InvalidLaunchTemplateName.MalformedException", "A launch template name must be between 3 and 128 characters, and may contain letters, numbers, and the following characters: - ( ) . / _. Got '%s'.", name)
	}
	if in.LaunchTemplateData == nil {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter LaunchTemplateData")
	}
	if err := checkTemplate(in.LaunchTemplateData); err != nil {
		return nil, err
	}
	tags, err := specTags(in.TagSpecifications, "launch-template")
	if err != nil {
		return nil, err
	}
	t := template{ID: newID("lt"), Name: name, CreatedBy: caller.From(ctx).PrincipalARN, Created: s.Clock.Now(), Default: 1, Latest: 1, Next: 2}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		if done, err := remember(tx, account, region, "CreateLaunchTemplate", in.ClientToken, in, t.ID, s.Clock.Now()); err != nil {
			return err
		} else if done != "" {
			row, err := findTemplate(tx, account, region, done, "")
			if err == nil {
				t = row.Doc
			}
			return err
		}
		if _, err := templateNames.Insert(tx, account, region, name, nameOf{t.ID}, "Created", nil); errors.Is(err, store.ErrExists) {
			return awserr.New("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
		} else if err != nil {
			return err
		}
		if _, err := templates.Insert(tx, account, region, t.ID, t, "Created", nil); err != nil {
			return err
		}
		v := templateVersion{Template: t.ID, Number: 1, Description: ptr.Value(in.VersionDescription), CreatedBy: t.CreatedBy, Created: t.Created, Data: *in.LaunchTemplateData}
		if _, err := templateVersions.Insert(tx, account, region, versionID(t.ID, 1), v, "Created", nil); err != nil {
			return err
		}
		if err := putTags(tx, account, region, t.ID, "launch-template", tags); err != nil {
			return err
		}
		return dryRun(in.DryRun)
	})
	return &api.CreateLaunchTemplateOutput{LaunchTemplate: apiTemplate(&t, tags)}, err
}

// checkTemplate refuses data that no launch could use.
func checkTemplate(d *api.RequestLaunchTemplateData) error {
	for _, spec := range d.TagSpecifications {
		set, err := checkTags(spec.Tags, true)
		if err != nil {
			return err
		}
		if _, err := volumeMounts(set[volumeTag]); err != nil {
			return err
		}
	}
	return nil
}

// remember looks a client token up, or notes it for result. done is the
// earlier result of the same request, or "".
func remember(tx store.Tx, account, region, op string, clientToken *string, in any, result string, now time.Time) (done string, err error) {
	if ptr.Value(clientToken) == "" {
		return "", nil
	}
	id := op + "/" + *clientToken
	hash := requestHash(in)
	row, err := tokens.Get(tx, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		_, err = tokens.Insert(tx, account, region, id, token{hash, result, now}, "Created", nil)
		return "", err
	}
	if err != nil {
		return "", err
	}
	if row.Doc.Hash != hash {
		return "", awserr.New("IdempotentParameterMismatch", "The client token you have provided is associated with a request with different parameters.")
	}
	return row.Doc.Result, nil
}

func (s *Service) createTemplateVersion(ctx context.Context, in *api.CreateLaunchTemplateVersionInput) (*api.CreateLaunchTemplateVersionOutput, error) {
	account, region := where(ctx)
	if in.LaunchTemplateData == nil {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter LaunchTemplateData")
	}
	if err := checkTemplate(in.LaunchTemplateData); err != nil {
		return nil, err
	}
	out := &api.CreateLaunchTemplateVersionOutput{}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		t, err := findTemplate(tx, account, region, ptr.Value(in.LaunchTemplateId), ptr.Value(in.LaunchTemplateName))
		if err != nil {
			return err
		}
		v := templateVersion{Template: t.ID, Number: t.Doc.Next, Description: ptr.Value(in.VersionDescription), CreatedBy: caller.From(ctx).PrincipalARN, Created: s.Clock.Now()}
		done, err := remember(tx, account, region, "CreateLaunchTemplateVersion", in.ClientToken, in, v.number(), v.Created)
		if err != nil {
			return err
		}
		if done != "" {
			old, err := findVersion(tx, t, done)
			if err == nil {
				out.LaunchTemplateVersion, err = apiVersion(&t.Doc, &old.Doc)
			}
			return err
		}
		if in.SourceVersion != nil {
			src, err := findVersion(tx, t, *in.SourceVersion)
			if err != nil {
				return err
			}
			v.Data = src.Doc.Data
		}
		overlay(&v.Data, in.LaunchTemplateData)
		if _, err := templateVersions.Insert(tx, account, region, versionID(t.ID, v.Number), v, "Created", nil); err != nil {
			return err
		}
		t.Doc.Latest, t.Doc.Next = v.Number, v.Number+1
		if err := templates.Save(tx, t, "VersionCreated", nil); err != nil {
			return err
		}
		if out.LaunchTemplateVersion, err = apiVersion(&t.Doc, &v); err != nil {
			return err
		}
		return dryRun(in.DryRun)
	})
	return out, err
}

func (s *Service) modifyTemplate(ctx context.Context, in *api.ModifyLaunchTemplateInput) (*api.ModifyLaunchTemplateOutput, error) {
	account, region := where(ctx)
	out := &api.ModifyLaunchTemplateOutput{}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		t, err := findTemplate(tx, account, region, ptr.Value(in.LaunchTemplateId), ptr.Value(in.LaunchTemplateName))
		if err != nil {
			return err
		}
		if in.DefaultVersion != nil {
			v, err := findVersion(tx, t, *in.DefaultVersion)
			if err != nil {
				return err
			}
			t.Doc.Default = v.Doc.Number
			if err := templates.Save(tx, t, "Modified", nil); err != nil {
				return err
			}
		}
		tags, err := tagsOf(tx, account, region, t.ID)
		out.LaunchTemplate = apiTemplate(&t.Doc, tags)
		if err != nil {
			return err
		}
		return dryRun(in.DryRun)
	})
	return out, err
}

func (s *Service) deleteTemplate(ctx context.Context, in *api.DeleteLaunchTemplateInput) (*api.DeleteLaunchTemplateOutput, error) {
	account, region := where(ctx)
	out := &api.DeleteLaunchTemplateOutput{}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		t, err := findTemplate(tx, account, region, ptr.Value(in.LaunchTemplateId), ptr.Value(in.LaunchTemplateName))
		if err != nil {
			return err
		}
		out.LaunchTemplate = apiTemplate(&t.Doc, nil)
		versions, err := templateVersions.List(tx, store.Query{Account: account, Region: region, Parent: t.ID})
		if err != nil {
			return err
		}
		for _, v := range versions {
			if err := templateVersions.Delete(tx, v, "Deleted", nil); err != nil {
				return err
			}
		}
		name, err := templateNames.Get(tx, account, region, t.Doc.Name)
		if err != nil {
			return err
		}
		if err := templateNames.Delete(tx, name, "Deleted", nil); err != nil {
			return err
		}
		if err := dropTags(tx, account, region, t.ID); err != nil {
			return err
		}
		if err := templates.Delete(tx, t, "Deleted", nil); err != nil {
			return err
		}
		return dryRun(in.DryRun)
	})
	return out, err
}

func (s *Service) deleteTemplateVersions(ctx context.Context, in *api.DeleteLaunchTemplateVersionsInput) (*api.DeleteLaunchTemplateVersionsOutput, error) {
	account, region := where(ctx)
	out := &api.DeleteLaunchTemplateVersionsOutput{}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		*out = api.DeleteLaunchTemplateVersionsOutput{}
		t, err := findTemplate(tx, account, region, ptr.Value(in.LaunchTemplateId), ptr.Value(in.LaunchTemplateName))
		if err != nil {
			return err
		}
		for _, which := range in.Versions {
			n, _ := strconv.ParseInt(which, 10, 64)
			fail := func(code, message string) {
				out.UnsuccessfullyDeletedLaunchTemplateVersions = append(out.UnsuccessfullyDeletedLaunchTemplateVersions, api.DeleteLaunchTemplateVersionsResponseErrorItem{
					LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Doc.Name), VersionNumber: &n, ResponseError: &api.ResponseError{Code: &code, Message: &message}})
			}
			if n == t.Doc.Default {
				fail("unexpectedError", "The default version of a launch template cannot be deleted.")
				continue
			}
			v, err := findVersion(tx, t, which)
			if err != nil {
				if e := awserr.As(err); e != nil {
					fail("launchTemplateVersionDoesNotExist", e.Message)
					continue
				}
				return err
			}
			if err := templateVersions.Delete(tx, v, "Deleted", nil); err != nil {
				return err
			}
			out.SuccessfullyDeletedLaunchTemplateVersions = append(out.SuccessfullyDeletedLaunchTemplateVersions, api.DeleteLaunchTemplateVersionsResponseSuccessItem{
				LaunchTemplateId: new(t.ID), LaunchTemplateName: new(t.Doc.Name), VersionNumber: new(v.Doc.Number)})
		}
		left, err := templateVersions.List(tx, store.Query{Account: account, Region: region, Parent: t.ID, Descending: true, Limit: 1})
		if err != nil {
			return err
		}
		if len(left) > 0 {
			t.Doc.Latest = left[0].Doc.Number
		}
		if err := templates.Save(tx, t, "VersionsDeleted", nil); err != nil {
			return err
		}
		return dryRun(in.DryRun)
	})
	return out, err
}
