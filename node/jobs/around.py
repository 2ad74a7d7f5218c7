"""What both sides of a job need of their node."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from node.network.base import Network
from node.network.quota import Quotas
from node.storage.jobs import JobRecord
from protocol.identity import Identity
from protocol.ids import NetworkId


class Recorder(Protocol):
    """Where records of jobs go: `node.storage.jobs.JobHistory`, or a list in a test."""

    async def put(self, record: JobRecord) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Chance and the wall clock are arguments, so that a test settles them."""

    identity: Identity
    network_id: NetworkId
    network: Network
    quotas: Quotas
    recorder: Recorder
    random_bytes: Callable[[int], bytes]
    wall_ms: Callable[[], int]


def now_ms() -> int:
    """Milliseconds of trio's clock, which the job machines count by."""
    return round(trio.current_time() * 1000)
