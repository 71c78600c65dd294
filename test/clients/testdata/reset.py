"""After a reset nothing that was there is there, and everything works again."""
import base64, urllib.request
from kit import *

N = ("ec2", "autoscaling", "elbv2", "s3", "iam", "logs", "sns", "ssm", "cloudwatch", "codecommit", "codebuild", "codedeploy", "codepipeline")
C = {n: client(n) for n in N}


def fill():
    ec2, asg = C["ec2"], C["autoscaling"]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"]]
    eq(len(subnets), 3)
    ec2.create_launch_template(LaunchTemplateName="day-lt", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"})
    tg = C["elbv2"].create_target_group(Name="t", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]["TargetGroupArn"]
    lb = C["elbv2"].create_load_balancer(Name="l", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    C["elbv2"].create_listener(LoadBalancerArn=lb, Protocol="HTTP", Port=80, DefaultActions=[{"Type": "forward", "TargetGroupArn": tg}])
    asg.create_auto_scaling_group(AutoScalingGroupName="g", LaunchTemplate={"LaunchTemplateName": "day-lt"}, MinSize=2, MaxSize=2, VPCZoneIdentifier=",".join(subnets), TargetGroupARNs=[tg])
    until("two instances", lambda: len([i for i in asg.describe_auto_scaling_instances()["AutoScalingInstances"] if i["LifecycleState"] == "InService"]) == 2)
    C["s3"].create_bucket(Bucket="day")
    C["s3"].put_object(Bucket="day", Key="k", Body=b"v")
    eq(C["s3"].get_object(Bucket="day", Key="k")["Body"].read(), b"v")
    role = C["iam"].create_role(RoleName="r", AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"codedeploy.amazonaws.com"},"Action":"sts:AssumeRole"}]}')["Role"]["Arn"]
    C["logs"].create_log_group(logGroupName="g")
    C["logs"].create_log_stream(logGroupName="g", logStreamName="s")
    eq(C["logs"].get_log_events(logGroupName="g", logStreamName="s")["events"], [])
    C["logs"].put_log_events(logGroupName="g", logStreamName="s", logEvents=[{"timestamp": int(time.time() * 1000), "message": "m"}])
    eq([e["message"] for e in C["logs"].filter_log_events(logGroupName="g")["events"]], ["m"])
    arn = C["sns"].create_topic(Name="t")["TopicArn"]
    C["sns"].subscribe(TopicArn=arn, Protocol="email", Endpoint="a@example.com")
    C["ssm"].put_parameter(Name="p", Value="v", Type="String")
    C["cloudwatch"].put_metric_alarm(AlarmName="a", Namespace="N", MetricName="M", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold")
    C["cloudwatch"].put_metric_data(Namespace="N", MetricData=[{"MetricName": "M", "Value": 1}])
    until("the metric", lambda: C["cloudwatch"].list_metrics(Namespace="N")["Metrics"])
    C["codecommit"].create_repository(repositoryName="r")
    eq(C["codecommit"].list_branches(repositoryName="r")["branches"], [])
    C["codedeploy"].create_application(applicationName="a")
    C["codedeploy"].create_deployment_group(applicationName="a", deploymentGroupName="g", serviceRoleArn=role, autoScalingGroups=["g"])
    C["codebuild"].create_project(name="pr", source={"type": "NO_SOURCE", "buildspec": "version: 0.2\nphases: {build: {commands: [sleep 100]}}\n"}, artifacts={"type": "NO_ARTIFACTS"},
                                  environment={"type": "LINUX_CONTAINER", "image": "x", "computeType": "BUILD_GENERAL1_SMALL"}, serviceRole=role)
    C["codebuild"].start_build(projectName="pr")


def reset():
    r = urllib.request.Request(ENDPOINT + "/_slipway/reset", method="POST")
    r.add_header("Authorization", "Basic " + base64.b64encode((os.environ["AWS_ACCESS_KEY_ID"] + ":" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()).decode())
    t = time.perf_counter()
    urllib.request.urlopen(r, timeout=10).read()
    return (time.perf_counter() - t) * 1000


def empty():
    left = {
        "instances": C["ec2"].describe_instances()["Reservations"], "templates": C["ec2"].describe_launch_templates()["LaunchTemplates"],
        "groups": C["autoscaling"].describe_auto_scaling_groups()["AutoScalingGroups"], "scaling instances": C["autoscaling"].describe_auto_scaling_instances()["AutoScalingInstances"],
        "activities": C["autoscaling"].describe_scaling_activities()["Activities"],
        "balancers": C["elbv2"].describe_load_balancers()["LoadBalancers"], "target groups": C["elbv2"].describe_target_groups()["TargetGroups"],
        "buckets": C["s3"].list_buckets()["Buckets"], "roles": C["iam"].list_roles()["Roles"], "log groups": C["logs"].describe_log_groups()["logGroups"],
        "topics": C["sns"].list_topics()["Topics"], "subscriptions": C["sns"].list_subscriptions()["Subscriptions"], "parameters": C["ssm"].describe_parameters()["Parameters"],
        "alarms": C["cloudwatch"].describe_alarms()["MetricAlarms"], "metrics": [m for m in C["cloudwatch"].list_metrics()["Metrics"] if m["Namespace"] == "N"],
        "repositories": C["codecommit"].list_repositories()["repositories"], "applications": C["codedeploy"].list_applications()["applications"],
        "deployments": C["codedeploy"].list_deployments()["deployments"], "projects": C["codebuild"].list_projects()["projects"], "builds": C["codebuild"].list_builds()["ids"],
        "pipelines": C["codepipeline"].list_pipelines()["pipelines"],
    }
    left = {k: v for k, v in left.items() if v}
    assert not left, "still there: %s" % left
    eq(len(C["ec2"].describe_vpcs()["Vpcs"]), 1)
    eq(len(C["ec2"].describe_subnets()["Subnets"]), 3)


@step
def thrice():
    empty()
    for n in range(3):
        fill()
        ms = reset()
        print("reset took %.0f ms" % ms)
        empty()
        time.sleep(0.3)  # what a loop still had in hand would come back now
        empty()
        assert ms < 500, "reset took %.0f ms" % ms


main()
