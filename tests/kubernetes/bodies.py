"""What clients send to a Kubernetes API: objects, and patches of objects."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator

import yaml

# Lists whose members are told apart by one of their fields; all other lists are replaced as a whole.
MEMBERS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}
# Merge patches (RFC 7386) and strategic merge patches, which helm 3 sends: whether lists are merged.
PATCHES = {
    "application/merge-patch+json": False,
    "application/strategic-merge-patch+json": True,
}


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message of Protocol Buffers that have a length; the others are passed over."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            number()
            continue
        length = {1: 8, 5: 4}.get(tag & 7) or number()
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + length]
        at += length


def decoded(body: bytes) -> dict:
    """The object in a request: JSON, YAML, or the message of a Secret, which is how helm 4 keeps its releases."""
    if not body.startswith(b"k8s\0"):
        return yaml.load(body, yaml.CSafeLoader) or {}
    envelope = dict(fields(body[4:]))
    kind = dict(fields(envelope[1]))[2].decode()
    if kind != "Secret":
        return {"kind": kind}
    metadata: dict = {"labels": {}}
    secret: dict = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": {}}
    for field, value in fields(envelope[2]):
        if field == 1:
            for inner, part in fields(value):
                if inner in (1, 3):
                    metadata[{1: "name", 3: "namespace"}[inner]] = part.decode()
                elif inner == 11:
                    label = dict(fields(part))
                    metadata["labels"][label[1].decode()] = label.get(2, b"").decode()
        elif field == 2:
            entry = dict(fields(value))
            secret["data"][entry[1].decode()] = base64.b64encode(entry.get(2, b"")).decode()
        elif field == 3:
            secret["type"] = value.decode()
    return secret


def patched(item: dict, patch: dict, content_type: str) -> dict:
    """An object after a patch of this type."""
    return merged(item, patch, PATCHES[content_type])


def merged(old: object, patch: dict, strategic: bool) -> dict:
    new = copy.deepcopy(old) if isinstance(old, dict) and patch.get("$patch") != "replace" else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            new[key] = merged(new.get(key), value, strategic)
        elif strategic and (name := member_name(key, value)):
            new[key] = merged_list(new.get(key, []), value, name, patch.get(f"$setElementOrder/{key}", []))
        else:
            new[key] = value
    # Only what is retained stays: a volume that becomes another kind of volume.
    retained = patch.get("$retainKeys")
    return {key: value for key, value in new.items() if retained is None or key in retained}


def member_name(key: str, members: list) -> str | None:
    """The field that tells the members of a list apart; ports of a container and of a Service have different ones."""
    if key == "ports":
        return "containerPort" if any("containerPort" in member for member in members) else "port"
    return MEMBERS.get(key) if isinstance(members, list) else None


def merged_list(old: list, patch: list, name: str, order: list) -> list:
    members = {member[name]: member for member in old}
    for member in patch:
        if member.get("$patch") == "delete":
            members.pop(member[name], None)
        else:
            members[member[name]] = merged(members.get(member[name]), member, strategic=True)
    places = {entry[name]: place for place, entry in enumerate(order)}
    return sorted(members.values(), key=lambda member: places.get(member[name], len(places)))
