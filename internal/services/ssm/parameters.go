package ssm

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"slipway/internal/api/ssm"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

var nameChars = lazyre.New(`^[a-zA-Z0-9_.\-/]+$`)

func invalid(format string, args ...any) error {
	return awserr.New("ValidationException", format, args...)
}

// checkName applies "Requirements and constraints for parameter names" of the
// Systems Manager user guide.
func checkName(name string) error {
	lower := strings.ToLower(strings.TrimPrefix(name, "/"))
	switch {
	case !nameChars.MatchString(name):
		return invalid("Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_")
	case strings.HasPrefix(lower, "aws"):
		return awserr.New("AccessDeniedException", "No access to reserved parameter name: %s.", name)
	case strings.HasPrefix(lower, "ssm"):
		return invalid("Parameter name: can't be prefixed with \"ssm\" (case-insensitive).")
	case strings.Contains(name, "/") && !strings.HasPrefix(name, "/"):
		return invalid("Parameter name must be a fully qualified name.")
	case strings.Contains(name, "//") || strings.HasSuffix(name, "/"):
		return invalid("Parameter name %s has an empty part between slashes.", name)
	case strings.Count(name, "/") > 15:
		return awserr.New("HierarchyLevelLimitExceededException", "A hierarchy can have a maximum of 15 levels.")
	case len(name) > 1011:
		return invalid("Parameter name must be at most 1011 characters long.")
	}
	return nil
}

// newValue checks what a put brings, without its version.
func (s *Service) newValue(ctx context.Context, in *ssm.PutParameterInput, kind string) (value, error) {
	id := caller.From(ctx)
	v := value{Type: kind, KeyID: ptr.Value(in.KeyId), Description: ptr.Value(in.Description), AllowedPattern: ptr.Value(in.AllowedPattern),
		Tier: ptr.Value(in.Tier), DataType: ptr.Value(in.DataType), Modified: s.Clock.Now().Truncate(time.Millisecond), User: id.PrincipalARN}
	text := ptr.Value(in.Value)
	if v.DataType == "" {
		v.DataType = "text"
	}
	switch {
	case v.Tier == "Intelligent-Tiering" && len(text) > 4096:
		v.Tier = tierAdvanced
	case v.Tier != tierAdvanced:
		v.Tier = tierStandard
	}
	limit := map[string]int{tierStandard: 4096, tierAdvanced: 8192}[v.Tier]
	switch {
	case ptr.Value(in.Policies) != "":
		return v, awserr.New("NotImplemented", "Slipway does not implement parameter policies.").WithStatus(501)
	case len(text) > limit:
		return v, invalid("%s tier parameters support a maximum parameter value of %d characters.", v.Tier, limit)
	case text == "":
		return v, invalid("Parameter value can't be empty.")
	case kind != typeSecure && in.KeyId != nil:
		return v, awserr.New("InvalidKeyId", "KeyId is required for SecureString type parameters only.")
	}
	if v.AllowedPattern != "" {
		re, err := regexp.Compile(`^(?:` + v.AllowedPattern + `)$`)
		if err != nil {
			return v, awserr.New("InvalidAllowedPatternException", "The AllowedPattern %s is not a valid regular expression: %s", v.AllowedPattern, err)
		}
		if !re.MatchString(text) {
			return v, awserr.New("ParameterPatternMismatchException", "Parameter value, cannot be validated against allowedPattern: %s", v.AllowedPattern)
		}
	}
	if kind != typeSecure {
		v.Value = text
		return v, nil
	}
	if v.KeyID == "" {
		v.KeyID = "alias/aws/ssm"
	}
	v.Sealed = s.Ring.Seal("ssm", sealContext(id, *in.Name), []byte(text))
	return v, nil
}

func (s *Service) put(ctx context.Context, in *ssm.PutParameterInput) (*ssm.PutParameterOutput, error) {
	id, name := caller.From(ctx), ptr.Value(in.Name)
	if err := checkName(name); err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 && ptr.Value(in.Overwrite) {
		return nil, invalid("Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.")
	}
	tags := map[string]string{}
	for _, t := range in.Tags {
		tags[ptr.Value(t.Key)] = ptr.Value(t.Value)
	}
	var out *ssm.PutParameterOutput
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := parameters.Get(tx, id.Account, id.Region, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		kind := ptr.Value(in.Type)
		switch {
		case row != nil && !ptr.Value(in.Overwrite):
			return awserr.New("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.")
		case row != nil && kind == "":
			kind = row.Doc.Type
		case row == nil && kind == "":
			return invalid("A parameter type is required when you create a parameter.")
		}
		v, err := s.newValue(ctx, in, kind)
		if err != nil {
			return err
		}
		if row == nil {
			v.Version = 1
			_, err = parameters.Insert(tx, id.Account, id.Region, name, parameter{Name: name, value: v, Tags: tags}, "Created", nil)
		} else {
			err = s.supersede(tx, row, &v, in)
		}
		out = &ssm.PutParameterOutput{Version: &v.Version, Tier: &v.Tier}
		return err
	})
	return out, err
}

// supersede makes v the newest version; the oldest of more than maxVersions goes.
func (s *Service) supersede(tx store.Tx, row *store.Row[parameter], v *value, in *ssm.PutParameterInput) error {
	old := row.Doc.value
	v.Version = old.Version + 1
	if in.Description == nil {
		v.Description = old.Description
	}
	if in.Tier == nil && old.Tier == tierAdvanced {
		v.Tier = tierAdvanced
	}
	all, err := older(tx, row)
	if err != nil {
		return err
	}
	if len(all) >= maxVersions-1 {
		if len(all[0].Doc.Labels) > 0 {
			return awserr.New("ParameterMaxVersionLimitExceeded", "You attempted to create a new version of %s by calling the PutParameter API with the overwrite flag. Version %d, the oldest version, can't be deleted because it has a label associated with it. Move the label to another version of the parameter, and try again.", row.Doc.Name, all[0].Doc.Version)
		}
		if err := versions.Delete(tx, all[0], "Forgotten", nil); err != nil {
			return err
		}
	}
	if _, err := versions.Insert(tx, row.Account, row.Region, versionID(row.Doc.Name, old.Version), olderValue{row.Doc.Name, old}, "Superseded", nil); err != nil {
		return err
	}
	row.Doc.value = *v
	return parameters.Save(tx, row, "Changed", nil)
}

// publicPrefix begins the parameters in which AWS publishes Amazon Linux AMIs.
const publicPrefix = "/aws/service/ami-amazon-linux-latest/"

// public resolves a public parameter.
func (s *Service) public(ctx context.Context, name string) *ssm.Parameter {
	if s.DefaultImage == nil || !strings.HasPrefix(name, publicPrefix) || len(name) == len(publicPrefix) {
		return nil
	}
	region := caller.From(ctx).Region
	return &ssm.Parameter{Name: &name, Type: new(typeString), Value: new(s.DefaultImage(region)), Version: new(int64(1)), DataType: new("text"),
		LastModifiedDate: new(s.Clock.Now().Truncate(24 * time.Hour)), ARN: new("arn:aws:ssm:" + region + "::parameter" + name)}
}

// open gives the value of a version: sealed ones as they are, in base64, unless decrypt.
func (s *Service) open(ctx context.Context, name string, v *value, decrypt bool) (string, error) {
	switch {
	case v.Type != typeSecure:
		return v.Value, nil
	case !decrypt:
		return encode(v.Sealed), nil
	}
	b, err := s.Ring.Unseal("ssm", sealContext(caller.From(ctx), name), v.Sealed)
	return string(b), err
}

func (s *Service) wire(ctx context.Context, name string, v *value, decrypt bool) (*ssm.Parameter, error) {
	text, err := s.open(ctx, name, v, decrypt)
	if err != nil {
		return nil, err
	}
	return &ssm.Parameter{Name: &name, Type: &v.Type, Value: &text, Version: &v.Version, LastModifiedDate: &v.Modified,
		ARN: new(arn(caller.From(ctx), name)), DataType: &v.DataType}, nil
}

// lookup reads "name", "name:version" or "name:label".
func (s *Service) lookup(ctx context.Context, r store.Reader, full string, decrypt bool) (*ssm.Parameter, error) {
	name, selector := full, ""
	if !strings.HasPrefix(full, "arn:") {
		name, selector, _ = strings.Cut(full, ":")
	}
	if p := s.public(ctx, name); p != nil {
		return p, nil
	}
	row, err := load(ctx, r, name)
	if err != nil {
		return nil, err
	}
	v, err := pick(r, row, selector)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, awserr.New("ParameterVersionNotFound", "Systems Manager could not find version %s of %s. Verify the version and try again.", selector, name)
	}
	p, err := s.wire(ctx, row.Doc.Name, v, decrypt)
	if err == nil && selector != "" {
		p.Selector = new(":" + selector)
	}
	return p, err
}

// pick finds a version by number or label; nil where there is none.
func pick(r store.Reader, row *store.Row[parameter], selector string) (*value, error) {
	if selector == "" {
		return &row.Doc.value, nil
	}
	all, err := older(r, row)
	if err != nil {
		return nil, err
	}
	vs := []*value{&row.Doc.value}
	for _, o := range all {
		vs = append(vs, &o.Doc.value)
	}
	number, nerr := strconv.ParseInt(selector, 10, 64)
	for _, v := range vs {
		if nerr == nil && v.Version == number {
			return v, nil
		}
		for _, l := range v.Labels {
			if l == selector {
				return v, nil
			}
		}
	}
	return nil, nil
}

func (s *Service) get(ctx context.Context, in *ssm.GetParameterInput) (out *ssm.GetParameterOutput, err error) {
	err = s.Store.View(ctx, func(r store.Reader) error {
		p, err := s.lookup(ctx, r, ptr.Value(in.Name), ptr.Value(in.WithDecryption))
		out = &ssm.GetParameterOutput{Parameter: p}
		return err
	})
	return out, err
}

func (s *Service) getMany(ctx context.Context, in *ssm.GetParametersInput) (*ssm.GetParametersOutput, error) {
	out := &ssm.GetParametersOutput{Parameters: []ssm.Parameter{}, InvalidParameters: []string{}}
	err := s.Store.View(ctx, func(r store.Reader) error {
		for _, name := range in.Names {
			p, err := s.lookup(ctx, r, name, ptr.Value(in.WithDecryption))
			switch {
			case awserr.As(err) != nil:
				out.InvalidParameters = append(out.InvalidParameters, name)
			case err != nil:
				return err
			default:
				out.Parameters = append(out.Parameters, *p)
			}
		}
		return nil
	})
	return out, err
}

func (s *Service) removeOne(ctx context.Context, tx store.Tx, name string) error {
	row, err := load(ctx, tx, name)
	if err != nil {
		return err
	}
	all, err := older(tx, row)
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := versions.Delete(tx, o, "Deleted", nil); err != nil {
			return err
		}
	}
	return parameters.Delete(tx, row, "Deleted", nil)
}

func (s *Service) delete(ctx context.Context, in *ssm.DeleteParameterInput) (*ssm.DeleteParameterOutput, error) {
	return &ssm.DeleteParameterOutput{}, s.Store.Update(ctx, func(tx store.Tx) error { return s.removeOne(ctx, tx, ptr.Value(in.Name)) })
}

func (s *Service) deleteMany(ctx context.Context, in *ssm.DeleteParametersInput) (*ssm.DeleteParametersOutput, error) {
	var out *ssm.DeleteParametersOutput
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		out = &ssm.DeleteParametersOutput{DeletedParameters: []string{}, InvalidParameters: []string{}}
		for _, name := range in.Names {
			err := s.removeOne(ctx, tx, name)
			switch {
			case awserr.Is(err, "ParameterNotFound"):
				out.InvalidParameters = append(out.InvalidParameters, name)
			case err != nil:
				return err
			default:
				out.DeletedParameters = append(out.DeletedParameters, name)
			}
		}
		return nil
	})
	return out, err
}
