"""What a worker is given."""

from dataclasses import dataclass
from pathlib import Path

from keyreel.addresses import AddressPolicy
from keyreel.links import Links
from keyreel.objects import Objects
from keyreel.settings import Settings
from keyreel.store import Store


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """`name` is the worker's own among all; below `spool` it has a folder of that name for what is under way.

    policy: which addresses inputs may be fetched from.
    patience: seconds that a child may be silent, loading apart, before it counts as hung.
    grace: seconds that a draining worker gives to the request on its device.
    """

    store: Store
    objects: Objects
    links: Links
    settings: Settings
    policy: AddressPolicy
    spool: Path
    name: str
    pool: str = "default"
    patience: float = 120.0
    grace: float = 20.0
