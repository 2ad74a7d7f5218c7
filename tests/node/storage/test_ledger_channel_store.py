"""The tables of channels: funds counted once, shares that follow, one proposal, seats, sums."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.ledger.keeper import Keeper, no_steps
from node.ledger.plan import planned
from node.storage.checkpoints import CheckpointStore
from node.storage.database import open_database
from node.storage.ledger import LedgerStore, Records
from node.storage.ledger_own import NO_REFERENCE
from node.storage.migrations import MIGRATIONS
from protocol.envelope import Opened, Signed, seal
from protocol.ids import MessageId
from protocol.ledger.agreement import commit_seal, prepare_of, prepare_seal, prepared_made
from protocol.ledger.agreement import settlement_made as made
from protocol.ledger.certificate import Certificate, Certified, statement_signed
from protocol.ledger.checkpoint import Checkpoint, Checkpointed
from protocol.ledger.decoder import packed
from protocol.ledger.entry import Claim, Entry, Open, Source, TopUp, entry_opened
from protocol.ledger.settlement import Seat
from protocol.ledger.statement import Commit, PrepareCertificate, Proposal, Settlement
from protocol.ledger.sync import Propose
from protocol.ledger.witness import Known
from protocol.limits import TOPUPS_SHOWN_MAX
from tests.node.storage.test_ledger_store import apply, open_store
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    WITNESSES,
    Chain,
    claim,
    pay,
)

OWN = ANNA.node
SOON_MS = 1_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LedgerStore]:
    async with open_store(tmp_path) as opened:
        yield opened


def prepared(channel: MessageId, value: int, turn: int = 1) -> PrepareCertificate:
    proposal = Proposal(channel, turn, value)
    seals = [
        prepare_seal(
            statement_signed(one, prepare_of(proposal), CHARTER.network), proposal, CHARTER
        )
        for one in WITNESSES[:3]
    ]
    certificate = prepared_made(proposal, seals, CHARTER)
    assert certificate is not None
    return certificate


def settlement(channel: MessageId, value: int) -> Settlement:
    certificate = prepared(channel, value)
    commit = Commit(certificate.epoch, channel, certificate.turn, value)
    votes = [statement_signed(one, commit, CHARTER.network) for one in WITNESSES[:3]]
    settled = made(
        certificate, [commit_seal(vote, certificate, CHARTER) for vote in votes], CHARTER
    )
    assert settled is not None
    return settled


async def facts(store: LedgerStore, channel: MessageId):
    row = await store.read(lambda it: it.channel(channel))
    assert row is not None
    return row


async def test_a_channel_of_ours_as_the_payer(store: LedgerStore) -> None:
    anna = Chain(ANNA)
    channel = anna.add(Open(BRUNO.node, 40, SOON_MS)).id
    anna.add(TopUp(channel, 10))
    await apply(store, anna)
    row = await facts(store, channel)
    assert (row.payer, row.payee, row.expiry_ms) == (ANNA.node, BRUNO.node, SOON_MS)
    assert (row.funding, row.topups, row.settled, row.is_done) == (50, 1, None, False)
    assert await store.read(lambda it: it.funding(OWN, channel)) == 50
    assert await store.read(lambda it: it.funding(BRUNO.node, channel)) is None
    totals = await store.read(lambda it: it.totals())
    assert (totals.balances, totals.channel_funds) == (CHARTER.supply - 50, 50)
    assert [one.entry.id for one in await store.read(lambda it: it.funds(channel))] == [
        one.entry.id for one in anna.certified
    ]
    await store.write(lambda it: it.settle(settlement(channel, 35), OWN))
    figures = await store.read(lambda it: it.figures(OWN))
    assert (figures.claimable, figures.unclaimed) == (15, 1)
    # A top-up that was on its way when it was settled comes back with the rest.
    anna.add(TopUp(channel, 5))
    await apply(store, anna)
    assert (await store.read(lambda it: it.figures(OWN))).claimable == 20
    anna.add(Claim((Source("rest", channel, 20),)))
    await apply(store, anna)
    row = await facts(store, channel)
    assert (row.settled, row.is_done) == (35, True)
    assert (await store.read(lambda it: it.figures(OWN))).claimable == 0
    totals = await store.read(lambda it: it.totals())
    assert totals.balances + totals.channel_funds == CHARTER.supply
    assert totals.channel_funds == 35


async def test_a_channel_to_us_is_kept_before_its_chain_comes(store: LedgerStore) -> None:
    bruno = Chain(BRUNO)
    bruno.add(pay(CLARA, 1))
    opened = bruno.add(Open(ANNA.node, 20, SOON_MS))
    topped = bruno.add(TopUp(opened.id, 5))
    one, two = bruno.certified[1:]
    for _ in range(2):  # Shown again nothing changes.
        await store.write(lambda it: shown(it, one, opened))
        await store.write(lambda it: shown(it, two, topped))
    assert (await facts(store, opened.id)).funding == 25
    await store.write(lambda it: it.settle(settlement(opened.id, 22), OWN))
    (income,) = await store.read(lambda it: it.unclaimed(9))
    assert (income.kind, income.id, income.payer, income.amount) == (
        "earned",
        opened.id,
        BRUNO.node,
        22,
    )
    await apply(store, bruno)
    assert (await facts(store, opened.id)).funding == 25
    anna = Chain(ANNA)
    anna.add(Claim((Source("earned", opened.id, 22),)))
    await apply(store, anna)
    assert (await facts(store, opened.id)).is_done
    bruno.add(Claim((Source("rest", opened.id, 3),)))
    await apply(store, bruno)
    totals = await store.read(lambda it: it.totals())
    assert (totals.channel_funds, totals.pays_unclaimed) == (0, 1)
    assert totals.balances + totals.pays_unclaimed == CHARTER.supply


def shown(records: Records, certified: Certified, opened: Opened[Entry]) -> None:
    records.show(certified, opened)
    records.brought(opened, OWN)


async def test_a_settlement_that_comes_before_the_open(store: LedgerStore) -> None:
    bruno = Chain(BRUNO)
    opened = bruno.add(Open(ANNA.node, 20, SOON_MS))
    assert await store.write(lambda it: it.settle(settlement(opened.id, 7), OWN))
    assert not await store.write(lambda it: it.settle(settlement(opened.id, 7), OWN))
    await apply(store, bruno)
    assert (await store.read(lambda it: it.figures(OWN))).claimable == 7


async def test_a_channel_to_us_is_not_pruned_before_we_know_how_it_was_settled(
    tmp_path: Path,
) -> None:
    """Its payer has claimed all of it, and we have yet to ask and be told."""
    bruno = Chain(BRUNO)
    opened = bruno.add(Open(ANNA.node, 20, SOON_MS))
    bruno.add(Claim((Source("rest", opened.id, 20),)))
    bruno.add(pay(CLARA, 1))
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = LedgerStore(database, CHARTER)
        await apply(store, bruno)
        state = bruno.state
        checkpoint = Checkpoint(0, BRUNO.node, state.seq, state.head, state.balance, bytes(32))
        checkpoints = CheckpointStore(database, CHARTER, OWN)
        await checkpoints.keep(Checkpointed(checkpoint, ()))
        assert await pruned(checkpoints) == 1, "the claim alone"
        assert await store.read(lambda it: it.funds(opened.id)) == bruno.certified[:1]
        await store.write(lambda it: it.settle(settlement(opened.id, 0), OWN))
        assert await pruned(checkpoints) == 2


async def test_what_was_pruned_is_not_kept_again_unverified(tmp_path: Path) -> None:
    """Its id is known as final, so nobody looks at the seals that it is shown with."""
    anna, bruno = Chain(ANNA), Chain(BRUNO)
    paid = bruno.add(pay(ANNA, 5))
    anna.add(claim(paid))
    bruno.add(pay(CLARA, 1))
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store = LedgerStore(database, CHARTER)
        await apply(store, bruno, anna)
        state = bruno.state
        checkpoint = Checkpoint(0, BRUNO.node, state.seq, state.head, state.balance, bytes(32))
        checkpoints = CheckpointStore(database, CHARTER, OWN)
        await checkpoints.keep(Checkpointed(checkpoint, ()))
        assert await pruned(checkpoints) == 1
        forged = Certified(bruno.certified[0].entry, Certificate(paid.id, 0, ()))
        assert await Keeper(CHARTER, OWN, store, no_steps).take(forged) == Known()
        assert await store.read(lambda it: it.certified_by_id(paid.id)) is None


@pytest.mark.parametrize(("seq", "is_over"), [(2, True), (1, False)])
async def test_an_own_entry_before_an_adopted_checkpoint_is_sent_no_more(
    tmp_path: Path, seq: int, is_over: bool
) -> None:
    """An old copy has it pending; where its place is certified long since it never will be."""
    anna = Chain(ANNA)
    waiting = anna.add(pay(BRUNO, 3))
    second = anna.add(pay(CLARA, 1))
    head = {1: waiting, 2: second}[seq]
    async with open_database(tmp_path / "ayni.db", inline=True) as database:
        store, checkpoints = LedgerStore(database, CHARTER), CheckpointStore(database, CHARTER, OWN)
        signed = anna.certified[1 if not is_over else 0].entry
        entry = entry_opened(signed, CHARTER.network).value
        await store.write(lambda it: it.sign(signed, entry, None))
        balance = entry_opened(anna.certified[seq - 1].entry, CHARTER.network).value.balance
        checkpoint = Checkpoint(0, OWN, seq, head.id, balance, bytes(32))
        assert await checkpoints.adopt(Checkpointed(checkpoint, ()), ())
        pending = await store.read(lambda it: it.pending())
        assert pending == (None if is_over else signed)
        assert await store.read(lambda it: it.state("restored") is not None)


async def pruned(checkpoints: CheckpointStore) -> int:
    after = 0
    while after := await checkpoints.prune(BRUNO.node, after):
        pass
    return (await checkpoints.figures()).entries_pruned


async def test_a_share_of_nothing_is_done(store: LedgerStore) -> None:
    bruno = Chain(BRUNO)
    opened = bruno.add(Open(ANNA.node, 20, SOON_MS))
    await apply(store, bruno)
    await store.write(lambda it: it.settle(settlement(opened.id, 0), OWN))
    assert (await facts(store, opened.id)).is_done
    assert not await store.read(lambda it: it.unclaimed(9))


async def test_only_what_a_proposal_can_show_counts(store: LedgerStore) -> None:
    anna = Chain(ANNA)
    channel = anna.add(Open(BRUNO.node, 20, SOON_MS)).id
    for _ in range(TOPUPS_SHOWN_MAX + 2):
        anna.add(TopUp(channel, 1))
    await apply(store, anna)
    row = await facts(store, channel)
    assert (row.funding, row.topups) == (20 + TOPUPS_SHOWN_MAX, TOPUPS_SHOWN_MAX)
    assert len(await store.read(lambda it: it.funds(channel))) == 1 + TOPUPS_SHOWN_MAX
    # All of it is in the channel, and comes back when nothing was earned.
    await store.write(lambda it: it.settle(settlement(channel, 0), OWN))
    figures = await store.read(lambda it: it.figures(OWN))
    assert figures.claimable == 20 + TOPUPS_SHOWN_MAX + 2


async def test_what_counts_never_becomes_less_by_what_is_shown_later(store: LedgerStore) -> None:
    """A payer that shows its large top-ups first, and small ones of before when vouchers for the
    large ones are counted, would else be owed nothing by a proposal that shows too little."""
    bruno = Chain(BRUNO)
    channel = bruno.add(Open(ANNA.node, 20, SOON_MS)).id
    small = [bruno.add(TopUp(channel, 1)) for _ in range(5)]
    large = [bruno.add(TopUp(channel, 10)) for _ in range(TOPUPS_SHOWN_MAX)]
    shown_as = dict(zip([bruno.certified[0].entry.id, *(one.id for one in small + large)],
                        bruno.certified, strict=True))  # fmt: skip
    opened = entry_opened(bruno.certified[0].entry, CHARTER.network)
    for one in [opened, *large]:
        await store.write(lambda it, one=one: shown(it, shown_as[one.id], one))
    before = await facts(store, channel)
    assert (before.funding, before.topups) == (20 + 10 * TOPUPS_SHOWN_MAX, TOPUPS_SHOWN_MAX)
    for one in small:
        await store.write(lambda it, one=one: shown(it, shown_as[one.id], one))
    assert await facts(store, channel) == before
    funds = await store.read(lambda it: it.funds(channel))
    assert [one.entry.id for one in funds] == [channel, *(one.id for one in large)]


async def test_a_queued_topup_of_a_settled_channel_is_dropped(store: LedgerStore) -> None:
    anna = Chain(ANNA)
    channel = anna.add(Open(BRUNO.node, 20, SOON_MS)).id
    await apply(store, anna)
    await store.write(lambda it: it.owe_topup(channel, BRUNO.node, 5))
    await store.write(lambda it: it.owe(BRUNO.node, 6, NO_REFERENCE))
    assert (await store.read(lambda it: it.figures(OWN))).pending == 11
    await store.write(lambda it: it.settle(settlement(channel, 0), OWN))
    (left,) = await store.read(lambda it: it.queued(9))
    assert (left.kind, left.amount) == ("pay", 6)


async def test_a_signed_topup_that_dies_is_dropped_too(store: LedgerStore) -> None:
    anna = Chain(ANNA)
    channel = anna.add(Open(BRUNO.node, 20, SOON_MS)).id
    await apply(store, anna)
    await store.write(lambda it: it.owe_topup(channel, BRUNO.node, 5))
    (queued,) = await store.read(lambda it: it.queued(9))
    rival = Chain(ANNA)
    rival.certified, rival.state = list(anna.certified), anna.state
    dead = anna.add(TopUp(channel, 5))
    await store.write(lambda it: it.sign(anna.certified[-1].entry, dead.value, queued.number))
    await store.write(lambda it: it.settle(settlement(channel, 0), OWN))
    rival.add(pay(CLARA, 1))
    await apply(store, rival)
    assert not await store.read(lambda it: it.queued(9))


async def test_a_queued_topup_is_dropped_when_the_chain_has_taken_the_rest(
    store: LedgerStore,
) -> None:
    """As after a restore: the chain tells of the claim, and nothing of the settlement."""
    anna = Chain(ANNA)
    channel = anna.add(Open(BRUNO.node, 20, SOON_MS)).id
    await apply(store, anna)
    await store.write(lambda it: it.owe_topup(channel, BRUNO.node, 5))
    anna.add(Claim((Source("rest", channel, 20),)))
    await apply(store, anna)
    assert not await store.read(lambda it: it.queued(9))
    plan = await store.read(lambda it: planned(it, OWN, is_claim_due=True))
    assert plan is None
    # Also one that was asked for before anybody heard of it.
    await store.write(lambda it: it.owe_topup(channel, BRUNO.node, 5))
    assert not await store.read(lambda it: it.queued(9))


async def test_opens_and_topups_of_a_forgotten_journal_are_told_again(store: LedgerStore) -> None:
    """As after a restore: the chain has them, the journal does not, and their payee may not know
    of them either."""
    await store.write(lambda it: it.owe_open(BRUNO.node, 20, SOON_MS))
    anna = Chain(ANNA)
    channel = anna.add(Open(BRUNO.node, 20, SOON_MS)).id
    anna.add(Open(CLARA.node, 5, SOON_MS))
    anna.add(TopUp(channel, 3))
    await apply(store, anna)
    assert not await store.read(lambda it: it.queued(9))
    told = await store.read(lambda it: it.untold(BRUNO.node, OWN, 9))
    assert [(one.kind, one.seq, one.amount) for one in told] == [("open", 1, 20), ("topup", 3, 3)]
    assert [one.body for one in told] == [Open(BRUNO.node, 20, SOON_MS), TopUp(channel, 3)]
    funds = await store.read(lambda it: it.funds(channel))
    await store.write(lambda it: it.told_funds(channel, funds))
    assert await store.read(lambda it: it.payees_untold(OWN, b"", 9)) == [CLARA.node]


async def test_whoever_shares_a_channel_hears_how_it_was_settled(store: LedgerStore) -> None:
    anna, bruno = Chain(ANNA), Chain(BRUNO)
    ours = anna.add(Open(CLARA.node, 20, SOON_MS)).id
    theirs = bruno.add(Open(ANNA.node, 20, SOON_MS)).id
    await apply(store, anna, bruno)
    await store.write(lambda it: it.told_funds(ours, [anna.certified[0]]))
    assert not await store.read(lambda it: it.payees_untold(OWN, b"", 9))
    for channel in (ours, theirs):
        await store.write(lambda it, channel=channel: it.settle(settlement(channel, 1), OWN))
    expected = sorted([BRUNO.node, CLARA.node])
    assert await store.read(lambda it: it.payees_untold(OWN, b"", 9)) == expected
    (row,) = await store.read(lambda it: it.settlements_untold(CLARA.node, 9))
    assert row.id == ours
    await store.write(lambda it: it.told_settlement(ours))
    assert await store.read(lambda it: it.payees_untold(OWN, b"", 9)) == [BRUNO.node]


def proposal(channel: MessageId, turn: int, value: int, open_: Certified) -> Propose:
    signed: Signed = seal(ANNA, CHARTER.network, Proposal(channel, turn, value))
    return Propose(signed, open_, (), None, ())


async def test_a_turn_has_one_proposal_for_ever(store: LedgerStore) -> None:
    bruno = Chain(BRUNO)
    channel = bruno.add(Open(ANNA.node, 20, SOON_MS)).id
    opened = bruno.certified[0]
    asks = {value: proposal(channel, 3, value, opened) for value in (1, 2)}
    first = await store.write(lambda it: it.keep_proposal(asks[1], channel, 3, 1))
    again = await store.write(lambda it: it.keep_proposal(asks[2], channel, 3, 2))
    earlier = await store.write(
        lambda it: it.keep_proposal(proposal(channel, 1, 2, opened), channel, 1, 2)
    )
    assert first == again == earlier
    assert (first.turn, first.value, first.ask) == (3, 1, asks[1])
    later = await store.write(
        lambda it: it.keep_proposal(proposal(channel, 5, 2, opened), channel, 5, 2)
    )
    assert await store.read(lambda it: it.proposed_all()) == [(channel, later)]
    await store.write(lambda it: it.settle(settlement(channel, 2), OWN))
    assert not await store.read(lambda it: it.proposed_all())


async def test_a_seat_is_kept_until_the_settlement_stands_for_it(store: LedgerStore) -> None:
    channel = MessageId(b"c" * 32)
    assert await store.read(lambda it: it.seat(channel)) == Seat()
    lock = prepared(channel, 7)
    seat = Seat(promised=3, prepared=prepare_of(lock), lock=lock)
    await store.write(lambda it: it.keep_seat(channel, Seat(promised=2)))
    await store.write(lambda it: it.keep_seat(channel, seat))
    assert await store.read(lambda it: it.seat(channel)) == seat
    settled = settlement(channel, 7)
    await store.write(lambda it: it.settle(settled, OWN))
    assert await store.read(lambda it: it.seat(channel)) == Seat()
    assert await store.read(lambda it: it.settlement(channel)) == settled


async def test_claims_name_the_settlements_that_are_missing(store: LedgerStore) -> None:
    bruno, clara = Chain(BRUNO), Chain(CLARA)
    channel = bruno.add(Open(CLARA.node, 20, SOON_MS)).id
    clara.add(Claim((Source("earned", channel, 8),)))
    await apply(store, bruno, clara)
    assert await store.read(lambda it: it.settlements_missing(9)) == [channel]
    await store.write(lambda it: it.settle(settlement(channel, 8), OWN))
    assert not await store.read(lambda it: it.settlements_missing(9))


async def test_a_ledger_from_before_channels_is_kept(tmp_path: Path) -> None:
    """What the third step's tables hold is what today's hold after the fourth."""
    file = tmp_path / "ayni.db"
    bruno, anna = Chain(BRUNO), Chain(ANNA)
    paid = bruno.add(pay(ANNA, 7, b"r" * 32))
    anna.add(claim(paid))
    with sqlite3.connect(file) as before:
        for step in MIGRATIONS[:3]:
            for statement in step:
                before.execute(statement)
        before.execute("CREATE TABLE schema (version INTEGER NOT NULL)")
        before.execute("INSERT INTO schema VALUES (3)")
        before.execute(
            "INSERT INTO ledger_payments VALUES (1, ?, 5, ?, NULL, 0)", (BRUNO.node, b"s" * 32)
        )
        before.execute(
            "INSERT INTO ledger_incomes VALUES (4, ?, ?, 7, ?, NULL)",
            (paid.id, BRUNO.node, b"r" * 32),
        )
        before.execute(
            "INSERT INTO ledger_shown VALUES (?, ?, 1, ?)",
            (paid.id, BRUNO.node, packed(bruno.certified[0])),
        )
    before.close()
    async with open_database(file, inline=True) as database:
        store = LedgerStore(database, CHARTER)
        (payment,) = await store.read(lambda it: it.queued(9))
        assert (payment.kind, payment.payee, payment.amount) == ("pay", BRUNO.node, 5)
        (income,) = await store.read(lambda it: it.unclaimed(9))
        assert (income.number, income.kind, income.id, income.amount) == (4, "pay", paid.id, 7)
        await apply(store, bruno, anna)
        assert not await store.read(lambda it: it.unclaimed(9))
        assert not await store.write(lambda it: it.owe(BRUNO.node, 5, b"s" * 32))
