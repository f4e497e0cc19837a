"""deploy/kubernetes: production on Kubernetes, as far as it goes without a cluster."""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import LOG, Cluster, serve
from tests.support.commands import run
from tests.support.documents import blocks_of
from tests.support.places import (
    BOTH,
    KUBERNETES,
    OF_UVICORN,
    ONE,
    graceful_seconds,
    in_container,
    make_key,
    names_of,
    request,
    secrets_of,
    served,
    settings_told,
)
from tests.support.servers import certificates, debian_server, free_port, with_certificate
from tests.support.workspaces import ODD_ANSWERS, Workspace

Resources = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(params=["stg", "prd"])
def rendered(
    request: pytest.FixtureRequest, places: Workspace, programs: Path, tmp_path: Path
) -> tuple[str, Resources, Path]:
    """The environment, and all that its overlay makes, by kind and name; also as a file."""
    overlay = places.path / KUBERNETES / "overlays" / request.param
    file = tmp_path / "all.yaml"
    file.write_text(run(programs / "kubectl", "kustomize", overlay).output, encoding="utf-8")
    resources = {
        (item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(file.read_text())
    }
    return request.param, resources, file


def pods_of(resources: Resources) -> dict[str, dict[str, Any]]:
    """The template of each pod, by its kind."""
    return {
        kind: item["spec"]["template"]
        for (kind, _), item in resources.items()
        if kind in {"Deployment", "Job"}
    }


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


@pytest.mark.cloud
def test_pods_are_added_for_runs_too_where_that_is_wanted(
    places: Workspace, programs: Path, tmp_path: Path
) -> None:
    shutil.copytree(places.path / KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/prd"
    [component] = [
        block.text for block in blocks_of(places, f"{KUBERNETES}/README.md") if "scale-by-runs" in block.text
    ]
    with (overlay / "kustomization.yaml").open("a", encoding="utf-8") as file:
        file.write(component)
    made = yaml.safe_load_all(run(programs / "kubectl", "kustomize", overlay).output)
    [scaling] = [item["spec"]["metrics"] for item in made if item["kind"] == "HorizontalPodAutoscaler"]
    assert [metric["type"] for metric in scaling] == ["Resource", "Pods"]
    [at_most] = re.findall(r"^# AGENT_CONCURRENT_RUNS=(\d+)$", places.read("example.env"), re.MULTILINE)
    assert scaling[1]["pods"]["target"]["averageValue"] == int(at_most) * 6 // 10


@pytest.mark.cloud
def test_prometheus_reaches_the_port_of_metrics_where_that_is_wanted(
    bake: Callable[..., Workspace], programs: Path, tmp_path: Path
) -> None:
    workspace = bake(**BOTH, use_prometheus=True)
    shutil.copytree(workspace.path / KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/prd"
    [component] = [
        block.text
        for block in blocks_of(workspace, f"{KUBERNETES}/README.md")
        if "components/prometheus" in block.text
    ]
    with (overlay / "kustomization.yaml").open("a", encoding="utf-8") as file:
        file.write(component)
    made = list(yaml.safe_load_all(run(programs / "kubectl", "kustomize", overlay).output))
    known = tmp_path / "known.yaml"
    known.write_text(
        yaml.safe_dump_all(item for item in made if item["kind"] != "PodMonitor"), encoding="utf-8"
    )
    run(programs / "kubernetes-validate", "--strict", "--version", "1.37", known)
    resources = {(item["kind"], item["metadata"]["name"]): item for item in made}
    pod = resources["Deployment", "app"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    settings = {item["name"]: item["value"] for item in container["env"]}
    assert set(settings) <= settings_told(workspace)
    [port] = [port for port in container["ports"] if port["name"] == "metrics"]
    assert settings["OTEL_EXPORTER_PROMETHEUS_PORT"] == str(port["containerPort"])
    monitor = resources["PodMonitor", "app"]["spec"]
    policy = resources["NetworkPolicy", "from-prometheus"]["spec"]
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == ["metrics"]
    assert [port["port"] for port in policy["ingress"][0]["ports"]] == ["metrics"]
    for selector in (monitor["selector"], policy["podSelector"]):
        assert matches(selector, pod["metadata"]["labels"])
    # Nobody else does.
    assert "metrics" not in str(resources["Service", "app"]) + str(resources["Ingress", "app"])


@pytest.mark.cloud
def test_manifests_are_valid_and_take_no_right_too_many(
    rendered: tuple[str, Resources, Path], places: Workspace, programs: Path
) -> None:
    environment, resources, file = rendered
    for version in ("1.30", "1.37"):
        run(programs / "kubernetes-validate", "--strict", "--version", version, file)
    names = names_of(places)
    namespace = names["Names"].of(environment).service
    assert ("Namespace", namespace) in resources
    assert {
        item["metadata"]["namespace"] for (kind, _), item in resources.items() if kind != "Namespace"
    } == {namespace}
    assert "Secret" not in {kind for kind, _ in resources}, "their values don't belong here"
    pods = pods_of(resources)
    assert set(pods) == {"Deployment", "Job"}
    for pod in (template["spec"] for template in pods.values()):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("emptyDir" in volume for volume in pod["volumes"])
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"].startswith(f"registry.example.com/{names['SLUG']}@sha256:")
        assert container["resources"]["limits"]["memory"]
    image = {template["spec"]["containers"][0]["image"] for template in pods.values()}
    assert len(image) == 1, "what migrates and what serves are one version"


@pytest.mark.cloud
def test_what_manifests_refer_to_is_there(rendered: tuple[str, Resources, Path], places: Workspace) -> None:
    environment, resources, _ = rendered
    pods = pods_of(resources)
    app, migrate = pods["Deployment"], pods["Job"]
    (settings,) = [item["data"] for (kind, _), item in resources.items() if kind == "ConfigMap"]
    assert set(settings) <= settings_told(places) | OF_UVICORN
    assert settings["RUNTIME_ENV"] == environment
    assert settings["DB_DATABASE"] == names_of(places)["DATABASE"]
    for template in pods.values():
        (container,) = template["spec"]["containers"]
        (config,) = [
            source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source
        ]
        assert ("ConfigMap", config) in resources
        assert ("ServiceAccount", template["spec"]["serviceAccountName"]) in resources
    assert secrets_of([app]) == {"database-app", "model-key"}
    assert secrets_of([migrate]) == {"database-migrator"}, "only it may change tables"
    assert migrate["spec"]["containers"][0]["args"] == "alembic -c db/alembic.ini upgrade head".split()

    own, others = app["metadata"]["labels"], migrate["metadata"]["labels"]
    deployment, service = resources["Deployment", "app"]["spec"], resources["Service", "app"]["spec"]
    for selector in (
        {"matchLabels": service["selector"]},
        deployment["selector"],
        resources["PodDisruptionBudget", "app"]["spec"]["selector"],
        resources["NetworkPolicy", "from-ingress"]["spec"]["podSelector"],
        *(spread["labelSelector"] for spread in app["spec"]["topologySpreadConstraints"]),
    ):
        assert matches(selector, own)
        assert not matches(selector, others)
    for name in ("nothing-else", "to-database-and-models"):
        selector = resources["NetworkPolicy", name]["spec"]["podSelector"]
        assert matches(selector, own)
        assert matches(selector, others)
        assert not matches(selector, {"app.kubernetes.io/component": "database"}), (
            "others have pods there too"
        )
    (egress,) = resources["NetworkPolicy", "to-database-and-models"]["spec"]["egress"]
    assert {(port.get("protocol", "TCP"), port["port"]) for port in egress["ports"]} == {
        ("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", int(settings["DB_PORT"])),
    }  # fmt: skip
    assert "to" not in egress
    (container,) = app["spec"]["containers"]
    (port,) = container["ports"]
    assert service["ports"][0]["targetPort"] == port["name"]
    backend = resources["Ingress", "app"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["name"]) == ("app", service["ports"][0]["name"])
    rule, tls = resources["Ingress", "app"]["spec"]["rules"][0], resources["Ingress", "app"]["spec"]["tls"][0]
    assert tls["hosts"] == [rule["host"]]
    assert resources["Ingress", "app"]["spec"]["ingressClassName"]
    scaling = resources["HorizontalPodAutoscaler", "app"]["spec"]
    assert ("Deployment", scaling["scaleTargetRef"]["name"]) in resources
    assert "replicas" not in deployment, "each deployment would undo what the autoscaler did"
    assert scaling["minReplicas"] >= (2 if environment == "prd" else 1)
    assert {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")} == {
        "startup": "/health", "liveness": "/health", "readiness": "/ready",
    }  # fmt: skip
    left = (
        app["spec"]["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    )
    assert left > graceful_seconds(places)
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0

    pool = re.search(r"^CONNECTIONS = (\d+)$", places.read("chassis/database/engine.py"), re.MULTILINE)
    assert pool
    pods_at_most = scaling["maxReplicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    connections = pods_at_most * int(pool[1])
    # PostgreSQL's own default, without those that it keeps for superusers; some for the job and for people.
    assert connections <= 100 - 3 - 5
    if environment == "prd":
        there = re.sub(r"\s+", " ", places.read(f"{KUBERNETES}/README.md"))
        assert f"up to {pool[1]} connections" in there
        assert f": {connections} in prd" in there


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with serve(tmp_path) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("places", "rendered"), [({}, "stg"), (ODD_ANSWERS[1], "prd")], ids=["default", "odd"], indirect=True
)
@pytest.mark.cloud
def test_only_what_has_migrated_is_rolled_out(
    rendered: tuple[str, Resources, Path],
    places: Workspace,
    programs: Path,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    """deploy.sh and the README's `kubectl diff`, with a real kubectl: from a first deployment that fails on."""
    environment, resources, _ = rendered
    folder = Path(shutil.copytree(places.path / KUBERNETES, tmp_path / "kubernetes"))
    settings = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "KUBECONFIG": str(cluster.config)}

    def deploy(outcome: str | None) -> tuple[int, str, list[str]]:
        cluster.outcome, cluster.done = outcome, []
        done = run(folder / "deploy.sh", environment, cwd=tmp_path, env=settings, check=False, timeout=60)
        return done.code, done.output, cluster.done

    code, printed, done = deploy("Failed")
    assert code == 1
    assert printed.endswith(
        f"{LOG}\nthe reason of its end\nThe migration failed. The service is as it was.\n"
    )
    namespace = names_of(places)["Names"].of(environment).service
    assert f"kubectl --namespace {namespace} logs --follow job/migrate\n" in printed
    # All is there that the job needs, and nothing that would roll.
    there = {(item["kind"], item["metadata"]["name"]) for item in cluster.kept.values()}
    assert resources.keys() - there == {("Deployment", "app"), ("HorizontalPodAutoscaler", "app")}
    assert {item["metadata"].get("namespace", namespace) for item in cluster.kept.values()} == {namespace}

    code, printed, done = deploy("Complete")
    assert code == 0, printed
    steps = ["DELETE jobs/migrate", "POST jobs/migrate", "ended", "POST deployments/app"]
    assert [step for step in done if step in steps] == steps
    assert LOG in printed
    assert 'deployment "app" successfully rolled out' in printed

    overlay = folder / "overlays" / environment / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("sha256:0000", "sha256:1111"))
    (difference,) = re.findall(r"^kubectl diff .*$", places.read(f"{KUBERNETES}/README.md"), re.MULTILINE)
    words = shlex.split(difference.replace("/prd", f"/{environment}"))
    shown = run(*words, cwd=folder, env=settings, check=False)
    assert shown.code == 1, "not that there are differences"
    assert "-        image" in shown.output
    code, printed, done = deploy("Failed")
    assert code == 1
    assert not [step for step in done if step.endswith("deployments/app")]

    cluster.ready = False
    code, printed, done = deploy("Complete")
    assert code == 1
    assert done[:1] == ["DELETE jobs/migrate"]
    assert "PATCH deployments/app" in done[done.index("ended") :]
    assert "exceeded its progress deadline" in printed

    job = cluster.kept[next(path for path in cluster.kept if path.endswith("/jobs/migrate"))]
    job["status"] = {"active": 1}
    code, printed, done = deploy(None)
    assert (code, done) == (1, [])
    assert f"kubectl --namespace {namespace} delete job migrate\n" in printed


@ONE
def test_what_is_deployed_must_be_named(places: Workspace) -> None:
    script = places.path / KUBERNETES / "deploy.sh"
    for arguments in ([], ["dev"], ["stg", "prd"]):
        # Without kubectl, or anything else, on PATH.
        done = run("/bin/sh", script, *arguments, env={"PATH": ""}, check=False)
        assert (done.code, done.output) == (2, f"usage: {script} stg|prd\n")


@pytest.mark.parametrize("rendered", ["prd"], indirect=True)
@ONE
@pytest.mark.cloud
def test_job_and_deployment_do_their_work_as_they_are_configured(
    rendered: tuple[str, Resources, Path], bake: Callable[..., Workspace], installed: Workspace
) -> None:
    """The job's command and both environments, on a real database with two roles, passwords and TLS."""
    _, resources, _ = rendered
    # Debian's server has no pgvector; the one in the wheel has no TLS.
    workspace = bake(use_knowledge=False)
    (workspace.path / ".venv").symlink_to(installed.path / ".venv")
    (settings,) = [item["data"] for (kind, _), item in resources.items() if kind == "ConfigMap"]
    app = {"DB_USER": "app", "DB_PASS": "apps"}
    migrator = {"DB_USER": "migrator", "DB_PASS": "migrators"}
    with (
        certificates("server") as folder,
        debian_server(settings=with_certificate(folder / "server.pem")) as server,
    ):
        own = {"DB_HOST": server.host, "DB_PORT": str(server.port), "DB_DATABASE": server.new_database().name}
        settings |= own
        roles = {f"MIGRATE_{name}": value for name, value in migrator.items()}
        admin = {"ADMIN_DB_USER": server.user, "ADMIN_DB_PASS": server.password or ""}
        env = in_container(workspace, {**settings, **app, **roles, **admin})
        workspace.run("python", "-m", "chassis", "roles", env=env)
        job = [
            workspace.path / "scripts/entrypoint.sh",
            *pods_of(resources)["Job"]["spec"]["containers"][0]["args"],
        ]
        refused = run(*job, cwd=workspace.path, env=in_container(workspace, {**settings, **app}), check=False)
        assert refused.code != 0, "the service's role may change tables"
        done = run(*job, cwd=workspace.path, env=in_container(workspace, {**settings, **migrator}))
        assert "Running upgrade" in done.output
        serving = {**settings, **app, "OPENAI_API_KEY": "x"}
        with served(workspace, port := free_port(), serving):
            assert request(port, "GET", "/v1/agents", key=make_key(workspace, serving)) == 200
            encrypted = "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            assert server.rows(f"{encrypted} WHERE usename = 'app'") == [(True,)]
