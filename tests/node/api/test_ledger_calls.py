"""The wallet's and ledger's calls: what arrives, what is refused, and an export that breaks off."""

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from node.api.channel_views import ChannelLine
from node.api.ledger_backend import Payment
from node.api.ledger_views import (
    AccountLine,
    Chain,
    HistoryLine,
    Sent,
    ShownProof,
    Verification,
    Wallet,
)
from protocol.errors import Code, LocalError
from protocol.ids import NodeId, node_text
from protocol.ledger.audit import Depth
from tests.node.api.wallet_samples import EXPORT, REFERENCE, WALLET, party, scripted_ledger
from tests.protocol.ledger.chains import ANNA, BRUNO, CLARA, WITNESSES

TO = node_text(BRUNO.node)


@pytest.fixture
def ledger(scene):
    """The scene's own, filled."""
    made, there = scripted_ledger(), scene.backend.ledger
    for name in ("purse", "lines", "chains", "proven", "verified", "file", "channel_lines"):
        setattr(there, name, getattr(made, name))
    return there


async def read(scene, path, kind, **query):
    response = await scene.client.get(path, params=query)
    assert response.status_code == 200
    return msgspec.json.decode(response.content, type=kind)


async def test_each_view_arrives_as_it_was(scene, ledger):
    assert await read(scene, "/ayni/v1/wallet", Wallet) == ledger.purse
    lines = await read(scene, "/ayni/v1/wallet/history", tuple[HistoryLine, ...])
    assert lines == ledger.lines
    chain = await read(scene, "/ayni/v1/ledger/show", Chain, account=TO)
    assert chain == ledger.chains[1]
    proofs = await read(scene, "/ayni/v1/ledger/proofs", tuple[ShownProof, ...])
    assert proofs == ledger.proven
    accounts = await read(scene, "/ayni/v1/ledger/accounts", tuple[AccountLine, ...])
    assert [line.account for line in accounts] == [
        party(node) for node in (ANNA.node, CLARA.node, BRUNO.node)
    ]


async def test_lists_are_limited(scene, ledger):
    history, show = "/ayni/v1/wallet/history", "/ayni/v1/ledger/show"
    assert len(await read(scene, history, tuple[HistoryLine, ...], limit="2")) == 2
    assert len((await read(scene, show, Chain, account=TO, limit="1")).entries) == 1
    for path in (history, show):
        refused = await scene.client.get(path, params={"account": TO, "limit": "201"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


async def test_channels_are_listed_and_settled(scene, ledger):
    path = "/ayni/v1/wallet/channels"
    assert await read(scene, path, tuple[ChannelLine, ...]) == ledger.channel_lines
    channel = ledger.channel_lines[0].channel
    settled = await scene.client.post("/ayni/v1/wallet/settle", json={"channel": channel})
    assert settled.status_code == 200
    assert msgspec.json.decode(settled.content, type=ChannelLine).state == "settling"
    assert ledger.asked == [bytes.fromhex(channel)]
    for wrong, status in (("3f", 400), ("aa" * 32, 404)):
        refused = await scene.client.post("/ayni/v1/wallet/settle", json={"channel": wrong})
        assert refused.status_code == status


async def test_an_account_that_is_none_is_refused(scene, ledger):
    for account in ({}, {"account": "maize"}):
        refused = await scene.client.get("/ayni/v1/ledger/show", params=account)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "account")


async def test_a_payment_is_certified_or_says_whom_it_waits_for(scene, ledger):
    body = {"to": TO, "amount_microcredits": 5_000_000, "note_digest": REFERENCE.hex()}
    sent = await scene.client.post("/ayni/v1/wallet/send", json=body)
    assert sent.status_code == 200
    assert msgspec.json.decode(sent.content, type=Sent).certified
    ledger.silent = (party(WITNESSES[0].node), party(WITNESSES[1].node))
    body = {"to": TO, "amount_microcredits": 2_500_000, "wait_ms": 0}
    sent = await scene.client.post("/ayni/v1/wallet/send", json=body)
    told = msgspec.json.decode(sent.content, type=Sent)
    assert (sent.status_code, told.certified) == (202, False)
    assert (told.waiting.seals, told.waiting.quorum, told.waiting.silent) == (2, 3, ledger.silent)
    assert [one.reference for one in ledger.asked] == [REFERENCE, bytes(32)]
    assert ledger.asked[1] == Payment(
        to=BRUNO.node, amount_microcredits=2_500_000, reference=bytes(32), wait_ms=0
    )
    # All is spent now: certified, or on its way.
    refused = await scene.client.post(
        "/ayni/v1/wallet/send", json={"to": TO, "amount_microcredits": 1}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "OVERDRAWN")
    purse = await read(scene, "/ayni/v1/wallet", Wallet)
    assert purse.balance_microcredits == WALLET.balance_microcredits - 5_000_000
    assert purse.pending_microcredits == WALLET.pending_microcredits + 2_500_000


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"to": "maize"}, "to"),
        ({"to": 5}, "to"),
        ({"amount_microcredits": 0}, "amount_microcredits"),
        ({"amount_microcredits": -1}, "amount_microcredits"),
        ({"amount_microcredits": 1.5}, "amount_microcredits"),
        ({"amount_microcredits": True}, "amount_microcredits"),
        ({"amount_microcredits": 1 << 63}, "amount_microcredits"),
        ({"note_digest": "ab"}, "note_digest"),
        ({"note_digest": "z" * 64}, "note_digest"),
        ({"note_digest": "ab" * 32 + "\n"}, "note_digest"),
        ({"wait_ms": 60_000}, "wait_ms"),
        ({"unknown": 1}, "body"),
    ],
)
async def test_a_payment_that_is_none_is_refused_by_its_field(scene, ledger, fields, parameter):
    body = {"to": TO, "amount_microcredits": 1, **fields}
    refused = await scene.client.post("/ayni/v1/wallet/send", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, parameter)
    assert ledger.asked == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"5"])
async def test_a_body_that_is_no_payment_is_refused(scene, ledger, content):
    refused = await scene.client.post("/ayni/v1/wallet/send", content=content)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "body")


async def test_verification_is_of_the_depth_that_was_asked_for(scene, ledger):
    path = "/ayni/v1/ledger/verify"
    full = await scene.client.post(path)
    heads = await scene.client.post(path, json={"depth": "heads"})
    told = [msgspec.json.decode(one.content, type=Verification) for one in (full, heads)]
    assert told == [ledger.verified, replace(ledger.verified, depth="heads")]
    assert ledger.asked == [Depth.FULL, Depth.HEADS]
    refused = await scene.client.post(path, json={"depth": "deep"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "depth")
    assert (await scene.client.get(path)).status_code == 405


async def test_an_export_is_its_bytes(scene, ledger):
    answer = await scene.client.get("/ayni/v1/ledger/export")
    assert (answer.status_code, answer.content) == (200, EXPORT)
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_an_export_that_cannot_begin_is_an_error(scene, ledger):
    ledger.file = (LocalError(Code.UNAVAILABLE, "The disk is full."),)
    answer = await scene.client.get("/ayni/v1/ledger/export")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "The disk is full.")


async def test_an_export_that_breaks_off_never_looks_whole(scene, ledger):
    ledger.file = (EXPORT[:100], LocalError(Code.UNAVAILABLE, "The disk is gone."))
    with pytest.raises(httpx.RemoteProtocolError):
        await scene.client.get("/ayni/v1/ledger/export")
    assert (await scene.client.get("/ayni/v1/wallet")).status_code == 200


async def test_the_owners_word_mends_what_it_can(scene, ledger):
    path = "/ayni/v1/ledger/resume"
    for trouble, override, after in (
        ("halted", False, ""),
        ("lapsed", False, ""),
        ("restored", False, "restored"),
        ("restored", True, ""),
    ):
        ledger.purse = replace(WALLET, trouble=trouble, sentence="Why.")
        answer = await scene.client.post(path, json={"override": override})
        assert msgspec.json.decode(answer.content, type=Wallet).trouble == after
    body = {"to": TO, "amount_microcredits": 1}
    ledger.purse = replace(WALLET, trouble="halted", sentence="A breach.")
    refused = await scene.client.post("/ayni/v1/wallet/send", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "HALTED")


async def test_a_stranger_sends_nothing(scene, ledger):
    async with httpx.AsyncClient(base_url=scene.url, trust_env=False) as stranger:
        body = {"to": TO, "amount_microcredits": 1}
        assert (await stranger.post("/ayni/v1/wallet/send", json=body)).status_code == 401
    assert ledger.asked == []


async def test_an_account_that_nobody_knows_has_an_empty_chain(scene, ledger):
    unknown = node_text(NodeId(b"u" * 32))
    chain = await read(scene, "/ayni/v1/ledger/show", Chain, account=unknown)
    assert (chain.seq, chain.entries) == (0, ())
