import json
from pathlib import Path

import pytest
from benchmarks.gpu.report import Figure, Report


def test_a_figure_says_what_share_of_the_roofline_it_reaches() -> None:
    assert str(Figure("Keyreel", "720p", 1320.7, "ms", ideal=881.0)) == (
        "Keyreel: 720p: 1,321 ms (67% of the roofline's speed)"
    )
    assert str(Figure("LoRA", "rank 32 changes the latents", False)) == "LoRA: rank 32 changes the latents: NO"
    assert str(Figure("versions", "torch", "2.13.0")) == "versions: torch: 2.13.0"


def test_the_file_holds_each_figure_as_soon_as_it_is_known(tmp_path: Path) -> None:
    report = Report(tmp_path / "out.json")
    for number in range(2):
        report.add(Figure("products", f"shape {number}", 700.0, "TFLOP/s"))
        assert len(json.loads((tmp_path / "out.json").read_text())["figures"]) == number + 1
    report.fail("attention", "its process died")
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "figures": [
            {"stage": "products", "name": f"shape {n}", "value": 700.0, "unit": "TFLOP/s", "ideal": None}
            for n in (0, 1)
        ],
        "failures": {"attention": "its process died"},
        "seconds": {},
    }


def test_failed_stages_and_checks_are_broken_and_numbers_are_not() -> None:
    report = Report(None)
    for figure in (Figure("a", "zero", 0.0), Figure("b", "holds", True), Figure("c", "does not hold", False)):
        report.add(figure)
    report.fail("d", "no time was left")
    assert report.broken == ["d", "c: does not hold"]


def test_the_tables_hold_steps_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(None)
    report.add(Figure("Keyreel", "720p x 89", 1000.0, "ms", ideal=881.0))
    report.add(Figure("Keyreel", "peak", 1.0, "GiB"))
    report.add(Figure("plans", "24 GB: the same frames", True))
    capsys.readouterr()
    report.print_table()
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert printed == [
        ["Guided", "steps"],
        ["ms", "roofline,", "ms", "share"],
        ["720p", "x", "89", "1,000", "881.0", "88%"],
        ["Checks"],
        [],
        ["plans:", "24", "GB:", "the", "same", "frames", "yes"],
    ]
