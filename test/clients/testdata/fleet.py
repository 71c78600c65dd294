"""EC2, Auto Scaling and load balancing, a day's use; instances are simulated."""
import base64
from kit import *

ec2, asg, elb = client("ec2"), client("autoscaling"), client("elbv2")


def vpc():
    return ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]


def subnets():
    return [s["SubnetId"] for s in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc()]}])["Subnets"]]


@step
def network():
    eq(ec2.describe_vpcs()["Vpcs"][0]["CidrBlock"], "172.31.0.0/16")
    zones = [z["ZoneName"] for z in ec2.describe_availability_zones()["AvailabilityZones"]]
    eq(zones[:3], ["us-east-1a", "us-east-1b", "us-east-1c"])
    eq(len(subnets()), 3)
    refused("InvalidVpcID.NotFound", ec2.describe_vpcs, VpcIds=["vpc-0123456789abcdef0"])
    refused("InvalidSubnetID.NotFound", ec2.describe_subnets, SubnetIds=["subnet-0123456789abcdef0"])
    g = ec2.create_security_group(GroupName="day", Description="d", VpcId=vpc())["GroupId"]
    refused("InvalidGroup.Duplicate", ec2.create_security_group, GroupName="day", Description="d", VpcId=vpc())
    rule = [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.authorize_security_group_ingress(GroupId=g, IpPermissions=rule)
    refused("InvalidPermission.Duplicate", ec2.authorize_security_group_ingress, GroupId=g, IpPermissions=rule)
    eq(ec2.describe_security_groups(GroupIds=[g])["SecurityGroups"][0]["IpPermissions"][0]["FromPort"], 80)
    ec2.revoke_security_group_ingress(GroupId=g, IpPermissions=rule)
    eq(ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["day"]}])["SecurityGroups"][0]["IpPermissions"], [])
    ec2.delete_security_group(GroupId=g)
    refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=[g])
    k = ec2.create_key_pair(KeyName="day")
    assert k["KeyMaterial"].startswith("-----BEGIN"), k["KeyMaterial"][:20]
    refused("InvalidKeyPair.Duplicate", ec2.create_key_pair, KeyName="day")
    ec2.delete_key_pair(KeyName="day")
    ec2.delete_key_pair(KeyName="day")  # nothing there is no error
    refused("InvalidKeyPair.NotFound", ec2.describe_key_pairs, KeyNames=["day"])


@step
def instances():
    image = ec2.describe_images(Owners=["self", "amazon"])["Images"][0]["ImageId"]
    run = dict(ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, ClientToken="once", UserData="#!/bin/sh\necho hi",
               TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "day"}]}])
    r = ec2.run_instances(**run)
    i = r["Instances"][0]
    eq(i["State"]["Name"], "pending")
    eq(ec2.run_instances(**run)["Instances"][0]["InstanceId"], i["InstanceId"], "the same client token")
    ids = [i["InstanceId"]]
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    ec2.get_waiter("instance_status_ok").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    found = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["d*"]}, {"Name": "instance-state-name", "Values": ["running"]}])
    eq([x["InstanceId"] for r in found["Reservations"] for x in r["Instances"]], ids)
    got = found["Reservations"][0]["Instances"][0]
    assert got["PrivateIpAddress"].startswith("172.31."), got["PrivateIpAddress"]
    eq(got["PrivateDnsName"].split(".")[0], "ip-" + got["PrivateIpAddress"].replace(".", "-"))
    eq(base64.b64decode(ec2.describe_instance_attribute(InstanceId=ids[0], Attribute="userData")["UserData"]["Value"]), b"#!/bin/sh\necho hi")
    ec2.create_tags(Resources=ids, Tags=[{"Key": "k", "Value": "v"}])
    eq(sorted(t["Key"] for t in ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": ids}])["Tags"]), ["Name", "k"])
    ec2.delete_tags(Resources=ids, Tags=[{"Key": "k"}])
    ec2.stop_instances(InstanceIds=ids)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    ec2.start_instances(InstanceIds=ids)
    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    ec2.reboot_instances(InstanceIds=ids)
    try:
        ec2.terminate_instances(InstanceIds=ids, DryRun=True)
        raise AssertionError("a dry run does not say so")
    except ClientError as e:
        eq((e.response["Error"]["Code"], e.response["ResponseMetadata"]["HTTPStatusCode"]), ("DryRunOperation", 412))
    ec2.modify_instance_attribute(InstanceId=ids[0], DisableApiTermination={"Value": True})
    refused("OperationNotPermitted", ec2.terminate_instances, InstanceIds=ids)
    ec2.modify_instance_attribute(InstanceId=ids[0], DisableApiTermination={"Value": False})
    eq(ec2.terminate_instances(InstanceIds=ids)["TerminatingInstances"][0]["PreviousState"]["Name"], "running")
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    ec2.terminate_instances(InstanceIds=ids)  # again is no error
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
    refused("InvalidInstanceID.Malformed", ec2.describe_instances, InstanceIds=["nonsense"])
    refused("InvalidParameterValue", ec2.run_instances, ImageId=image, InstanceType="t3.enormous", MinCount=1, MaxCount=1)
    refused("InvalidAMIID.Malformed", ec2.run_instances, ImageId="nonsense", MinCount=1, MaxCount=1)
    many = [x["InstanceId"] for x in ec2.run_instances(ImageId=image, InstanceType="t3.micro", MinCount=7, MaxCount=7)["Instances"]]
    rs, n = pages(ec2, "describe_instances", "Reservations", Filters=[{"Name": "instance-id", "Values": many}], PaginationConfig={"PageSize": 5})
    eq((sorted(x["InstanceId"] for r in rs for x in r["Instances"]), n > 1), (sorted(many), True))
    ec2.terminate_instances(InstanceIds=many)


@step
def templates():
    t = ec2.create_launch_template(LaunchTemplateName="day-lt", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"})["LaunchTemplate"]
    refused("InvalidLaunchTemplateName.AlreadyExistsException", ec2.create_launch_template, LaunchTemplateName="day-lt", LaunchTemplateData={"ImageId": "ami-12345678"})
    eq(ec2.create_launch_template_version(LaunchTemplateName="day-lt", SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.small"})["LaunchTemplateVersion"]["VersionNumber"], 2)
    ec2.modify_launch_template(LaunchTemplateName="day-lt", DefaultVersion="2")
    eq(ec2.describe_launch_template_versions(LaunchTemplateName="day-lt", Versions=["$Default"])["LaunchTemplateVersions"][0]["LaunchTemplateData"], {"ImageId": "ami-12345678", "InstanceType": "t3.small"})
    eq(len(pages(ec2, "describe_launch_template_versions", "LaunchTemplateVersions", LaunchTemplateId=t["LaunchTemplateId"])[0]), 2)
    ec2.delete_launch_template(LaunchTemplateName="day-lt")
    refused("InvalidLaunchTemplateName.NotFoundException", ec2.describe_launch_templates, LaunchTemplateNames=["day-lt"])


@step
def groups():
    ec2.create_launch_template(LaunchTemplateName="glt", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"})
    args = dict(AutoScalingGroupName="g", LaunchTemplate={"LaunchTemplateName": "glt", "Version": "$Latest"}, MinSize=1, MaxSize=3, DesiredCapacity=2,
                VPCZoneIdentifier=",".join(subnets()), Tags=[{"Key": "team", "Value": "x", "PropagateAtLaunch": True}])
    asg.create_auto_scaling_group(**args)
    refused("AlreadyExists", asg.create_auto_scaling_group, **args)
    refused("ValidationError", asg.create_auto_scaling_group, **dict(args, AutoScalingGroupName="bad", MinSize=5))
    refused("ValidationError", asg.set_desired_capacity, AutoScalingGroupName="nothing", DesiredCapacity=1)
    refused("ValidationError", asg.set_desired_capacity, AutoScalingGroupName="g", DesiredCapacity=9)

    def group():
        return asg.describe_auto_scaling_groups(AutoScalingGroupNames=["g"])["AutoScalingGroups"][0]

    def in_service(n):
        return until("%d instances in service" % n, lambda: (lambda g: g if len(g["Instances"]) == n and all(i["LifecycleState"] == "InService" for i in g["Instances"]) else None)(group()))

    g = in_service(2)
    eq(len({i["AvailabilityZone"] for i in g["Instances"]}), 2)
    tagged = ec2.describe_instances(Filters=[{"Name": "tag:team", "Values": ["x"]}, {"Name": "tag:aws:autoscaling:groupName", "Values": ["g"]}])
    eq(len([i for r in tagged["Reservations"] for i in r["Instances"]]), 2)
    asg.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=3)
    g = in_service(3)
    victim = g["Instances"][0]["InstanceId"]
    asg.terminate_instance_in_auto_scaling_group(InstanceId=victim, ShouldDecrementDesiredCapacity=True)
    g = in_service(2)
    assert victim not in [i["InstanceId"] for i in g["Instances"]]
    ec2.terminate_instances(InstanceIds=[g["Instances"][0]["InstanceId"]])
    until("a replacement", lambda: g["Instances"][0]["InstanceId"] not in [i["InstanceId"] for i in in_service(2)["Instances"]])
    acts, n = pages(asg, "describe_scaling_activities", "Activities", AutoScalingGroupName="g", PaginationConfig={"PageSize": 2})
    assert n >= 3 and len(acts) >= 5, (n, len(acts))
    assert acts[0]["StartTime"] >= acts[-1]["StartTime"]
    eq(len(asg.describe_auto_scaling_instances()["AutoScalingInstances"]), 2)
    asg.put_lifecycle_hook(AutoScalingGroupName="g", LifecycleHookName="h", LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING", HeartbeatTimeout=60)
    eq(asg.describe_lifecycle_hooks(AutoScalingGroupName="g")["LifecycleHooks"][0]["DefaultResult"], "ABANDON")
    asg.delete_lifecycle_hook(AutoScalingGroupName="g", LifecycleHookName="h")
    asg.suspend_processes(AutoScalingGroupName="g", ScalingProcesses=["Launch"])
    eq([p["ProcessName"] for p in group()["SuspendedProcesses"]], ["Launch"])
    asg.resume_processes(AutoScalingGroupName="g")
    refused("ResourceInUse", asg.delete_auto_scaling_group, AutoScalingGroupName="g")
    asg.delete_auto_scaling_group(AutoScalingGroupName="g", ForceDelete=True)
    until("the group to be gone", lambda: not asg.describe_auto_scaling_groups(AutoScalingGroupNames=["g"])["AutoScalingGroups"])
    ec2.delete_launch_template(LaunchTemplateName="glt")


@step
def balancing():
    args = dict(Name="tg", Protocol="HTTP", Port=80, VpcId=vpc(), HealthCheckPath="/healthz")
    tg = elb.create_target_group(**args)["TargetGroups"][0]
    eq(elb.create_target_group(**args)["TargetGroups"][0]["TargetGroupArn"], tg["TargetGroupArn"], "created alike is the same")
    refused("DuplicateTargetGroupName", elb.create_target_group, **dict(args, Port=81))
    lb = elb.create_load_balancer(Name="lb", Subnets=subnets())["LoadBalancers"][0]
    elb.get_waiter("load_balancer_available").wait(LoadBalancerArns=[lb["LoadBalancerArn"]], WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    refused("DuplicateLoadBalancerName", elb.create_load_balancer, Name="lb", Subnets=subnets()[:2])
    fwd = [{"Type": "forward", "TargetGroupArn": tg["TargetGroupArn"]}]
    li = elb.create_listener(LoadBalancerArn=lb["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=fwd)["Listeners"][0]
    refused("DuplicateListener", elb.create_listener, LoadBalancerArn=lb["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}])
    rule = elb.create_rule(ListenerArn=li["ListenerArn"], Priority=10, Conditions=[{"Field": "path-pattern", "Values": ["/api/*"]}], Actions=fwd)["Rules"][0]
    refused("PriorityInUse", elb.create_rule, ListenerArn=li["ListenerArn"], Priority=10, Conditions=[{"Field": "path-pattern", "Values": ["/x"]}], Actions=fwd)
    eq([r["Priority"] for r in elb.describe_rules(ListenerArn=li["ListenerArn"])["Rules"]], ["10", "default"])
    refused("OperationNotPermitted", elb.delete_rule, RuleArn=[r for r in elb.describe_rules(ListenerArn=li["ListenerArn"])["Rules"] if r["IsDefault"]][0]["RuleArn"])
    elb.modify_target_group_attributes(TargetGroupArn=tg["TargetGroupArn"], Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "5"}])
    eq({a["Key"]: a["Value"] for a in elb.describe_target_group_attributes(TargetGroupArn=tg["TargetGroupArn"])["Attributes"]}["deregistration_delay.timeout_seconds"], "5")
    refused("ResourceInUse", elb.delete_target_group, TargetGroupArn=tg["TargetGroupArn"])
    refused("InvalidTarget", elb.register_targets, TargetGroupArn=tg["TargetGroupArn"], Targets=[{"Id": "i-0123456789abcdef0"}])
    eq(elb.describe_target_health(TargetGroupArn=tg["TargetGroupArn"])["TargetHealthDescriptions"], [])
    refused("TargetGroupNotFound", elb.describe_target_groups, Names=["nothing"])
    refused("LoadBalancerNotFound", elb.describe_load_balancers, Names=["nothing"])
    elb.add_tags(ResourceArns=[lb["LoadBalancerArn"]], Tags=[{"Key": "a", "Value": "b"}])
    eq(elb.describe_tags(ResourceArns=[lb["LoadBalancerArn"]])["TagDescriptions"][0]["Tags"], [{"Key": "a", "Value": "b"}])
    for i in range(5):
        elb.create_target_group(**dict(args, Name="tg%d" % i))
    eq(pages(elb, "describe_target_groups", "TargetGroups", PaginationConfig={"PageSize": 4})[1], 2)
    for g in pages(elb, "describe_target_groups", "TargetGroups")[0]:
        if g["TargetGroupName"] != "tg":
            elb.delete_target_group(TargetGroupArn=g["TargetGroupArn"])
    elb.delete_rule(RuleArn=rule["RuleArn"])
    elb.delete_listener(ListenerArn=li["ListenerArn"])
    elb.delete_load_balancer(LoadBalancerArn=lb["LoadBalancerArn"])
    elb.delete_load_balancer(LoadBalancerArn=lb["LoadBalancerArn"])  # again is no error
    elb.get_waiter("load_balancers_deleted").wait(LoadBalancerArns=[lb["LoadBalancerArn"]], WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    elb.delete_target_group(TargetGroupArn=tg["TargetGroupArn"])


main()
