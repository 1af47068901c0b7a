from keyreel.media.limits import Limits
from keyreel.settings import Settings


def test_limits_come_from_the_settings() -> None:
    limits = Limits.from_settings(Settings(max_pixels=7, max_video_seconds=3))
    assert (limits.pixels, limits.video_seconds) == (7, 3)
