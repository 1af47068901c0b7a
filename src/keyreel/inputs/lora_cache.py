"""LoRAs that were downloaded before, limited in size. Those that were not used for longest go first.

A request gets a hard link in its own folder, so that nothing that is removed here is missing there. A URL's file is
lent only after the source has answered, for the very URL of this request, that it is unchanged.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from keyreel.checkpoints.hub import file_sha256
from keyreel.media.atomic import replacing
from keyreel.video.job import InputFile


@dataclass(frozen=True, slots=True)
class Download:
    """A file from a URL, and what its source calls this version of it."""

    sha256: str
    name: str
    content_type: str | None
    etag: str | None = None
    modified: str | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask the source whether it has another version."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in headers.items() if value}


@dataclass(frozen=True, slots=True)
class LoRACache:
    """folder: on the same disk as the folders of requests, or files are copied. max_bytes: of all its files."""

    folder: Path
    max_bytes: int

    @property
    def hub(self) -> Path:
        """The folder for files of hub repositories, in the hub's own layout."""
        return self.folder / "hub"

    def borrow(self, url: str, to: Path) -> tuple[Download, Path] | None:
        """Puts the file that the URL had last into the folder `to`, if it is here and intact."""
        try:
            known = Download(**json.loads(self._source(url).read_bytes()))
            path = self._lend(self._file(known.sha256), to / known.sha256)
        except (OSError, ValueError, TypeError):
            return None
        if file_sha256(path) == known.sha256:
            return known, path
        self._file(known.sha256).unlink(missing_ok=True)
        path.unlink()
        return None

    def keep(self, url: str, file: InputFile, headers: Mapping[str, str]) -> None:
        """Keeps a file that was downloaded with these response headers, if they say how to ask for changes."""
        known = Download(file.sha256, file.name, file.content_type)
        etag = headers.get("ETag", "")
        # A weak one promises equal meaning, not equal bytes.
        known = replace(known, etag=None if etag.startswith("W/") else etag, modified=headers.get("Last-Modified"))
        if not known.conditions:
            return
        path, source = self._file(file.sha256), self._source(url)
        for folder in (path.parent, source.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self._lend(file.path, path)
        with replacing(source) as partial:
            partial.write_text(json.dumps(asdict(known)))
        self._evict()

    def lend_from_hub(self, path: Path, to: Path) -> Path:
        """Puts a file that was downloaded to `hub` into the folder `to`."""
        blob = path.resolve()
        lent = self._lend(blob, to / blob.name)
        self._evict()
        return lent

    def _lend(self, path: Path, to: Path) -> Path:
        os.utime(path)
        with suppress(FileExistsError):
            try:
                to.hardlink_to(path)
            except FileExistsError:
                raise
            except OSError:  # another disk, or one without links
                with replacing(to) as partial:
                    shutil.copyfile(path, partial)
        return to

    def _evict(self) -> None:
        """Removes the files that were not used for longest until the others fit, and what is known of them."""
        kept = 0
        for path, status in sorted(self._files(), key=lambda each: each[1].st_mtime, reverse=True):
            kept += status.st_size
            if kept > self.max_bytes:
                path.unlink(missing_ok=True)
        for source in (self.folder / "sources").glob("*.json"):
            with suppress(OSError, ValueError):
                if not self._file(json.loads(source.read_bytes())["sha256"]).exists():
                    source.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in (*(self.folder / "files").glob("*"), *self.hub.glob("*/blobs/*")):
            with suppress(FileNotFoundError):
                yield path, path.stat()

    def _file(self, sha256: str) -> Path:
        return self.folder / "files" / sha256

    def _source(self, url: str) -> Path:
        """The URL may contain a secret, so only its hash is kept."""
        return self.folder / "sources" / f"{hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()}.json"
