"""A network whose entries cost a fee: each belongs to one witness, who claims it by its proof."""

from pathlib import Path

import trio.testing

from protocol.ledger.charter import charter
from protocol.ledger.entry import FEE, entry_read, sources_of
from protocol.ledger.genesis import genesis_made
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
ENTRY_FEE = 3
PAYS = 24


async def fees_claimed(home: Home, village: Village) -> list[tuple[bytes, int]]:
    """What this node's own chain has claimed as fees."""
    chain = await home.ledger.views.chain(home.node, 1, 1_000)
    entries = (entry_read(one.entry, village.charter.network).value for one in chain)
    sources = (source for entry in entries for source in sources_of(entry))
    return [(source.id, source.amount) for source in sources if source.kind == FEE]


async def test_each_fee_goes_to_the_witness_that_its_entry_belongs_to(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        village.charter = charter(
            genesis_made(
                "ayllu",
                bytes(16),
                {one.node: START for one in (ANNA, BRUNO, *WITNESSES[:2])},
                {one.node for one in WITNESSES},
                entry_fee=ENTRY_FEE,
            )
        )
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        witnesses, (anna, clara) = homes[:4], homes[4:]
        await until(lambda: anna.ledger.ready)
        for number in range(PAYS):
            await anna.ledger.pay(CLARA.node, 10, bytes([number + 1]) * 32)
        await anna.ledger.open_channel(CLARA.node, 50, EPOCH_MS + 86_400_000)
        await until(lambda: anna.ledger.standing().seq == PAYS + 1, 600)
        assert anna.balance == START - PAYS * (10 + ENTRY_FEE) - 50 - ENTRY_FEE
        paid = await anna.ledger.views.chain(ANNA.node, 1, PAYS + 1)
        ids = [one.entry.id for one in paid]

        async def are_taken() -> bool:
            taken = {
                source for home in witnesses for source, _ in await fees_claimed(home, village)
            }
            return len(taken & set(ids)) >= PAYS - 2 * len(WITNESSES)

        await until_async(are_taken, 600)
        everything: list[bytes] = []
        for number, home in enumerate(witnesses):
            claimed = await fees_claimed(home, village)
            assert claimed, "with so many entries each witness has its share"
            for source, amount in claimed:
                assert amount == ENTRY_FEE
                assert int.from_bytes(source, "big") % len(WITNESSES) == number
                everything.append(source)
        assert len(everything) == len(set(everything)), "no fee is claimed twice"
        for home in (anna, clara):
            assert not await fees_claimed(home, village)

        async def adds_up() -> bool:
            """A witness that is not behind sees the whole supply, to the microcredit."""
            terms = await witnesses[0].ledger.views.terms()
            kept = terms.balances + terms.pays_unclaimed + terms.channel_funds + terms.fees
            return not terms.sources_missing and kept == terms.supply

        await until_async(adds_up, 600)
        # A claim costs a fee too, which is claimed in its turn; that comes to rest.
        seqs = [home.ledger.standing().seq for home in witnesses]
        await trio.sleep(150)
        later = [home.ledger.standing().seq for home in witnesses]
        await trio.sleep(150)
        assert [home.ledger.standing().seq for home in witnesses] == later
        assert sum(later) - sum(seqs) < PAYS
        await verified(homes)
        assert not any(home.ledger.trouble for home in homes)
