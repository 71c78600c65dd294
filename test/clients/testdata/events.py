"""Notification rules, deployment triggers, approvals and Auto Scaling notices, up to the mailbox; nothing boots."""
import base64, json, os, subprocess, tempfile, urllib.request
from kit import *

cn, cp, cb, cc, cd, sns, s3, iam, ec2, asg = (client(n) for n in (
    "codestar-notifications", "codepipeline", "codebuild", "codecommit", "codedeploy", "sns", "s3", "iam", "ec2", "autoscaling"))
ROLE = "arn:aws:iam::%s:role/day" % ACCOUNT
TOPIC = "arn:aws:sns:%s:%s:news" % (REGION, ACCOUNT)
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "codestar-notifications.amazonaws.com"}, "Action": "SNS:Publish", "Resource": TOPIC,
                                                   "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}}]}
SNS = {"TargetType": "SNS", "TargetAddress": TOPIC}


def arn(service, rest):
    return "arn:aws:%s:%s:%s:%s" % (service, REGION, ACCOUNT, rest)


def mails():
    r = urllib.request.Request(ENDPOINT + "/_slipway/mailbox")
    r.add_header("Authorization", "Basic " + base64.b64encode((os.environ["AWS_ACCESS_KEY_ID"] + ":" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()).decode())
    return [m for m in json.load(urllib.request.urlopen(r, timeout=5)) if m["to"] == ["news@slipway.local"]]


def notes():
    """The notifications of rules that were mailed: their JSON is the mail's body up to the footer."""
    found = []
    for m in mails():
        if '"notificationRuleArn"' in m["body"]:
            eq(m["subject"], "AWS Notification Message")
            found.append(json.JSONDecoder().raw_decode(m["body"])[0])
    return found


def told(**want):
    """Waits for the one notification whose detail has these members."""
    want = {k.replace("_", "-"): v for k, v in want.items()}
    found = until("a mail with %s" % want, lambda: [n for n in notes() if want.items() <= n["detail"].items()])
    eq(len(found), 1, "mails with %s" % want)
    return found[0]


def mail(prefix):
    return until("a mail " + prefix, lambda: [m for m in mails() if m["subject"].startswith(prefix)])[0]


@step
def stage():
    iam.create_role(RoleName="day", AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":["codepipeline.amazonaws.com","codebuild.amazonaws.com"]},"Action":"sts:AssumeRole"}]}')
    eq(sns.create_topic(Name="news")["TopicArn"], TOPIC)
    sns.subscribe(TopicArn=TOPIC, Protocol="email", Endpoint="news@slipway.local")
    s3.create_bucket(Bucket="day-artifacts")
    s3.put_bucket_versioning(Bucket="day-artifacts", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="day-artifacts", Key="src.zip", Body=b"PK\x05\x06" + b"\0" * 18)
    cp.create_pipeline(pipeline={"name": "day", "roleArn": ROLE, "artifactStore": {"type": "S3", "location": "day-artifacts"}, "stages": [
        {"name": "Source", "actions": [{"name": "S", "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "S3", "version": "1"}, "configuration": {"S3Bucket": "day-artifacts", "S3ObjectKey": "src.zip", "PollForSourceChanges": "false"}, "outputArtifacts": [{"name": "A"}]}]},
        {"name": "Approve", "actions": [{"name": "Ask", "actionTypeId": {"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "1"}, "configuration": {"CustomData": "fine?", "NotificationArn": TOPIC}}]}]})
    cb.create_project(name="day", source={"type": "NO_SOURCE", "buildspec": "version: 0.2\nphases:\n  build:\n    commands: [true]\n"}, artifacts={"type": "NO_ARTIFACTS"},
                      environment={"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0", "computeType": "BUILD_GENERAL1_SMALL"}, serviceRole=ROLE)
    cc.create_repository(repositoryName="day")


@step
def rules():
    args = dict(Name="pipeline", Resource=arn("codepipeline", "day"), DetailType="FULL", EventTypeIds=["codepipeline-pipeline-pipeline-execution-started"], Targets=[SNS], Tags={"a": "b"}, ClientRequestToken="once")
    rule = cn.create_notification_rule(**args)["Arn"]
    eq(cn.create_notification_rule(**args)["Arn"], rule)
    refused("ValidationException", cn.create_notification_rule, **dict(args, DetailType="BASIC"))
    args["ClientRequestToken"] = "again"
    refused("ResourceAlreadyExistsException", cn.create_notification_rule, **args)
    refused("ConfigurationException", cn.create_notification_rule, **dict(args, Name="x", Resource=arn("codepipeline", "none")))
    refused("ValidationException", cn.create_notification_rule, **dict(args, Name="x", EventTypeIds=["none"]))
    refused("ResourceNotFoundException", cn.describe_notification_rule, Arn=rule + "0")
    refused("InvalidNextTokenException", cn.list_targets, NextToken="x")
    cn.update_notification_rule(Arn=rule, EventTypeIds=["codepipeline-pipeline-pipeline-execution-" + s for s in ("started", "succeeded", "failed")] + ["codepipeline-pipeline-manual-approval-" + s for s in ("needed", "succeeded", "failed")])
    d = cn.describe_notification_rule(Arn=rule)
    eq(([t["EventTypeName"] for t in d["EventTypes"]][:2], d["Status"], d["Targets"]), (["Pipeline execution: Started", "Pipeline execution: Succeeded"], "ENABLED", [dict(SNS, TargetStatus="ACTIVE")]))
    eq(cn.tag_resource(Arn=rule, Tags={"c/d": "e f"})["Tags"], {"a": "b", "c/d": "e f"})
    cn.untag_resource(Arn=rule, TagKeys=["a", "c/d"])
    eq(cn.list_tags_for_resource(Arn=rule)["Tags"], {})
    for name, resource, types in (("project", arn("codebuild", "project/day"), ["codebuild-project-build-state-stopped", "codebuild-project-build-state-failed", "codebuild-project-build-state-in-progress"]),
                                  ("repository", arn("codecommit", "day"), ["codecommit-repository-branches-and-tags-created", "codecommit-repository-branches-and-tags-updated"])):
        cn.create_notification_rule(Name=name, Resource=resource, DetailType="BASIC", EventTypeIds=types, Targets=[SNS])
    eq([len(x) for x in pages(cn, "list_notification_rules", "NotificationRules", PaginationConfig={"PageSize": 2})[:1]], [3])
    items, n = pages(cn, "list_event_types", "EventTypes", PaginationConfig={"PageSize": 10})
    eq((len(items), n), (38, 4))
    eq(len(cn.list_event_types(Filters=[{"Name": "SERVICE_NAME", "Value": "CodeDeploy"}])["EventTypes"]), 3)
    other = dict(SNS, TargetAddress=TOPIC + "2")
    eq(cn.subscribe(Arn=rule, Target=other)["Arn"], rule)
    refused("ValidationException", cn.delete_target, TargetAddress=TOPIC + "2")
    eq(cn.unsubscribe(Arn=rule, TargetAddress=TOPIC + "2")["Arn"], rule)
    cn.delete_target(TargetAddress=TOPIC + "2")
    eq(pages(cn, "list_targets", "Targets")[0], [dict(SNS, TargetStatus="ACTIVE")])
    try:
        cn.subscribe(Arn=rule, Target={"TargetType": "AWSChatbotSlack", "TargetAddress": "arn:aws:chatbot::%s:chat-configuration/slack-channel/x" % ACCOUNT})
        raise AssertionError("Slipway has no chat")
    except ClientError as e:
        eq((e.response["Error"]["Code"], e.response["ResponseMetadata"]["HTTPStatusCode"]), ("NotImplemented", 501))


@step
def permission():
    """Without the topic's permission nothing arrives, and the target's status says so."""
    url = cc.get_repository(repositoryName="day")["repositoryMetadata"]["cloneUrlHttp"]
    login = base64.b64encode((os.environ["AWS_ACCESS_KEY_ID"] + ":" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()).decode()
    with tempfile.TemporaryDirectory() as d:
        def git(*args):
            return subprocess.run(("git", "-c", "http.extraHeader=Authorization: Basic " + login, "-c", "user.name=day", "-c", "user.email=day@example.com") + args, cwd=d, check=True, capture_output=True, text=True).stdout.strip()

        def push(message):
            git("commit", "-q", "--allow-empty", "-m", message)
            git("push", "-q", url, "HEAD:refs/heads/main")
            return git("rev-parse", "HEAD")

        git("init", "-q")
        commit = push("one")
        until("an unreachable target", lambda: cn.list_targets(Filters=[{"Name": "TARGET_STATUS", "Value": "UNREACHABLE"}])["Targets"])
        eq(notes(), [])
        sns.set_topic_attributes(TopicArn=TOPIC, AttributeName="Policy", AttributeValue=json.dumps(POLICY))
        push("two")
    n = told(event="referenceUpdated")
    eq((n["detailType"], n["source"], n["resources"], n["detail"]["referenceFullName"], n["detail"]["oldCommitId"]), ("CodeCommit Repository State Change", "aws.codecommit", [arn("codecommit", "day")], "refs/heads/main", commit))
    until("a target in use again", lambda: cn.list_targets()["Targets"] == [dict(SNS, TargetStatus="ACTIVE")])


@step
def pipeline():
    def asking():
        for a in cp.get_pipeline_state(name="day")["stageStates"][1]["actionStates"]:
            if a.get("latestExecution", {}).get("status") == "InProgress":
                return a["latestExecution"].get("token")

    token = until("approval", asking)  # of the execution that came with the pipeline
    cp.put_approval_result(pipelineName="day", stageName="Approve", actionName="Ask", result={"summary": "s", "status": "Approved"}, token=token)
    until("the first execution", lambda: cp.list_pipeline_executions(pipelineName="day")["pipelineExecutionSummaries"][0]["status"] == "Succeeded")
    e = cp.start_pipeline_execution(name="day")["pipelineExecutionId"]
    n = told(execution_id=e, state="STARTED", pipeline="day", action="Ask")
    eq((n["detailType"], n["detail"]["type"]["category"], n["additionalAttributes"], n["account"], n["region"]), ("CodePipeline Action Execution State Change", "Approval", {"customData": "fine?"}, ACCOUNT, REGION))
    eq(n["detail"]["version"], 1.0)
    token = until("approval", asking)
    m = [m for m in until("the question", lambda: [m for m in mails() if token in m["body"]])][0]
    eq(m["subject"], "APPROVAL NEEDED: AWS CodePipeline day for action Ask")
    asked = json.JSONDecoder().raw_decode(m["body"])[0]["approval"]
    eq((asked["pipelineName"], asked["stageName"], asked["actionName"], asked["customData"]), ("day", "Approve", "Ask", "fine?"))
    cp.put_approval_result(pipelineName="day", stageName="Approve", actionName="Ask", result={"summary": "too late", "status": "Rejected"}, token=token)
    eq(told(execution_id=e, state="FAILED", action="Ask")["additionalAttributes"]["additionalInformation"], "too late")
    n = until("the end", lambda: [n for n in notes() if n["detailType"] == "CodePipeline Pipeline Execution State Change" and n["detail"].get("execution-id") == e and n["detail"]["state"] == "FAILED"])[0]
    eq(n["additionalAttributes"], {"failedActionCount": 1, "failedActions": [{"action": "Ask", "additionalInformation": "too late"}], "failedStage": "Approve"})
    until("started, needed, failed, failed", lambda: len([n for n in notes() if n["detail"].get("execution-id") == e]) == 4)


@step
def build():
    b = cb.start_build(projectName="day")["build"]
    n = told(build_status="IN_PROGRESS")
    eq((n["detail"]["build-id"], n["resources"], n["detail"]["project-name"], n["additionalAttributes"]), (b["arn"], [b["arn"]], "day", {}))
    cb.stop_build(id=b["id"])
    until("the build to end", lambda: cb.batch_get_builds(ids=[b["id"]])["builds"][0]["buildComplete"])
    until("the mail of its end", lambda: [n for n in notes() if n["detail"].get("build-status") in ("STOPPED", "FAULT", "FAILED") and n["detail"]["additional-information"]["build-complete"]])


@step
def deployment():
    """A group without instances fails, and says so both ways."""
    cd.create_application(applicationName="day", computePlatform="Server")
    cd.create_deployment_group(applicationName="day", deploymentGroupName="dg", serviceRoleArn=ROLE, ec2TagFilters=[{"Key": "app", "Value": "day", "Type": "KEY_AND_VALUE"}],
                               triggerConfigurations=[{"triggerName": "tell", "triggerTargetArn": TOPIC, "triggerEvents": ["DeploymentFailure"]}])
    cn.create_notification_rule(Name="application", Resource=arn("codedeploy", "application:day"), DetailType="FULL", EventTypeIds=["codedeploy-application-deployment-failed"], Targets=[SNS])
    d = cd.create_deployment(applicationName="day", deploymentGroupName="dg", revision={"revisionType": "S3", "s3Location": {"bucket": "day-artifacts", "key": "src.zip", "bundleType": "zip"}})["deploymentId"]
    n = told(deploymentId=d, state="FAILURE")
    eq((n["detailType"], n["detail"]["deploymentGroup"], n["resources"][0]), ("CodeDeploy Deployment State-change Notification", "dg", arn("codedeploy", "application:day")))
    m = mail("FAILED: AWS CodeDeploy %s in %s to day" % (d, REGION))
    t = json.JSONDecoder().raw_decode(m["body"])[0]
    eq((t["eventTriggerName"], t["status"], t["deploymentId"], t["applicationName"]), ("tell", "FAILED", d, "day"))


@step
def scaling():
    subnets = [s["SubnetId"] for s in ec2.describe_subnets()["Subnets"]]
    ec2.create_launch_template(LaunchTemplateName="day", LaunchTemplateData={"ImageId": "ami-12345678", "InstanceType": "t3.micro"})
    asg.create_auto_scaling_group(AutoScalingGroupName="day", LaunchTemplate={"LaunchTemplateName": "day"}, MinSize=0, MaxSize=1, VPCZoneIdentifier=",".join(subnets))
    asg.put_notification_configuration(AutoScalingGroupName="day", TopicARN=TOPIC, NotificationTypes=["autoscaling:EC2_INSTANCE_LAUNCH"])
    mail('Auto Scaling: test notification for group "day"')
    asg.put_lifecycle_hook(AutoScalingGroupName="day", LifecycleHookName="look", LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING", NotificationTargetARN=TOPIC, RoleARN=ROLE, NotificationMetadata="hello")
    asg.set_desired_capacity(AutoScalingGroupName="day", DesiredCapacity=1)
    m = mail("Auto Scaling:  Lifecycle action 'LAUNCHING'")
    lines = dict(line.split(": ", 1) for line in m["body"].splitlines() if ": " in line)
    eq((lines["LifecycleHookName"], lines["NotificationMetadata"]), ("look", "hello"))
    asg.complete_lifecycle_action(AutoScalingGroupName="day", LifecycleHookName="look", LifecycleActionToken=lines["LifecycleActionToken"], LifecycleActionResult="CONTINUE")
    m = mail('Auto Scaling: launch for group "day"')
    assert lines["EC2InstanceId"] in m["body"], m["body"]
    asg.delete_auto_scaling_group(AutoScalingGroupName="day", ForceDelete=True)


@step
def end():
    for r in cn.list_notification_rules()["NotificationRules"]:
        eq(cn.delete_notification_rule(Arn=r["Arn"])["Arn"], r["Arn"])
        cn.delete_notification_rule(Arn=r["Arn"])  # again is no error
    cn.delete_target(TargetAddress=TOPIC)
    eq(cn.list_targets()["Targets"], [])


main()
