#!/usr/bin/env python3
"""Writes conformance/aws/sigv4_vectors.json: requests as botocore signs them, for the tests of src/aws/sigv4.rs.

    pip install botocore==1.44.5 && conformance/aws/sigv4_vectors.py
"""

import datetime
import json
import pathlib
import unittest.mock

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2026, 11, 23, 12, 0, 0)
BASE = "http://localhost:9324"
JSON = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.SendMessage"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}

CASES = [
    ("a call in JSON", "POST", "/", JSON, b'{"QueueUrl":"http://localhost:9324/000000000000/q","MessageBody":"x"}', {}),
    ("an empty body", "POST", "/", JSON, b"", {}),
    ("a form at the address of a queue", "POST", "/000000000000/q.fifo", FORM, b"Action=ReceiveMessage", {}),
    ("spaces in headers", "POST", "/", {**JSON, "X-Amz-Meta": "  a   b  "}, b"{}", {}),
    ("a session token", "POST", "/", JSON, b"{}", {"token": "tok/en+=="}),
    ("a query with everything", "GET", "/?Version=2012-11-05&Action=ListQueues&p=a%20b%2Fc~d&e=&Z=1&a=2&a=1", {}, b"", {}),
    ("a path with names to encode", "POST", "/000000000000/a%20b/%C3%A4/./x//y/", FORM, b"Action=X", {}),
    ("octets that are no text", "POST", "/", JSON, bytes(range(256)), {}),
    ("another region and service", "POST", "/", JSON, b"{}", {"region": "eu-central-1", "service": "sns"}),
    ("a body that is not signed", "POST", "/", {**JSON, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}, b"{}", {}),
    ("a presigned query", "GET", "/?Action=SendMessage&MessageBody=a%20b", {}, b"", {"expires": 600}),
    ("a presigned query with a token", "GET", "/1/q?Action=X", {}, b"", {"expires": 60, "token": "t+/="}),
]


def sign(name, method, path, headers, body, extra):
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", extra.get("token"))
    request = AWSRequest(method=method, url=BASE + path, headers=dict(headers), data=body)
    arguments = (credentials, extra.get("service", "sqs"), extra.get("region", "us-east-1"))
    if "expires" in extra:
        auth = botocore.auth.SigV4QueryAuth(*arguments, expires=extra["expires"])
    else:
        auth = botocore.auth.SigV4Auth(*arguments)
    with unittest.mock.patch("botocore.auth.get_current_datetime", lambda: NOW):
        auth.add_auth(request)
    prepared = request.prepare()
    rest = prepared.url.removeprefix(BASE)
    path, _, query = rest.partition("?")
    sent = {key.lower(): value for key, value in prepared.headers.items() if key.lower() != "content-length"}
    sent = {key: value.decode() if isinstance(value, bytes) else value for key, value in sent.items()}
    sent.setdefault("host", "localhost:9324")
    return {
        "name": name,
        "method": method,
        "path": path,
        "query": query,
        "headers": sent,
        "body": body.hex(),
    }


def main():
    vectors = {
        "access_key": "AKIDEXAMPLE",
        "secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "now_secs": int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()),
        "cases": [sign(*case) for case in CASES],
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(vectors, indent=1) + "\n")


main()
