"""What a job that we serve wants done next: the actions that `ProviderJob` returns."""

from dataclasses import dataclass

from protocol.errors import Code
from protocol.job.terms import Chunk, Delta, Finish, Order, Receipt, Started


@dataclass(frozen=True, slots=True)
class RunModel:
    order: Order
    seed: bytes


@dataclass(frozen=True, slots=True)
class StopModel:
    pass


@dataclass(frozen=True, slots=True)
class Say:
    """Sign where it is not a Delta, and send."""

    message: Started | Delta | Chunk | Receipt


@dataclass(frozen=True, slots=True)
class RefuseIt:
    code: Code
    sentence: str


@dataclass(frozen=True, slots=True)
class End:
    """The one end of the job: what was produced, what it cost, and whether both signed."""

    code: Code | None
    input_tokens: int
    output_tokens: int
    cost: int
    """Of what was delivered, in microcredits."""
    receipted: bool
    lost: int = 0
    """Of the cost: what no voucher came for."""
    lost_chunks: int = 0
    receipt: Receipt | None = None
    """Ours, where it came so far."""
    finish: Finish = "none"
    ms_first: int = 0
    ms_total: int = 0


Action = RunModel | StopModel | Say | RefuseIt | End
