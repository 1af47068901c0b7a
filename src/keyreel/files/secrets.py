"""The secrets of an installation: one file each on one machine, or all derived from KEYREEL_SECRET in a fleet."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keyreel.errors import KeyreelError

Purpose = Literal["links", "webhooks", "webhook_urls", "fingerprint"]

_SECRET_BYTES = 32
_OWNER_ONLY = 0o700


def derive_secret(secret: str, purpose: Purpose) -> bytes:
    """Returns 32 bytes that depend on the secret and the purpose (HKDF, RFC 5869). No purpose reveals another."""
    return HKDF(SHA256(), _SECRET_BYTES, salt=None, info=b"keyreel " + purpose.encode()).derive(secret.encode())


def load_secret(path: Path) -> bytes:
    """Returns the 32 secret bytes in `path`, and creates them when the file does not exist.

    Raises KeyreelError when the file has another size, or cannot be read or created.
    """
    try:
        if not path.exists():
            _create_secret(path)
        secret = path.read_bytes()
    except OSError as error:
        raise KeyreelError(f"Cannot use the secret {path}: {error.strerror}.") from error
    if len(secret) != _SECRET_BYTES:
        raise KeyreelError(f"{path} is damaged: it must contain {_SECRET_BYTES} bytes. Delete it to get a new secret.")
    return secret


def make_private(folder: Path) -> None:
    """Creates the folder, and keeps other users of this machine out of it: it holds the database and all files.

    Raises KeyreelError when that is not possible.
    """
    try:
        folder.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid():  # a mounted volume may belong to somebody else
            folder.chmod(_OWNER_ONLY)
    except OSError as error:
        raise KeyreelError(
            f"Cannot use the data folder {folder}: {error.strerror}. It must be a folder that Keyreel may write to: "
            "make it one, or name another with KEYREEL_DATA_DIR."
        ) from error


def _create_secret(path: Path) -> None:
    """Writes the file atomically, readable only by its owner. If two processes do so at once, the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent) as file:  # has mode 0600
        file.write(secrets.token_bytes(_SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(file.name, path)
