import json
from dataclasses import dataclass, field

import pytest

from keyreel.fal.schema import Request
from keyreel.safety.provenance import metadata, without_secrets
from keyreel.video.canvas import Size
from keyreel.video.job import Job, Prepared, Sampling
from keyreel.video.recipes import Capabilities


@dataclass(frozen=True)
class Model:
    name: str = "demo"
    fingerprint: str = "f" * 64
    capabilities: Capabilities = field(default_factory=lambda: Capabilities(upsampler="a" * 64))


def prepared(prompt: str = "a circle", recipe: Sampling = Sampling()) -> Prepared:  # noqa: B008 (it is frozen)
    job = Job(prompt, "", Size(480, 480), 9, 2, 25, 7, sampling=recipe)
    return Prepared(job, {"images.0": "b" * 64})


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://user:secret@example.com/a/b.png?signature=secret#x", "https://example.com/a/b.png"),
        ("http://example.com", "http://example.com"),
        ("data:image/png;base64,c2VjcmV0", "data:"),
        ("/home/somebody/private/b.png", "b.png"),
        ("owner/name", "owner/name"),
        ("pictures/b.png", "pictures/b.png"),
    ],
)
def test_secrets_are_removed_from_sources(source: str, shown: str) -> None:
    assert without_secrets(source) == shown


def test_metadata_says_how_the_video_was_made() -> None:
    request = Request.model_validate(
        {
            "prompt": "a circle",
            "images": [{"image_url": "https://example.com/a.png?token=secret"}],
            "loras": [{"path": "/private/style.safetensors"}],
        }
    )
    facts = json.loads(metadata(request, prepared(), Model())["comment"])
    assert facts["request"]["seed"] == 7
    assert facts["request"]["images"] == [{"image_url": "https://example.com/a.png"}]
    assert facts["request"]["loras"] == [{"path": "style.safetensors"}]
    assert facts["inputs"] == {"images.0": "b" * 64}
    assert facts["model"] == {"name": "demo", "sha256": "f" * 64}
    assert "expanded_prompt" not in facts
    assert request.images[0].image_url.endswith("token=secret")  # the request itself is unchanged


def test_metadata_names_the_weights_that_the_recipe_uses() -> None:
    facts = json.loads(metadata(Request(prompt="a"), prepared("a", Sampling("multiscale")), Model())["comment"])
    assert facts["model"]["upsampler"] == "a" * 64
    assert facts["sampling"]["recipe"] == "multiscale"


def test_metadata_has_both_the_given_and_the_expanded_prompt() -> None:
    facts = json.loads(metadata(Request(prompt="a circle"), prepared("a large circle"), Model())["comment"])
    assert (facts["request"]["prompt"], facts["expanded_prompt"]) == ("a circle", "a large circle")
