"""A clock for tests of times."""


class ManualClock:
    """A clock, in seconds, that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
