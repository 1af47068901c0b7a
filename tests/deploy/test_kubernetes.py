"""The manifests for Kubernetes, as `kubectl kustomize` builds them. No cluster is asked."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from sqlalchemy import text

from keyreel.actors import KILL_MARGIN
from keyreel.fal.outcomes import CANCELLED
from keyreel.server.startup import check_fleet
from keyreel.settings import Settings
from keyreel.store import open_store
from tests.deploy.files import DEPLOY, EVERYWHERE, SETTINGS, command_values, gateway_paths, load, walk, worker_paths
from tests.store.steps import claim, submit

FOLDER = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
BUILDS = [f"overlays/{name}" for name in OVERLAYS] + ["migrate", "models"]
OLDEST = "1.29"
"""The oldest version of Kubernetes that the manifests are checked against."""
SECRETS = {"KEYREEL_DATABASE_URL", "KEYREEL_SECRET", "KEYREEL_ADMIN_KEY"}
"""What docs/fleet.md puts into the secret `keyreel`, beside the credentials of the bucket."""
KEDA = {kind: Draft202012Validator(schema) for kind, schema in load(Path(__file__).with_name("keda.yaml")).items()}

Documents = list[dict[str, Any]]

each_overlay = pytest.mark.parametrize("build", [f"overlays/{name}" for name in OVERLAYS])


def kustomize_version(kubectl: str) -> int:
    command = [kubectl, "version", "--client", "--output=json"]
    version = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return int(version.get("kustomizeVersion", "v0").removeprefix("v").partition(".")[0])


@pytest.fixture(scope="module")
def built() -> dict[str, Documents]:
    """The documents of each build."""
    kubectl = shutil.which("kubectl")
    if not kubectl or kustomize_version(kubectl) < 5:
        pytest.skip("kubectl 1.27 or later is not installed")
    found = {}
    for build in BUILDS:
        command = [kubectl, "kustomize", str(FOLDER / build)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[build] = list(yaml.safe_load_all(done.stdout))
    return found


def of_kind(documents: Documents, kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pods(documents: Documents) -> Iterator[dict[str, Any]]:
    """Yields the specs of all pods."""
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            yield document["spec"]["template"]["spec"]


def deployment(documents: Documents, name: str) -> dict[str, Any]:
    found: dict[str, Any] = of_kind(documents, "Deployment")[name]["spec"]["template"]["spec"]
    return found


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_documents_have_the_fields_of_their_kind(built: dict[str, Documents], build: str, version: str) -> None:
    for document in built[build]:
        if validator := KEDA.get(document["kind"]):
            validator.validate(document)
        else:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("build", BUILDS)
def test_pods_keep_the_restricted_standard(built: dict[str, Documents], build: str) -> None:
    for pod in pods(built[build]):
        context = pod["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] == context["fsGroup"] == 10001, "the user of the images"
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        own = container(pod)["securityContext"]
        assert own == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert container(pod)["resources"]["limits"]["memory"]
        assert "/var/lib/keyreel" in {mount["mountPath"] for mount in container(pod)["volumeMounts"]}


@pytest.mark.parametrize("build", BUILDS)
def test_commands_exist_and_listen_on_their_port(built: dict[str, Documents], build: str) -> None:
    for pod in pods(built[build]):
        values = command_values(container(pod)["args"])
        for port in container(pod).get("ports", ()):
            assert values["port"] == port["containerPort"]
            assert values["host"] == EVERYWHERE


@each_overlay
def test_probes_ask_routes(built: dict[str, Documents], build: str) -> None:
    for name, known in (("keyreel-gateway", gateway_paths()), ("keyreel-worker", worker_paths())):
        own = container(deployment(built[build], name))
        ports = {port["name"] for port in own["ports"]}
        probes = {key: value["httpGet"] for key, value in own.items() if key.endswith("Probe")}
        assert probes.keys() == {"startupProbe", "livenessProbe", "readinessProbe"}
        assert all(probe["path"] in known and probe["port"] in ports for probe in probes.values())
        assert probes["livenessProbe"]["path"] == "/health/live", "an outage of the database must restart nothing"


@each_overlay
def test_settings_and_secrets_make_a_fleet(
    built: dict[str, Documents], build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = of_kind(built[build], "ConfigMap").values()
    assert {key for key in config["data"] if not key.startswith("AWS_")} <= SETTINGS
    for name in ("keyreel-gateway", "keyreel-worker"):
        own = container(deployment(built[build], name))
        assert own["envFrom"] == [
            {"configMapRef": {"name": config["metadata"]["name"]}},
            {"secretRef": {"name": "keyreel"}},
        ]
        assert {entry["name"] for entry in own.get("env", ())} <= SETTINGS
    assert SECRETS <= SETTINGS
    for key, value in config["data"].items() | {(name, f"postgresql://a:b@c/{name}") for name in SECRETS}:
        monkeypatch.setenv(key, value)
    check_fleet(Settings())


@each_overlay
def test_pods_have_time_to_stop(built: dict[str, Documents], build: str) -> None:
    worker = deployment(built[build], "keyreel-worker")
    (grace,) = (float(entry["value"]) for entry in container(worker)["env"] if entry["name"] == "KEYREEL_GRACE")
    assert worker["terminationGracePeriodSeconds"] >= grace + KILL_MARGIN
    gateway = deployment(built[build], "keyreel-gateway")
    _, pause = container(gateway)["lifecycle"]["preStop"]["exec"]["command"]
    assert gateway["terminationGracePeriodSeconds"] >= float(pause) + Settings().grace


@each_overlay
def test_selectors_match_one_deployment(built: dict[str, Documents], build: str) -> None:
    labels = {
        name: document["spec"]["template"]["metadata"]["labels"]
        for name, document in of_kind(built[build], "Deployment").items()
    }
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        for name, document in of_kind(built[build], kind).items():
            spec = document["spec"]
            selector = spec.get("podSelector", spec.get("selector"))
            wanted = selector.get("matchLabels", selector)
            matched = {other for other, own in labels.items() if wanted.items() <= own.items()}
            assert matched == (set(labels) if name == "keyreel-default" else {name})
            assert wanted["app.kubernetes.io/name"] == "keyreel", "other programs of the namespace are not ours"


@each_overlay
def test_named_ports_volumes_and_targets_exist(built: dict[str, Documents], build: str) -> None:
    documents = built[build]
    ports = {port["name"] for pod in pods(documents) for port in container(pod)["ports"]}
    (service,) = of_kind(documents, "Service").values()
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    claims = {part["claimName"] for part in walk(documents) if "claimName" in part}
    assert claims == set(of_kind(documents, "PersistentVolumeClaim"))
    targets = {part["scaleTargetRef"]["name"] for part in walk(documents) if "scaleTargetRef" in part}
    assert targets <= set(of_kind(documents, "Deployment"))
    for name in targets:
        assert "replicas" not in of_kind(documents, "Deployment")[name]["spec"], "the autoscaler decides"


def test_jobs_use_the_namespace_and_the_volumes_of_the_fleet(built: dict[str, Documents]) -> None:
    (namespace,) = of_kind(built["overlays/production"], "Namespace")
    for build in ("migrate", "models"):
        (job,) = built[build]
        assert job["metadata"]["namespace"] == namespace
    assert container(next(pods(built["migrate"])))["args"] == ["migrate"]
    claims = {part["claimName"] for part in walk(built["models"]) if "claimName" in part}
    assert claims == set(of_kind(built["overlays/production"], "PersistentVolumeClaim"))


def test_overlays_differ_in_how_they_scale(built: dict[str, Documents]) -> None:
    assert not {"ScaledObject", "HorizontalPodAutoscaler"} & {
        document["kind"] for document in built["overlays/one-gpu"]
    }
    for name, least in (("production", 1), ("scale-to-zero", 0)):
        (scaled,) = of_kind(built[f"overlays/{name}"], "ScaledObject").values()
        assert scaled["spec"]["minReplicaCount"] == least
        (authentication,) = of_kind(built[f"overlays/{name}"], "TriggerAuthentication").values()
        (trigger,) = scaled["spec"]["triggers"]
        assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
        assert authentication["spec"]["secretTargetRef"][0]["key"] in SETTINGS


async def test_the_pool_is_sized_by_waiting_and_running_requests(database: str) -> None:
    """A query by waiting requests alone would take workers away while they work."""
    (trigger,) = next(iter(yaml.safe_load_all((FOLDER / "keda" / "scale.yaml").read_text())))["spec"]["triggers"]
    async with open_store(database) as store:
        for _ in range(4):
            await submit(store)
        await submit(store, pool="other")
        await claim(store)
        await store.queue.finish(await claim(store), CANCELLED)
        async with store.database.read() as connection:
            assert await connection.scalar(text(trigger["metadata"]["query"])) == 3, "two wait and one runs"
    assert re.fullmatch(r"\d+", trigger["metadata"]["targetQueryValue"])
