from typing import get_args

from keyreel.video.events import STAGE_TITLES, StageName


def test_every_stage_has_a_title() -> None:
    assert set(STAGE_TITLES) == set(get_args(StageName))
    assert all(STAGE_TITLES.values())
