"""The file of a checkpoint: its tokens as safetensors, with a header that tells which video they belong to.

Only where everything in the header is the same does the denoising go on to the same bytes. The engine process writes
the file, and the supervisor of a later attempt compares the header before the device is free.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from keyreel.video.events import Checkpoint
from keyreel.video.job import Job
from keyreel.worker.messages import Ready

FORMAT = "1"
_TENSOR = "tokens"


class UnusableCheckpointError(Exception):
    """The checkpoint cannot be used. The message tells why."""


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that was read from its file, with its header."""

    header: Mapping[str, str]
    checkpoint: Checkpoint

    @property
    def prompt(self) -> str:
        """The prompt that the video is made of, expanded if the request asked for that."""
        return self.header["prompt"]

    def check(self, identity: Mapping[str, str]) -> None:
        """Raises UnusableCheckpointError if the checkpoint is of another video, or of another kind of machine."""
        for name, value in identity.items():
            if self.header.get(name) != value:
                raise UnusableCheckpointError(f"it has another {name}")


def identity_of(metadata: Mapping[str, str], job: Job, model: Ready) -> dict[str, str]:
    """Returns what has to be the same for two runs to make the same video.

    metadata: the video's. It contains the request, the hashes of its inputs and the version of Keyreel.
    """
    return {
        "request": _sha256(_encoded(metadata)),
        "prompt": job.prompt,
        "recipe": job.sampling.recipe,
        "loras": json.dumps([(adapter.sha256, adapter.scale) for adapter in job.adapters]),
        "model": model.fingerprint,
        **model.traits,
    }


def write_checkpoint(checkpoint: Checkpoint, identity: Mapping[str, str], path: Path) -> None:
    tokens = np.ascontiguousarray(checkpoint.tokens())
    header = {"format": FORMAT, **identity, "pass": str(checkpoint.index), "step": str(checkpoint.step)}
    save_file({_TENSOR: tokens}, path, header | {"sha256": _digest(header, tokens)})


def read_checkpoint(path: Path) -> SavedCheckpoint:
    """Raises UnusableCheckpointError if the file is damaged or has another format."""
    try:
        with safe_open(path, "numpy") as file:
            header, tokens = dict(file.metadata() or {}), file.get_tensor(_TENSOR)
    except (SafetensorError, OSError) as error:
        raise UnusableCheckpointError(f"its file cannot be read: {error}") from error
    if header.get("format") != FORMAT:
        raise UnusableCheckpointError("it has another format")
    if header.pop("sha256", None) != _digest(header, tokens):
        raise UnusableCheckpointError("its file is damaged")
    return SavedCheckpoint(header, Checkpoint(int(header["pass"]), int(header["step"]), lambda: tokens))


def _digest(header: Mapping[str, str], tokens: NDArray[np.float32]) -> str:
    return _sha256(_encoded(header), tokens.tobytes())


def _encoded(fields: Mapping[str, str]) -> bytes:
    return json.dumps(dict(fields), sort_keys=True).encode()


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
