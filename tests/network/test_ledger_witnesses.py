"""Witnesses that are killed, or that lie: with three of four all goes on, with two jobs do."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from node.config import find_paths
from node.keystore import load_key
from node.network.base import NetworkError, Stream
from node.network.framing import FrameStream
from node.network.libp2p import open_network
from protocol.identity import Identity, Seed
from protocol.ids import MessageId
from protocol.ledger.certificate import vote_signed
from protocol.ledger.charter import Charter
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Accepted,
    Answer,
    Ask,
    Refusal,
    Submit,
    Voted,
    ask_decoded,
    message_encoded,
)
from tests.network.mortals import (
    Mortals,
    channels,
    check_verified,
    entries_of,
    node_id,
    open_channel,
    send,
    settle,
    settled,
)
from tests.network.paper import Paper
from tests.network.testnet import Node, until

PROMPT = "Tell me of the sky."
WORDS = ("--provider", "maize", "--max-tokens", "48")


def test_with_one_killed_all_goes_on_and_with_two_jobs_do_and_the_rest_waits(
    mortals: Mortals,
) -> None:
    quinoa, maize = mortals.quinoa, mortals.maize
    cost = quinoa.asked(PROMPT, *WORDS)["cost_microcredits"]
    before, first = mortals.quiet(), open_channel(quinoa, maize)["channel"]
    mortals.kill("oca")
    settled(quinoa, maize, first)  # Three certify that, and the next channel.
    channel = open_channel(quinoa, maize)["channel"]
    assert channel != first
    [earned] = [one for one in entries_of(maize, maize) if _claims(one, first)]
    assert len(earned["seals"]) == 3

    # Two are left: jobs inside the open channel go on, and are paid to the last token.
    mortals.kill("potato")
    for count in (1, 2, 3):
        assert quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] == cost
        until("it is paid", partial(_moved, maize, channel, count * cost))
    # What needs witnesses waits, and is shown.
    sent = quinoa.ayni("wallet", "send", "maize", "0.000005", "--no-wait")
    assert sent.status == 0, sent
    settle(maize, channel)
    until("both of them", partial(_waits, maize, channel, 1))
    shown = maize.ayni("wallet", "channels")
    assert "settling" in shown.out
    assert "waiting for 1 of 3 witnesses" in shown.out
    wallet = quinoa.read("wallet")
    [on_its_way] = [one for one in wallet["waiting"] if one["seq"]]
    assert (on_its_way["seals"], on_its_way["quorum"]) == (2, 3)
    assert {one["node"] for one in on_its_way["silent"]} == _ids(mortals, "potato", "oca")
    shown = quinoa.ayni("wallet")
    assert "waiting for 1 of 3 witnesses; " in shown.out
    assert "have not answered" in shown.out
    assert "waiting for 1 of 3" in quinoa.ayni("doctor").out

    mortals.start("potato")  # Three of them: no need for the fourth.
    settled(quinoa, maize, channel)
    after = mortals.quiet()
    assert after["quinoa"].worth == before["quinoa"].worth - 3 * cost - 5
    assert after["maize"].worth == before["maize"].worth + 3 * cost + 5
    until("maize is free", lambda: maize.free)
    assert quinoa.asked(PROMPT, *WORDS)["provider_name"] == "maize"
    mortals.quiet()
    check_verified(mortals.potato)


def _claims(entry: dict[str, Any], source: str) -> bool:
    return any(one["entry"] == source for one in entry["sources"])


def _moved(payee: Node, channel: str, amount: int) -> bool:
    return any(
        (one["channel"], one["moved_microcredits"]) == (channel, amount) for one in channels(payee)
    )


def _waits(payee: Node, channel: str, witnesses: int) -> bool:
    return any(
        (one["channel"], one["waits_for"]) == (channel, witnesses) for one in channels(payee)
    )


def _ids(mortals: Mortals, *names: str) -> set[str]:
    """Of nodes that may be dead: as another knows them."""
    witnesses = mortals.quinoa.get("status")["network"]["witnesses"]
    living = {node_id(node) for node in mortals.living()}
    assert len(names) == len(witnesses) - len(living)
    return set(witnesses) - living


async def test_a_witness_killed_with_its_vote_on_disk_gives_that_one_and_no_other(
    mortals: Mortals,
) -> None:
    paper, oca = Paper(mortals), mortals.oca
    first, second = await paper.sent(mortals.quinoa, 10, 20)
    mortals.quiet()
    entry, rival = paper.claim([first]), paper.claim([second])
    mortals.doom("oca", "vote.stored")
    with pytest.raises(NetworkError):
        await paper.submit(oca, entry, first)
    mortals.wait_dead("oca")
    mortals.revive()
    refused = await paper.submit(oca, rival, second)
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.shown) == ("VOTED_OTHER", entry)
    voted = await paper.submit(oca, entry)  # It knows it: no source needs to be shown again.
    assert isinstance(voted, Voted)
    assert await paper.submit(oca, entry, first) == voted
    assert (await paper.submit(oca, rival, second)) == refused
    # What it has said binds nobody else, and the entry is certified with its old vote.
    await paper.certify(entry, [oca, mortals.quinoa, mortals.maize], [first])


class Liar:
    """Has a witness's key and serves its protocol, each answer as a lie will have it."""

    def __init__(self, identity: Identity, charter: Charter) -> None:
        self.identity, self.charter = identity, charter
        self.asked = trio.Event()
        self.certified = trio.Event()
        """Set once the others have certified what it was asked about."""

    def vote(self, identity: Identity, entry: MessageId) -> bytes:
        return message_encoded(Voted(vote_signed(identity, entry, self.charter.network)))

    async def serve(self, lie: "Lie", stream: Stream) -> None:
        frames = FrameStream(stream)
        while (data := await frames.receive()) is not None:
            ask = ask_decoded(data)
            self.asked.set()
            await lie(self, frames, ask)


Lie = Callable[[Liar, FrameStream, Ask], Awaitable[None]]


async def garbage(_liar: Liar, frames: FrameStream, _ask: Ask) -> None:
    await frames.send(b"\xc1" * 500)


async def another_answer(_liar: Liar, frames: FrameStream, ask: Ask) -> None:
    answer: Answer = Accepted() if isinstance(ask, Submit) else Refusal("BUSY", "No.", 1)
    await frames.send(message_encoded(answer))


async def a_vote_for_another_entry(liar: Liar, frames: FrameStream, _ask: Ask) -> None:
    await frames.send(liar.vote(liar.identity, MessageId(b"x" * 32)))


async def a_strangers_vote(liar: Liar, frames: FrameStream, ask: Ask) -> None:
    entry = ask.entry.id if isinstance(ask, Submit) else MessageId(b"x" * 32)
    await frames.send(liar.vote(Identity(Seed(b"x" * 32)), entry))


async def an_alarm_without_a_proof(_liar: Liar, frames: FrameStream, _ask: Ask) -> None:
    await frames.send(message_encoded(Refusal("HALTED", "All is lost.")))


async def too_late(liar: Liar, frames: FrameStream, _ask: Ask) -> None:
    await liar.certified.wait()
    await frames.send(message_encoded(Accepted()))


async def nothing(_liar: Liar, _frames: FrameStream, _ask: Ask) -> None:
    await trio.sleep_forever()


LIES: list[Lie] = [
    garbage,
    another_answer,
    a_vote_for_another_entry,
    a_strangers_vote,
    an_alarm_without_a_proof,
    too_late,
    nothing,
]


async def test_a_witness_that_lies_or_is_late_or_silent_stops_nothing(mortals: Mortals) -> None:
    quinoa, key = mortals.quinoa, find_paths(mortals.oca.folder).key_file
    before = mortals.quiet()
    mortals.kill("oca")
    seed = load_key(key, lambda: b"")
    others = [node.get("status")["addresses"][0] for node in mortals.living()]
    pay = partial(send, quinoa, node_id(mortals.maize), 100)
    for lie in LIES:
        liar = Liar(Identity(seed), Paper(mortals).charter)
        async with open_network(seed, []) as network:
            network.serve(LEDGER_PROTOCOL, partial(liar.serve, lie))
            for address in others:
                await network.connect(address)
            await trio.to_thread.run_sync(pay)
            liar.certified.set()
            with trio.fail_after(60):
                await liar.asked.wait()  # It was not passed over.
        assert quinoa.get("wallet")["trouble"] == ""
    mortals.start("oca")
    after = mortals.quiet()
    sent = 100 * len(LIES)
    assert after["quinoa"].worth == before["quinoa"].worth - sent
    assert after["maize"].worth == before["maize"].worth + sent
    check_verified(mortals.oca)
