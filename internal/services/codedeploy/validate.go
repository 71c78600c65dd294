package codedeploy

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	as "slipway/internal/api/autoscaling"
	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

var (
	namePattern         = lazyre.New(`^[A-Za-z0-9._+=,@-]{1,100}$`)
	deploymentIDPattern = lazyre.New(`^d-[A-Z0-9]{1,20}$`)
	rolePattern         = lazyre.New(`^arn:aws[a-z-]*:iam::\d{12}:role/.+$`)
	repositoryPattern   = lazyre.New(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$`)
	commitPattern       = lazyre.New(`^[0-9a-fA-F]{7,64}$`)
)

// Quotas (AWS: CodeDeploy quotas).
const (
	maxApplications = 1000
	maxGroups       = 1000
	maxConfigs      = 50
	maxScaling      = 10
	maxTriggers     = 10
	maxAlarms       = 50
	maxTagFilters   = 10
	maxTagGroups    = 3
	maxBatch        = 100
	maxDescription  = 1000
)

func validApplicationName(name *string) error {
	if ptr.Value(name) == "" {
		return awserr.New(api.ErrCodeApplicationNameRequiredException, "An application name must be specified.")
	}
	if !namePattern.MatchString(*name) {
		return awserr.New(api.ErrCodeInvalidApplicationNameException, "The application name %.120q is not valid: use 1 to 100 letters, digits, and . _ + = , @ -", *name)
	}
	return nil
}

func validGroupName(name *string) error {
	if ptr.Value(name) == "" {
		return awserr.New(api.ErrCodeDeploymentGroupNameRequiredException, "A deployment group name must be specified.")
	}
	if !namePattern.MatchString(*name) {
		return awserr.New(api.ErrCodeInvalidDeploymentGroupNameException, "The deployment group name %.120q is not valid: use 1 to 100 letters, digits, and . _ + = , @ -", *name)
	}
	return nil
}

func validConfigName(name *string) error {
	if ptr.Value(name) == "" {
		return awserr.New(api.ErrCodeDeploymentConfigNameRequiredException, "A deployment configuration name must be specified.")
	}
	if !namePattern.MatchString(*name) {
		return awserr.New(api.ErrCodeInvalidDeploymentConfigNameException, "The deployment configuration name %.120q is not valid: use 1 to 100 letters, digits, and . _ + = , @ -", *name)
	}
	return nil
}

func validDeploymentID(id *string) error {
	if ptr.Value(id) == "" {
		return awserr.New(api.ErrCodeDeploymentIdRequiredException, "A deployment id must be specified.")
	}
	if !deploymentIDPattern.MatchString(*id) {
		return awserr.New(api.ErrCodeInvalidDeploymentIdException, "The deployment id %.40q is not valid.", *id)
	}
	return nil
}

func noApplication(name string) error {
	return awserr.New(api.ErrCodeApplicationDoesNotExistException, "No application found for name: %s", name)
}

func noGroup(name string) error {
	return awserr.New(api.ErrCodeDeploymentGroupDoesNotExistException, "No Deployment Group found for name: %s", name)
}

func noConfig(name string) error {
	return awserr.New(api.ErrCodeDeploymentConfigDoesNotExistException, "No Deployment Configuration found for name: %s", name)
}

func noDeployment(id string) error {
	return awserr.New(api.ErrCodeDeploymentDoesNotExistException, "The deployment %s could not be found", id)
}

// orElse replaces the store's ErrNotFound by what the API answers.
func orElse(err, missing error) error {
	if errors.Is(err, store.ErrNotFound) {
		return missing
	}
	return err
}

func notBuilt(format string, args ...any) error {
	return awserr.New("NotImplemented", format, args...).WithStatus(501)
}

// validRevision checks a revision location by its type.
func validRevision(r *api.RevisionLocation) error {
	invalid := func(format string, args ...any) error {
		return awserr.New(api.ErrCodeInvalidRevisionException, format, args...)
	}
	if r == nil {
		return awserr.New(api.ErrCodeRevisionRequiredException, "A revision must be specified.")
	}
	kind := ptr.Value(r.RevisionType)
	switch {
	case kind == "" && r.S3Location != nil:
		kind = api.RevisionLocationTypeS3
	case kind == "" && r.GitHubLocation != nil:
		kind = api.RevisionLocationTypeGitHub
	}
	switch kind {
	case api.RevisionLocationTypeS3:
		l := r.S3Location
		if l == nil || ptr.Value(l.Bucket) == "" || ptr.Value(l.Key) == "" {
			return invalid("revision.s3Location must name a bucket and a key.")
		}
		switch strings.ToLower(ptr.Value(l.BundleType)) {
		case api.BundleTypeTar, api.BundleTypeTgz, api.BundleTypeZip:
		default:
			return invalid("revision.s3Location.bundleType must be tar, tgz or zip, not %.20q.", ptr.Value(l.BundleType))
		}
		if len(*l.Bucket) > 255 || len(*l.Key) > 1024 {
			return invalid("revision.s3Location: the bucket or key is too long.")
		}
	case api.RevisionLocationTypeGitHub:
		l := r.GitHubLocation
		if l == nil || !repositoryPattern.MatchString(ptr.Value(l.Repository)) {
			return invalid("revision.gitHubLocation.repository must be of the form account/repository.")
		}
		if !commitPattern.MatchString(ptr.Value(l.CommitId)) {
			return invalid("revision.gitHubLocation.commitId must be the SHA of a commit.")
		}
	case api.RevisionLocationTypeString, api.RevisionLocationTypeAppSpecContent:
		return invalid("Revisions of type %s are for the Lambda and ECS compute platforms.", kind)
	default:
		return invalid("revision.revisionType must be S3 or GitHub, not %.40q.", kind)
	}
	return nil
}

func validAutoRollback(c *api.AutoRollbackConfiguration) error {
	if c == nil {
		return nil
	}
	invalid := func(format string, args ...any) error {
		return awserr.New(api.ErrCodeInvalidAutoRollbackConfigException, format, args...)
	}
	if ptr.Value(c.Enabled) && len(c.Events) == 0 {
		return invalid("autoRollbackConfiguration is enabled but names no events.")
	}
	for _, e := range c.Events {
		switch e {
		case api.AutoRollbackEventDeploymentFailure, api.AutoRollbackEventDeploymentStopOnAlarm, api.AutoRollbackEventDeploymentStopOnRequest:
		default:
			return invalid("autoRollbackConfiguration.events has the unknown event %.60q.", e)
		}
	}
	return nil
}

func validAlarms(c *api.AlarmConfiguration) error {
	if c == nil {
		return nil
	}
	if len(c.Alarms) > maxAlarms {
		return awserr.New(api.ErrCodeAlarmsLimitExceededException, "alarmConfiguration has %d alarms; at most %d are allowed.", len(c.Alarms), maxAlarms)
	}
	if ptr.Value(c.Enabled) && len(c.Alarms) == 0 {
		return awserr.New(api.ErrCodeInvalidAlarmConfigException, "alarmConfiguration is enabled but names no alarms.")
	}
	seen := map[string]bool{}
	for i, a := range c.Alarms {
		name := ptr.Value(a.Name)
		if name == "" || len(name) > 255 {
			return awserr.New(api.ErrCodeInvalidAlarmConfigException, "alarmConfiguration.alarms[%d].name must have 1 to 255 characters.", i)
		}
		if seen[name] {
			return awserr.New(api.ErrCodeInvalidAlarmConfigException, "alarmConfiguration.alarms names %q twice.", name)
		}
		seen[name] = true
	}
	return nil
}

func validFileExists(v *string) error {
	switch ptr.Value(v) {
	case "", api.FileExistsBehaviorDisallow, api.FileExistsBehaviorOverwrite, api.FileExistsBehaviorRetain:
		return nil
	}
	return awserr.New(api.ErrCodeInvalidFileExistsBehaviorException, "fileExistsBehavior must be DISALLOW, OVERWRITE or RETAIN, not %.40q.", *v)
}

func validDescription(v *string) error {
	if len(ptr.Value(v)) > maxDescription {
		return awserr.New(api.ErrCodeDescriptionTooLongException, "description has %d characters; at most %d are allowed.", len(*v), maxDescription)
	}
	return nil
}

// check validates the settings of a deployment group in themselves.
func (set *Settings) check() error {
	if set.ServiceRoleARN == "" {
		return awserr.New(api.ErrCodeRoleRequiredException, "serviceRoleArn must be specified.")
	}
	if !rolePattern.MatchString(set.ServiceRoleARN) {
		return awserr.New(api.ErrCodeInvalidRoleException, "serviceRoleArn %.120q is not the ARN of an IAM role.", set.ServiceRoleARN)
	}
	for _, err := range []error{set.checkTags(), set.checkTriggers(), validAlarms(set.Alarms), validAutoRollback(set.AutoRollback), set.checkStyle()} {
		if err != nil {
			return err
		}
	}
	switch set.OutdatedStrategy {
	case "", api.OutdatedInstancesStrategyUpdate, api.OutdatedInstancesStrategyIgnore:
		return nil
	}
	return awserr.New(api.ErrCodeInvalidInputException, "outdatedInstancesStrategy must be UPDATE or IGNORE, not %.40q.", set.OutdatedStrategy)
}

func (set *Settings) checkTags() error {
	if len(set.EC2TagFilters) > 0 && len(set.EC2TagSet) > 0 {
		return awserr.New(api.ErrCodeInvalidEC2TagCombinationException, "ec2TagFilters and ec2TagSet cannot be used together.")
	}
	if len(set.OnPremisesFilters) > 0 && len(set.OnPremisesTagSet) > 0 {
		return awserr.New(api.ErrCodeInvalidOnPremisesTagCombinationException, "onPremisesInstanceTagFilters and onPremisesTagSet cannot be used together.")
	}
	if len(set.EC2TagSet) > maxTagGroups || len(set.OnPremisesTagSet) > maxTagGroups {
		return awserr.New(api.ErrCodeTagSetListLimitExceededException, "A tag set has at most %d groups.", maxTagGroups)
	}
	n := 0
	for _, list := range append(slices.Clone(set.EC2TagSet), set.EC2TagFilters) {
		n += len(list)
		for _, f := range list {
			if !validFilter(f.Key, f.Value, f.Type) {
				return awserr.New(api.ErrCodeInvalidEC2TagException, "An EC2 tag filter needs the type KEY_ONLY, VALUE_ONLY or KEY_AND_VALUE, and a key or value that fits it.")
			}
		}
	}
	if n > maxTagFilters {
		return awserr.New(api.ErrCodeInvalidEC2TagException, "A deployment group has at most %d EC2 tags, not %d.", maxTagFilters, n)
	}
	for _, list := range append(slices.Clone(set.OnPremisesTagSet), set.OnPremisesFilters) {
		for _, f := range list {
			if !validFilter(f.Key, f.Value, f.Type) {
				return awserr.New(api.ErrCodeInvalidTagFilterException, "An on-premises tag filter needs the type KEY_ONLY, VALUE_ONLY or KEY_AND_VALUE, and a key or value that fits it.")
			}
		}
	}
	return nil
}

func validFilter(key, value, kind *string) bool {
	switch ptr.Value(kind) {
	case api.EC2TagFilterTypeKeyOnly:
		return ptr.Value(key) != ""
	case api.EC2TagFilterTypeValueOnly:
		return ptr.Value(value) != ""
	case api.EC2TagFilterTypeKeyAndValue:
		return ptr.Value(key) != ""
	}
	return false
}

func (set *Settings) checkTriggers() error {
	if len(set.Triggers) > maxTriggers {
		return awserr.New(api.ErrCodeTriggerTargetsLimitExceededException, "A deployment group has at most %d triggers, not %d.", maxTriggers, len(set.Triggers))
	}
	for i, t := range set.Triggers {
		if ptr.Value(t.TriggerName) == "" || !strings.HasPrefix(ptr.Value(t.TriggerTargetArn), "arn:") || len(t.TriggerEvents) == 0 {
			return awserr.New(api.ErrCodeInvalidTriggerConfigException, "triggerConfigurations[%d] needs a name, the ARN of an SNS topic, and at least one event.", i)
		}
		for _, e := range t.TriggerEvents {
			if !slices.Contains(triggerEvents, e) {
				return awserr.New(api.ErrCodeInvalidTriggerConfigException, "triggerConfigurations[%d] has the unknown event %.60q.", i, e)
			}
		}
	}
	return nil
}

var triggerEvents = []string{
	api.TriggerEventTypeDeploymentStart, api.TriggerEventTypeDeploymentSuccess, api.TriggerEventTypeDeploymentFailure,
	api.TriggerEventTypeDeploymentStop, api.TriggerEventTypeDeploymentRollback, api.TriggerEventTypeDeploymentReady,
	api.TriggerEventTypeInstanceStart, api.TriggerEventTypeInstanceSuccess, api.TriggerEventTypeInstanceFailure,
	api.TriggerEventTypeInstanceReady,
}

func (set *Settings) checkStyle() error {
	if set.Style == nil {
		set.Style = &api.DeploymentStyle{}
	}
	if set.Style.DeploymentType == nil {
		set.Style.DeploymentType = new(api.DeploymentTypeInPlace)
	}
	if set.Style.DeploymentOption == nil {
		set.Style.DeploymentOption = new(api.DeploymentOptionWithoutTrafficControl)
	}
	switch *set.Style.DeploymentType {
	case api.DeploymentTypeInPlace:
	case api.DeploymentTypeBlueGreen:
		return notBuilt("Slipway does not do blue/green deployments yet: use deploymentType IN_PLACE with deploymentOption WITH_TRAFFIC_CONTROL.")
	default:
		return awserr.New(api.ErrCodeInvalidDeploymentStyleException, "deploymentStyle.deploymentType %.40q is unknown.", *set.Style.DeploymentType)
	}
	lb := set.LoadBalancer
	if lb != nil && len(lb.ElbInfoList) > 0 {
		return notBuilt("Slipway has no Classic Load Balancers: use loadBalancerInfo.targetGroupInfoList.")
	}
	if lb != nil && len(lb.TargetGroupPairInfoList) > 0 {
		return awserr.New(api.ErrCodeInvalidLoadBalancerInfoException, "loadBalancerInfo.targetGroupPairInfoList is for the ECS compute platform.")
	}
	if lb != nil {
		for i, g := range lb.TargetGroupInfoList {
			if ptr.Value(g.Name) == "" {
				return awserr.New(api.ErrCodeInvalidLoadBalancerInfoException, "loadBalancerInfo.targetGroupInfoList[%d].name must be specified.", i)
			}
		}
	}
	switch *set.Style.DeploymentOption {
	case api.DeploymentOptionWithoutTrafficControl:
	case api.DeploymentOptionWithTrafficControl:
		if lb == nil || len(lb.TargetGroupInfoList) == 0 {
			return awserr.New(api.ErrCodeInvalidLoadBalancerInfoException, "deploymentOption WITH_TRAFFIC_CONTROL needs a target group in loadBalancerInfo.targetGroupInfoList.")
		}
	default:
		return awserr.New(api.ErrCodeInvalidDeploymentStyleException, "deploymentStyle.deploymentOption %.40q is unknown.", *set.Style.DeploymentOption)
	}
	return nil
}

// checkScaling makes sure that Auto Scaling groups exist.
func (s *Service) checkScaling(ctx context.Context, names []string) error {
	if len(names) > maxScaling {
		return awserr.New(api.ErrCodeInvalidAutoScalingGroupException, "A deployment group has at most %d Auto Scaling groups, not %d.", maxScaling, len(names))
	}
	for _, name := range names {
		out, err := dispatch.Call(ctx, s.mux, as.OpDescribeAutoScalingGroups, &as.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
		if err != nil {
			return err
		}
		if len(out.AutoScalingGroups) == 0 {
			return awserr.New(api.ErrCodeInvalidAutoScalingGroupException, "The Auto Scaling group %s does not exist.", name)
		}
	}
	return nil
}

// pageSize is how many entries a list answers at once.
const pageSize = 100

// page cuts a list at the token of an earlier answer: it names the last
// entry that was given out.
func page(all []string, token *string) ([]string, *string, error) {
	from := 0
	if ptr.Value(token) != "" {
		last, err := base64.RawURLEncoding.DecodeString(*token)
		if err != nil {
			return nil, nil, awserr.New(api.ErrCodeInvalidNextTokenException, "nextToken is not valid.")
		}
		i := slices.Index(all, string(last))
		if i < 0 {
			return nil, nil, awserr.New(api.ErrCodeInvalidNextTokenException, "nextToken is not valid any more.")
		}
		from = i + 1
	}
	rest := all[from:]
	if len(rest) <= pageSize {
		return rest, nil, nil
	}
	rest = rest[:pageSize]
	return rest, new(base64.RawURLEncoding.EncodeToString([]byte(rest[pageSize-1]))), nil
}

func checkBatch(n int, what string) error {
	if n > maxBatch {
		return awserr.New(api.ErrCodeBatchLimitExceededException, "%s has %d entries; at most %d are allowed.", what, n, maxBatch)
	}
	return nil
}
