package ec2

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/ec2"
	ssm "slipway/internal/api/ssm"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/machine"
	"slipway/internal/store"
)

// image is a registered AMI: a name for what the driver can boot.
type image struct {
	ID, Name, Description string
	State                 string // "pending" is never shown: CreateImage returns when it is there
	Machine               string // the driver's image id
	Source                string // the instance it was made from, or ""
	Created               time.Time
	Bytes                 int64
}

func defaultImage(region string) string { return DefaultImage(region) }

// DefaultImage is the AMI id of the image that every region has: the host's
// own system. AWS's public parameters stand for it.
func DefaultImage(region string) string { return derivedID("ami", "default", region) }

// machineImage finds what the driver boots for an AMI id, or for
// "resolve:ssm:PARAMETER". An id that is not registered stands for the
// default image, with a warning, unless images are strict.
func (s *Service) machineImage(ctx context.Context, account, region, ami string) (id, boots, warning string, err error) {
	if name, ok := strings.CutPrefix(ami, "resolve:ssm:"); ok {
		out, err := dispatch.Call(ctx, s.Mux, ssm.OpGetParameter, &ssm.GetParameterInput{Name: &name})
		switch {
		case err == nil && out.Parameter != nil:
			ami = ptr.Value(out.Parameter.Value)
		case strings.HasPrefix(name, "/aws/service/") && !s.StrictImages:
			ami = defaultImage(region) // AWS's public parameters name AWS's images
			warning = fmt.Sprintf("the public parameter %s stands for the default image", name)
		default:
			return "", "", "", awserr.New("InvalidParameterValue", "The SSM parameter '%s' could not be read: %v", name, err)
		}
	}
	if err := checkID("ami", ami, "InvalidAMIID.Malformed"); err != nil {
		return "", "", "", err
	}
	if ami == defaultImage(region) {
		return ami, machine.DefaultImage, warning, nil
	}
	row, err := images.Find(ctx, s.Store, account, region, ami)
	switch {
	case err == nil:
		return ami, row.Doc.Machine, "", nil
	case !errors.Is(err, store.ErrNotFound):
		return "", "", "", err
	case s.StrictImages:
		return "", "", "", awserr.New("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", ami)
	}
	warning = fmt.Sprintf("the image %s is not registered in %s: the default image was booted in its place", ami, region)
	s.Log.Warn("an AMI id that is not registered stands for the default image", "image", ami, "region", region)
	return ami, machine.DefaultImage, warning, nil
}

func findImage(r store.Reader, account, region, id string) (*store.Row[image], error) {
	if err := checkID("ami", id, "InvalidAMIID.Malformed"); err != nil {
		return nil, err
	}
	row, err := images.Get(r, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		if id == defaultImage(region) {
			return &store.Row[image]{Key: images.Key(account, region, id), Doc: builtinImage(region)}, nil
		}
		return nil, awserr.New("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
	}
	return row, err
}

// builtinImage describes the default image. Its name follows Amazon Linux's,
// so that templates which look the newest image up by name find it.
func builtinImage(region string) image {
	return image{ID: defaultImage(region), Name: "al2023-ami-slipway-default-" + arch(), State: "available", Machine: machine.DefaultImage,
		Description: "The operating system of the machine that Slipway runs on", Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func arch() string {
	if runtime.GOARCH == "arm64" {
		return "arm64"
	}
	return "x86_64"
}

func (i *image) builtin() bool { return i.Machine == machine.DefaultImage && i.Source == "" }

func (i *image) location(account string) string {
	if i.builtin() {
		return "amazon/" + i.Name
	}
	return account + "/" + i.Name
}

func (i *image) owner(account string) string {
	if i.builtin() {
		return "137112412989" // Amazon's own account, which owns Amazon Linux
	}
	return account
}

// imageFields are the filters of DescribeImages, for an account.
func imageFields(account string) fields[*image] {
	const iso = "2006-01-02T15:04:05.000Z"
	constant := func(v string) func(*image) []string { return func(*image) []string { return []string{v} } }
	return fields[*image]{
		"image-id": one(func(i *image) string { return i.ID }), "name": one(func(i *image) string { return i.Name }),
		"state": one(func(i *image) string { return i.State }), "description": one(func(i *image) string { return i.Description }),
		"owner-id": one(func(i *image) string { return i.owner(account) }),
		"owner-alias": one(func(i *image) string {
			if i.builtin() {
				return "amazon"
			}
			return ""
		}),
		"architecture": constant(arch()), "virtualization-type": constant("hvm"), "root-device-type": constant("ebs"), "image-type": constant("machine"),
		"hypervisor": constant("xen"), "root-device-name": constant("/dev/xvda"), "ena-support": constant("true"),
		"is-public":                        one(func(i *image) string { return fmt.Sprint(i.builtin()) }),
		"creation-date":                    one(func(i *image) string { return i.Created.Format(iso) }),
		"source-instance-id":               one(func(i *image) string { return i.Source }),
		"manifest-location":                one(func(i *image) string { return i.location(account) }),
		"block-device-mapping.volume-type": constant("gp3"), "block-device-mapping.device-name": constant("/dev/xvda"), "block-device-mapping.volume-size": constant("8"),
		"platform": func(*image) []string { return nil }, "product-code": func(*image) []string { return nil },
	}
}

func (s *Service) describeImages(ctx context.Context, in *api.DescribeImagesInput) (*api.DescribeImagesOutput, error) {
	account, region := where(ctx)
	var all []*image
	var tags map[string]map[string]string
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		if tags, err = allTags(r, account, region, "image"); err != nil {
			return err
		}
		for _, id := range in.ImageIds {
			row, err := findImage(r, account, region, id)
			if err != nil {
				return err
			}
			all = append(all, &row.Doc)
		}
		if len(in.ImageIds) > 0 {
			return nil
		}
		builtin := builtinImage(region)
		all = append(all, &builtin)
		rows, err := images.List(r, store.Query{Account: account, Region: region})
		for _, row := range rows {
			all = append(all, &row.Doc)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(in.Owners) > 0 {
		all = slices.DeleteFunc(all, func(i *image) bool {
			mine := "self"
			if i.builtin() {
				mine = "amazon"
			}
			return !slices.Contains(in.Owners, mine) && !slices.Contains(in.Owners, i.owner(account))
		})
	}
	if all, err = filtered(all, in.Filters, imageFields(account), func(i *image) map[string]string { return tags[i.ID] }); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *image) int { return strings.Compare(a.ID, b.ID) })
	all, next, err := page(all, func(i *image) string { return i.ID }, in.MaxResults, in.NextToken, 1, 1000)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeImagesOutput{NextToken: next}
	for _, i := range all {
		out.Images = append(out.Images, i.api(account, tags[i.ID]))
	}
	return out, dryRun(in.DryRun)
}

func (i *image) api(account string, tags map[string]string) api.Image {
	out := api.Image{
		Architecture: new(arch()), CreationDate: new(i.Created.Format("2006-01-02T15:04:05.000Z")), ImageId: new(i.ID), ImageLocation: new(i.location(account)),
		ImageType: new("machine"), Public: new(i.builtin()), OwnerId: new(i.owner(account)), PlatformDetails: new("Linux/UNIX"), UsageOperation: new("RunInstances"),
		State: new(i.State), Description: orNil(i.Description), EnaSupport: new(true), Hypervisor: new("xen"), Name: new(i.Name), RootDeviceName: new("/dev/xvda"),
		RootDeviceType: new("ebs"), SriovNetSupport: new("simple"), VirtualizationType: new("hvm"), BootMode: new("uefi-preferred"), ImdsSupport: new("v2.0"),
		SourceInstanceId: orNil(i.Source), Tags: apiTags(tags), DeregistrationProtection: new("disabled"),
		BlockDeviceMappings: []api.BlockDeviceMapping{{DeviceName: new("/dev/xvda"), Ebs: &api.EbsBlockDevice{DeleteOnTermination: new(true),
			SnapshotId: new(derivedID("snap", i.ID)), VolumeSize: new(int64(8)), VolumeType: new("gp3"), Encrypted: new(false)}}},
	}
	if i.builtin() {
		out.ImageOwnerAlias = new("amazon")
	}
	return out
}

func checkImageName(name string) error {
	if len(name) < 3 || len(name) > 128 {
		return awserr.New("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/' and '_'. Got '%s'.", name)
	}
	return nil
}

// nameFree refuses an AMI name that is taken.
func nameFree(r store.Reader, account, region, name string) error {
	rows, err := images.List(r, store.Query{Account: account, Region: region})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.Doc.Name == name {
			return awserr.New("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", name, row.ID)
		}
	}
	return nil
}

// dropMachineImage removes an image that no AMI stands for any more: the
// same content has the same id, so that several may. One that machines use
// stays, which is fine.
func (s *Service) dropMachineImage(ctx context.Context, id string) {
	rows, err := images.Select(ctx, s.Store, store.Query{})
	if err != nil {
		s.Log.Warn("an image without an AMI may remain", "image", id, "error", err)
		return
	}
	for _, row := range rows {
		if row.Doc.Machine == id {
			return
		}
	}
	if id == machine.DefaultImage {
		return
	}
	if err := s.Machines.RemoveImage(ctx, id); err != nil && !errors.Is(err, machine.ErrInUse) && !errors.Is(err, machine.ErrNotFound) {
		s.Log.Warn("could not remove an image that no AMI stands for", "image", id, "error", err)
	}
}

// addImage registers an image under a name that must be free.
func (s *Service) addImage(ctx context.Context, img image, tags map[string]string) error {
	account, region := where(ctx)
	return s.Store.Update(ctx, func(tx store.Tx) error {
		if err := nameFree(tx, account, region, img.Name); err != nil {
			return err
		}
		if _, err := images.Insert(tx, account, region, img.ID, img, "Registered", nil); err != nil {
			return err
		}
		return putTags(tx, account, region, img.ID, "image", tags)
	})
}

// createImage snapshots an instance's disk, as with --no-reboot: the machine
// goes on running.
func (s *Service) createImage(ctx context.Context, in *api.CreateImageInput) (*api.CreateImageOutput, error) {
	account, region := where(ctx)
	if err := checkImageName(ptr.Value(in.Name)); err != nil {
		return nil, err
	}
	var tags map[string]string
	for _, spec := range in.TagSpecifications {
		if ptr.Value(spec.ResourceType) != "image" {
			continue // snapshots have no life of their own here
		}
		var err error
		if tags, err = checkTags(spec.Tags, false); err != nil {
			return nil, err
		}
	}
	found, err := s.views(ctx, []string{ptr.Value(in.InstanceId)})
	if err != nil {
		return nil, err
	}
	i := found[0]
	if i.State != stateRunning && i.State != stateStopped {
		return nil, awserr.New("IncorrectState", "The instance '%s' is %s; an image can be made of a running or stopped one.", i.ID, i.State)
	}
	if err := s.Store.View(ctx, func(r store.Reader) error { return nameFree(r, account, region, *in.Name) }); err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	img := image{ID: newID("ami"), Name: *in.Name, Description: ptr.Value(in.Description), State: "available", Source: i.ID, Created: s.Clock.Now()}
	made, err := s.Machines.Snapshot(ctx, i.ID, img.ID, map[string]string{labelAccount: account, labelRegion: region})
	if err != nil {
		return nil, awserr.New("InternalError", "The image could not be made: %v", err).WithStatus(500)
	}
	img.Machine, img.Bytes = made.ID, made.Bytes
	if err := s.addImage(ctx, img, tags); err != nil {
		s.dropMachineImage(context.WithoutCancel(ctx), made.ID)
		return nil, err
	}
	return &api.CreateImageOutput{ImageId: &img.ID}, nil
}

// registerImage gives an AMI id to an image that the driver has: its name or
// id is the ImageLocation ("slipway/NAME" or the bare name).
func (s *Service) registerImage(ctx context.Context, in *api.RegisterImageInput) (*api.RegisterImageOutput, error) {
	if err := checkImageName(ptr.Value(in.Name)); err != nil {
		return nil, err
	}
	tags, err := specTags(in.TagSpecifications, "image")
	if err != nil {
		return nil, err
	}
	location := strings.TrimPrefix(ptr.Value(in.ImageLocation), "slipway/")
	if location == "" {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter ImageLocation: the name of an image that the machine driver has (slipway/NAME). Snapshots of EBS volumes cannot be registered.")
	}
	for _, m := range s.Machines.Images() {
		if m.ID == location || m.Name == location {
			if err := dryRun(in.DryRun); err != nil {
				return nil, err
			}
			img := image{ID: newID("ami"), Name: *in.Name, Description: ptr.Value(in.Description), State: "available", Machine: m.ID, Source: "", Created: s.Clock.Now(), Bytes: m.Bytes}
			return &api.RegisterImageOutput{ImageId: &img.ID}, s.addImage(ctx, img, tags)
		}
	}
	return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter imageLocation is invalid. The machine driver has no image of that name.", location)
}

func (s *Service) deregisterImage(ctx context.Context, in *api.DeregisterImageInput) (*api.DeregisterImageOutput, error) {
	account, region := where(ctx)
	var gone string
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := findImage(tx, account, region, ptr.Value(in.ImageId))
		if err != nil {
			return err
		}
		if row.Doc.ID == defaultImage(region) {
			return awserr.New("AuthFailure", "Not authorized for image:%s. The default image cannot be deregistered.", row.ID)
		}
		if err := dryRun(in.DryRun); err != nil {
			return err
		}
		if err := dropTags(tx, account, region, row.ID); err != nil {
			return err
		}
		gone = row.Doc.Machine
		return images.Delete(tx, row, "Deregistered", nil)
	})
	if err != nil {
		return nil, err
	}
	s.dropMachineImage(ctx, gone)
	return &api.DeregisterImageOutput{Return: new(true)}, nil
}
