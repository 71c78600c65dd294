"""Parses encoded answers with botocore and prints what differs from what was encoded."""
import base64, datetime, json, sys

import botocore.parsers, botocore.session
from botocore.awsrequest import HeadersDict


def differences(want, got, path, shape):
    if isinstance(want, dict) and "$t" in want:
        if not (isinstance(got, datetime.datetime) and got.timestamp() == want["$t"]):
            yield path, want, got
    elif isinstance(want, dict) and "$b" in want:
        raw = got if isinstance(got, bytes) else str(got).encode()
        if raw != base64.b64decode(want["$b"]):
            yield path, want, got
    elif isinstance(want, dict):
        if not isinstance(got, dict):
            yield path, want, got
            return
        for key, value in want.items():
            sub = None
            if shape is not None and shape.type_name == "structure":
                if key not in shape.members:
                    continue  # newer than this botocore
                sub = shape.members[key]
            elif shape is not None:
                sub = shape.value
            yield from differences(value, got.get(key), path + "." + key, sub)
    elif isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            yield path, want, got
            return
        for w, g in zip(want, got):
            yield from differences(w, g, path, shape.member if shape is not None else None)
    elif want != got:
        yield path, want, got


session, models, checked = botocore.session.get_session(), {}, 0
for line in open(sys.argv[1]):
    d = json.loads(line)
    model = models.setdefault(d["svc"], None) or session.get_service_model(d["svc"])
    models[d["svc"]] = model
    if d["op"] not in model.operation_names:
        continue
    op = model.operation_model(d["op"])
    if op.output_shape is None or op.has_streaming_output:
        continue
    protocol = {"s3": "rest-xml", "ec2": "ec2"}.get(d["svc"], "query")
    answer = {"status_code": 200, "headers": HeadersDict(d["headers"]), "body": d["body"].encode()}
    parsed = botocore.parsers.create_parser(protocol).parse(answer, op.output_shape)
    checked += 1
    for path, want, got in differences(d["want"], parsed, "", op.output_shape):
        print(f"{d['svc']} {d['op']}{path}: encoded {want!r:.80}, parsed {got!r:.80}")
print("checked", checked)
