"""Four witnesses in memory: pays are certified, told, claimed; with some away, they wait."""

from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from node.ledger.base import Income
from protocol.errors import Code, LocalError
from protocol.ledger.audit import Depth, audit
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    NOTHING,
    START,
    WITNESSES,
    Home,
    open_village,
    until,
    until_async,
    verified,
)

Clock = trio.testing.MockClock


async def has_entries(home: Home, count: int) -> bool:
    return (await home.ledger.views.terms()).entries >= count


async def test_a_pay_is_certified_told_and_claimed(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready)
        await anna.ledger.pay(CLARA.node, 30, b"r" * 32)
        standing = anna.ledger.standing()
        assert standing.balance + standing.pending >= START
        await until(lambda: bool(clara.incomes))
        assert [(one.payer, one.amount, one.reference) for one in clara.incomes] == [
            (ANNA.node, 30, b"r" * 32)
        ]
        assert anna.balance == START - 30
        assert clara.ledger.standing().claimable == 30
        await until(lambda: clara.balance == 30)
        assert not clara.ledger.standing().claimable
        assert not anna.ledger.waiting()
        await verified(homes)
        assert await village.total() == village.charter.supply


async def test_a_payee_hears_of_its_pay_from_the_payer(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Long before it would find it by itself; and when it was away, as soon as it is back."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        steps: list[str] = []

        async def note(name: str) -> None:
            steps.append(name)

        anna.at_step = note
        await until(lambda: anna.ledger.ready)
        await trio.sleep(0.5)  # Not at the same moment as the payee's own round.
        await anna.ledger.pay(CLARA.node, 30, NOTHING)
        await until(lambda: bool(clara.incomes), 2)
        await clara.crash_and_lose()
        await anna.ledger.pay(CLARA.node, 10, NOTHING)
        await trio.sleep(1000)
        assert steps.count("payee.told") == 1
        await clara.up()
        await until(lambda: steps.count("payee.told") == 2, 2)
        await until(lambda: clara.balance == 40)


async def test_a_claim_gathers_pays(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, BRUNO, CLARA)
        anna, bruno, clara = homes[-3:]
        for number in range(2):
            await anna.ledger.pay(CLARA.node, 10, bytes([number + 1]) * 32)
        await bruno.ledger.pay(CLARA.node, 5, b"b" * 32)
        await until(lambda: clara.balance == 25)
        lines = await clara.ledger.views.history(10)
        assert [(line.kind, line.amount, line.state) for line in lines] == [
            ("claim", 25, "certified")
        ]
        assert lines[0].seals >= 3


async def test_the_same_reference_is_paid_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        for _ in range(3):
            await anna.ledger.pay(CLARA.node, 30, b"r" * 32)
        await until(lambda: clara.balance == 30)
        await anna.ledger.pay(CLARA.node, 30, b"r" * 32)
        await trio.sleep(100)
        assert anna.balance == START - 30
        assert anna.ledger.standing().pending == 0
        # Without a reference each is a payment of its own.
        for _ in range(2):
            await anna.ledger.pay(CLARA.node, 5, NOTHING)
        await until(lambda: clara.balance == 40)


async def test_what_is_refused_before_it_is_owed(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        anna, clara = await village.up(ANNA, CLARA)
        for to, amount in (
            (ANNA.node, 5),
            (CLARA.node, 0),
            (CLARA.node, -5),
            (CLARA.node, 1 << 62),
        ):
            with pytest.raises(LocalError) as caught:
                await anna.ledger.pay(to, amount, NOTHING)
            assert caught.value.code is Code.BAD_REQUEST
        with pytest.raises(LocalError) as caught:
            await anna.ledger.pay(CLARA.node, START + 1, NOTHING)
        assert caught.value.code is Code.OVERDRAWN
        with anna.ledger.reserve(START - 10):
            assert anna.ledger.standing().spendable == 10
            with pytest.raises(LocalError):
                await anna.ledger.pay(CLARA.node, 11, NOTHING)
            with pytest.raises(LocalError), anna.ledger.reserve(11):
                pass
        assert anna.ledger.standing().spendable == START
        # What is owed is owed, also by who has nothing: it waits for credits.
        await clara.ledger.pay(ANNA.node, 7, b"o" * 32)
        assert clara.ledger.standing().pending == 7
        assert clara.ledger.standing().spendable == 0


async def test_a_debt_waits_for_an_income(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, BRUNO, CLARA)
        anna, bruno, clara = homes[-3:]
        await clara.ledger.pay(BRUNO.node, 50, b"o" * 32)
        await trio.sleep(30)
        assert [one.seq for one in clara.ledger.waiting()] == [0]
        await anna.ledger.pay(CLARA.node, 60, NOTHING)
        await until(lambda: bruno.balance == START + 50)
        assert clara.balance == 10


async def test_one_witness_of_four_is_away(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES[:3], ANNA, CLARA)
        anna, clara = homes[-2:]
        await anna.ledger.pay(CLARA.node, 30, b"r" * 32)
        await until(lambda: clara.balance == 30)
        late = village.home(WITNESSES[3])
        await late.up()
        await until_async(partial(has_entries, late, 2))
        await verified([*homes, late])
        terms = await late.ledger.views.terms()
        assert terms.balances + terms.pays_unclaimed == terms.supply
        assert terms.entries == 2


async def test_two_away_wait_and_say_so(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready)
        for witness in homes[2:4]:
            await witness.crash()
        await anna.ledger.pay(CLARA.node, 30, b"r" * 32)
        await trio.sleep(120)
        (waiting,) = anna.ledger.waiting()
        assert (waiting.seals, waiting.quorum, waiting.amount) == (2, 3, 30)
        assert set(waiting.silent) == {witness.node for witness in WITNESSES[2:]}
        assert anna.ledger.standing().pending == 30
        assert (await anna.ledger.views.history(5))[0].state == "pending"
        await homes[2].up()
        await until(lambda: clara.balance == 30)
        assert not anna.ledger.waiting()


async def test_a_witness_pays_and_is_paid(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES)
        one, two, three, four = homes
        await one.ledger.pay(three.node, 40, b"1" * 32)
        await two.ledger.pay(three.node, 2, b"2" * 32)
        await until(lambda: three.balance == 42)
        await three.ledger.pay(four.node, 12, NOTHING)
        await until(lambda: four.balance == 12)
        await verified(homes)
        for home in homes:
            await until_async(partial(has_entries, home, 5))
            terms = await home.ledger.views.terms()
            assert terms.balances + terms.pays_unclaimed == terms.supply
            report = await home.ledger.views.verify(Depth.HEADS)
            assert report.ok
            assert report.total == report.supply


async def test_an_account_in_a_hurry_is_slowed_down(tmp_path: Path, autojump_clock: Clock) -> None:
    """Sixty votes at once, then one a second: the rest waits for that, and is paid."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready)
        for number in range(70):
            await anna.ledger.pay(CLARA.node, 1, bytes([number + 1]) * 32)
        await until(lambda: anna.balance == START - 60)
        assert anna.ledger.standing().pending == 10
        began_at = trio.current_time()
        await until(lambda: anna.balance == START - 70)
        assert trio.current_time() - began_at >= 5
        await until(lambda: clara.balance == 70)
        assert homes[0].ledger.counter.refused[Code.BUSY]


async def test_threads_and_the_real_clock(tmp_path: Path) -> None:
    """The same with the database's threads, each reader of one moment of its own."""
    async with open_village(tmp_path, inline=False) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        paid = trio.Event()
        seen: set[bytes] = set()

        def watch(income: Income) -> None:
            seen.add(income.reference)
            if len(seen) == 20:
                paid.set()

        clara.ledger.watch_income(watch)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    reference = bytes([number + 1]) * 32
                    nursery.start_soon(anna.ledger.pay, CLARA.node, 2, reference)
            await paid.wait()
        assert anna.balance == START - 40
        await verified(homes)


async def test_what_people_are_shown(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await anna.ledger.pay(CLARA.node, 30, b"r" * 32)
        await until(lambda: clara.balance == 30)
        for witness in homes[:2]:
            await witness.crash()
        await anna.ledger.pay(CLARA.node, 20, b"s" * 32)
        await anna.ledger.pay(BRUNO.node, 10, NOTHING)
        await trio.sleep(5)
        lines = await anna.ledger.views.history(10)
        assert [(one.seq, one.state, one.amount, one.balance) for one in lines] == [
            (0, "queued", 10, START - 30),
            (2, "pending", 20, START - 50),
            (1, "certified", 30, START - 30),
        ]
        assert [one.seq for one in await anna.ledger.views.history(2)] == [0, 2]
        assert [(one.seq, one.amount) for one in anna.ledger.waiting()] == [(2, 20), (0, 10)]
        (claim,) = await clara.ledger.views.history(10)
        assert (claim.kind, claim.other) == ("claim", ANNA.node)
        (first,) = await anna.ledger.views.chain(ANNA.node, 1, 10)
        assert first.entry.id == lines[2].id
        accounts = {line.account: line for line in await homes[2].ledger.views.accounts()}
        assert accounts[ANNA.node].balance == START - 30
        assert accounts[BRUNO.node].seq == 0
        file = tmp_path / "export.ayni"
        size = await homes[2].ledger.views.export(file)
        data = file.read_bytes()
        assert len(data) == size
        report = audit(village.charter, lambda: [data], Depth.FULL)
        assert report.ok
        assert report.complete
        assert report.total == report.supply
        assert not audit(village.charter, lambda: [data[:-1] + b"?"], Depth.FULL).ok
        with pytest.raises(LocalError) as caught:
            await homes[2].ledger.views.export(tmp_path / "no" / "folder")
        assert caught.value.code is Code.BAD_REQUEST
