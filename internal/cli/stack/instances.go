package stack

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/ec2"
)

// bakeScript prepares the builder instance whose disk becomes the image. It
// runs on any distribution that an instance may boot.
const bakeScript = `#!/bin/sh
set -eu
if ! command -v nginx >/dev/null; then
	if command -v dnf >/dev/null; then dnf install -y nginx; else apt-get update && apt-get install -y nginx; fi
fi
rm -f /etc/nginx/sites-enabled/default
mkdir -p /etc/nginx/conf.d /var/log/nginx
systemctl enable nginx
nginx -t
touch /var/lib/slipway-image-ready
`

// amazonLinux is AWS's public parameter for its current base image: the
// instance to bake from on AWS, the default image here.
const amazonLinux = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"

// image finds or bakes the custom image: a builder instance runs bakeScript
// as user data and is imaged, as on AWS. The script's hash is in the name,
// so that a newer Slipway bakes anew.
func (s *Stack) image(ctx context.Context) (bool, error) {
	sum := sha256.Sum256([]byte(bakeScript))
	name := "slipway-web-" + hex.EncodeToString(sum[:6])
	if id, err := s.findImage(ctx, name); err != nil || id != "" {
		s.Image = id
		return false, err
	}
	run, err := call(ctx, s, ec2.OpRunInstances, &ec2.RunInstancesInput{
		ImageId: new(amazonLinux), InstanceType: &s.cfg.InstanceType, MinCount: new(int64(1)), MaxCount: new(int64(1)),
		SubnetId: &s.Subnets[0], SecurityGroupIds: list(s.SecurityGroup), UserData: new(base64.StdEncoding.EncodeToString([]byte(bakeScript))),
		TagSpecifications: list(ec2.TagSpecification{ResourceType: new("instance"), Tags: list(ec2.Tag{Key: new("Name"), Value: new("image builder")})}),
	})
	if err != nil {
		return false, err
	}
	builder := *run.Instances[0].InstanceId
	defer func() {
		// With a context of its own: an interrupted bake leaves no builder.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		call(clean, s, ec2.OpTerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: list(builder)})
	}()
	if err := s.awaitBake(ctx, builder); err != nil {
		return false, err
	}
	made, err := call(ctx, s, ec2.OpCreateImage, &ec2.CreateImageInput{InstanceId: &builder, Name: &name, Description: new("nginx and the deployment agents")})
	if err != nil {
		return false, err
	}
	s.Image = *made.ImageId
	return true, s.poll(ctx, time.Minute, "the image to become available", func() (bool, error) {
		id, err := s.findImage(ctx, name)
		return id != "", err
	})
}

func (s *Stack) findImage(ctx context.Context, name string) (string, error) {
	images, err := call(ctx, s, ec2.OpDescribeImages, &ec2.DescribeImagesInput{Owners: list("self"), Filters: list(
		ec2.Filter{Name: new("name"), Values: list(name)}, ec2.Filter{Name: new("state"), Values: list("available")})})
	if err != nil || len(images.Images) == 0 {
		return "", err
	}
	return *images.Images[0].ImageId, nil
}

// awaitBake waits until user data says in the console that it is through.
func (s *Stack) awaitBake(ctx context.Context, id string) error {
	return s.poll(ctx, 5*time.Minute, "the image builder", func() (bool, error) {
		out, err := call(ctx, s, ec2.OpGetConsoleOutput, &ec2.GetConsoleOutputInput{InstanceId: &id, Latest: new(true)})
		if err != nil {
			return false, err
		}
		console := ""
		if out.Output != nil {
			if b, err := base64.StdEncoding.DecodeString(*out.Output); err == nil {
				console = string(b)
			}
		}
		if i := strings.LastIndex(console, "user data finished: "); i >= 0 {
			if outcome, _, _ := strings.Cut(console[i+len("user data finished: "):], "\n"); strings.TrimSpace(outcome) != "ok" {
				return false, fmt.Errorf("the image builder's script failed (%s); its console ends:\n%s", strings.TrimSpace(outcome), tail(console, 12))
			}
			return true, nil
		}
		desc, err := call(ctx, s, ec2.OpDescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: list(id)})
		if err != nil {
			return false, err
		}
		inst := desc.Reservations[0].Instances[0]
		if state := *inst.State.Name; state != "pending" && state != "running" {
			reason := ""
			if inst.StateReason != nil && inst.StateReason.Message != nil {
				reason = ": " + *inst.StateReason.Message
			}
			return false, fmt.Errorf("the image builder is %s%s\n%s", state, reason, tail(console, 12))
		}
		return false, nil
	})
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// poll asks again every 50 ms until ready, for at most limit.
func (s *Stack) poll(ctx context.Context, limit time.Duration, what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("gave up after %v waiting for %s", limit, what))
	defer cancel()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// userData of the group's instances: everything else comes with a deployment.
const userData = "#!/bin/sh\nsystemctl start nginx\n"

func (s *Stack) launchTemplate(ctx context.Context) (bool, error) {
	s.LaunchTemplate = s.cfg.Name
	tags := list(ec2.Tag{Key: new("Name"), Value: &s.cfg.Name})
	if s.cfg.VolumePath != "" {
		tags = append(tags, ec2.Tag{Key: new("slipway:volume"), Value: new(s.cfg.Name + "-data:" + s.cfg.VolumePath)})
	}
	data := &ec2.RequestLaunchTemplateData{
		ImageId: &s.Image, InstanceType: &s.cfg.InstanceType, SecurityGroupIds: list(s.SecurityGroup),
		IamInstanceProfile: &ec2.LaunchTemplateIamInstanceProfileSpecificationRequest{Name: new(s.cfg.Name + "-instance")},
		UserData:           new(base64.StdEncoding.EncodeToString([]byte(userData))),
		TagSpecifications:  list(ec2.LaunchTemplateTagSpecificationRequest{ResourceType: new("instance"), Tags: tags}),
	}
	versions, err := call(ctx, s, ec2.OpDescribeLaunchTemplateVersions, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateName: &s.LaunchTemplate, Versions: list("$Latest")})
	if missing(err, "InvalidLaunchTemplateName.NotFoundException") {
		_, err = call(ctx, s, ec2.OpCreateLaunchTemplate, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: &s.LaunchTemplate, LaunchTemplateData: data})
		return true, err
	}
	if err != nil {
		return false, err
	}
	if len(versions.LaunchTemplateVersions) == 1 {
		have := versions.LaunchTemplateVersions[0].LaunchTemplateData
		if have != nil && have.ImageId != nil && *have.ImageId == s.Image && have.InstanceType != nil && *have.InstanceType == s.cfg.InstanceType {
			return false, nil
		}
	}
	_, err = call(ctx, s, ec2.OpCreateLaunchTemplateVersion, &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateName: &s.LaunchTemplate, LaunchTemplateData: data})
	return true, err
}

func (s *Stack) group(ctx context.Context) (bool, error) {
	groups, err := call(ctx, s, autoscaling.OpDescribeAutoScalingGroups, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: list(s.cfg.Name)})
	if err != nil {
		return false, err
	}
	if len(groups.AutoScalingGroups) > 0 {
		if st := groups.AutoScalingGroups[0].Status; st != nil && *st != "" {
			return false, errors.New("the Auto Scaling group of an earlier run is still being deleted; try again in a moment")
		}
		return false, nil
	}
	_, err = call(ctx, s, autoscaling.OpCreateAutoScalingGroup, &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &s.cfg.Name, MinSize: new(int64(2)), DesiredCapacity: new(int64(2)), MaxSize: new(int64(3)),
		LaunchTemplate:    &autoscaling.LaunchTemplateSpecification{LaunchTemplateName: &s.LaunchTemplate, Version: new("$Latest")},
		VPCZoneIdentifier: new(strings.Join(s.Subnets, ",")), TargetGroupARNs: list(s.TargetGroupARN),
		HealthCheckType: new("ELB"), HealthCheckGracePeriod: new(int64(30)), DefaultInstanceWarmup: new(int64(30)),
	})
	return true, err
}
