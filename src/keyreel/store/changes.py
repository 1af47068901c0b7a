"""Wakes what waits for a change of a request."""

import asyncio
from enum import StrEnum


class Topic(StrEnum):
    """What a change may be of interest for."""

    QUEUED = "queued"
    """A request is ready to be claimed."""
    CANCEL = "cancel"
    """A running request is to stop."""
    STATE = "state"
    """A request was claimed or completed."""
    PROGRESS = "progress"
    """A running request has come further. Other processes are not told: there are too many of these changes."""


class Changes:
    """An event per topic, and one for all of them.

    An event is set, and replaced by a new one, at each change. Get it before reading the rows.
    """

    def __init__(self) -> None:
        self._events = {topic: asyncio.Event() for topic in Topic}
        self._any = asyncio.Event()
        self._untold: set[Topic] = set()
        self.to_tell = asyncio.Event()
        """Set when `take_untold` has something to return."""

    @property
    def any(self) -> asyncio.Event:
        return self._any

    def of(self, topic: Topic) -> asyncio.Event:
        return self._events[topic]

    def announce(self, topic: Topic, *, after: float = 0.0) -> None:
        """Wakes this process and remembers to tell the others. Call it after the commit.

        after: seconds until the change takes effect. It is announced again then.
        """
        if after:
            asyncio.get_running_loop().call_later(after, self.announce, topic)
        self.wake(topic)
        if topic is not Topic.PROGRESS:
            self._untold.add(topic)
            self.to_tell.set()

    def wake(self, *topics: Topic) -> None:
        """Wakes what waits in this process."""
        for topic in topics:
            self._events[topic].set()
            self._events[topic] = asyncio.Event()
        self._any.set()
        self._any = asyncio.Event()

    def take_untold(self) -> set[Topic]:
        """Returns the topics that other processes have not been told of since the last call."""
        untold, self._untold = self._untold, set()
        self.to_tell.clear()
        return untold
