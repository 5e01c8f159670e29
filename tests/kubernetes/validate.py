"""Looks whether Kubernetes would take what a chart renders, strictly: no unknown field, no wrong type, no unknown kind.

    validate.py FILE...         manifests, each a stream of YAML documents
    validate.py < LIST          a JSON list of {"name": ..., "yaml": ...}

Objects of Kubernetes itself are held against the schemas of each version in VERSIONS, those of the groups in CRDS against the
models that crds.mjs reads. Needs the Python of scripts/kubernetes.sh. Prints one line a fault, and fails when there is one.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import jsonschema
import kubernetes_validate.utils as schemas
import referencing
import yaml

VERSIONS = ("1.31", "1.34", "1.37")
CRDS = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1", "cert-manager.io/v1"}

# What the API server checks and schemas do not say.
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
LABEL_NAME = re.compile(r"([^/]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$")
QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$")


class Loader(yaml.CSafeLoader):
    """Reads YAML as the API server does in strict mode: a key that is there twice is a fault."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            raise yaml.YAMLError(f"a key is there twice in the mapping at line {node.start_mark.line + 1}: {list(mapping)}")
        return mapping


def load(text: str) -> list[dict]:
    """The objects of a manifest."""
    return [document for document in yaml.load_all(text, Loader) if document]


@functools.cache
def validator(version: str, api_version: str, kind: str) -> jsonschema.Validator | None:
    """What holds an object against the schema of its kind, where that version of Kubernetes knows one."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    try:
        schema = contents(version, f"{kind.lower()}-{group}.json")
    except FileNotFoundError:
        return None
    return jsonschema.Draft202012Validator(schema, registry=definitions(version))


@functools.cache
def definitions(version: str) -> referencing.Registry:
    """What the schemas of a version refer to."""
    resource = referencing.Resource.from_contents(contents(version, "_definitions.json"))
    return (resource @ referencing.Registry()).crawl()


def contents(version: str, file: str) -> dict:
    return schemas.schema_contents(f"kubernetes-json-schema/v{version}.0-local-strict/{file}", version)


def walk(value: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """Everything in an object, with the path to it."""
    yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from walk(part, (*path, key))


def beyond_schemas(item: dict) -> Iterator[str]:
    """Faults of names, labels and quantities."""
    name = item.get("metadata", {}).get("name", "")
    if not SUBDOMAIN.match(name) or (item["kind"] == "Service" and (len(name) > 63 or "." in name)):
        yield f"metadata.name: {name!r} is no name for a {item['kind']}"
    for path, value in walk(item):
        where = ".".join(map(str, path))
        key = path[-1] if path else None
        if key in ("labels", "matchLabels") and isinstance(value, dict):
            for label, text in value.items():
                if not LABEL_NAME.match(label) or not isinstance(text, str) or not LABEL_VALUE.match(text):
                    yield f"{where}: {label}={text!r} is no label"
        elif key == "name" and len(path) > 2 and path[-3] == "ports" and not PORT_NAME.match(str(value)):
            yield f"{where}: {value!r} is no name of a port"
        elif key in ("requests", "limits", "hard") and isinstance(value, dict):
            for resource, amount in value.items():
                if not QUANTITY.match(str(amount)):
                    yield f"{where}.{resource}: {amount!r} is no quantity"


def faults_of_kubernetes(item: dict, version: str) -> list[str]:
    """What a version of Kubernetes has against an object of one of its own kinds."""
    found = validator(version, item["apiVersion"], item["kind"])
    if found is None:
        return [f"Kubernetes {version} knows no {item['kind']} of {item['apiVersion']}"]
    errors = [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found.iter_errors(item)]
    return [f"{error} (Kubernetes {version})" for error in errors] + list(beyond_schemas(item))


def faults_of_crds(items: list[dict]) -> list[list[str]]:
    """What the models of other groups have against objects, in the same order."""
    if not items:
        return []
    script = pathlib.Path(__file__).with_name("crds.mjs")
    node = pathlib.Path(sys.prefix, "bin", "node")
    done = subprocess.run(
        [node, script, sys.prefix], input=json.dumps(items), stdout=subprocess.PIPE, text=True, check=True
    )
    return [found + list(beyond_schemas(item)) for item, found in zip(items, json.loads(done.stdout), strict=True)]


def all_faults(items: list[dict]) -> list[list[str]]:
    """What there is against each of these objects, in all VERSIONS."""
    own = [item["apiVersion"] not in CRDS for item in items]
    of_crds = iter(faults_of_crds([item for item, is_own in zip(items, own) if not is_own]))
    return [
        list(dict.fromkeys(fault for version in VERSIONS for fault in faults_of_kubernetes(item, version)))
        if is_own
        else next(of_crds)
        for item, is_own in zip(items, own)
    ]


def main() -> int:
    if sys.argv[1:]:
        manifests = [{"name": file, "yaml": pathlib.Path(file).read_text()} for file in sys.argv[1:]]
    else:
        manifests = json.load(sys.stdin)
    # Most objects look the same in most manifests: each is looked at once.
    unique: dict[str, dict] = {}
    seen: list[tuple[str, str]] = []
    faults: list[str] = []
    for manifest in manifests:
        names = set()
        try:
            items = load(manifest["yaml"])
        except yaml.YAMLError as error:
            faults.append(f"{manifest['name']}: {error}")
            continue
        for item in items:
            text = json.dumps(item, sort_keys=True)
            unique[text] = item
            seen.append((manifest["name"], text))
            identity = (item["apiVersion"], item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
            if identity in names:
                faults.append(f"{manifest['name']}: {item['kind']} {item['metadata']['name']} is there twice")
            names.add(identity)
    found = dict(zip(unique, all_faults(list(unique.values())), strict=True))
    for name, text in seen:
        item = unique[text]
        faults += [f"{name}: {item['kind']} {item['metadata']['name']}: {fault}" for fault in found[text]]
    print("\n".join([*faults, f"{len(manifests)} manifests, {len(seen)} objects ({len(unique)} different), {len(faults)} faults"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
