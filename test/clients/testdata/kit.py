"""What the scripts share: clients, checks, and steps that all run even when one fails."""
import os, sys, time, traceback
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
ACCOUNT, REGION = "123456789012", "us-east-1"
_steps = []


def client(name, region=REGION, **kw):
    return boto3.client(name, region_name=region, endpoint_url=ENDPOINT, config=Config(retries={"total_max_attempts": 1}, read_timeout=20), **kw)


def eq(got, want, what=""):
    assert got == want, "%s: got %r, want %r" % (what, got, want)


def refused(want, fn, **kw):
    """fn must fail with this error code."""
    try:
        got = fn(**kw)
    except ClientError as e:
        code = e.response["Error"]["Code"]
        assert code == want, "%s(%s): want %s, got %s: %s" % (fn.__name__, kw, want, code, e.response["Error"].get("Message"))
        status = e.response["ResponseMetadata"]["HTTPStatusCode"]
        assert 400 <= status < 500, "%s is status %d" % (code, status)
        assert e.response["Error"].get("Message"), "%s without a message" % code
        return e.response["Error"]["Message"]
    got.pop("ResponseMetadata", None)
    raise AssertionError("%s(%s): want %s, it answered %r" % (fn.__name__, kw, want, got))


def pages(c, op, key, **kw):
    """All items of a paginated operation, and on how many pages they were."""
    items, n = [], 0
    for page in c.get_paginator(op).paginate(**kw):
        items += page.get(key, [])
        n += 1
        assert n < 1000, "paging of %s does not end" % op
    return items, n


def until(what, fn, limit=20):
    """Polls until fn returns something true, and returns that."""
    end = time.time() + limit
    while True:
        v = fn()
        if v:
            return v
        assert time.time() < end, "waited in vain for " + what
        time.sleep(0.05)


def step(fn):
    _steps.append(fn)
    return fn


def main():
    only, failed = sys.argv[1:], 0
    for fn in _steps:
        if only and fn.__name__ not in only:
            continue
        try:
            fn()
        except Exception as e:
            failed += 1
            frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename == os.path.abspath(sys.argv[0])]
            print("%s, line %d: %s: %s" % (fn.__name__, frames[-1].lineno if frames else 0, type(e).__name__, e))
    sys.exit(1 if failed else 0)
