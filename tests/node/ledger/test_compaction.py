"""History pruned to checkpoints that witnesses sealed: nothing is lost, and others can go on."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio.testing

from node.ledger import audit, compaction, journal
from node.ledger.service import Settings
from protocol.identity import Identity, Seed
from protocol.ids import NodeId
from protocol.ledger.audit import Depth
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    EPOCH_MS,
    START,
    WITNESSES,
    Home,
    Village,
    open_village,
    until,
    until_async,
    verified,
)

Clock = trio.testing.MockClock
PACE = Settings(
    journal=journal.Settings(claim_sources=4, claim_seconds=10, agree_seconds=2),
    audit=audit.Settings(round_seconds=5, check_seconds=3600),
)
PRUNING = replace(PACE, compaction=compaction.Settings(True, round_seconds=20, entries_min=6))
DAY_MS = 86_400_000
STRANGER = Identity(Seed(bytes([77]) * 32))


async def pays(home: Home, to: NodeId, count: int) -> None:
    seq = home.ledger.standing().seq
    first = START + len(home.incomes) + seq * 1_000
    for number in range(count):
        await home.ledger.pay(to, 2, (first + number).to_bytes(32, "big"))
    await until(lambda: home.ledger.standing().seq >= seq + count)


async def town(village: Village, watching: Settings) -> Sequence[Home]:
    """Anna and Bruno, who have traded; Clara watches as she is told; all witnesses are up."""
    village.home(CLARA).settings = watching
    for one in (ANNA, BRUNO, *WITNESSES):
        village.home(one).settings = PACE
    homes = await village.up(*WITNESSES, ANNA, BRUNO, CLARA)
    anna, bruno, clara = homes[-3:]
    await until(lambda: anna.ledger.ready and bruno.ledger.ready)
    await pays(anna, BRUNO.node, 8)
    await anna.ledger.open_channel(BRUNO.node, 100, EPOCH_MS + DAY_MS)
    await until(lambda: any(facts.payee == BRUNO.node for facts in anna.ledger.channels()))
    await pays(anna, BRUNO.node, 4)
    await until(lambda: bruno.ledger.standing().balance == START + 24)
    return anna, bruno, clara


async def test_what_is_pruned_is_not_needed_and_all_still_adds_up(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        anna, bruno, clara = await town(village, PRUNING)

        async def is_pruned() -> bool:
            pruned = await clara.ledger.pruned()
            return pruned.checkpoints >= 1 and pruned.entries_pruned >= 10

        await until_async(is_pruned)
        terms = await clara.ledger.views.terms()
        kept = terms.balances + terms.pays_unclaimed + terms.channel_funds + terms.fees
        assert kept == terms.supply
        assert terms.sources_missing == 0
        assert (terms.channel_funds, clara.ledger.keeps) == (100, "recent")
        chain = await clara.ledger.views.chain(ANNA.node, 1, 100)
        assert 1 <= len(chain) < 10, "the open, the head and what is newer stay"
        for depth in Depth:
            report = await clara.ledger.views.verify(depth)
            assert report.ok, report.faults
            assert not report.complete, "what was pruned is believed, not verified"
            assert report.total == report.supply
        # The chain goes on, and is followed from there.
        await pays(anna, BRUNO.node, 3)

        async def has_followed() -> bool:
            lines = await clara.ledger.views.accounts()
            return {line.account: line.balance for line in lines}[ANNA.node] == anna.balance

        await until_async(has_followed)
        await verified([clara, anna, bruno])
        assert clara.ledger.trouble == ""


async def test_a_newcomer_goes_on_from_a_checkpoint_where_nobody_has_the_beginning(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        anna, _, clara = await town(village, PRUNING)

        async def is_pruned() -> bool:
            return (await clara.ledger.pruned()).entries_pruned >= 10

        await until_async(is_pruned)
        balance, seq = anna.balance, anna.ledger.standing().seq
        for home in list(village.homes.values()):
            if home is not clara:
                await home.crash()
        late = village.home(STRANGER)
        await late.up()

        async def has_anna() -> bool:
            lines = await late.ledger.views.accounts()
            return any(line.account == ANNA.node and line.seq == seq for line in lines)

        await until_async(has_anna)
        lines = {line.account: line for line in await late.ledger.views.accounts()}
        assert lines[ANNA.node].balance == balance
        terms, theirs = await late.ledger.views.terms(), await clara.ledger.views.terms()
        assert terms.channel_funds == theirs.channel_funds == 100
        assert terms.balances == theirs.balances
        assert terms.pays_unclaimed == theirs.pays_unclaimed
        await verified([late])
        assert not late.ledger.audited.faults


async def test_a_channel_goes_when_both_sides_have_taken_their_share(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Cut in mid-prune, and with shares that are claimed before and after the checkpoint."""
    async with open_village(tmp_path) as village:
        anna, bruno, clara = await town(village, PRUNING)
        (channel,) = anna.ledger.channels()
        await bruno.ledger.settle(channel.id)
        await until(lambda: anna.ledger.channels()[0].is_claimed)

        async def has_pruned(count: int) -> bool:
            return (await clara.ledger.pruned()).entries_pruned >= count

        await until_async(lambda: has_pruned(1))
        await clara.crash_and_lose()
        await clara.up()
        await pays(anna, BRUNO.node, 8)
        await until(lambda: bruno.ledger.standing().balance >= START + 40)
        await until_async(lambda: has_pruned(20))

        async def is_whole() -> bool:
            terms = await clara.ledger.views.terms()
            kept = terms.balances + terms.pays_unclaimed + terms.channel_funds + terms.fees
            return not terms.channel_funds and kept == terms.supply

        await until_async(is_whole)
        await verified([clara])
        assert clara.ledger.trouble == ""


@pytest.mark.parametrize("who", ["payer", "payee"])
async def test_channels_come_back_with_a_checkpoint(
    tmp_path: Path, autojump_clock: Clock, who: str
) -> None:
    """Who has lost its disk, and finds only a peer that pruned, still learns of its channels: the
    other side believes that it knows them."""
    async with open_village(tmp_path) as village:
        anna, bruno, clara = await town(village, PRUNING)
        await until_async(partial(has_pruned, clara, 10))
        (channel,) = anna.ledger.channels()
        for home in list(village.homes.values()):
            if home is not clara:
                await home.crash()
        lost = anna if who == "payer" else bruno
        shutil.rmtree(lost.file.parent)
        await lost.up()
        await until(lambda: channel.id in lost.channels)
        assert lost.channels[channel.id] == channel


async def has_pruned(home: Home, count: int) -> bool:
    return (await home.ledger.pruned()).entries_pruned >= count
