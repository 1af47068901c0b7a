"""The LoRAs of a repository on a small hub."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import close_session, constants

from tests.fake_hub import MAIN, FakeHub
from tests.server.live import live_server


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("README.md", "style.safetensors", "pytorch_lora_weights.safetensors"):
        (tmp_path / name).write_bytes(b"1")
    repositories = {name: {MAIN: tmp_path} for name in ("studio/styles", "studio/gated")}
    with FakeHub(repositories, gated={"studio/gated": "hf_good"}).served() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub
        close_session()


@pytest.mark.usefixtures("hub")
def test_the_loras_of_a_repository_are_listed(http: httpx.Client) -> None:
    answer = http.get("/api/loras", params={"repository": "studio/styles"})
    assert (answer.status_code, answer.json()) == (200, ["pytorch_lora_weights.safetensors", "style.safetensors"])


def test_the_operators_token_opens_repositories_only_if_the_operator_allows_it(
    http: httpx.Client, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    answer = http.get("/api/loras", params={"repository": "studio/gated"})
    assert answer.status_code == 404
    assert "ask the operator to set KEYREEL_HUB_TOKEN_FOR_LORAS" in answer.json()["detail"]
    with live_server(tmp_path / "open", hub_token_for_loras=True) as server:
        answer = httpx.get(
            f"{server.url}/api/loras", params={"repository": "studio/gated"}, headers=server.headers, trust_env=False
        )
    assert answer.json() == ["pytorch_lora_weights.safetensors", "style.safetensors"]
    assert hub.log == []


@pytest.mark.parametrize(
    ("repository", "reason"),
    [
        ("studio/nothing", "studio/nothing is not on the hub, or private"),
        ("studio/gated", "studio/gated is gated"),
        ("../../etc", "A hub repository is named owner/name."),
        ("http://127.0.0.1/a", "A hub repository is named owner/name."),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_repository_that_cannot_be_read_is_answered_with_404(
    http: httpx.Client, repository: str, reason: str
) -> None:
    answer = http.get("/api/loras", params={"repository": repository})
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(reason)


def test_listing_needs_a_key(http: httpx.Client) -> None:
    answer = http.get("/api/loras", params={"repository": "studio/styles"}, headers={"Authorization": ""})
    assert answer.status_code == 401
