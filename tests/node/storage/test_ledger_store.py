"""The ledger's tables: what is owed once stays so, whatever chain comes; proofs are bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from node.storage import ledger as module
from node.storage.database import open_database
from node.storage.ledger import PROOFS_PER_ACCOUNT_MAX, LedgerStore, Records
from node.storage.ledger_export import exported
from protocol.envelope import Opened
from protocol.identity import Identity, Seed
from protocol.ids import NodeId
from protocol.ledger.account import opening
from protocol.ledger.audit import Depth, audit
from protocol.ledger.entry import Entry, Pay, entry_read
from protocol.ledger.proof import Contradiction, contradiction_made
from protocol.ledger.witness import Applied, Follower
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    NOTHING,
    Chain,
    claim,
    entry_after,
    pay,
    signed_entry,
    start,
)

OWN = ANNA.node


@asynccontextmanager
async def open_store(path: Path, *, inline: bool = True) -> AsyncIterator[LedgerStore]:
    async with open_database(path / "ayni.db", inline=inline) as database:
        yield LedgerStore(database, CHARTER)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LedgerStore]:
    async with open_store(tmp_path) as opened:
        yield opened


async def apply(store: LedgerStore, *chains: Chain, own: NodeId = OWN) -> None:
    """Take chains as they are, by the machine's word."""
    follower = Follower(CHARTER, own)

    def work(records: Records) -> None:
        for chain in chains:
            for certified in chain.certified:
                outcome = follower.on_certificate(certified, records)
                if isinstance(outcome, Applied):
                    records.apply(outcome, own)

    await store.write(work)


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    anna, bruno = Chain(ANNA), Chain(BRUNO)
    paid = anna.add(pay(BRUNO, 30, b"r" * 32))
    bruno.add(claim(paid))
    for inline in (True, False):
        async with open_store(tmp_path, inline=inline) as store:
            await apply(store, anna, bruno)
            account = await store.read(lambda chains: chains.account(OWN))
            assert account == anna.state
            assert await store.read(lambda it: it.claimed_at(BRUNO.node, ("pay", paid.id))) == 1
            assert await store.read(lambda it: it.head(OWN)) == anna.certified[-1]
            assert await store.read(lambda it: it.certified_by_id(paid.id)) == anna.certified[0]
            totals = await store.read(lambda it: it.totals())
            assert totals.balances + totals.pays_unclaimed == CHARTER.supply
            assert (totals.entries, totals.sources_missing) == (2, 0)


async def test_a_vote_is_kept_until_its_place_is_certified(store: LedgerStore) -> None:
    anna = Chain(ANNA)
    opened = anna.add(pay(BRUNO, 30))
    signed = anna.certified[0].entry
    before = await store.read(lambda it: it.stamp(OWN, 1))
    await store.write(lambda it: it.vote(signed, opened.value))
    assert await store.read(lambda it: it.voted(OWN, 1)) == signed
    assert await store.read(lambda it: it.stamp(OWN, 1)) != before
    await apply(store, anna)
    assert await store.read(lambda it: it.voted(OWN, 1)) is None


async def test_a_reference_is_owed_once_for_each_payee(store: LedgerStore) -> None:
    assert await store.write(lambda it: it.owe(BRUNO.node, 5, b"r" * 32))
    assert not await store.write(lambda it: it.owe(BRUNO.node, 6, b"r" * 32))
    assert await store.write(lambda it: it.owe(CLARA.node, 5, b"r" * 32))
    for _ in range(2):
        assert await store.write(lambda it: it.owe(BRUNO.node, 5, NOTHING))
    assert (await store.read(lambda it: it.figures(OWN))).pending == 20


async def test_sums_beyond_64_bits_are_right(store: LedgerStore) -> None:
    amount = (1 << 63) - 1
    for number in range(3):
        await store.write(
            lambda it, number=number: it.owe(BRUNO.node, amount, bytes([number + 1]) * 32)
        )
    assert (await store.read(lambda it: it.figures(OWN))).pending == 3 * amount


async def test_an_entry_that_this_journal_did_not_sign(store: LedgerStore) -> None:
    """As after a restore: it pays what is owed, so that is not paid again; what it pays beyond is
    noted; and the journal knows that it is old."""
    await store.write(lambda it: it.owe(BRUNO.node, 30, b"r" * 32))
    anna = Chain(ANNA)
    anna.add(pay(BRUNO, 30, b"r" * 32))
    anna.add(pay(CLARA, 7, b"s" * 32))
    await apply(store, anna)
    figures = await store.read(lambda it: it.figures(OWN))
    assert (figures.pending, figures.is_restored, figures.account.balance) == (0, True, 63)
    assert not await store.write(lambda it: it.owe(CLARA.node, 7, b"s" * 32))
    assert not await store.read(lambda it: it.queued(10))


async def test_our_own_entry_is_no_sign_of_a_restore(store: LedgerStore) -> None:
    anna = Chain(ANNA)
    opened = anna.add(pay(BRUNO, 30, b"r" * 32))
    await store.write(lambda it: it.owe(BRUNO.node, 30, b"r" * 32))
    (queued,) = await store.read(lambda it: it.queued(10))
    signed = anna.certified[0].entry
    await store.write(lambda it: it.sign(signed, opened.value, queued.number))
    assert (await store.read(lambda it: it.pending())) == signed
    assert (await store.read(lambda it: it.figures(OWN))).pending == 30
    await apply(store, anna)
    figures = await store.read(lambda it: it.figures(OWN))
    assert (figures.pending, figures.is_restored) == (0, False)
    assert await store.read(lambda it: it.pending()) is None
    assert [one.payee for one in await store.read(lambda it: it.untold(BRUNO.node, OWN, 9))] == [
        BRUNO.node
    ]


async def test_what_a_dead_entry_was_to_pay_is_owed_still(store: LedgerStore) -> None:
    await store.write(lambda it: it.owe(BRUNO.node, 30, b"r" * 32))
    (queued,) = await store.read(lambda it: it.queued(10))
    entry = entry_after(start(ANNA), pay(BRUNO, 30, b"r" * 32))
    await store.write(lambda it: it.sign(signed_entry(ANNA, entry), entry, queued.number))
    assert not await store.read(lambda it: it.queued(10))
    rival = Chain(ANNA)
    rival.add(pay(CLARA, 7))
    await apply(store, rival)
    assert [one.reference for one in await store.read(lambda it: it.queued(10))] == [b"r" * 32]
    assert await store.read(lambda it: it.pending()) is None


async def test_an_income_is_known_once_and_claimed_once(store: LedgerStore) -> None:
    bruno, anna = Chain(BRUNO), Chain(ANNA)
    paid = bruno.add(pay(ANNA, 30, b"r" * 32))
    certified = bruno.certified[0]
    await store.write(lambda it: it.show(certified, paid))
    for new in (True, False):
        brought = await store.write(lambda it: it.brought(paid, OWN))
        assert [one is not None for one in brought.incomes] == [new]
    # Before its chain has come it is shown apart, and a claim can be proven with it.
    assert await store.read(lambda it: it.certified_by_id(paid.id)) == certified
    assert await store.read(lambda it: it.sources_ahead(9)) == [(BRUNO.node, 1)]
    figures = await store.read(lambda it: it.figures(OWN))
    assert (figures.claimable, figures.unclaimed) == (30, 1)
    anna.add(claim(paid))
    await apply(store, anna)
    assert (await store.read(lambda it: it.figures(OWN))).unclaimed == 0
    totals = await store.read(lambda it: it.totals())
    assert totals.sources_missing == 1
    data = await store.read(lambda it: b"".join(exported(it)))
    report = audit(CHARTER, lambda: [data], Depth.FULL)
    assert report.ok
    assert not report.complete
    await apply(store, bruno)
    assert not await store.read(lambda it: it.sources_ahead(9))
    data = await store.read(lambda it: b"".join(exported(it)))
    report = audit(CHARTER, lambda: [data], Depth.FULL)
    assert report.ok
    assert report.complete


async def test_an_income_that_was_claimed_before_it_was_known(store: LedgerStore) -> None:
    bruno, anna = Chain(BRUNO), Chain(ANNA)
    paid = bruno.add(pay(ANNA, 30))
    anna.add(claim(paid))
    await apply(store, anna)
    assert await store.read(lambda it: it.sources_missing(9)) == [paid.id]
    await apply(store, bruno)
    figures = await store.read(lambda it: it.figures(OWN))
    assert (figures.claimable, figures.unclaimed) == (0, 0)
    assert len(await store.read(lambda it: it.pays_last(9))) == 1


def contradiction(identity: Identity, number: int) -> Contradiction:
    """Of its first seq; for each number another one."""
    before = opening(CHARTER, identity.node)
    two = [
        signed_entry(identity, entry_after(before, Pay(CLARA.node, amount, NOTHING)))
        for amount in (1, 2 + number)
    ]
    proof = contradiction_made(*two, CHARTER)
    assert proof is not None
    return proof


async def test_proofs_are_bounded(store: LedgerStore) -> None:
    proofs = [contradiction(ANNA, number) for number in range(PROOFS_PER_ACCOUNT_MAX + 2)]
    kept = [await store.write(lambda it, one=proof: it.keep_proof(one)) for proof in proofs]
    assert sum(kept) == PROOFS_PER_ACCOUNT_MAX
    assert not await store.write(lambda it: it.keep_proof(proofs[0]))
    assert await store.read(lambda it: it.proofs(0, 9)) == proofs[:PROOFS_PER_ACCOUNT_MAX]
    assert await store.read(lambda it: it.proofs(1, 9)) == proofs[1:PROOFS_PER_ACCOUNT_MAX]
    # A key that never had a credit can be made by the million, so nothing is kept of it.
    nobody = Identity(Seed(b"?" * 32))
    stranger = Chain(nobody)
    rivals = [
        signed_entry(nobody, entry_after(stranger.state, claim_of(number))) for number in (1, 2)
    ]
    proof = contradiction_made(*rivals, CHARTER)
    assert proof is not None
    assert not await store.write(lambda it: it.keep_proof(proof))
    assert module.PROOFS_MAX >= PROOFS_PER_ACCOUNT_MAX


def claim_of(number: int):
    bruno = Chain(BRUNO)
    return claim(bruno.add(pay(CLARA, number)))


async def test_a_change_that_fails_leaves_nothing(store: LedgerStore) -> None:
    anna = Chain(ANNA)
    opened: Opened[Entry] = anna.add(pay(BRUNO, 30))

    def work(records: Records) -> None:
        records.vote(anna.certified[0].entry, opened.value)
        records.owe(BRUNO.node, 1, NOTHING)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await store.write(work)
    assert await store.read(lambda it: it.voted(OWN, 1)) is None
    assert not await store.read(lambda it: it.queued(9))
    assert entry_read(anna.certified[0].entry, CHARTER.network) == opened
