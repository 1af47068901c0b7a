from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyreel.cli.arguments import flag, parse_condition, parse_lora


def is_no_file(source: str) -> bool:
    return not Path(source).exists()


anything = st.text(min_size=1, max_size=50).filter(is_no_file)
sources = st.text(st.characters(exclude_characters="@#", exclude_categories=["Cs"]), min_size=1, max_size=50).filter(
    is_no_file
)
frames = st.integers(0, 999).map(str)
strengths = st.floats(0, 1).map("{:.2f}".format)
weight_names = st.from_regex(r"[\w/.-]{1,20}", fullmatch=True)
scales = st.floats(-4, 4).map("{:.2f}".format)


@given(sources, st.none() | frames, st.none() | strengths, st.sampled_from(["image_url", "video_url"]))
def test_condition_is_split_into_its_parts(source: str, frame: str | None, strength: str | None, key: str) -> None:
    value, expected = source, {key: source}
    if frame is not None:
        value, expected = f"{value}@{frame}", expected | {"start_frame_number": frame}
        if strength is not None:
            value, expected = f"{value}:{strength}", expected | {"strength": strength}
    assert parse_condition(value, key) == expected


@given(anything, frames)
def test_source_of_a_condition_may_contain_any_text_before_a_frame(source: str, frame: str) -> None:
    assert parse_condition(f"{source}@{frame}", "image_url") == {"image_url": source, "start_frame_number": frame}


@given(sources, st.none() | weight_names, st.none() | scales)
def test_lora_is_split_into_its_parts(source: str, weight_name: str | None, scale: str | None) -> None:
    value, expected = source, {"path": source}
    if weight_name is not None:
        value, expected = f"{value}#{weight_name}", expected | {"weight_name": weight_name}
    if scale is not None:
        value, expected = f"{value}@{scale}", expected | {"scale": scale}
    assert parse_lora(value) == expected


@given(anything)
def test_no_part_of_a_lora_is_lost(value: str) -> None:
    item = parse_lora(value)
    weight_name = f"#{item['weight_name']}" if "weight_name" in item else ""
    scale = f"@{item['scale']}" if "scale" in item else ""
    source = value.removesuffix(weight_name + scale)
    assert source + weight_name + scale == value
    assert item["path"] == source or Path(source).exists()


@pytest.mark.parametrize(
    "source", ["https://user@example.com/a.png?size=3:4", "a@b.png", "a.png@", "a.png@x", "a.png@8:", "a.png@-1"]
)
def test_incomplete_suffix_is_part_of_the_source(source: str) -> None:
    assert parse_condition(source, "image_url") == {"image_url": source}


def test_existing_file_becomes_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.safetensors"):
        (tmp_path / name).touch()
    assert parse_condition("a.png@8:0.5", "image_url") == {
        "image_url": str(tmp_path / "a.png"),
        "start_frame_number": "8",
        "strength": "0.5",
    }
    assert parse_lora("a.safetensors@0.5") == {"path": str(tmp_path / "a.safetensors"), "scale": "0.5"}
    assert parse_lora("owner/name") == {"path": "owner/name"}


def test_help_of_a_flag_has_bounds_and_default() -> None:
    assert (flag("number_of_steps").help or "").endswith(" 1 to 50. Default: 30.")
    assert (flag("enable_safety_checker").help or "").endswith(" Default: true.")


def test_help_of_a_list_flag_has_the_format() -> None:
    assert (flag("images", "PATH[@FRAME]").help or "").endswith(" Format: PATH[@FRAME]. Can be repeated.")


def test_data_uri_that_is_too_long_for_a_path_is_kept() -> None:
    uri = f"data:image/png;base64,{'A' * 5000}"
    assert parse_condition(uri, "image_url") == {"image_url": uri}
