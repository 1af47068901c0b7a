"""deploy/compose.yaml. No container is started."""

import re
from pathlib import Path
from typing import Any

import pytest

from keyreel.actors import KILL_MARGIN
from keyreel.server.startup import check_fleet
from keyreel.settings import Settings
from tests.deploy.files import DEPLOY, SETTINGS, command_values, load

PATH = DEPLOY / "compose.yaml"
COMPOSE = load(PATH)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("keyreel-")}
VARIABLE = re.compile(r"\$\{(\w+)(?::-(.*?)|:\?)\}")
VALUES = {"POSTGRES_PASSWORD": "p", "KEYREEL_SECRET": "s" * 32, "KEYREEL_ADMIN_KEY": "operator:s", "S3_PASSWORD": "s"}
"""What .env must hold."""

each_of_ours = pytest.mark.parametrize("name", OURS)


def filled(text: str) -> str:
    return VARIABLE.sub(lambda match: VALUES[match[1]] if match[2] is None else match[2], text)


def environment(name: str) -> dict[str, str]:
    return {key: filled(value) for key, value in SERVICES[name]["environment"].items()}


def seconds(time: str) -> float:
    return float(time.removesuffix("s"))


@each_of_ours
def test_settings_are_those_of_a_fleet(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = environment(name)
    assert {key for key in variables if not key.startswith("AWS_")} <= SETTINGS
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    check_fleet(Settings())


@each_of_ours
def test_service_is_restricted(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/var/lib/keyreel" in service["volumes"], "the data folder must be writable"


def test_commands_exist() -> None:
    for name in ("migrate", "worker"):
        command_values([filled(argument) for argument in SERVICES[name]["command"]])
    assert "command" not in SERVICES["gateway"], "the image's own is right"


def test_worker_has_time_to_drain() -> None:
    assert (
        seconds(SERVICES["worker"]["stop_grace_period"]) >= float(environment("worker")["KEYREEL_GRACE"]) + KILL_MARGIN
    )


def test_named_services_and_volumes_exist() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        volumes = (Path(volume).parts[0] for volume in service.get("volumes", ()))
        named = {volume.partition(":")[0] for volume in volumes if not volume.startswith("/")}
        assert named <= COMPOSE["volumes"].keys()
    hosts = set(re.findall(r"(?:@|//)([a-z0-9]+)[:/](?!/)", " ".join(environment("gateway").values())))
    assert {"postgres", "s3"} <= hosts


def test_all_variables_without_a_default_are_known() -> None:
    assert {match[0] for match in VARIABLE.findall(PATH.read_text()) if not match[1]} >= VALUES.keys()
