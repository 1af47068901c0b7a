from pathlib import Path

import pytest

from keyreel.media.atomic import replacing


def test_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_old_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [False, True])
def test_exception_leaves_no_file(tmp_path: Path, error: type[BaseException], written: bool) -> None:
    with pytest.raises(error):
        write_and_raise(tmp_path / "a.txt", error, written=written)
    assert list(tmp_path.iterdir()) == []


def test_exception_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        write_and_raise(path, RuntimeError, written=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_block_that_writes_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught, replacing(tmp_path):
        raise AssertionError("the block must not run")
    assert caught.value.filename == str(tmp_path)


def write_and_raise(path: Path, error: type[BaseException], *, written: bool) -> None:
    with replacing(path) as partial:
        if written:
            partial.write_text("new")
        raise error
