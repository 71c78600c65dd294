"""CodeCommit, CodeBuild, CodeDeploy, CodePipeline and S3, a day's use; nothing boots."""
import io, json
from kit import *

cc, cb, cd, cp, s3, iam = (client(n) for n in ("codecommit", "codebuild", "codedeploy", "codepipeline", "s3", "iam"))
ROLE = "arn:aws:iam::%s:role/day" % ACCOUNT


@step
def role():
    iam.create_role(RoleName="day", AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":["codebuild.amazonaws.com","codedeploy.amazonaws.com","codepipeline.amazonaws.com"]},"Action":"sts:AssumeRole"}]}')


@step
def repositories():
    r = cc.create_repository(repositoryName="day", repositoryDescription="d", tags={"a": "b"})["repositoryMetadata"]
    assert r["cloneUrlHttp"].startswith(ENDPOINT), r["cloneUrlHttp"]
    refused("RepositoryNameExistsException", cc.create_repository, repositoryName="day")
    refused("RepositoryDoesNotExistException", cc.get_repository, repositoryName="none")
    refused("InvalidRepositoryNameException", cc.create_repository, repositoryName="bad name")
    eq(cc.list_branches(repositoryName="day")["branches"], [])
    refused("BranchDoesNotExistException", cc.get_branch, repositoryName="day", branchName="main")
    refused("CommitDoesNotExistException", cc.create_branch, repositoryName="day", branchName="x", commitId="0" * 40)
    cc.update_repository_description(repositoryName="day", repositoryDescription="new")
    cc.tag_resource(resourceArn=r["Arn"], tags={"c": "d"})
    eq(cc.list_tags_for_resource(resourceArn=r["Arn"])["tags"], {"a": "b", "c": "d"})
    eq(cc.batch_get_repositories(repositoryNames=["day", "none"])["repositoriesNotFound"], ["none"])
    cc.delete_repository(repositoryName="day")
    assert "repositoryId" not in cc.delete_repository(repositoryName="day")  # again is no error


@step
def builds():
    args = dict(name="day", source={"type": "NO_SOURCE", "buildspec": "version: 0.2\nphases:\n  build:\n    commands: [true]\n"}, artifacts={"type": "NO_ARTIFACTS"},
                environment={"type": "LINUX_CONTAINER", "image": "aws/codebuild/standard:7.0", "computeType": "BUILD_GENERAL1_SMALL"}, serviceRole=ROLE)
    p = cb.create_project(**args)["project"]
    eq(p["arn"], "arn:aws:codebuild:us-east-1:%s:project/day" % ACCOUNT)
    refused("ResourceAlreadyExistsException", cb.create_project, **args)
    refused("ValidationException", cb.create_project, **dict(args, name="x y"))
    refused("ResourceNotFoundException", cb.start_build, projectName="none")
    got = cb.batch_get_projects(names=["day", "none"])
    eq(([x["name"] for x in got["projects"]], got["projectsNotFound"]), (["day"], ["none"]))
    cb.update_project(name="day", description="new", tags=[{"key": "a", "value": "b"}])
    eq(cb.batch_get_projects(names=["day"])["projects"][0]["description"], "new")
    eq(cb.list_projects()["projects"], ["day"])
    b = cb.start_build(projectName="day")["build"]
    eq(b["buildNumber"], 1)
    eq(cb.list_builds_for_project(projectName="day")["ids"], [b["id"]])
    cb.stop_build(id=b["id"])
    until("the build to end", lambda: cb.batch_get_builds(ids=[b["id"]])["builds"][0]["buildComplete"])
    eq(cb.batch_get_builds(ids=["day:none"])["buildsNotFound"], ["day:none"])
    cb.delete_project(name="day")
    cb.delete_project(name="day")  # again is no error
    eq(cb.list_projects()["projects"], [])


@step
def deployments():
    cd.create_application(applicationName="day", computePlatform="Server")
    refused("ApplicationAlreadyExistsException", cd.create_application, applicationName="day")
    refused("ApplicationDoesNotExistException", cd.get_application, applicationName="none")
    args = dict(applicationName="day", deploymentGroupName="dg", serviceRoleArn=ROLE, ec2TagFilters=[{"Key": "app", "Value": "day", "Type": "KEY_AND_VALUE"}], deploymentConfigName="CodeDeployDefault.OneAtATime")
    cd.create_deployment_group(**args)
    refused("DeploymentGroupAlreadyExistsException", cd.create_deployment_group, **args)
    refused("DeploymentConfigDoesNotExistException", cd.create_deployment_group, **dict(args, deploymentGroupName="x", deploymentConfigName="none"))
    refused("DeploymentGroupDoesNotExistException", cd.get_deployment_group, applicationName="day", deploymentGroupName="none")
    configs = pages(cd, "list_deployment_configs", "deploymentConfigsList")[0]
    assert {"CodeDeployDefault.OneAtATime", "CodeDeployDefault.HalfAtATime", "CodeDeployDefault.AllAtOnce"} <= set(configs), configs
    cd.create_deployment_config(deploymentConfigName="two", minimumHealthyHosts={"type": "HOST_COUNT", "value": 2})
    eq(cd.get_deployment_config(deploymentConfigName="two")["deploymentConfigInfo"]["minimumHealthyHosts"], {"type": "HOST_COUNT", "value": 2})
    cd.delete_deployment_config(deploymentConfigName="two")
    refused("InvalidOperationException", cd.delete_deployment_config, deploymentConfigName="CodeDeployDefault.AllAtOnce")
    s3.create_bucket(Bucket="day-revisions")
    s3.put_object(Bucket="day-revisions", Key="app.zip", Body=b"PK\x05\x06" + b"\0" * 18)
    rev = {"revisionType": "S3", "s3Location": {"bucket": "day-revisions", "key": "app.zip", "bundleType": "zip"}}
    d = cd.create_deployment(applicationName="day", deploymentGroupName="dg", revision=rev)["deploymentId"]
    assert d.startswith("d-"), d
    info = until("the deployment without instances to fail", lambda: (lambda i: i if i["status"] == "Failed" else None)(cd.get_deployment(deploymentId=d)["deploymentInfo"]))
    eq(info["errorInformation"]["code"], "NO_INSTANCES")
    eq(cd.list_deployments(applicationName="day", deploymentGroupName="dg", includeOnlyStatuses=["Failed"])["deployments"], [d])
    refused("DeploymentDoesNotExistException", cd.get_deployment, deploymentId="d-ABCDEFGHI")
    refused("DeploymentAlreadyCompletedException", cd.stop_deployment, deploymentId=d)
    eq(cd.list_deployment_groups(applicationName="day")["deploymentGroups"], ["dg"])
    cd.update_deployment_group(applicationName="day", currentDeploymentGroupName="dg", newDeploymentGroupName="dg2")
    cd.delete_deployment_group(applicationName="day", deploymentGroupName="dg2")
    cd.delete_application(applicationName="day")
    eq(cd.list_applications()["applications"], [])


@step
def pipelines():
    s3.create_bucket(Bucket="day-artifacts")
    s3.put_bucket_versioning(Bucket="day-artifacts", VersioningConfiguration={"Status": "Enabled"})
    src = {"name": "Source", "actions": [{"name": "S", "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "S3", "version": "1"}, "configuration": {"S3Bucket": "day-artifacts", "S3ObjectKey": "src.zip", "PollForSourceChanges": "false"}, "outputArtifacts": [{"name": "A"}]}]}
    ok = {"name": "Approve", "actions": [{"name": "Ask", "actionTypeId": {"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "1"}, "configuration": {"CustomData": "fine?"}}]}
    p = {"name": "day", "roleArn": ROLE, "artifactStore": {"type": "S3", "location": "day-artifacts"}, "stages": [src, ok]}
    s3.put_object(Bucket="day-artifacts", Key="src.zip", Body=b"PK\x05\x06" + b"\0" * 18)
    cp.create_pipeline(pipeline=p)
    refused("PipelineNameInUseException", cp.create_pipeline, pipeline=p)
    refused("PipelineNotFoundException", cp.get_pipeline, name="none")
    refused("InvalidStructureException", cp.create_pipeline, pipeline=dict(p, name="x", stages=[src]))
    eq(cp.get_pipeline(name="day")["pipeline"]["version"], 1)
    eq(cp.update_pipeline(pipeline=cp.get_pipeline(name="day")["pipeline"])["pipeline"]["version"], 2)
    eq([x["name"] for x in cp.list_pipelines()["pipelines"]], ["day"])

    def asking():
        for a in cp.get_pipeline_state(name="day")["stageStates"][1]["actionStates"]:
            if a.get("latestExecution", {}).get("status") == "InProgress" and a["latestExecution"].get("token"):
                return a["latestExecution"]["token"]

    # Creating a pipeline starts it.
    cp.put_approval_result(pipelineName="day", stageName="Approve", actionName="Ask", result={"summary": "s", "status": "Approved"}, token=until("approval", asking))
    until("the first execution", lambda: cp.list_pipeline_executions(pipelineName="day")["pipelineExecutionSummaries"][0]["status"] == "Succeeded")
    ids = []
    for answer, end in (("Approved", "Succeeded"), ("Rejected", "Failed")):
        ids.append(cp.start_pipeline_execution(name="day")["pipelineExecutionId"])
        token = until("approval", asking)
        cp.put_approval_result(pipelineName="day", stageName="Approve", actionName="Ask", result={"summary": "s", "status": answer}, token=token)
        until(end, lambda: cp.get_pipeline_execution(pipelineName="day", pipelineExecutionId=ids[-1])["pipelineExecution"]["status"] == end)
        refused("ApprovalAlreadyCompletedException", cp.put_approval_result, pipelineName="day", stageName="Approve", actionName="Ask", result={"summary": "s", "status": answer}, token=token)
    eq([e["pipelineExecutionId"] for e in cp.list_pipeline_executions(pipelineName="day")["pipelineExecutionSummaries"]][:2], ids[::-1])
    assert len(pages(cp, "list_action_executions", "actionExecutionDetails", pipelineName="day", PaginationConfig={"PageSize": 1})[0]) >= 4
    cp.disable_stage_transition(pipelineName="day", stageName="Approve", transitionType="Inbound", reason="closed")
    eq(cp.get_pipeline_state(name="day")["stageStates"][1]["inboundTransitionState"]["enabled"], False)
    cp.enable_stage_transition(pipelineName="day", stageName="Approve", transitionType="Inbound")
    cp.retry_stage_execution(pipelineName="day", stageName="Approve", pipelineExecutionId=ids[-1], retryMode="FAILED_ACTIONS")
    until("the second question", asking)
    cp.stop_pipeline_execution(pipelineName="day", pipelineExecutionId=ids[-1], abandon=True, reason="enough")
    until("Stopped", lambda: cp.get_pipeline_execution(pipelineName="day", pipelineExecutionId=ids[-1])["pipelineExecution"]["status"] == "Stopped")
    cp.delete_pipeline(name="day")
    cp.delete_pipeline(name="day")  # again is no error
    eq(cp.list_pipelines()["pipelines"], [])


@step
def objects():
    body = bytes(range(256)) * 40000
    s3.upload_fileobj(io.BytesIO(body), "day-artifacts", "big", Config=boto3.s3.transfer.TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
    out = io.BytesIO()
    s3.download_fileobj("day-artifacts", "big", out)
    assert out.getvalue() == body
    refused("BucketNotEmpty", s3.delete_bucket, Bucket="day-artifacts")
    for v in pages(s3, "list_object_versions", "Versions", Bucket="day-artifacts")[0]:
        s3.delete_object(Bucket="day-artifacts", Key=v["Key"], VersionId=v["VersionId"])
    s3.delete_bucket(Bucket="day-artifacts")
    refused("NoSuchBucket", s3.list_objects_v2, Bucket="day-artifacts")


main()
