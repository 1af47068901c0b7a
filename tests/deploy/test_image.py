"""The container images. `make image` builds them."""

import json
import os
import re
import subprocess
from fnmatch import fnmatch

import pytest

from keyreel.version import __version__
from tests.deploy.files import DEPLOY, EVERYWHERE, ROOT, command_values, gateway_paths, worker_paths
from tests.deploy.test_compose import OURS

LINES = re.sub(r"\\\n", "", (DEPLOY / "Containerfile").read_text()).splitlines()
CONTEXT = (ROOT / ".dockerignore").read_text().splitlines()
TARGETS = ("gateway", "worker")

each_target = pytest.mark.parametrize("target", TARGETS)


def stages() -> dict[str, list[str]]:
    """Returns the instructions of each stage, after those of the stage that it starts from."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in LINES:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            found[name] = list(found.get(match[1], []))
        elif name and line and not line.startswith("#"):
            found[name].append(line.strip())
    return found


def last(target: str, instruction: str) -> str:
    return [line for line in stages()[target] if line.startswith(instruction)][-1].removeprefix(instruction).strip()


def command(target: str) -> list[str]:
    arguments: list[str] = json.loads(last(target, "CMD"))
    return arguments


@each_target
def test_image_runs_a_command_without_privileges(target: str) -> None:
    assert json.loads(last(target, "ENTRYPOINT")) == ["keyreel"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(target, "USER")), "Kubernetes checks that the number is not 0"
    values = command_values(command(target))
    assert values["host"] == EVERYWHERE, "a container must be reachable"
    assert values["port"] == int(last(target, "EXPOSE"))


def test_gateway_has_no_worker_and_no_engine() -> None:
    assert not command_values(command("gateway"))["worker"]
    packages = "\n".join(stages()["gateway-packages"])
    assert "pip" in packages
    assert "[engine]" not in packages
    assert last("gateway", "COPY") == "--from=gateway-packages /opt/keyreel /opt/keyreel"
    assert "[engine]" in "\n".join(stages()["worker-packages"])


@each_target
def test_health_check_asks_a_route_of_the_image(target: str) -> None:
    (port, path) = re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", last(target, "HEALTHCHECK"))[0]
    assert port == last(target, "EXPOSE")
    assert path in {"gateway": gateway_paths(), "worker": worker_paths()}[target]


def test_versions_are_pinned() -> None:
    for name in ("gateway-packages", "worker-packages"):
        assert any("PIP_CONSTRAINT=/src/constraints.txt" in line for line in stages()[name])
    assert "--constraint constraints.txt" in "\n".join(stages()["wheel"])


@pytest.mark.parametrize(("target", "lock"), [("gateway-packages", "gateway"), ("worker-packages", "engine")])
def test_hashes_are_checked(target: str, lock: str) -> None:
    """The lock comes first, so what the wheel needs is installed when the wheel is."""
    (run,) = [line for line in stages()[target] if line.startswith("RUN") and f"{lock}.txt" in line]
    assert "--only-binary" not in run  # PIP_ONLY_BINARY says it
    assert run.index("--require-hashes --requirement /src/locks/") < run.index("/wheels/*.whl")


def test_copied_files_exist_and_are_sent_to_the_builder() -> None:
    for line in [*stages()["wheel"], *stages()["gateway-packages"]]:
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in CONTEXT
    assert CONTEXT[1] == "*"
    assert any(fnmatch("web/node_modules", line) for line in CONTEXT)


def test_build_script_is_a_shell_script_that_builds_both() -> None:
    script = DEPLOY / "image.sh"
    subprocess.run(["sh", "-n", script], check=True)
    assert f"TARGETS:-{' '.join(TARGETS)}" in script.read_text()


@each_target
def test_build_script_sets_the_tag_that_compose_uses(target: str) -> None:
    environment = os.environ | {"BUILDER": "echo", "TARGETS": target}
    done = subprocess.run(["sh", DEPLOY / "image.sh"], env=environment, capture_output=True, text=True, check=True)
    (image,) = {service["image"] for service in OURS.values() if target in service["image"]}
    assert f" --tag {image.replace('${VERSION:-latest}', 'latest')} " in done.stdout
    assert f" --tag keyreel-{target}:{__version__} " in done.stdout
