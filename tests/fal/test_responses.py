"""The models describe what the server writes without them."""

import pytest
from pydantic import ValidationError

from keyreel.fal.responses import Progress
from keyreel.video.events import Stage, Step
from keyreel.worker.report import Report


def test_progress_is_described() -> None:
    report = Report()
    report.record(Stage("denoise", 8))
    report.record(Step(2))
    report.set_preview("https://example.com/files/a/preview.png", 5)
    progress, _ = report.unsent()
    assert progress
    described = Progress.model_validate(progress, extra="forbid")
    assert (described.stage, described.step, described.steps) == ("denoise", 2, 8)
    assert described.preview
    assert described.preview.frames == 5
    assert described.model_dump() == progress
    with pytest.raises(ValidationError):
        Progress.model_validate(progress | {"more": 1}, extra="forbid")
