#!/usr/bin/env python3
"""Writes src/aws/model/{sqs,sns}.rs from the service models of botocore (PyPI, Apache-2.0).

    pip download --no-deps botocore==1.44.5 botocore==1.29.165 -d DIR
    conformance/aws/generate_model.py DIR && cargo fmt

Shapes are those of the newer one. What its SQS model no longer says, because the service has moved to JSON, comes
from the older one, the last that speaks Query: names on the wire, names of wrappers, codes of errors.
"""

import gzip
import json
import pathlib
import sys
import zipfile

NEW, OLD = "1.44.5", "1.29.165"
API = {"sqs": "2012-11-05", "sns": "2010-03-31"}
# Members and errors that came after the older model: names as the Query reference of the service has them.
LATER_NAMES = {"MessageSystemAttributeList": "MessageSystemAttributeName"}
LATER_ERRORS = {
    "InvalidAddress": ("InvalidAddress", 404),
    "InvalidSecurity": ("InvalidSecurity", 403),
    "KmsAccessDenied": ("KMS.AccessDeniedException", 400),
    "KmsDisabled": ("KMS.DisabledException", 400),
    "KmsInvalidKeyUsage": ("KMS.InvalidKeyUsageException", 400),
    "KmsInvalidState": ("KMS.InvalidStateException", 400),
    "KmsNotFound": ("KMS.NotFoundException", 400),
    "KmsOptInRequired": ("KMS.OptInRequired", 403),
    "KmsThrottled": ("KMS.ThrottlingException", 400),
    "RequestThrottled": ("RequestThrottled", 403),
}
SIMPLE = {
    "string": "TEXT",
    "integer": "INTEGER",
    "long": "INTEGER",
    "boolean": "BOOLEAN",
    "blob": "BLOB",
    "timestamp": "TIMESTAMP",
    "double": "FLOAT",
    "float": "FLOAT",
}


def load(directory, version, service):
    wheel = next(pathlib.Path(directory).glob(f"botocore-{version}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = f"botocore/data/{service}/{API[service]}/service-2.json"
        if name in archive.namelist():
            return json.loads(archive.read(name))
        return json.loads(gzip.decompress(archive.read(name + ".gz")))


def constant(name):
    out = ""
    for index, char in enumerate(name):
        if char.isupper() and index and not (name[index - 1].isupper() and not name[index + 1 : index + 2].islower()):
            out += "_"
        out += char.upper()
    return out.replace("__", "_")


class Generator:
    def __init__(self, service, new, old):
        self.service, self.new, self.old = service, new, old
        self.done, self.queue = set(), []

    def reference(self, name):
        shape = self.new["shapes"][name]
        if shape["type"] in SIMPLE:
            return f"&super::{SIMPLE[shape['type']]}"
        if name not in self.done:
            self.done.add(name)
            self.queue.append(name)
        return f"&{constant(name)}"

    def older(self, name):
        return self.old["shapes"].get(name, {})

    def location(self, shape_name, *path):
        node = self.older(shape_name)
        for key in path:
            node = node.get(key, {})
        return node.get("locationName")

    def shape(self, name):
        shape, older = self.new["shapes"][name], self.older(name)
        is_flat = str(bool(shape.get("flattened") or older.get("flattened"))).lower()
        if shape["type"] == "list":
            item = self.location(name, "member") or shape["member"].get("locationName") or LATER_NAMES.get(name)
            item = item or ("member" if self.service == "sns" else shape["member"]["shape"])
            item_shape = self.reference(shape["member"]["shape"])
            return f'Shape::List {{ item: "{item}", shape: {item_shape}, is_flat: {is_flat} }}'
        if shape["type"] == "map":
            default = {"key": "key", "value": "value"} if self.service == "sns" else {"key": "Name", "value": "Value"}
            names = {
                side: self.location(name, side) or shape[side].get("locationName") or default[side] for side in default
            }
            value = self.reference(shape["value"]["shape"])
            return (
                f'Shape::Map {{ key: "{names["key"]}", value: "{names["value"]}", shape: {value}, '
                f"is_flat: {is_flat} }}"
            )
        members = []
        required = set(shape.get("required", []))
        for member, detail in shape["members"].items():
            inner = self.new["shapes"][detail["shape"]]
            older_inner = self.older(detail["shape"])
            wire = self.location(name, "members", member) or detail.get("locationName")
            flat = is_flat_list = inner["type"] == "list" and bool(
                inner.get("flattened") or older_inner.get("flattened") or detail.get("flattened")
            )
            if inner["type"] == "map":
                flat = bool(inner.get("flattened") or older_inner.get("flattened"))
                if self.service == "sqs":
                    wire = wire or older_inner.get("locationName") or member.removesuffix("s")
            if is_flat_list:
                # A flattened list goes by the name of its items.
                item = self.location(detail["shape"], "member") or LATER_NAMES.get(detail["shape"])
                wire = item or wire
            members.append(
                f'Member {{ name: "{member}", wire: "{wire or member}", shape: {self.reference(detail["shape"])}, '
                f"is_flat: {str(bool(flat)).lower()}, is_required: {str(member in required).lower()} }}"
            )
        return f"Shape::Structure(&[{', '.join(members)}])"

    def errors(self):
        for name, shape in sorted(self.new["shapes"].items()):
            if not shape.get("exception"):
                continue
            error = self.older(name).get("error") or shape.get("error")
            if error:
                yield name, error.get("code", name), error.get("httpStatusCode", 400)
            else:
                yield name, *LATER_ERRORS.get(name, (name, 400))

    def render(self):
        meta = self.old["metadata"]
        lines = [
            f"//! Operations, shapes and errors of {meta['serviceFullName']}, version {meta['apiVersion']}.",
            "//!",
            "//! Generated by conformance/aws/generate_model.py from the service models of botocore "
            f"{NEW} and {OLD} (Apache-2.0,",
            "//! Copyright Amazon.com, Inc. or its affiliates). Change the generator, not this file.",
            "",
            "use super::{ErrorShape, Member, Model, Operation, Shape};",
            "",
            "/// The service.",
            "pub static MODEL: Model = Model {",
            f'    name: "{self.service}",',
            f'    version: "{meta["apiVersion"]}",',
            f'    xml_namespace: "{meta["xmlNamespace"]}",',
            "    operations: OPERATIONS,",
            "    errors: ERRORS,",
            "};",
            "",
            "static OPERATIONS: &[Operation] = &[",
        ]
        for name, operation in sorted(self.new["operations"].items()):
            given = self.reference(operation["input"]["shape"])
            answer = operation.get("output", {}).get("shape")
            wrapper = self.old["operations"].get(name, {}).get("output", {}).get("resultWrapper")
            wrapper = wrapper or operation.get("output", {}).get("resultWrapper") or f"{name}Result"
            answer = f"Some({self.reference(answer)})" if answer else "None"
            lines.append(
                f'    Operation {{ name: "{name}", input: {given}, output: {answer}, wrapper: "{wrapper}" }},'
            )
        lines += ["];", "", "static ERRORS: &[ErrorShape] = &["]
        for name, code, status in self.errors():
            lines.append(f'    ErrorShape {{ name: "{name}", code: "{code}", status: {status} }},')
        lines.append("];")
        while self.queue:
            name = self.queue.pop(0)
            lines += ["", f"static {constant(name)}: Shape = {self.shape(name)};"]
        return "\n".join(lines) + "\n"


def main():
    directory = sys.argv[1]
    for service in API:
        generator = Generator(service, load(directory, NEW, service), load(directory, OLD, service))
        (pathlib.Path("src/aws/model") / f"{service}.rs").write_text(generator.render())


main()
