"""Wakes what waits for a change of a request."""

import asyncio
from enum import StrEnum
from weakref import WeakValueDictionary


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
    DEADLINE = "deadline"
    """The time has come by which a request had to start. Only the process that queued it wakes."""


class Changes:
    """An event per topic, and one for all of them.

    An event is set, and replaced by a new one, at each change. Get it before reading the rows.
    """

    def __init__(self) -> None:
        self._events = {topic: asyncio.Event() for topic in Topic}
        self._any = asyncio.Event()
        self._cancels: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._untold: set[tuple[Topic, str]] = set()
        self.to_tell = asyncio.Event()
        """Set when `take_untold` has something to return."""

    @property
    def any(self) -> asyncio.Event:
        return self._any

    def of(self, topic: Topic) -> asyncio.Event:
        return self._events[topic]

    def cancel_of(self, request_id: str) -> asyncio.Event:
        """Returns the event of a cancel of this request: the workers of other requests need not look."""
        return self._cancels.setdefault(request_id, asyncio.Event())

    def announce(self, topic: Topic, request_id: str = "", *, after: float = 0.0) -> None:
        """Wakes this process and remembers to tell the others. Call it after the commit.

        request_id: the request that is cancelled.
        after: seconds until the change takes effect. It is announced again then.
        """
        if after:
            asyncio.get_running_loop().call_later(after, self.announce, topic)
        self.wake(topic, request_id)
        if topic is not Topic.PROGRESS:
            self._untold.add((topic, request_id))
            self.to_tell.set()

    def wake(self, topic: Topic, request_id: str = "") -> None:
        """Wakes what waits in this process. A cancel without a request wakes the workers of all requests."""
        self._events[topic].set()
        self._events[topic] = asyncio.Event()
        if topic is Topic.CANCEL:
            for cancelled in [request_id] if request_id else list(self._cancels):
                if event := self._cancels.pop(cancelled, None):
                    event.set()
        self._any.set()
        self._any = asyncio.Event()

    def take_untold(self) -> set[tuple[Topic, str]]:
        """Returns the changes that other processes have not been told of since the last call."""
        untold, self._untold = self._untold, set()
        self.to_tell.clear()
        return untold
