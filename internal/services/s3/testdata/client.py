"""Exercises S3 with boto3 as any program would; the Go test starts the server."""
import hashlib, io, os, urllib.request, urllib.error
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

s3 = boto3.client("s3")


def code(fn, **kw):
    try:
        fn(**kw)
    except ClientError as e:
        return e.response["Error"]["Code"], e.response["ResponseMetadata"]["HTTPStatusCode"]
    return "no error", 200


def eq(got, want):
    assert got == want, "got %r, want %r" % (got, want)


def buckets():
    s3.create_bucket(Bucket="alpha")
    s3.create_bucket(Bucket="alpha")  # us-east-1 allows it
    s3.create_bucket(Bucket="beta", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    eq(s3.get_bucket_location(Bucket="beta")["LocationConstraint"], "eu-west-1")
    eq(s3.get_bucket_location(Bucket="alpha")["LocationConstraint"], None)
    eq([b["Name"] for b in s3.list_buckets()["Buckets"]], ["alpha", "beta"])
    eq(code(s3.head_bucket, Bucket="nothere"), ("404", 404))
    eq(code(s3.list_objects_v2, Bucket="nothere"), ("NoSuchBucket", 404))
    eq(code(s3.create_bucket, Bucket="Bad..name"), ("InvalidBucketName", 400))
    eq(code(s3.get_bucket_policy, Bucket="alpha"), ("NoSuchBucketPolicy", 404))
    eq(code(s3.get_bucket_cors, Bucket="alpha"), ("NoSuchCORSConfiguration", 404))
    eq(code(s3.get_bucket_tagging, Bucket="alpha"), ("NoSuchTagSet", 404))
    eq(code(s3.get_bucket_website, Bucket="alpha"), ("NoSuchWebsiteConfiguration", 404))
    eq(code(s3.get_bucket_lifecycle_configuration, Bucket="alpha"), ("NoSuchLifecycleConfiguration", 404))
    eq(code(s3.get_public_access_block, Bucket="alpha"), ("NoSuchPublicAccessBlockConfiguration", 404))
    eq(code(s3.get_bucket_replication, Bucket="alpha"), ("ReplicationConfigurationNotFoundError", 404))
    eq(code(s3.get_object_lock_configuration, Bucket="alpha"), ("ObjectLockConfigurationNotFoundError", 404))
    eq(code(s3.get_bucket_ownership_controls, Bucket="alpha"), ("OwnershipControlsNotFoundError", 404))
    eq(s3.get_bucket_encryption(Bucket="alpha")["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"], "AES256")
    eq(s3.get_bucket_request_payment(Bucket="alpha")["Payer"], "BucketOwner")
    s3.get_bucket_acl(Bucket="alpha"), s3.get_bucket_logging(Bucket="alpha"), s3.get_bucket_accelerate_configuration(Bucket="alpha")
    s3.get_bucket_notification_configuration(Bucket="alpha")
    s3.put_bucket_tagging(Bucket="alpha", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    eq(s3.get_bucket_tagging(Bucket="alpha")["TagSet"], [{"Key": "a", "Value": "b"}])
    s3.delete_bucket_tagging(Bucket="alpha")
    eq(code(s3.get_bucket_tagging, Bucket="alpha"), ("NoSuchTagSet", 404))
    s3.put_bucket_policy(Bucket="alpha", Policy='{"Version":"2012-10-17","Statement":[]}')
    eq(s3.get_bucket_policy(Bucket="alpha")["Policy"], '{"Version":"2012-10-17","Statement":[]}')
    s3.put_bucket_lifecycle_configuration(Bucket="alpha", LifecycleConfiguration={"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}]})
    eq(s3.get_bucket_lifecycle_configuration(Bucket="alpha")["Rules"][0]["Expiration"]["Days"], 3)
    s3.put_public_access_block(Bucket="alpha", PublicAccessBlockConfiguration={"BlockPublicAcls": True})
    eq(s3.get_public_access_block(Bucket="alpha")["PublicAccessBlockConfiguration"]["BlockPublicAcls"], True)


def objects():
    keys = ["plain", "a//b", "sp ace+plus", "\u00fcml\u00e4ut/\u65e5\u672c", "per%2Fcent", "q?x=1&y", "x" * 1024, "trail/", "./dot/../dot"]
    for k in keys:
        r = s3.put_object(Bucket="alpha", Key=k, Body=k.encode(), ContentType="text/x", Metadata={"k": "v1"}, CacheControl="no-cache")
        eq(r["ETag"], '"%s"' % hashlib.md5(k.encode()).hexdigest())
        g = s3.get_object(Bucket="alpha", Key=k)
        eq((g["Body"].read(), g["ContentType"], g["Metadata"], g["CacheControl"]), (k.encode(), "text/x", {"k": "v1"}, "no-cache"))
    eq(sorted(o["Key"] for o in s3.list_objects_v2(Bucket="alpha")["Contents"]), sorted(keys))
    eq([o["Key"] for o in s3.list_objects(Bucket="alpha")["Contents"]], sorted(keys, key=lambda k: k.encode()))
    eq(code(s3.put_object, Bucket="alpha", Key="x" * 1025, Body=b""), ("KeyTooLongError", 400))
    eq(code(s3.get_object, Bucket="alpha", Key="none"), ("NoSuchKey", 404))
    eq(code(s3.head_object, Bucket="alpha", Key="none"), ("404", 404))
    r = s3.delete_objects(Bucket="alpha", Delete={"Objects": [{"Key": k} for k in keys] + [{"Key": "none"}]})
    eq((len(r["Deleted"]), r.get("Errors")), (len(keys) + 1, None))
    eq(s3.list_objects_v2(Bucket="alpha")["KeyCount"], 0)
    s3.put_object(Bucket="alpha", Key="empty", Body=b"")
    eq(s3.get_object(Bucket="alpha", Key="empty")["Body"].read(), b"")
    eq(code(s3.get_object, Bucket="alpha", Key="empty", Range="bytes=0-"), ("InvalidRange", 416))
    for alg in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        try:
            r = s3.put_object(Bucket="alpha", Key="sum", Body=b"check me", ChecksumAlgorithm=alg)
        except Exception as e:  # botocore without awscrt cannot do all of them
            if "Missing Dependency" in str(e):
                continue
            raise
        g = s3.get_object(Bucket="alpha", Key="sum", ChecksumMode="ENABLED")
        eq((g["Checksum" + alg], g["ChecksumType"], g["Body"].read()), (r["Checksum" + alg], "FULL_OBJECT", b"check me"))
    eq(code(s3.put_object, Bucket="alpha", Key="bad", Body=b"x", ChecksumSHA256="ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="), ("BadDigest", 400))
    eq(code(s3.put_object, Bucket="alpha", Key="bad", Body=b"x", ContentMD5="kAFQmDzST7DWlj99KOF/cg=="), ("BadDigest", 400))
    eq(code(s3.get_object, Bucket="alpha", Key="bad"), ("NoSuchKey", 404))
    a = s3.get_object_attributes(Bucket="alpha", Key="sum", ObjectAttributes=["ETag", "ObjectSize", "Checksum", "StorageClass"])
    eq((a["ObjectSize"], a["StorageClass"]), (8, "STANDARD"))


def conditions():
    body = bytes(range(256)) * 10
    e = s3.put_object(Bucket="alpha", Key="c", Body=body)["ETag"]
    g = s3.get_object(Bucket="alpha", Key="c", Range="bytes=10-19")
    eq((g["Body"].read(), g["ContentRange"], g["ResponseMetadata"]["HTTPStatusCode"]), (body[10:20], "bytes 10-19/2560", 206))
    eq(s3.get_object(Bucket="alpha", Key="c", Range="bytes=-5")["Body"].read(), body[-5:])
    eq(s3.get_object(Bucket="alpha", Key="c", Range="bytes=2550-")["Body"].read(), body[2550:])
    eq(s3.get_object(Bucket="alpha", Key="c", Range="bytes=2550-99999")["Body"].read(), body[2550:])
    eq(s3.get_object(Bucket="alpha", Key="c", Range="lines=1-2")["Body"].read(), body)
    eq(code(s3.get_object, Bucket="alpha", Key="c", Range="bytes=2560-"), ("InvalidRange", 416))
    eq(code(s3.get_object, Bucket="alpha", Key="c", IfMatch='"no"'), ("PreconditionFailed", 412))
    eq(code(s3.get_object, Bucket="alpha", Key="c", IfNoneMatch=e), ("304", 304))
    m = s3.head_object(Bucket="alpha", Key="c")["LastModified"]
    eq(code(s3.get_object, Bucket="alpha", Key="c", IfModifiedSince=m), ("304", 304))
    eq(code(s3.get_object, Bucket="alpha", Key="c", IfUnmodifiedSince=m), ("no error", 200))
    eq(code(s3.put_object, Bucket="alpha", Key="c", Body=b"", IfNoneMatch="*"), ("PreconditionFailed", 412))
    eq(code(s3.put_object, Bucket="alpha", Key="c2", Body=b"", IfNoneMatch="*"), ("no error", 200))
    eq(code(s3.put_object, Bucket="alpha", Key="c", Body=b"", IfMatch='"no"'), ("PreconditionFailed", 412))
    eq(code(s3.put_object, Bucket="alpha", Key="c9", Body=b"", IfMatch='"no"'), ("NoSuchKey", 404))
    g = s3.get_object(Bucket="alpha", Key="c", ResponseContentType="text/html", ResponseContentDisposition="inline")
    eq((g["ContentType"], g["ContentDisposition"]), ("text/html", "inline"))


def copies():
    s3.put_object(Bucket="alpha", Key="src \u00fc+", Body=b"copy", Metadata={"a": "1"}, Tagging="t=1")
    r = s3.copy_object(Bucket="beta", Key="dst", CopySource={"Bucket": "alpha", "Key": "src \u00fc+"})
    eq(r["CopyObjectResult"]["ETag"], '"%s"' % hashlib.md5(b"copy").hexdigest())
    s3.delete_object(Bucket="alpha", Key="src \u00fc+")
    g = s3.get_object(Bucket="beta", Key="dst")
    eq((g["Body"].read(), g["Metadata"], g["TagCount"]), (b"copy", {"a": "1"}, 1))
    eq(code(s3.copy_object, Bucket="beta", Key="dst", CopySource="beta/dst"), ("InvalidRequest", 400))
    s3.copy_object(Bucket="beta", Key="dst", CopySource="beta/dst", MetadataDirective="REPLACE", Metadata={"b": "2"})
    eq(s3.head_object(Bucket="beta", Key="dst")["Metadata"], {"b": "2"})
    eq(code(s3.copy_object, Bucket="beta", Key="d2", CopySource="beta/none"), ("NoSuchKey", 404))
    s3.put_object_tagging(Bucket="beta", Key="dst", Tagging={"TagSet": [{"Key": "x", "Value": "y"}]})
    eq(s3.get_object_tagging(Bucket="beta", Key="dst")["TagSet"], [{"Key": "x", "Value": "y"}])
    s3.delete_object_tagging(Bucket="beta", Key="dst")
    eq(s3.get_object_tagging(Bucket="beta", Key="dst")["TagSet"], [])
    s3.delete_object(Bucket="beta", Key="dst")


def lists():
    s3.create_bucket(Bucket="lists")
    keys = ["a", "b/1", "b/2", "b/c/3", "d", "e/1", "f"]
    for k in keys:
        s3.put_object(Bucket="lists", Key=k, Body=b"")
    for op, marker, nxt in ((s3.list_objects_v2, "ContinuationToken", "NextContinuationToken"), (s3.list_objects, "Marker", "NextMarker")):
        for size in (1, 2, 3, 1000):
            got, kw = [], {}
            while True:
                r = op(Bucket="lists", Delimiter="/", MaxKeys=size, **kw)
                page = [o["Key"] for o in r.get("Contents", [])] + [p["Prefix"] for p in r.get("CommonPrefixes", [])]
                assert len(page) <= size
                got += sorted(page)
                if not r["IsTruncated"]:
                    break
                kw = {marker: r[nxt]}
            eq(got, ["a", "b/", "d", "e/", "f"])
    got = [o["Key"] for p in s3.get_paginator("list_objects_v2").paginate(Bucket="lists", PaginationConfig={"PageSize": 2}) for o in p["Contents"]]
    eq(got, keys)
    r = s3.list_objects_v2(Bucket="lists", Prefix="b/", Delimiter="/")
    eq(([o["Key"] for o in r["Contents"]], r["CommonPrefixes"]), (["b/1", "b/2"], [{"Prefix": "b/c/"}]))
    eq([o["Key"] for o in s3.list_objects_v2(Bucket="lists", StartAfter="b/2")["Contents"]], ["b/c/3", "d", "e/1", "f"])
    eq(s3.list_objects_v2(Bucket="lists", MaxKeys=0)["KeyCount"], 0)
    assert "Owner" in s3.list_objects_v2(Bucket="lists", FetchOwner=True)["Contents"][0]
    eq(code(s3.delete_bucket, Bucket="lists"), ("BucketNotEmpty", 409))
    for k in keys:
        s3.delete_object(Bucket="lists", Key=k)
    s3.delete_bucket(Bucket="lists")


def versioning():
    s3.create_bucket(Bucket="ver")
    s3.put_object(Bucket="ver", Key="k", Body=b"null")
    s3.put_bucket_versioning(Bucket="ver", VersioningConfiguration={"Status": "Enabled"})
    eq(s3.get_bucket_versioning(Bucket="ver")["Status"], "Enabled")
    v1 = s3.put_object(Bucket="ver", Key="k", Body=b"one")["VersionId"]
    v2 = s3.put_object(Bucket="ver", Key="k", Body=b"two")["VersionId"]
    s3.put_object(Bucket="ver", Key="k2", Body=b"other")
    d = s3.delete_object(Bucket="ver", Key="k")
    eq(d["DeleteMarker"], True)
    eq(code(s3.get_object, Bucket="ver", Key="k"), ("NoSuchKey", 404))
    eq(code(s3.get_object, Bucket="ver", Key="k", VersionId=d["VersionId"]), ("MethodNotAllowed", 405))
    for v, body in ((v1, b"one"), (v2, b"two"), ("null", b"null")):
        eq(s3.get_object(Bucket="ver", Key="k", VersionId=v)["Body"].read(), body)
    eq([o["Key"] for o in s3.list_objects_v2(Bucket="ver")["Contents"]], ["k2"])
    r = s3.list_object_versions(Bucket="ver")
    eq([(v["Key"], v["VersionId"], v["IsLatest"]) for v in r["Versions"] if v["Key"] == "k"], [("k", v2, False), ("k", v1, False), ("k", "null", False)])
    eq(r["DeleteMarkers"][0]["IsLatest"], True)
    got, kw = [], {}
    for _ in range(20):
        r = s3.list_object_versions(Bucket="ver", MaxKeys=1, **kw)
        got += [v["VersionId"] for v in r.get("Versions", []) + r.get("DeleteMarkers", [])]
        if not r["IsTruncated"]:
            break
        kw = {"KeyMarker": r["NextKeyMarker"], "VersionIdMarker": r["NextVersionIdMarker"]}
    eq(got[:4], [d["VersionId"], v2, v1, "null"])
    eq(len(got), 5)
    s3.delete_object(Bucket="ver", Key="k", VersionId=d["VersionId"])
    eq(s3.get_object(Bucket="ver", Key="k")["Body"].read(), b"two")
    s3.delete_object(Bucket="ver", Key="k", VersionId=v2)
    eq(s3.get_object(Bucket="ver", Key="k")["VersionId"], v1)
    eq(code(s3.get_object, Bucket="ver", Key="k", VersionId=v2), ("NoSuchVersion", 404))
    s3.put_bucket_versioning(Bucket="ver", VersioningConfiguration={"Status": "Suspended"})
    eq(s3.put_object(Bucket="ver", Key="k", Body=b"new null")["VersionId"], "null")
    eq([v["VersionId"] for v in s3.list_object_versions(Bucket="ver", Prefix="k")["Versions"] if v["Key"] == "k"], ["null", v1])
    r = s3.list_object_versions(Bucket="ver")
    s3.delete_objects(Bucket="ver", Delete={"Objects": [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in r["Versions"]]})
    s3.delete_bucket(Bucket="ver")


def multipart():
    part = os.urandom(5 << 20)
    u = s3.create_multipart_upload(Bucket="alpha", Key="big", Metadata={"m": "p"})["UploadId"]
    eq(s3.list_multipart_uploads(Bucket="alpha")["Uploads"][0]["UploadId"], u)
    e1 = s3.upload_part(Bucket="alpha", Key="big", UploadId=u, PartNumber=1, Body=part)["ETag"]
    e3 = s3.upload_part(Bucket="alpha", Key="big", UploadId=u, PartNumber=3, Body=b"tail")["ETag"]
    eq([p["PartNumber"] for p in s3.list_parts(Bucket="alpha", Key="big", UploadId=u)["Parts"]], [1, 3])
    done = lambda *ps: dict(Bucket="alpha", Key="big", UploadId=u, MultipartUpload={"Parts": [{"PartNumber": n, "ETag": e} for n, e in ps]})
    eq(code(s3.complete_multipart_upload, **done((3, e3), (1, e1))), ("InvalidPartOrder", 400))
    eq(code(s3.complete_multipart_upload, **done((1, e3))), ("InvalidPart", 400))
    eq(code(s3.complete_multipart_upload, **done((2, e3))), ("InvalidPart", 400))
    s3.upload_part(Bucket="alpha", Key="big", UploadId=u, PartNumber=2, Body=b"small")
    e2 = s3.list_parts(Bucket="alpha", Key="big", UploadId=u)["Parts"][1]["ETag"]
    eq(code(s3.complete_multipart_upload, **done((1, e1), (2, e2), (3, e3))), ("EntityTooSmall", 400))
    e = s3.complete_multipart_upload(**done((1, e1), (3, e3)))["ETag"]
    eq(e, '"%s-2"' % hashlib.md5(hashlib.md5(part).digest() + hashlib.md5(b"tail").digest()).hexdigest())
    eq(code(s3.complete_multipart_upload, **done((1, e1))), ("NoSuchUpload", 404))
    g = s3.get_object(Bucket="alpha", Key="big")
    eq((g["Body"].read() == part + b"tail", g["Metadata"]), (True, {"m": "p"}))
    eq(s3.get_object(Bucket="alpha", Key="big", Range="bytes=%d-%d" % (len(part) - 2, len(part) + 1))["Body"].read(), part[-2:] + b"ta")
    g = s3.get_object(Bucket="alpha", Key="big", PartNumber=2)
    eq((g["Body"].read(), g["PartsCount"]), (b"tail", 2))
    r = s3.copy_object(Bucket="alpha", Key="flat", CopySource="alpha/big")
    eq(r["CopyObjectResult"]["ETag"], '"%s"' % hashlib.md5(part + b"tail").hexdigest())
    u = s3.create_multipart_upload(Bucket="alpha", Key="pc")["UploadId"]
    c = s3.upload_part_copy(Bucket="alpha", Key="pc", UploadId=u, PartNumber=1, CopySource="alpha/big", CopySourceRange="bytes=0-9")
    s3.complete_multipart_upload(Bucket="alpha", Key="pc", UploadId=u, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": c["CopyPartResult"]["ETag"]}]})
    eq(s3.get_object(Bucket="alpha", Key="pc")["Body"].read(), part[:10])
    u = s3.create_multipart_upload(Bucket="alpha", Key="ab")["UploadId"]
    s3.upload_part(Bucket="alpha", Key="ab", UploadId=u, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket="alpha", Key="ab", UploadId=u)
    eq(code(s3.list_parts, Bucket="alpha", Key="ab", UploadId=u), ("NoSuchUpload", 404))
    data = os.urandom(20 << 20)
    s3.upload_fileobj(io.BytesIO(data), "alpha", "managed")
    out = io.BytesIO()
    s3.download_fileobj("alpha", "managed", out)
    eq(out.getvalue() == data, True)


def presigned():
    s3.put_object(Bucket="alpha", Key="p q", Body=b"signed")
    for style in ("path", "virtual"):
        c = boto3.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
        url = c.generate_presigned_url("get_object", Params={"Bucket": "alpha", "Key": "p q", "ResponseContentType": "x/y"})
        with urllib.request.urlopen(url) as r:
            eq((r.read(), r.headers["Content-Type"]), (b"signed", "x/y"))
    url = c.generate_presigned_url("put_object", Params={"Bucket": "alpha", "Key": "up"})
    urllib.request.urlopen(urllib.request.Request(url, data=b"put", method="PUT", headers={"Content-Type": ""})).close()
    eq(s3.get_object(Bucket="alpha", Key="up")["Body"].read(), b"put")
    try:
        urllib.request.urlopen(url.replace("/up", "/other"))
        raise AssertionError("a changed URL was served")
    except urllib.error.HTTPError as e:
        eq(e.code, 403)


for f in (buckets, objects, conditions, copies, lists, versioning, multipart, presigned):
    f()
    print("ok", f.__name__)
