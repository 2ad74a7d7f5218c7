"""What comes in from strangers: only what holds, at a bounded rate, and blame where it is due."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from node.discovery.admission import Admission, Member
from node.discovery.clock import Clock
from node.discovery.directory import Directory
from node.network.quota import Quotas
from protocol import codec
from protocol.capacity import AdvertsPage
from protocol.errors import Code
from protocol.limits import DIRECTORY_PEERS_MAX, FAILED_CHECKS_MAX
from tests.node.discovery.neighbourhood import (
    NETWORK,
    OTHER_NETWORK,
    WALL_MS,
    advert,
    identity,
    opened,
)

FORWARDER, ANOTHER = identity(900).node, identity(901).node


class Gate:
    """An admission with all that it touches, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.wall_ms = WALL_MS
        self.cut: list[bytes] = []
        self.quotas = Quotas()
        clock = Clock(lambda: self.wall_ms, lambda: self.now_ms)
        self.directory = Directory(clock.steady_ms)
        member = Member(identity(999), NETWORK)
        self.admission = Admission(member, self.directory, self.quotas, clock, self.cut.append)

    def judge(self, data: bytes, forwarder: object = FORWARDER) -> bool:
        return self.admission.judge(forwarder, data)  # type: ignore[arg-type]


def message(node: int, sequence: int, **more: object) -> bytes:
    return codec.encode(opened(node, advert(sequence), **more)[1])  # type: ignore[arg-type]


def test_a_good_advert_is_taken_and_its_copy_changes_nothing() -> None:
    gate = Gate()
    assert gate.judge(message(1, 1))
    before = gate.directory.listings(())
    for forwarder in (FORWARDER, ANOTHER):
        assert gate.judge(message(1, 1), forwarder)
    assert gate.directory.listings(()) == before
    assert not gate.admission.refused


def test_an_older_one_is_not_passed_on_and_is_nobodys_fault() -> None:
    gate = Gate()
    assert gate.judge(message(1, 5))
    for _ in range(3 * FAILED_CHECKS_MAX):
        assert not gate.judge(message(1, 4))
    assert gate.directory.sequence_of(identity(1).node) == 5
    assert gate.cut == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.BAD_ENCODING),
        (b"\xc1" * 50, Code.BAD_ENCODING),
        (codec.encode(advert(1)), Code.BAD_MESSAGE),
        (bytes(20_000), Code.TOO_LARGE),
        (message(1, 1, network=OTHER_NETWORK), Code.BAD_SIGNATURE),
        (message(1, 1)[:-1] + b"\x00", Code.BAD_SIGNATURE),
    ],
)
def test_what_does_not_hold_is_refused_and_too_much_of_it_cuts_the_forwarder(
    data: bytes, code: Code
) -> None:
    gate = Gate()
    for _ in range(FAILED_CHECKS_MAX):
        assert not gate.judge(data)
    assert gate.admission.refused == {code: FAILED_CHECKS_MAX}
    assert gate.cut == []
    assert not gate.judge(data)
    assert gate.cut == [FORWARDER]
    assert gate.quotas.refused(FORWARDER, gate.now_ms / 1000)
    assert not gate.quotas.refused(ANOTHER, gate.now_ms / 1000)
    assert len(gate.directory) == 0


@given(st.binary(max_size=300))
def test_no_bytes_at_all_break_it(data: bytes) -> None:
    assert not Gate().judge(data)


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_changed_byte_gets_in(place: int, change: int) -> None:
    gate, data = Gate(), bytearray(message(1, 1))
    data[place % len(data)] ^= change
    assert not gate.judge(bytes(data))
    assert len(gate.directory) == 0


def test_a_forged_copy_of_what_is_known_is_refused() -> None:
    gate = Gate()
    _, signed = opened(1, advert(1))
    assert gate.judge(codec.encode(signed))
    assert not gate.judge(codec.encode(replace(signed, signature=bytes(64))))
    assert gate.admission.refused == {Code.BAD_SIGNATURE: 1}


def test_an_origin_that_talks_too_much_is_heard_at_a_bounded_rate() -> None:
    gate = Gate()
    taken = 0
    for sequence in range(1, 601):  # Ten a second for a minute.
        gate.now_ms += 100
        taken += gate.judge(message(1, sequence))
    assert taken == 3 + 60 // 5 - 1 or taken == 3 + 60 // 5
    assert gate.cut == []


def test_an_origin_that_keeps_its_spacing_is_always_heard() -> None:
    gate = Gate()
    for sequence in range(1, 30):
        assert gate.judge(message(1, sequence))
        gate.now_ms += 10_000 if sequence % 2 else 5_000


def test_thousands_of_origins_are_bounded_and_the_next_honest_one_is_heard() -> None:
    gate = Gate()
    for number in range(1, 5_001):
        gate.now_ms += 11  # Some 90 a second.
        gate.judge(message(10_000 + number, 1))
    assert len(gate.directory) == DIRECTORY_PEERS_MAX
    assert gate.judge(message(1, 1), ANOTHER)
    assert identity(1).node in gate.directory.adverts()


def test_a_flood_from_one_forwarder_is_dropped_unread_without_blame() -> None:
    gate = Gate()
    known = message(1, 1)
    assert gate.judge(known)
    passed = sum(gate.judge(known) for _ in range(5_000))
    assert passed == 999
    assert gate.admission.refused == {Code.QUOTA: 4_001}
    assert gate.cut == []
    assert gate.judge(known, ANOTHER)


async def test_a_page_is_taken_with_its_ages() -> None:
    gate = Gate()
    page = AdvertsPage(tuple((n * 1_000, opened(n, advert(1))[1]) for n in range(1, 6)))
    assert await gate.admission.take_page(FORWARDER, page) == 5
    assert await gate.admission.take_page(FORWARDER, page) == 0
    ages = {listing.node: listing.age_ms for listing in gate.directory.listings(())}
    assert ages == {identity(n).node: n * 1_000 for n in range(1, 6)}


async def test_a_page_of_forgeries_costs_its_giver_the_connection_and_us_little() -> None:
    gate = Gate()
    forged = tuple((0, replace(opened(n, advert(1))[1], signature=bytes(64))) for n in range(100))
    good = ((0, opened(200, advert(1))[1]),)
    assert await gate.admission.take_page(FORWARDER, AdvertsPage(good + forged)) == 1
    assert gate.cut == [FORWARDER]
    assert gate.admission.refused == {Code.BAD_SIGNATURE: FAILED_CHECKS_MAX + 1}


async def test_a_page_lets_others_run() -> None:
    gate, turns = Gate(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    page = AdvertsPage(tuple((0, opened(n, advert(1))[1]) for n in range(1, 101)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await gate.admission.take_page(FORWARDER, page)
        nursery.cancel_scope.cancel()
    assert turns >= 90


def test_our_own_advert_tells_its_number_and_is_not_listed() -> None:
    gate = Gate()
    assert not gate.judge(message(999, 77))
    assert gate.admission.own_sequence_heard == 77
    assert len(gate.directory) == 0
    assert gate.cut == []


def test_a_clock_that_differs_from_most_is_suspect_and_costs_nobody_anything() -> None:
    gate = Gate()
    assert not gate.admission.clock_suspect
    gate.wall_ms = WALL_MS + 200_000
    for number in range(1, 20):
        assert not gate.judge(message(number, 1))
    assert gate.admission.refused == {Code.EXPIRED: 19}
    assert gate.admission.clock_suspect
    assert gate.cut == []
    gate.wall_ms = WALL_MS
    for number in range(1, 15):
        assert gate.judge(message(number, 2))
    assert not gate.admission.clock_suspect


def test_one_stranger_with_a_wrong_clock_among_many_is_not_our_clock() -> None:
    gate = Gate()
    for number in range(1, 4):
        assert gate.judge(message(number, 1))
    late = replace(advert(1), issued_at=WALL_MS - 300_000)
    for sequence in range(2, 30):
        assert not gate.judge(codec.encode(opened(9, replace(late, sequence=sequence))[1]))
    assert not gate.admission.clock_suspect
