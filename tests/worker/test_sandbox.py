"""What contains the decoder. On a system without Landlock or seccomp, these tests are skipped."""

import base64
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyreel.errors import KeyreelError, RequestError
from keyreel.fal.schema import parse_request
from keyreel.media.limits import Limits
from keyreel.settings import Settings
from keyreel.video.canvas import Grid
from keyreel.video.job import InputFile
from keyreel.worker import landlock, seccomp
from keyreel.worker.inputs import Decoder, RetryableError
from keyreel.worker.messages import Decode
from keyreel.worker.sandbox import Layers, probe, require
from keyreel.worker.spool import pixels_folder
from tests.worker.conftest import Bench
from tests.worker.site import picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (landlock.version() and seccomp.is_offered()), reason="needs Landlock and seccomp"),
]
PICTURE = base64.b64encode(picture()).decode()
HOSTILE = (sys.executable, "-m", "tests.worker.hostile_decode_process")


def new_order(folder: Path, content: str) -> Decode:
    """Returns an order to decode one picture, which is a file with this content."""
    folder.mkdir()
    file = folder / "picture"
    file.write_text(content)
    settings = Settings()
    loc = ("images", 0, "image_url")
    return Decode(
        request=parse_request({"prompt": "a circle", "images": [{"image_url": "x"}]}),
        files=((loc, InputFile(file, "0" * 64, "picture")),),
        grid=Grid(64, 8),
        linears={},
        limits=Limits.from_settings(settings),
        sampling=settings.sampling("single"),
        folder=folder,
    )


@pytest.fixture
async def hostile() -> AsyncIterator[Decoder]:
    decoder = Decoder(HOSTILE)
    yield decoder
    await decoder.close()


@pytest.fixture
def secrets(tmp_path: Path) -> list[Path]:
    """The database, a key and another request's picture."""
    files = [tmp_path / name for name in ("keyreel.db", "links.key", "other/0.npy")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("secret")
    return files


async def test_a_decoder_that_was_taken_over_reaches_nothing(
    hostile: Decoder, secrets: list[Path], tmp_path: Path
) -> None:
    for name in ("first", "second"):
        with pytest.raises(RequestError) as caught:
            await hostile.decode(new_order(tmp_path / name, "\n".join(map(str, secrets))))
        assert caught.value.problems[0].message == ""
        assert (pixels_folder(tmp_path / name) / "own").exists()


def test_it_would_reach_all_of_it_if_it_were_not_contained(secrets: list[Path], tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "picture").touch()
    program = (
        "import sys; from pathlib import Path; from tests.worker.hostile_decode_process import reached; "
        "own, *targets = map(Path, sys.argv[1:]); print(*reached(targets, own, own.parent))"
    )
    arguments = [tmp_path / "first" / "picture", *secrets]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    everything = (
        "keyreel.db links.key 0.npy passwords environment root requests changed truncated removed planted link mode "
        "socket unix pair program fork kill trace limit"
    )
    assert set(everything.split()) <= set(done.stdout.split())


@pytest.mark.parametrize("prompt", ["a circle", "relabel"])
async def test_a_decoder_that_was_taken_over_cannot_name_other_files(tmp_path: Path, prompt: str) -> None:
    order = new_order(tmp_path / "first", "a picture")
    order = replace(order, request=order.request.model_copy(update={"prompt": prompt}))
    decoder = Decoder((sys.executable, "-m", "tests.worker.lying_decode_process"))
    try:
        with pytest.raises(RetryableError, match="a file that it was not given"):
            await decoder.decode(order)
    finally:
        await decoder.close()


def test_the_layers_hold_and_are_described() -> None:
    layers = probe()
    assert layers.files == landlock.version()
    assert layers.calls
    require(layers)
    assert "Landlock" in layers.describe()


def test_a_system_without_a_layer_is_refused() -> None:
    for layers in (Layers(0, calls=True, namespaces=True), Layers(7, calls=False, namespaces=True)):
        with pytest.raises(KeyreelError, match="KEYREEL_SANDBOX=required, but this system cannot contain"):
            require(layers)


async def test_a_worker_that_demands_the_sandbox_starts_with_it(bench: Bench) -> None:
    async with bench.worker(settings=bench.settings(sandbox="required")):
        await bench.output(await bench.submit(images=[{"image_url": f"data:image/png;base64,{PICTURE}"}]))
