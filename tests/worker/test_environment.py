from pathlib import Path

import pytest

from keyreel.checkpoints import hub
from keyreel.worker.environment import of_models, of_system
from keyreel.worker.process import DECODE_PROCESS, ENGINE_PROCESS, GUARD_PROCESS
from tests.worker.conftest import Bench
from tests.worker.processes import children

SECRETS = {
    "KEYREEL_ADMIN_KEY": "id:THE-SECRET",
    "KEYREEL_DATABASE_URL": "postgresql://keyreel:THE-SECRET@db/keyreel",
    "KEYREEL_EXPANDER_KEY": "THE-SECRET",
    "KEYREEL_SECRET": "THE-SECRET of all processes",
    "AWS_SECRET_ACCESS_KEY": "THE-SECRET",
    "HF_TOKEN": "THE-SECRET",
    "HUGGING_FACE_HUB_TOKEN": "THE-SECRET",
    "PGPASSWORD": "THE-SECRET",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=THE-SECRET",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("secrets")
def test_secrets_are_not_inherited() -> None:
    assert "THE-SECRET" not in str((of_system(), of_models()))


def test_what_models_need_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"CC", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "https_proxy", "OMP_NUM_THREADS"}
    for name in needed:
        monkeypatch.setenv(name, "1")
    assert of_models().keys() >= needed | {"PATH"}
    assert of_system().keys().isdisjoint(needed)


def test_the_token_of_the_hub_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_own")
    assert hub.own_token() == "hf_own"
    hub.use_token("hf_given")
    assert hub.own_token() == "hf_given"
    hub.use_token(None)
    assert hub.own_token() == "hf_given"


@pytest.mark.slow
@pytest.mark.usefixtures("secrets")
async def test_no_process_of_a_worker_has_a_secret_in_its_environment(bench: Bench) -> None:
    async with bench.worker(model="demo", engine_process=ENGINE_PROCESS):
        await bench.output(await bench.submit(expand_prompt=True))
        commands = (ENGINE_PROCESS, DECODE_PROCESS, GUARD_PROCESS)
        for command in commands:
            (pid,) = children(command[-1])
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"PATH=" in environment
            assert b"THE-SECRET" not in environment
