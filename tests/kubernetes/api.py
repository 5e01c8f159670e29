"""A Kubernetes API in memory, as much of it as helm asks for: install, test, upgrade, rollback, uninstall.

    api.py [--port PORT] [--version 1.34] [--namespace NAME] [--crd GROUP/VERSION:PLURAL:KIND]...

Prints the address it listens at, then serves until it is killed. What it is strict about: every object against the schema of
its kind (validate.py), fields that cannot change once set, names that exist already, kinds that nobody registered. What it
makes believe: all that is created is ready at once, and Pods and Jobs succeed. There are no controllers, no defaults but the
addresses of Services, and no permissions. `GET /objects` lists all objects that there are, `GET /requests` all that was asked.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlparse

import bodies
import validate

KINDS = """
v1 namespaces:Namespace pods:Pod services:Service configmaps:ConfigMap secrets:Secret serviceaccounts:ServiceAccount
  persistentvolumeclaims:PersistentVolumeClaim events:Event
apps/v1 deployments:Deployment statefulsets:StatefulSet daemonsets:DaemonSet replicasets:ReplicaSet
batch/v1 jobs:Job cronjobs:CronJob
policy/v1 poddisruptionbudgets:PodDisruptionBudget
networking.k8s.io/v1 networkpolicies:NetworkPolicy ingresses:Ingress
rbac.authorization.k8s.io/v1 roles:Role rolebindings:RoleBinding
autoscaling/v2 horizontalpodautoscalers:HorizontalPodAutoscaler
"""

# What of a spec may change once it is there, or may not; of kinds that are not named, everything may.
MAY_CHANGE = {
    "StatefulSet": {
        "replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
        "revisionHistoryLimit",
    },
    "Job": {"parallelism", "suspend", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"},
    "PersistentVolumeClaim": {"resources"},
    "Pod": {"tolerations", "activeDeadlineSeconds"},
}  # fmt: skip
MAY_NOT_CHANGE = {"Deployment": {"selector"}, "DaemonSet": {"selector"}, "Service": {"clusterIP"}}


class Resource(NamedTuple):
    """A kind of object, as it is found in a path."""

    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Key(NamedTuple):
    """Where an object is."""

    resource: Resource
    namespace: str
    name: str


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}


def resource_of(api_version: str, plural: str) -> Resource:
    group, _, version = api_version.rpartition("/")
    return Resource(group, version, plural)


def status_of(item: dict) -> dict | None:
    """What a controller would write of an object once it is done with it."""
    spec, generation = item.get("spec", {}), item["metadata"]["generation"]
    replicas = spec.get("replicas", 1)
    counts = {"observedGeneration": generation, "replicas": replicas, "readyReplicas": replicas,
              "updatedReplicas": replicas, "availableReplicas": replicas}  # fmt: skip
    match item["kind"]:
        case "Deployment":
            progressing = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
            return counts | {"conditions": [{"type": "Available", "status": "True"}, progressing]}
        case "StatefulSet":
            return counts | {"currentReplicas": replicas, "currentRevision": "1", "updateRevision": "1"}
        case "Pod":
            return {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}]}
        case "Job":
            return {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
        case "PodDisruptionBudget":
            return {"observedGeneration": generation, "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 1}
        case "PersistentVolumeClaim":
            return {"phase": "Bound"}
    return item.get("status")


class Cluster:
    """All objects, and what happened to them."""

    def __init__(self, version: str, kinds: dict[Resource, str]) -> None:
        self.version, self.kinds = version, kinds
        self.objects: dict[Key, dict] = {}
        self.events: list[tuple[int, str, Key, dict]] = []
        self.requests: list[str] = []
        self.changed = threading.Condition()

    @property
    def revision(self) -> int:
        return len(self.events) + 1

    def get(self, key: Key) -> dict:
        if key not in self.objects:
            raise Refusal(404, "NotFound", f'{key.resource.plural} "{key.name}" not found')
        return self.objects[key]

    def put(self, key: Key, item: dict, dry: bool = False) -> dict:
        """Takes an object, new or changed, if it may be."""
        item = copy.deepcopy(item)
        item.pop("status", None)
        self.check(item)
        old = self.objects.get(key)
        if item["kind"] == "Service":
            # helm 3 takes a Service for ready once it has an address, and that never changes.
            address = (old or {}).get("spec", {}).get("clusterIP", f"10.96.0.{self.revision % 256}")
            item["spec"].setdefault("clusterIP", address)
        metadata = item["metadata"]
        metadata["generation"] = 1
        if old:
            self.check_change(old, item)
            metadata["generation"] = old["metadata"]["generation"] + (old.get("spec") != item.get("spec"))
        elif key.namespace and namespace_key(key.namespace) not in self.objects:
            raise Refusal(404, "NotFound", f'namespaces "{key.namespace}" not found')
        before = old["metadata"] if old else {}
        metadata["uid"] = before.get("uid", f"uid-{self.revision}")
        metadata["creationTimestamp"] = before.get("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        if key.namespace:
            metadata["namespace"] = key.namespace
        status = status_of(item)
        if status is not None:
            item["status"] = status
        if not dry:
            self.record("MODIFIED" if old else "ADDED", key, item)
            self.objects[key] = item
        return item

    def check(self, item: dict) -> None:
        if item["apiVersion"] in validate.CRDS:
            (faults,) = validate.faults_of_crds([item])
        else:
            # What a client read before it wrote it back may hold what only the server sets: schemas know that.
            faults = validate.faults_of_kubernetes(item, self.version)
        if faults:
            raise Refusal(422, "Invalid", f"{item['kind']} {item['metadata'].get('name')} is invalid: {'; '.join(faults)}")

    def check_change(self, old: dict, new: dict) -> None:
        kind, before, after = new["kind"], old.get("spec", {}), new.get("spec", {})
        changed = {field for field in before.keys() | after.keys() if before.get(field) != after.get(field)}
        stays = changed - MAY_CHANGE[kind] if kind in MAY_CHANGE else changed & MAY_NOT_CHANGE.get(kind, set())
        if old.get("immutable") and old.get("data") != new.get("data"):
            stays = {"data"}
        if kind == "Secret" and old.get("type", "Opaque") != new.get("type", "Opaque"):
            stays = {"type"}
        if stays:
            raise Refusal(422, "Invalid", f"{kind} {new['metadata']['name']} is invalid: {sorted(stays)}: field is immutable")

    def delete(self, key: Key) -> None:
        item = self.get(key)
        self.record("DELETED", key, item)
        del self.objects[key]

    def record(self, event: str, key: Key, item: dict) -> None:
        item["metadata"]["resourceVersion"] = str(self.revision + 1)
        self.events.append((self.revision + 1, event, key, copy.deepcopy(item)))
        self.changed.notify_all()


def namespace_key(name: str) -> Key:
    return Key(Resource("", "v1", "namespaces"), "", name)


def selected(item: dict, selector: str) -> bool:
    """Whether an object's labels are as `a=b,c!=d,e in (f,g)` asks."""
    labels = item["metadata"].get("labels", {})
    for name, values in re.findall(r"(\S+) in \(([^)]*)\)", selector):
        if labels.get(name) not in values.split(","):
            return False
    for name, sign, value in re.findall(r"([^,=! ]+)\s*(!=|==?)\s*([^,]*)", selector):
        if (labels.get(name) == value) == (sign == "!="):
            return False
    return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two packets, and the second must not wait for an answer to the first.
    disable_nagle_algorithm = True
    cluster: Cluster

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: object, code: int = 200) -> None:
        text = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlparse(self.path)
        parts = url.path.strip("/").split("/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.cluster.requests.append(f"{self.command} {self.path}")
        try:
            if parts[0] in ("api", "apis") and len(parts) > (2 if parts[0] == "api" else 3):
                self.objects(parts, query, body)
            else:
                self.answer(self.discovery(parts))
        except Refusal as refusal:
            self.answer(refusal.status, refusal.status["code"])
        except BrokenPipeError:
            pass

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request

    def discovery(self, parts: list[str]) -> object:
        """What kinds there are, and what can be done with them."""
        kinds = self.cluster.kinds
        groups = sorted({(resource.group, resource.version) for resource in kinds})
        match parts:
            case ["objects"]:
                return list(self.cluster.objects.values())
            case ["requests"]:
                return self.cluster.requests
            case ["version"]:
                major, minor = self.cluster.version.split(".")
                return {"major": major, "minor": minor, "gitVersion": f"v{self.cluster.version}.0"}
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                entries = [(g, {"groupVersion": f"{g}/{v}", "version": v}) for g, v in groups if g]
                listed = [{"name": g, "versions": [entry], "preferredVersion": entry} for g, entry in entries]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case ["openapi", "v3"]:
                paths = [f"apis/{g}/{v}" if g else f"api/{v}" for g, v in groups]
                return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in paths}}
            case ["openapi", "v3", "api", version]:
                return self.openapi("", version)
            case ["openapi", "v3", "apis", group, version]:
                return self.openapi(group, version)
            case ["api", version]:
                return self.resources("", version)
            case ["apis", group, version]:
                return self.resources(group, version)
        raise Refusal(404, "NotFound", f"nothing is at {self.path}")

    def resources(self, group: str, version: str) -> dict:
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        listed = [
            {"name": resource.plural, "singularName": kind.lower(), "namespaced": kind != "Namespace", "kind": kind, "verbs": verbs}
            for resource, kind in self.cluster.kinds.items()
            if resource[:2] == (group, version)
        ]
        if not listed:
            raise Refusal(404, "NotFound", f"nobody registered {group}/{version}")
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}".strip("/"), "resources": listed}

    def openapi(self, group: str, version: str) -> dict:
        """As much as tells a client that the server validates fields and makes dry runs."""
        parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("fieldValidation", "dryRun")]
        paths = {}
        for resource, kind in self.cluster.kinds.items():
            if resource[:2] == (group, version):
                meaning = {"group": group, "version": version, "kind": kind}
                patch = {"responses": {}, "parameters": parameters, "x-kubernetes-group-version-kind": meaning}
                paths[f"/{resource.plural}"] = {"patch": patch}
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": self.cluster.version}, "paths": paths}

    def objects(self, parts: list[str], query: dict[str, str], body: bytes) -> None:
        group, version, *rest = parts[1:] if parts[0] == "apis" else ["", *parts[1:]]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource = Resource(group, version, rest[0])
        if resource not in self.cluster.kinds:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        key = Key(resource, namespace, rest[1] if len(rest) > 1 else "")
        if rest[2:] == ["log"]:
            self.answer("the log of a pod\n")
        elif self.command == "GET" and not key.name:
            self.watch(key, query) if query.get("watch") in ("true", "1") else self.list(key, query)
        else:
            with self.cluster.changed:
                self.answer(self.object(key, "dryRun" in query, body), 201 if self.command == "POST" else 200)

    def object(self, key: Key, dry: bool, body: bytes) -> dict:
        cluster = self.cluster
        match self.command:
            case "GET":
                return cluster.get(key)
            case "DELETE":
                cluster.delete(key)
                return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            case "POST":
                item = bodies.decoded(body)
                key = key._replace(name=item["metadata"]["name"])
                if key in cluster.objects:
                    raise Refusal(409, "AlreadyExists", f'{key.resource.plural} "{key.name}" already exists')
                return cluster.put(key, item, dry)
            case "PUT":
                cluster.get(key)
                return cluster.put(key, bodies.decoded(body), dry)
        how = self.headers["Content-Type"]
        if how == "application/apply-patch+yaml":
            # One who applies owns all fields here: what it leaves out is gone.
            return cluster.put(key, bodies.decoded(body), dry)
        return cluster.put(key, bodies.patched(cluster.get(key), json.loads(body), how), dry)

    def matches(self, sought: Key, query: dict[str, str], key: Key, item: dict) -> bool:
        name = re.search(r"metadata\.name=([^,]+)", query.get("fieldSelector", ""))
        return (
            key.resource == sought.resource
            and sought.namespace in ("", key.namespace)
            and (name is None or key.name == name[1])
            and selected(item, query.get("labelSelector", ""))
        )

    def list(self, sought: Key, query: dict[str, str]) -> None:
        with self.cluster.changed:
            items = [item for key, item in self.cluster.objects.items() if self.matches(sought, query, key, item)]
            kind, version = self.cluster.kinds[sought.resource], sought.resource.api_version
            metadata = {"resourceVersion": str(self.cluster.revision)}
            self.answer({"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items})

    def watch(self, sought: Key, query: dict[str, str]) -> None:
        """Tells of changes until the client leaves or its time is over."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def tell(event: str, item: dict) -> None:
            line = json.dumps({"type": event, "object": item}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        cluster = self.cluster
        end = time.monotonic() + min(float(query.get("timeoutSeconds", 60)), 60)
        with cluster.changed:
            at = int(query.get("resourceVersion") or 0)
            if query.get("sendInitialEvents") == "true":
                for key, item in cluster.objects.items():
                    if self.matches(sought, query, key, item):
                        tell("ADDED", item)
                at = cluster.revision
                metadata = {"resourceVersion": str(at), "annotations": {"k8s.io/initial-events-end": "true"}}
                meaning = {"kind": cluster.kinds[sought.resource], "apiVersion": sought.resource.api_version}
                tell("BOOKMARK", meaning | {"metadata": metadata})
            while time.monotonic() < end:
                for revision, event, key, item in cluster.events:
                    if revision > at and self.matches(sought, query, key, item):
                        tell(event, item)
                at = cluster.revision
                cluster.changed.wait(0.5)
            self.wfile.write(b"0\r\n\r\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="A Kubernetes API in memory")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", default=validate.VERSIONS[-1])
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--crd", action="append", default=[])
    arguments = parser.parse_args()
    kinds = {}
    api_version = ""
    for word in KINDS.split():
        if ":" in word:
            plural, kind = word.split(":")
            kinds[resource_of(api_version, plural)] = kind
        else:
            api_version = word
    for crd in arguments.crd:
        api_version, plural, kind = crd.split(":")
        kinds[resource_of(api_version, plural)] = kind
    cluster = Cluster(arguments.version, kinds)
    with cluster.changed:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": arguments.namespace}}
        cluster.put(namespace_key(arguments.namespace), namespace)
    Handler.cluster = cluster
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
