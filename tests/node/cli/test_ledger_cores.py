"""An export verified by several processes finds exactly what one finds, whatever its bytes."""

from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.cli import ledger_cores
from node.cli.ledger_cores import BATCH_FRAMES, audit_with
from protocol.ledger.audit import Depth, Report, audit, audit_known, claimed_sources
from protocol.ledger.checking import Known, frames_checked
from protocol.ledger.export import frames_of
from tests.protocol.ledger.chains import CHARTER, GENESIS
from tests.protocol.ledger.test_audit import GOOD as EXPORT

DEPTHS = pytest.mark.parametrize("depth", list(Depth))


class Here(Executor):
    """Does at once, in this process, what others would do."""

    def submit(self, work, *args):
        future = Future()
        future.set_result(work(*args))
        return future


def with_batches(data: bytes, depth: Depth, size: int) -> Report:
    """As several processes do it, batch by batch, in this one."""
    heads = depth is Depth.HEADS
    claimed = claimed_sources(CHARTER, lambda: [data]) if heads else frozenset()
    ledger_cores._begin(GENESIS, claimed if heads else None)
    frames = ledger_cores._known(Here(), frames_of([data]), 3, size)
    return audit_known(CHARTER, frames, depth, claimed)


@DEPTHS
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_batches_of_any_size_find_what_the_whole_does(depth: Depth, size: int) -> None:
    report = with_batches(EXPORT, depth, size)
    assert report.ok
    assert report.balances == audit(CHARTER, lambda: [EXPORT], depth).balances


@settings(max_examples=60, deadline=None)
@given(
    place=st.integers(0, len(EXPORT) - 1),
    bit=st.integers(0, 7),
    size=st.integers(1, 6),
    depth=st.sampled_from(list(Depth)),
)
def test_a_changed_bit_is_the_same_fault_in_both(
    place: int, bit: int, size: int, depth: Depth
) -> None:
    changed = bytearray(EXPORT)
    changed[place] ^= 1 << bit
    data = bytes(changed)
    one, several = audit(CHARTER, lambda: [data], depth), with_batches(data, depth, size)
    assert several.faults == one.faults
    assert several.balances == one.balances
    assert (several.ok, several.total) == (one.ok, one.total)


def test_what_does_not_hold_is_never_said_to_be_known() -> None:
    """Of every frame with a changed signature, nothing is known or less than all."""
    frames = list(frames_of([EXPORT]))
    for place in range(1, len(frames)):
        changed = frames[place][:-1] + bytes([frames[place][-1] ^ 1])  # Within the last seal.
        known = frames_checked(CHARTER, [*frames[:place], changed, *frames[place + 1 :]], None)
        assert known[place] != Known.ALL
        assert all(level == Known.ALL for at, level in enumerate(known) if at != place)


@DEPTHS
def test_real_processes_find_what_one_finds(depth: Depth) -> None:
    broken = EXPORT[:-1] + bytes([EXPORT[-1] ^ 1])
    for data in (EXPORT, broken, EXPORT[:-5], b""):
        report = audit_with(GENESIS, lambda data=data: [data], depth, cores=2)
        assert report.faults == audit(CHARTER, lambda data=data: [data], depth).faults


class Broken(Executor):
    """Its processes have been killed: half of what is asked comes back broken, half is refused."""

    def __init__(self) -> None:
        self.asked = 0

    def submit(self, *_args, **_kwargs):
        self.asked += 1
        if self.asked % 2:
            raise BrokenProcessPool
        future = Future()
        future.set_exception(BrokenProcessPool())
        return future


def test_killed_processes_cost_time_and_no_truth() -> None:
    workers = Broken()
    frames = ledger_cores._known(workers, frames_of([EXPORT]), 2)
    known = list(frames)
    assert workers.asked >= 1
    assert [data for data, _ in known] == list(frames_of([EXPORT]))
    assert {level for _, level in known} == {Known.NOTHING}
    assert len(known) < BATCH_FRAMES
