package autoscaling_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
)

// clientScript is what a person's script does with boto3: every answer goes
// through botocore's own parser.
const clientScript = `
import boto3, time
ec2 = boto3.client("ec2"); asg = boto3.client("autoscaling")
vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
assert len(subnets) == 3 and vpc["CidrBlock"] == "172.31.0.0/16", subnets
sg = ec2.create_security_group(GroupName="front", Description="front door", VpcId=vpc["VpcId"])["GroupId"]
ec2.authorize_security_group_ingress(GroupId=sg, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "all"}]}])
rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [sg]}])["SecurityGroupRules"]
assert sorted((r["IsEgress"], r["FromPort"]) for r in rules) == [(False, 80), (True, -1)], rules
key = ec2.create_key_pair(KeyName="me", KeyType="ed25519")
assert key["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
ami = ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": ["al2023-ami-*"]}])["Images"][0]["ImageId"]
lt = ec2.create_launch_template(LaunchTemplateName="front", LaunchTemplateData={"ImageId": ami, "InstanceType": "t3.small", "KeyName": "me", "SecurityGroupIds": [sg],
    "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "front"}]}]})["LaunchTemplate"]
v2 = ec2.create_launch_template_version(LaunchTemplateId=lt["LaunchTemplateId"], SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.micro"})["LaunchTemplateVersion"]
assert v2["VersionNumber"] == 2 and v2["LaunchTemplateData"]["ImageId"] == ami and not v2["DefaultVersion"]
asg.create_auto_scaling_group(AutoScalingGroupName="front", MinSize=2, MaxSize=3, DesiredCapacity=2, LaunchTemplate={"LaunchTemplateId": lt["LaunchTemplateId"], "Version": "$Latest"},
    VPCZoneIdentifier=",".join(s["SubnetId"] for s in subnets), Tags=[{"Key": "Name", "Value": "front", "PropagateAtLaunch": True}])
end = time.time() + 60
while True:
    g = asg.describe_auto_scaling_groups(AutoScalingGroupNames=["front"])["AutoScalingGroups"][0]
    if [i["LifecycleState"] for i in g["Instances"]] == ["InService"] * 2: break
    assert time.time() < end, g
assert {i["LaunchTemplate"]["Version"] for i in g["Instances"]} == {"2"}, g
ids = [i["InstanceId"] for i in g["Instances"]]
found = [i for r in ec2.describe_instances(InstanceIds=ids)["Reservations"] for i in r["Instances"]]
assert all(i["State"]["Name"] == "running" and i["InstanceType"] == "t3.micro" and i["SecurityGroups"][0]["GroupId"] == sg for i in found), found
assert {t["Key"]: t["Value"] for t in found[0]["Tags"]}["aws:autoscaling:groupName"] == "front"
ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids)
act = asg.describe_scaling_activities(AutoScalingGroupName="front")["Activities"]
assert len(act) == 2 and act[0]["StatusCode"] == "Successful" and act[0]["StartTime"] <= act[0]["EndTime"], act
try:
    asg.set_desired_capacity(AutoScalingGroupName="front", DesiredCapacity=9)
    raise SystemExit("above max was accepted")
except asg.exceptions.ClientError as e:
    assert e.response["Error"]["Code"] == "ValidationError" and "is above max value 3" in e.response["Error"]["Message"], e.response
try:
    ec2.describe_instances(InstanceIds=["i-0123456789abcdef0"])
    raise SystemExit("an unknown instance was found")
except ec2.exceptions.ClientError as e:
    assert e.response["Error"]["Code"] == "InvalidInstanceID.NotFound", e.response
    assert e.response["ResponseMetadata"]["RequestId"], e.response
try:
    asg.start_instance_refresh(AutoScalingGroupName="nowhere")
    raise SystemExit("a refresh of nothing was started")
except asg.exceptions.ClientError as e:
    assert e.response["Error"]["Code"] in ("ValidationError", "NotImplemented"), e.response
pages = list(ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 50}))
assert len(pages) > 2 and len({t["InstanceType"] for p in pages for t in p["InstanceTypes"]}) == sum(len(p["InstanceTypes"]) for p in pages)
asg.delete_auto_scaling_group(AutoScalingGroupName="front", ForceDelete=True)
end = time.time() + 60 # the waiter before may have slept for some seconds
while asg.describe_auto_scaling_groups(AutoScalingGroupNames=["front"])["AutoScalingGroups"]:
    assert time.time() < end
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids)
ec2.delete_launch_template(LaunchTemplateId=lt["LaunchTemplateId"]); ec2.delete_key_pair(KeyName="me"); ec2.delete_security_group(GroupId=sg)
assert ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])["Reservations"] == []
assert ec2.describe_key_pairs()["KeyPairs"] == []
print("done")
`

func TestBoto3(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3 with boto3: not found")
	}
	if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
		t.Skip("needs python3 with boto3: boto3 is not installed")
	}
	b := newBench(t)
	server := httptest.NewServer(b.mux.Handler(dispatch.Config{AuthAny: true, Account: account, Now: clock.Real.Now}))
	defer server.Close()
	script := filepath.Join(t.TempDir(), "client.py")
	if err := os.WriteFile(script, []byte(clientScript), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, script)
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+server.URL, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION="+region, "AWS_DEFAULT_REGION="+region)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
