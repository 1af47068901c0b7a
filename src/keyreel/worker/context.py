"""The services and settings that a worker gets."""

from dataclasses import dataclass
from pathlib import Path

from keyreel.files.disk import ANY_DISK, Disk
from keyreel.files.links import Links
from keyreel.files.objects import Objects
from keyreel.net.addresses import AddressPolicy
from keyreel.settings import Settings
from keyreel.store import Store


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The services and settings of one worker.

    policy: the addresses from which inputs may be fetched.
    spool: the folder for temporary files. Each worker uses a subfolder with its name.
    name: unique among all workers.
    patience: seconds that a loaded engine process may be silent before it counts as hung.
    grace: seconds that a draining worker gives the request on its device to finish.
    disk: while it is low, the worker takes no request.
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
    disk: Disk = ANY_DISK
