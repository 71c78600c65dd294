"""IAM, STS and SSM parameters, a day's use."""
import json
from kit import *

iam, sts, ssm = client("iam"), client("sts"), client("ssm")
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]})
ALLOW = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})


@step
def who():
    me = sts.get_caller_identity()
    eq(me["Account"], ACCOUNT)
    assert me["Arn"].startswith("arn:aws:iam::" + ACCOUNT), me["Arn"]


@step
def roles():
    r = iam.create_role(RoleName="day-role", AssumeRolePolicyDocument=TRUST, Path="/app/", Description="d", Tags=[{"Key": "a", "Value": "b"}])["Role"]
    eq(r["Arn"], "arn:aws:iam::%s:role/app/day-role" % ACCOUNT)
    eq(r["AssumeRolePolicyDocument"]["Statement"][0]["Principal"], {"Service": "ec2.amazonaws.com"})
    refused("EntityAlreadyExists", iam.create_role, RoleName="day-role", AssumeRolePolicyDocument=TRUST)
    refused("NoSuchEntity", iam.get_role, RoleName="nothing")
    refused("MalformedPolicyDocument", iam.create_role, RoleName="x", AssumeRolePolicyDocument="{")
    refused("ValidationError", iam.create_role, RoleName="bad name!", AssumeRolePolicyDocument=TRUST)
    iam.put_role_policy(RoleName="day-role", PolicyName="inline", PolicyDocument=ALLOW)
    eq(iam.get_role_policy(RoleName="day-role", PolicyName="inline")["PolicyDocument"]["Statement"][0]["Action"], "s3:*")
    eq(iam.list_role_policies(RoleName="day-role")["PolicyNames"], ["inline"])
    p = iam.create_policy(PolicyName="day-policy", PolicyDocument=ALLOW)["Policy"]
    iam.attach_role_policy(RoleName="day-role", PolicyArn=p["Arn"])
    iam.attach_role_policy(RoleName="day-role", PolicyArn=p["Arn"])  # again changes nothing
    eq([a["PolicyName"] for a in iam.list_attached_role_policies(RoleName="day-role")["AttachedPolicies"]], ["day-policy"])
    iam.attach_role_policy(RoleName="day-role", PolicyArn="arn:aws:iam::aws:policy/service-role/AWSCodeDeployRole")
    refused("NoSuchEntity", iam.attach_role_policy, RoleName="day-role", PolicyArn="arn:aws:iam::%s:policy/none" % ACCOUNT)
    refused("DeleteConflict", iam.delete_role, RoleName="day-role")
    refused("DeleteConflict", iam.delete_policy, PolicyArn=p["Arn"])
    iam.tag_role(RoleName="day-role", Tags=[{"Key": "c", "Value": "d"}])
    iam.untag_role(RoleName="day-role", TagKeys=["a"])
    eq(iam.list_role_tags(RoleName="day-role")["Tags"], [{"Key": "c", "Value": "d"}])
    creds = sts.assume_role(RoleArn=r["Arn"], RoleSessionName="me")
    assert creds["AssumedRoleUser"]["Arn"].endswith("assumed-role/day-role/me"), creds["AssumedRoleUser"]
    c = creds["Credentials"]
    other = client("sts", aws_access_key_id=c["AccessKeyId"], aws_secret_access_key=c["SecretAccessKey"], aws_session_token=c["SessionToken"])
    eq(other.get_caller_identity()["Arn"], "arn:aws:sts::%s:assumed-role/day-role/me" % ACCOUNT)
    forged = client("sts", aws_access_key_id=c["AccessKeyId"], aws_secret_access_key=c["SecretAccessKey"], aws_session_token=c["SessionToken"][:-4] + "AAAA")
    refused("InvalidClientTokenId", forged.get_caller_identity)
    ip = iam.create_instance_profile(InstanceProfileName="day-profile")["InstanceProfile"]
    iam.add_role_to_instance_profile(InstanceProfileName="day-profile", RoleName="day-role")
    refused("LimitExceeded", iam.add_role_to_instance_profile, InstanceProfileName="day-profile", RoleName="day-role")
    iam.get_waiter("instance_profile_exists").wait(InstanceProfileName="day-profile")
    iam.get_waiter("role_exists").wait(RoleName="day-role")
    eq(iam.list_instance_profiles_for_role(RoleName="day-role")["InstanceProfiles"][0]["Arn"], ip["Arn"])
    iam.remove_role_from_instance_profile(InstanceProfileName="day-profile", RoleName="day-role")
    iam.delete_instance_profile(InstanceProfileName="day-profile")
    for a in iam.list_attached_role_policies(RoleName="day-role")["AttachedPolicies"]:
        iam.detach_role_policy(RoleName="day-role", PolicyArn=a["PolicyArn"])
    iam.delete_role_policy(RoleName="day-role", PolicyName="inline")
    iam.delete_role(RoleName="day-role")
    iam.delete_policy(PolicyArn=p["Arn"])
    refused("NoSuchEntity", iam.delete_role, RoleName="day-role")


@step
def users_and_keys():
    iam.create_user(UserName="ann")
    refused("EntityAlreadyExists", iam.create_user, UserName="ann")
    k = iam.create_access_key(UserName="ann")["AccessKey"]
    ann = client("sts", aws_access_key_id=k["AccessKeyId"], aws_secret_access_key=k["SecretAccessKey"])
    eq(ann.get_caller_identity()["Arn"], "arn:aws:iam::%s:user/ann" % ACCOUNT)
    iam.create_access_key(UserName="ann")
    refused("LimitExceeded", iam.create_access_key, UserName="ann")
    iam.update_access_key(UserName="ann", AccessKeyId=k["AccessKeyId"], Status="Inactive")
    refused("InvalidClientTokenId", ann.get_caller_identity)
    refused("DeleteConflict", iam.delete_user, UserName="ann")
    for m in iam.list_access_keys(UserName="ann")["AccessKeyMetadata"]:
        iam.delete_access_key(UserName="ann", AccessKeyId=m["AccessKeyId"])
    iam.delete_user(UserName="ann")
    for i in range(5):
        iam.create_user(UserName="user%d" % i, Path="/many/")
    users, n = pages(iam, "list_users", "Users", PathPrefix="/many/", PaginationConfig={"PageSize": 2})
    eq(([u["UserName"] for u in users], n), (["user%d" % i for i in range(5)], 3))
    for i in range(5):
        iam.delete_user(UserName="user%d" % i)


@step
def parameters():
    ssm.put_parameter(Name="/app/db/host", Value="db.local", Type="String")
    refused("ParameterAlreadyExists", ssm.put_parameter, Name="/app/db/host", Value="x", Type="String")
    eq(ssm.put_parameter(Name="/app/db/host", Value="db2.local", Overwrite=True)["Version"], 2)
    ssm.put_parameter(Name="/app/db/password", Value="s3cret", Type="SecureString")
    eq(ssm.get_parameter(Name="/app/db/password", WithDecryption=True)["Parameter"]["Value"], "s3cret")
    assert ssm.get_parameter(Name="/app/db/password")["Parameter"]["Value"] != "s3cret"
    eq(ssm.get_parameter(Name="/app/db/host:1")["Parameter"]["Value"], "db.local")
    refused("ParameterNotFound", ssm.get_parameter, Name="/none")
    refused("ParameterVersionNotFound", ssm.get_parameter, Name="/app/db/host:9")
    got = ssm.get_parameters(Names=["/app/db/host", "/none"])
    eq((got["Parameters"][0]["Value"], got["InvalidParameters"]), ("db2.local", ["/none"]))
    for i in range(5):
        ssm.put_parameter(Name="/app/n/%d" % i, Value=str(i), Type="String")
    ps, n = pages(ssm, "get_parameters_by_path", "Parameters", Path="/app", Recursive=True, PaginationConfig={"PageSize": 3})
    eq((len(ps), n), (7, 3))
    eq(ssm.get_parameters_by_path(Path="/app")["Parameters"], [])
    eq([p["Name"] for p in ssm.describe_parameters(ParameterFilters=[{"Key": "Name", "Option": "BeginsWith", "Values": ["/app/db"]}])["Parameters"]], ["/app/db/host", "/app/db/password"])
    eq([h["Version"] for h in ssm.get_parameter_history(Name="/app/db/host")["Parameters"]], [1, 2])
    ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId="/app/db/host", Tags=[{"Key": "k", "Value": "v"}])
    eq(ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/app/db/host")["TagList"], [{"Key": "k", "Value": "v"}])
    image = ssm.get_parameter(Name="/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")["Parameter"]["Value"]
    assert image.startswith("ami-"), image
    names = ["/app/db/host", "/app/db/password"] + ["/app/n/%d" % i for i in range(5)]
    eq(sorted(ssm.delete_parameters(Names=names)["DeletedParameters"]), sorted(names))
    refused("ParameterNotFound", ssm.delete_parameter, Name="/app/db/host")
    eq(client("ssm", "eu-west-1").describe_parameters()["Parameters"], [])


main()
