"""What the API says of a real ledger: sending, waiting, chains, exports, and what stops it."""

import pytest

from node.ledger.signal import Signal
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, node_text
from protocol.ledger.audit import Depth, audit
from protocol.ledger.charter import charter
from protocol.ledger.genesis import genesis_made
from protocol.ledger.proof import breach_made
from tests.node.api.wallet_samples import CONTRADICTION, REFERENCE, RIVALS, TOWN
from tests.node.app.ledger_home import ALONE, opened, wall_ms
from tests.protocol.ledger.chains import ANNA, BRUNO, CHARTER, CLARA, WITNESSES


async def test_what_is_sent_is_certified_and_stands_in_all_views(tmp_path):
    async with opened(tmp_path, ALONE) as node:
        sent = await node.send(30, reference=REFERENCE)
        assert (sent.certified, sent.waiting, sent.to.name) == (True, None, "bruno")
        assert sent.reference == REFERENCE.hex()
        await node.send(5, to=CLARA)
        wallet = node.backend.wallet()
        assert (wallet.balance_microcredits, wallet.spendable_microcredits) == (65, 65)
        assert (wallet.ready, wallet.seq, wallet.trouble, wallet.waiting) == (True, 2, "", ())
        newest, oldest = await node.backend.history(20)
        assert (newest.party.node, newest.change_microcredits) == (node_text(CLARA.node), -5)
        assert (oldest.party.name, oldest.reference) == ("bruno", REFERENCE.hex())
        assert (oldest.seals, oldest.witnesses, oldest.state) == (1, 1, "certified")
        assert [line.seq for line in await node.backend.history(1)] == [2]
        chain = await node.backend.chain(ANNA.node, 20)
        assert [entry.seq for entry in chain.entries] == [2, 1]
        assert (chain.balance_microcredits, chain.allocated_microcredits) == (65, 100)
        assert [seal.name for seal in chain.entries[0].seals] == ["anna"]
        assert [one.seq for one in (await node.backend.chain(ANNA.node, 1)).entries] == [2]
        lines = await node.backend.accounts(10)
        told = [(line.account.name, line.balance_microcredits, line.seq) for line in lines]
        assert told == [("anna", 65, 2), ("bruno", 40, 0)]
        assert len(await node.backend.accounts(1)) == 1


async def test_an_account_without_entries_has_what_the_genesis_gave_it(tmp_path):
    async with opened(tmp_path, ALONE) as node:
        bruno = await node.backend.chain(BRUNO.node, 20)
        assert (bruno.seq, bruno.balance_microcredits, bruno.entries) == (0, 40, ())
        clara = await node.backend.chain(CLARA.node, 20)
        assert (clara.balance_microcredits, clara.allocated_microcredits) == (0, 0)


@pytest.mark.parametrize("reference", [bytes(32), REFERENCE])
async def test_more_than_is_spendable_is_never_sent(tmp_path, reference):
    async with opened(tmp_path, ALONE) as node:
        with node.ledger.reserve(60), pytest.raises(LocalError) as refused:
            await node.send(41, reference=reference)
        assert refused.value.code is Code.OVERDRAWN
        with pytest.raises(LocalError) as refused:
            await node.send(1, to=ANNA)
        assert refused.value.code is Code.BAD_REQUEST
        assert node.backend.wallet().pending_microcredits == 0


async def test_an_export_holds_for_anyone_and_leaves_nothing_behind(tmp_path):
    async with opened(tmp_path, ALONE) as node:
        await node.send(30)
        before = set(tmp_path.iterdir())
        async with node.backend.export() as pieces:
            data = b"".join([piece async for piece in pieces])
        assert set(tmp_path.iterdir()) == before
        report = audit(ALONE, lambda: [data], Depth.FULL)
        assert (report.ok, report.entries, report.total) == (True, 1, 140)
        for depth in Depth:
            verified = await node.backend.verify(depth)
            assert (verified.ok, verified.entries, verified.depth) == (True, 1, depth.value)
            assert verified.total_microcredits == verified.supply_microcredits == 140


async def test_without_the_witnesses_it_waits_on_disk_and_says_so(tmp_path):
    async with opened(tmp_path, CHARTER) as node:
        sent = await node.send(30, wait_ms=50)
        assert not sent.certified
        assert (sent.waiting.amount_microcredits, sent.waiting.quorum) == (30, 3)
        wallet = node.backend.wallet()
        assert (wallet.ready, wallet.pending_microcredits) == (False, 30)
        assert (wallet.spendable_microcredits, wallet.balance_microcredits) == (70, 100)
        assert wallet.waiting == (sent.waiting,)
        (line,) = await node.backend.history(20)
        assert (line.state, line.change_microcredits, line.party.name) == ("queued", -30, "bruno")
    async with opened(tmp_path, CHARTER) as node:
        assert node.backend.wallet().pending_microcredits == 30


async def test_a_channel_is_shown_in_wallet_list_and_chain(tmp_path):
    async with opened(tmp_path, ALONE) as node:
        told = Signal()
        node.ledger.watch_channels(lambda facts: told.set())
        expiry_ms = wall_ms() + 86_400_000
        coming = told.coming()
        await node.ledger.open_channel(BRUNO.node, 30, expiry_ms)
        await coming.wait()
        wallet = node.backend.wallet()
        assert (wallet.balance_microcredits, wallet.spendable_microcredits) == (70, 70)
        assert (wallet.earned_microcredits, wallet.lost_microcredits) == (0, 0)
        (locked,) = wallet.locked
        back_ms = expiry_ms + ALONE.grace_ms + ALONE.window_ms
        assert (locked.amount_microcredits, locked.back_ms) == (30, back_ms)
        assert locked.party.name == "bruno"
        (line,) = node.backend.channels()
        assert (line.channel, line.role, line.state) == (locked.channel, "payer", "open")
        assert (line.funding_microcredits, line.moved_microcredits) == (30, None)
        coming = told.coming()
        await node.ledger.top_up(MessageId(bytes.fromhex(line.channel)), 5)
        await coming.wait()
        topped, opening = await node.backend.history(20)
        assert (topped.kind, topped.change_microcredits) == ("topup", -5)
        assert (opening.kind, opening.party.name) == ("open", "bruno")
        chain = await node.backend.chain(ANNA.node, 20)
        assert [(one.kind, one.reference) for one in chain.entries] == [
            ("topup", line.channel),
            ("open", ""),
        ]
        assert chain.entries[1].to.name == "bruno"
        verified = await node.backend.verify(Depth.FULL)
        assert (verified.channels_microcredits, verified.total_microcredits) == (35, 140)
        # Bruno is not there, so he is asked again and again.
        asked = await node.backend.settle(MessageId(bytes.fromhex(line.channel)))
        assert (asked.state, asked.step) == ("closed", "ask its payee again to settle it")
        with pytest.raises(LocalError) as refused:
            await node.backend.settle(MessageId(bytes(32)))
        assert refused.value.code is Code.NOT_FOUND


async def test_proofs_are_shown_breaches_first(tmp_path):
    async with opened(tmp_path, CHARTER) as node:
        assert await node.backend.proofs() == []
        breach = breach_made(RIVALS, CHARTER)

        def work(records):
            records.keep_proof(CONTRADICTION)
            records.keep_proof(breach)

        await node.store.write(work)
        shown = await node.backend.proofs()
        assert [proof.kind for proof in shown] == ["breach", "contradiction"]
        assert [len(proof.entries) for proof in shown] == [2, 2]


STOPS = {
    "halted": lambda records: records.stop(breach_made(RIVALS, CHARTER)),
    "lapsed": lambda records: records.stop(TOWN["anna"].certified[0]),
    "restored": lambda records: records.set_state("restored", b"1"),
    "copied": lambda records: records.set_state("rival", b"1"),
}


@pytest.mark.parametrize("trouble", STOPS)
async def test_what_stops_a_ledger_is_told_until_its_owner_has_spoken(tmp_path, trouble):
    who = WITNESSES[0] if trouble == "lapsed" else ANNA  # Only a witness can forget its votes.
    async with opened(tmp_path, CHARTER, who) as node:
        await node.store.write(STOPS[trouble])
    async with opened(tmp_path, CHARTER, who) as node:
        wallet = node.backend.wallet()
        assert wallet.trouble == trouble
        assert wallet.sentence
        assert wallet.remedy
        if trouble == "halted":
            with pytest.raises(LocalError) as refused:
                await node.send(1)
            assert refused.value.code is Code.HALTED
        needs_override = trouble in ("restored", "copied")
        after = await node.backend.resume(override=False)
        assert after.trouble == (trouble if needs_override else "")
        assert (await node.backend.resume(override=True)).trouble == ""
        assert (await node.backend.resume(override=True)).trouble == ""


async def test_a_network_without_witnesses_says_so(tmp_path):
    bare = charter(genesis_made("bare", bytes(16), {ANNA.node: 100}, set()))
    async with opened(tmp_path, bare) as node:
        wallet = node.backend.wallet()
        assert (wallet.trouble, wallet.witnesses) == ("unwitnessed", 0)
        assert "witness" in wallet.sentence


async def test_the_audit_says_what_is_kept_and_what_was_verified(tmp_path):
    async with opened(tmp_path, ALONE) as node:
        await node.send(30)
        found = await node.backend.audit()
        assert (found.keeps, found.is_behind, found.findings, found.proofs) == (
            "all",
            False,
            (),
            (),
        )
        assert (found.accounts, found.entries) == (0, 0), "of others; there are none"
        assert (found.checkpoints, found.entries_pruned) == (0, 0)
        assert found.signatures > 0
