"""The object store in a folder and in memory, and the deletion of expired files."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from keyreel.errors import KeyreelError
from keyreel.files.objects import (
    ObjectChangedError,
    Objects,
    ObjectStoreError,
    open_objects,
    parts_folder,
    sweep_files,
)
from keyreel.store import open_store
from keyreel.store.records import NewFile
from tests.store.conftest import Clock, empty_store

MIB = 1024 * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def objects(folder: Path) -> Objects:
    return open_objects(folder)


async def chunks(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


async def read(objects: Objects, path: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in objects.stream(path, start, end)])


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """Limits the size of files. Like a full disk, this makes a write fail in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_bytes_files_and_chunks_are_stored(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"a file")
    assert await objects.put("a/bytes", b"some bytes") == 10
    assert await objects.put("a/path", tmp_path / "source") == 6
    assert await objects.put("a/chunks", chunks(b"one ", b"", b"two")) == 7
    assert await objects.put("a/empty", b"") == 0
    assert await read(objects, "a/bytes") == b"some bytes"
    assert await read(objects, "a/path") == b"a file"
    assert await read(objects, "a/chunks") == b"one two"
    assert await read(objects, "a/empty") == b""


async def test_a_large_object_is_streamed_in_pieces(objects: Objects) -> None:
    pieces = [bytes([number]) * MIB for number in range(12)]
    assert await objects.put("large", chunks(*pieces)) == 12 * MIB
    received = [chunk async for chunk in objects.stream("large")]
    assert b"".join(received) == b"".join(pieces)
    assert max(map(len, received)) <= 2 * MIB


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, None, b"0123456789"), (3, None, b"3456789"), (3, 5, b"34"), (0, 1, b"0"), (8, 99, b"89"), (4, 4, b"")],
)
async def test_ranges_are_read(objects: Objects, start: int, end: int | None, expected: bytes) -> None:
    await objects.put("digits", b"0123456789")
    assert await read(objects, "digits", start, end) == expected


async def test_another_version_is_not_read(objects: Objects) -> None:
    await objects.put("a", b"123")
    version = await objects.stat("a")
    assert [chunk async for chunk in objects.stream("a", version=version)] == [b"123"]
    await objects.put("a", b"45678")
    for start, end in ((0, None), (1, 2)):
        with pytest.raises(ObjectChangedError):
            await anext(objects.stream("a", start, end, version))


async def test_new_content_has_a_new_size_and_etag(objects: Objects) -> None:
    assert await objects.size("a") is None
    await objects.put("a", b"123")
    first = await objects.stat("a")
    assert first is not None
    assert first.size == await objects.size("a") == 3
    await objects.put("a", b"456789")
    second = await objects.stat("a")
    assert second is not None
    assert second.etag != first.etag
    assert second.etag.startswith('"')
    assert second.etag.endswith('"')


async def test_an_object_is_downloaded_to_a_file(objects: Objects, tmp_path: Path) -> None:
    await objects.put("a", b"content")
    await objects.download("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    with pytest.raises(FileNotFoundError):
        await objects.download("missing", tmp_path / "none")
    assert not (tmp_path / "none").exists()


async def test_deleting_twice_is_no_error_and_leaves_no_folder(objects: Objects, folder: Path) -> None:
    await objects.put("a/b/c", b"1")
    await objects.delete("a/b/c")
    await objects.delete("a/b/c")
    assert await objects.size("a/b/c") is None
    assert list(folder.iterdir()) == []


async def test_a_folder_has_a_size_and_can_be_deleted(objects: Objects, folder: Path) -> None:
    for path in ("a/1", "a/2/3", "ab/1"):
        await objects.put(path, b"12")
    assert await objects.folder_size("a") == 4
    assert await objects.folder_size("missing") == 0
    await objects.delete_folder("a")
    await objects.delete_folder("missing")
    assert files_in(folder) == ["ab/1"]


async def test_parts_are_joined_in_the_given_order(objects: Objects) -> None:
    await asyncio.gather(*(objects.put(f"parts/{number}", bytes([number]) * MIB) for number in (3, 1, 2)))
    assert await objects.compose("whole", [f"parts/{number}" for number in (1, 2, 3)]) == 3 * MIB
    assert await read(objects, "whole") == bytes([1]) * MIB + bytes([2]) * MIB + bytes([3]) * MIB


async def test_a_missing_part_prevents_the_object(objects: Objects) -> None:
    await objects.put("parts/1", b"1")
    with pytest.raises(FileNotFoundError):
        await objects.compose("whole", ["parts/1", "parts/2"])
    assert await objects.size("whole") is None


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "a/./b", "a\0b"])
async def test_paths_outside_the_folder_are_refused(objects: Objects, path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        await objects.put(path, b"1")


async def test_a_failing_source_changes_nothing(objects: Objects, folder: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        raise ConnectionResetError("the client went away")

    await objects.put("a", b"old")
    with pytest.raises(ConnectionResetError, match="the client went away"):
        await objects.put("a", broken())
    assert await read(objects, "a") == b"old"
    assert files_in(folder) == ["a"]


async def test_a_cancelled_put_changes_nothing(objects: Objects) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        reached.set()
        await never.wait()

    task = asyncio.create_task(objects.put("a", endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await objects.size("a") is None


@pytest.mark.parametrize("size", [2 * MIB, 8 * MIB])
async def test_a_full_disk_raises_an_error_and_leaves_nothing(objects: Objects, folder: Path, size: int) -> None:
    await objects.put("a", b"old")
    with (
        disk_with_room_for(MIB),
        pytest.raises(ObjectStoreError, match=r"The file store failed: .*too large") as caught,
    ):
        await objects.put("a", b"x" * size)
    assert isinstance(caught.value, OSError)
    assert await read(objects, "a") == b"old"
    assert files_in(folder) == ["a"]


async def test_leftovers_of_killed_processes_are_removed(folder: Path) -> None:
    folder.mkdir()
    for name, age in (("old#1", 100_000), ("young#1", 0), ("object", 100_000)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    open_objects(folder)
    assert files_in(folder) == ["object", "young#1"]


async def test_a_folder_can_be_named_by_url(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "my files"
    await open_objects(folder.as_uri()).put("a", b"1")
    assert (folder / "a").read_bytes() == b"1"


@pytest.mark.parametrize("location", ["gopher://videos", "s3://", "file:///dev/null/files", "/dev/null/files"])
def test_a_location_that_cannot_be_used_is_named(location: str) -> None:
    with pytest.raises(KeyreelError, match=rf"^Cannot open the object store {location}: .*\.$") as refused:
        open_objects(location)
    assert "\n" not in str(refused.value)


async def test_a_store_in_memory_works_like_a_folder() -> None:
    objects = open_objects("memory:///")
    await objects.put("parts/1", b"one ")
    await objects.put("parts/2", b"two")
    assert await objects.compose("whole", ["parts/1", "parts/2"]) == 7
    await objects.delete_folder("parts")
    assert await objects.folder_size("parts") == 0
    assert await read(objects, "whole", 2, 6) == b"e tw"
    stat = await objects.stat("whole")
    assert stat is not None
    assert (stat.size, stat.etag[0], stat.etag[-1]) == (7, '"', '"')
    await objects.delete("whole")
    assert await objects.size("whole") is None


async def test_the_sweep_deletes_expired_files(objects: Objects, folder: Path, tmp_path: Path) -> None:
    async with empty_store(f"sqlite:///{tmp_path / 'keyreel.db'}") as store:
        for name, lifetime in (("short", 60.0), ("long", 3600.0), ("unlimited", None)):
            new = NewFile(key_id="key", object=name, name=name, content_type="text/plain", size=1, lifetime=lifetime)
            file = await store.files.add(new)
            await objects.put(file.object, b"1")
            await objects.put(f"{parts_folder(file.id)}/1", b"1")
        assert await sweep_files(store, objects) == 0
        await Clock(store.database).advance(61)
        assert await sweep_files(store, objects) == 1
        assert await objects.size("short") is None
        assert await store.files.expired() == []
        await Clock(store.database).advance(3600)
        assert await sweep_files(store, objects) == 1
        assert len(files_in(folder)) == 2
        assert await objects.size("unlimited") == 1


@pytest.mark.slow
async def test_one_sweep_deletes_many_files(objects: Objects, tmp_path: Path) -> None:
    """The rows have no objects: an earlier sweep was killed between object and row, or the upload never came."""
    async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}") as store:
        for number in range(120):
            path = f"gone/{number}"
            await store.files.add(
                NewFile(key_id="key", object=path, name="gone", content_type="text/plain", size=1, lifetime=-1.0)
            )
        assert await sweep_files(store, objects) == 120
        assert await store.files.expired() == []


async def test_a_file_that_cannot_be_deleted_does_not_keep_others_from_it(
    objects: Objects, folder: Path, tmp_path: Path
) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}") as store:
        for name in ("stuck/file", "other"):
            await store.files.add(
                NewFile(key_id="key", object=name, name=name, content_type="text/plain", size=1, lifetime=-1.0)
            )
        await objects.put("other", b"1")
        (folder / "stuck" / "file").mkdir(parents=True)
        assert await sweep_files(store, objects) == 1
        assert await objects.size("other") is None
        assert [file.object for file in await store.files.expired()] == ["stuck/file"]
        (folder / "stuck" / "file").rmdir()
        assert await sweep_files(store, objects) == 1


@pytest.mark.parametrize("size", [10, 6 * MIB], ids=["one request", "in parts"])
async def test_a_bucket_knows_the_content_type(size: int) -> None:
    store = MemoryStore()
    objects = Objects(store)
    await objects.put("film", b"x" * size, "video/mp4")
    await objects.compose("joined", ["film", "film"], "video/webm")
    types = [obstore.get(store, path).attributes["Content-Type"] for path in ("film", "joined")]
    assert types == ["video/mp4", "video/webm"]
