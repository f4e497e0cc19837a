"""A stand-in for a cluster, as much of its API as kubectl needs: it keeps what it is given, and jobs end in it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.support.servers import http_server

KINDS = {
    "api/v1": {"Namespace": "namespaces", "ServiceAccount": "serviceaccounts", "ConfigMap": "configmaps"}
    | {"Service": "services", "Pod": "pods"},
    "apis/apps/v1": {"Deployment": "deployments"},
    "apis/batch/v1": {"Job": "jobs"},
    "apis/autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "apis/policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "apis/networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
}
POD = {"metadata": {"name": "migrate-1"}, "spec": {"containers": [{"name": "migrate"}]}}
LOG = "Running upgrade  -> 1, what the job says"


def discovery() -> dict[str, Any]:
    """What there is, by path. The description of all kinds says just that the server checks fields itself."""
    described: dict[str, Any] = {}
    groups: list[dict[str, Any]] = []
    answers: dict[str, Any] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/openapi/v3": {"paths": {path: {"serverRelativeURL": "/openapi/v3/all"} for path in KINDS}},
        "/openapi/v3/all": {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": described},
    }
    for path, kinds in KINDS.items():
        group, _, version = path.partition("/")[2].rpartition("/")
        both = {"groupVersion": f"{group}/{version}".lstrip("/"), "version": version}
        if group:
            groups.append({"name": group, "versions": [both], "preferredVersion": both})
        resources = [
            {"name": plural, "singularName": kind.lower(), "kind": kind, "verbs": ["get"]}
            | {"namespaced": kind != "Namespace"}
            for kind, plural in kinds.items()
        ]
        answers[f"/{path}"] = {"kind": "APIResourceList", "apiVersion": "v1", "resources": resources, **both}
        for kind in kinds:
            what = {"group": group, "version": version, "kind": kind}
            parameters = [{"name": "fieldValidation", "in": "query"}]
            described[f"/{kind}"] = {
                "patch": {"x-kubernetes-group-version-kind": what, "parameters": parameters}
            }
    return answers


@dataclass
class Cluster:
    """What is in it, by path, and what was done, in order: writes, and a job's end as `ended`."""

    config: Path
    # How jobs end, Complete or Failed; None while they run on. And whether pods become ready.
    outcome: str | None = "Complete"
    ready: bool = True
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, Any]:
        path, _, query = url.partition("?")
        what = "/".join(path.split("/")[-2:])
        if path in (known := discovery()):
            return 200, known[path]
        if method == "GET" and path.endswith("/pods"):
            return 200, {"kind": "PodList", "apiVersion": "v1", "items": [POD]}
        if method == "GET" and path.endswith("/deployments") and "watch=" not in query:
            items = [item for key, item in self.kept.items() if key.startswith(path)]
            return 200, {"kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": {}, "items": items}
        if path.endswith("/log"):
            return 200, f"{LOG}\n".encode()
        if method == "POST":
            item = json.loads(body)
            return self.write(f"{path}/{item['metadata']['name']}", item, method, query)
        if path not in self.kept:
            return failure(404, "NotFound", f"there is no {what}")
        item = self.kept[path]
        if method == "PATCH":
            change = json.loads(body)
            if what == "jobs/migrate" and "template" in change.get("spec", {}):
                return failure(422, "Invalid", "a job's template can't be changed")
            return self.write(path, merged(item, change), method, query)
        if method == "DELETE":
            self.done.append(f"DELETE {what}")
            return 200, self.kept.pop(path)
        if what == "jobs/migrate" and self.outcome and "conditions" not in item["status"]:
            if item["status"]:
                self.done.append("ended")
                condition = {"type": self.outcome, "status": "True", "message": "the reason of its end"}
                item["status"] = {"conditions": [condition]}
            else:
                # It is seen running once.
                item["status"] = {"active": 1}
        return 200, item

    def write(self, path: str, item: dict[str, Any], method: str, query: str) -> tuple[int, Any]:
        item["metadata"]["uid"] = "1"
        if item["kind"] == "Job":
            item["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": "1"}}
            item["status"] = {}
        if item["kind"] == "Deployment":
            late = [] if self.ready else [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]
            item["status"] = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "conditions": late}
        if "dryRun" not in query:
            self.kept[path] = item
            self.done.append(f"{method} {'/'.join(path.split('/')[-2:])}")
        return 200, item


def merged(old: Any, change: Any) -> Any:
    """Merge as Kubernetes does, as far as the manifests need it: what is in a list is known by its name."""
    if isinstance(change, list) and change and "name" in change[0]:
        there = {item["name"]: item for item in old or []}
        there |= {item["name"]: merged(there.get(item["name"]), item) for item in change}
        return list(there.values())
    if not isinstance(change, dict):
        return change
    changed = {key: merged((old or {}).get(key), value) for key, value in change.items() if key[0] != "$"}
    return {key: value for key, value in {**(old or {}), **changed}.items() if value is not None}


def failure(code: int, reason: str, message: str) -> tuple[int, Any]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code} | {
        "reason": reason,
        "message": message,
    }


@contextmanager
def serve(folder: Path) -> Iterator[Cluster]:
    """Run an empty cluster; its file `config` leads kubectl to it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                status, answer = cluster.answer(self.command, self.path, body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 -- the names that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    cluster, lock = Cluster(folder / "config"), threading.Lock()
    with http_server(Handler) as port:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        cluster.config.write_text(json.dumps(config), encoding="utf-8")
        yield cluster
