"""Witnesses that lie, come back from old copies or are silent; keys in two daemons; forgeries."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from node.ledger.lines import Lines
from node.network.base import Stream
from node.network.framing import FrameStream
from protocol.envelope import Signed
from protocol.errors import Code
from protocol.identity import Identity
from protocol.ids import MessageId
from protocol.ledger.account import Account, opening
from protocol.ledger.certificate import (
    Certificate,
    Certified,
    Seal,
    certificate_made,
    seal_of,
    vote_signed,
)
from protocol.ledger.entry import Claim, Entry, Pay, Source
from protocol.ledger.proof import Breach, Contradiction
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Accepted,
    Accounts,
    Announce,
    Answer,
    AskAccounts,
    AskProofs,
    AskRange,
    Entries,
    Proofs,
    Refusal,
    Submit,
    Voted,
    ask_decoded,
    message_encoded,
)
from tests.node.ledger.channels import hold, opened
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    NOTHING,
    START,
    WITNESSES,
    Home,
    Village,
    dial,
    open_village,
    rules,
    until,
    until_async,
    verified,
)
from tests.protocol.ledger.chains import entry_after, signed_entry

Clock = trio.testing.MockClock
INSTANCE = bytes(16)
NETWORK = rules().network


def signed_pay(
    village: Village, to: Identity, amount: int, before: Account | None = None, **changed: object
) -> Signed:
    """An entry with Anna's signature, made beside any journal."""
    before = before or opening(village.charter, ANNA.node)
    entry = entry_after(before, Pay(to.node, amount, NOTHING), village.charter, **changed)
    return signed_entry(ANNA, entry, village.charter)


def certified_by(village: Village, signed: Signed, witnesses: list[Identity]) -> Certified:
    """A certificate that these witnesses make, whatever they have voted before."""
    charter = village.charter
    seals = [
        seal_of(vote_signed(one, signed.id, charter.network), signed.id, charter)
        for one in witnesses
    ]
    certificate = certificate_made(signed.id, seals, charter)
    assert certificate is not None
    return Certified(signed, certificate)


class Voice:
    """Somebody without a ledger, who asks what it likes."""

    def __init__(self, village: Village, identity: Identity) -> None:
        self.village, self.identity = village, identity

    async def ask(self, home: Home, *asks: Submit | Announce | AskRange) -> list[Answer]:
        async with self.village.world.open_network(self.identity.node) as network:
            lines = Lines(network, lambda node: dial(network, node))
            return [await lines.ask(home.node, ask) for ask in asks]


async def has_proofs(home: Home) -> bool:
    return bool(await home.ledger.views.proofs())


def codes(answers: list[Answer]) -> list[str]:
    return [one.code if isinstance(one, Refusal) else type(one).__name__ for one in answers]


async def test_forged_entries_are_refused_by_code(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, CLARA)
        charter, start = village.charter, opening(village.charter, ANNA.node)
        good = signed_pay(village, CLARA, 30)
        flipped = Signed(good.signer, good.body, bytes(64))
        too_much = Entry(
            charter.network, ANNA.node, 1, start.head, Pay(CLARA.node, 1001, NOTHING), 0, 0
        )
        others = signed_pay(village, CLARA, 5)
        stolen = entry_after(
            opening(charter, BRUNO.node), Claim((Source("pay", good.id, 30),)), charter
        )
        paid = certified_by(village, good, WITNESSES[:3])
        few = Certified(good, Certificate(good.id, 0, paid.certificate.seals[:2]))
        false = Certified(
            good, Certificate(good.id, 0, (Seal(0, bytes(64)), *paid.certificate.seals[1:]))
        )
        voice = Voice(village, BRUNO)
        assert codes(
            await voice.ask(
                homes[0],
                Submit(flipped, (), (), INSTANCE),
                Submit(signed_entry(ANNA, too_much, charter), (), (), INSTANCE),
                Submit(signed_pay(village, CLARA, 30, balance=START), (), (), INSTANCE),
                Submit(signed_pay(village, CLARA, 30, prev=bytes(32)), (), (), INSTANCE),
                Submit(signed_entry(BRUNO, stolen, charter), (), (), INSTANCE),
                Submit(signed_entry(BRUNO, stolen, charter), (paid,), (), INSTANCE),
                Announce(few),
                Announce(false),
            )
        ) == [
            Code.BAD_SIGNATURE,
            Code.OVERDRAWN,
            Code.BALANCE_WRONG,
            Code.LINK_BROKEN,
            Code.NEED,
            Code.NOT_PAYEE,
            Code.BAD_CERTIFICATE,
            Code.BAD_CERTIFICATE,
        ]
        assert codes(
            await Voice(village, ANNA).ask(
                homes[1],
                Submit(good, (), (), INSTANCE),
                Submit(good, (), (), INSTANCE),
                Submit(others, (), (), INSTANCE),
            )
        ) == ["Voted", "Voted", Code.VOTED_OTHER]
        # Its vote outlives it.
        await homes[1].crash_and_lose()
        await homes[1].up()
        answers = await Voice(village, ANNA).ask(
            homes[1], Submit(others, (), (), INSTANCE), Submit(good, (), (), INSTANCE)
        )
        assert codes(answers) == [Code.VOTED_OTHER, "Voted"]
        assert homes[0].ledger.counter.refused[Code.BAD_CERTIFICATE] == 2
        # A node that is no witness votes for nothing.
        assert codes(await Voice(village, ANNA).ask(homes[4], Submit(good, (), (), INSTANCE))) == [
            Code.NOT_WITNESS
        ]


async def test_whoever_forges_again_and_again_is_cut(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        (home,) = await village.up(WITNESSES[0])
        forged = signed_pay(village, CLARA, 30, balance=START)
        with pytest.raises(Exception, match=r"gone|reset|closed|refused|answer|connected"):
            await Voice(village, ANNA).ask(home, *[Submit(forged, (), (), INSTANCE)] * 20)
        assert home.ledger.counter.refused[Code.BALANCE_WRONG] == 9


async def test_a_contradiction_is_kept_and_told_to_all(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, CLARA)
        one, other = signed_pay(village, CLARA, 30), signed_pay(village, BRUNO, 31)
        await Voice(village, ANNA).ask(
            homes[0], Submit(one, (), (), INSTANCE), Submit(other, (), (), INSTANCE)
        )
        for home in homes:
            await until_async(partial(has_proofs, home), 5)  # By gossip, before anybody asks.
            (proof,) = await home.ledger.views.proofs()
            assert isinstance(proof, Contradiction)
            assert {proof.first, proof.second} == {one, other}
        late = village.home(BRUNO)
        await late.up()
        await until_async(partial(has_proofs, late), 60)
        assert late.ledger.trouble == ""


async def test_two_certificates_for_one_place_halt_the_ledger(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, CLARA)
        one, other = signed_pay(village, CLARA, 30), signed_pay(village, BRUNO, 31)
        rivals = [certified_by(village, signed, WITNESSES[1:]) for signed in (one, other)]
        answers = await Voice(village, ANNA).ask(homes[0], *map(Announce, rivals))
        assert isinstance(answers[0], Accepted)
        assert isinstance(answers[1], Refusal)
        assert answers[1].code == Code.HALTED
        for home in (homes[0], homes[4]):
            await until(lambda home=home: "halted" in home.ledger.trouble)  # type: ignore[misc]
            assert not home.ledger.ready
        clara = homes[4]
        await clara.crash_and_lose()
        await clara.up()
        assert "halted" in clara.ledger.trouble
        assert isinstance((await clara.ledger.views.proofs())[-1], Breach)
        (answer,) = await Voice(village, ANNA).ask(homes[0], Announce(rivals[0]))
        assert isinstance(answer, Refusal)
        assert isinstance(answer.shown, Breach)
        for home in homes:
            await home.ledger.resume()
        with trio.fail_after(3_600):
            while not clara.ledger.ready:
                # Those whose seals are on what they never voted for find that out, and say so.
                await trio.sleep(60)
                for home in homes[1:4]:
                    if "does not remember" in home.ledger.trouble:
                        await home.ledger.resume()
        assert clara.ledger.trouble == ""
        # The same proof halts nobody again.
        (answer,) = await Voice(village, ANNA).ask(homes[0], Announce(rivals[1]))
        assert isinstance(answer, Accepted)
        assert homes[0].ledger.trouble == ""


async def test_a_witness_from_an_old_copy_votes_no_more(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready)
        old = homes[0].copy("old")
        # Its vote counts in the certificate: the third quorum member is away.
        await homes[3].crash()
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await until(lambda: clara.balance == 10)
        await homes[0].crash()
        homes[0].restore(old)
        witness = await homes[0].up()
        await until(lambda: "does not remember" in witness.trouble)
        await anna.ledger.pay(CLARA.node, 5, b"2" * 32)
        await trio.sleep(200)
        assert set(anna.ledger.waiting()[0].silent) == {homes[0].node, homes[3].node}
        await homes[0].crash_and_lose()
        witness = await homes[0].up()
        assert "does not remember" in witness.trouble
        await trio.sleep(100)
        assert len(anna.ledger.waiting()) == 1
        await witness.resume()
        await until(lambda: clara.balance == 15)
        assert witness.trouble == ""
        await trio.sleep(100)
        assert witness.trouble == ""
        await verified(homes[:3])


async def test_a_payer_from_an_old_copy_learns_its_chain(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await until(lambda: clara.balance == 10)
        for witness in homes[1:3]:
            await witness.crash()  # So that the next one is owed and signed, and not certified.
        await anna.ledger.pay(CLARA.node, 20, b"2" * 32)
        await anna.ledger.pay(CLARA.node, 40, b"3" * 32)
        await trio.sleep(60)
        old = anna.copy("old")
        for witness in homes[1:3]:
            await witness.up()
        await until(lambda: clara.balance == 70)
        await anna.crash()
        anna.restore(old)
        await homes[3].crash()
        await anna.up()
        await until(lambda: "older than" in anna.ledger.trouble)
        await trio.sleep(600)
        assert not anna.ledger.ready
        assert "3 of 4" in anna.ledger.trouble
        await anna.ledger.pay(CLARA.node, 40, b"3" * 32)
        await homes[3].up()
        await until(lambda: anna.ledger.ready)
        assert anna.ledger.trouble == ""
        await anna.ledger.pay(CLARA.node, 1, b"4" * 32)
        await until(lambda: clara.balance == 71)
        await trio.sleep(100)
        assert anna.balance == START - 71
        assert anna.ledger.standing().pending == 0


async def test_an_owner_may_go_on_without_the_last_witness(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        old = anna.copy("old")
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await until(lambda: clara.balance == 10)
        await anna.crash()
        anna.restore(old)
        await homes[3].crash()
        await anna.up()
        await until(lambda: "older than" in anna.ledger.trouble)
        await anna.ledger.override()
        await until(lambda: anna.ledger.ready)
        assert anna.balance == START - 10
        await anna.ledger.pay(CLARA.node, 5, b"2" * 32)
        await until(lambda: clara.balance == 15)
        assert anna.ledger.trouble == ""


async def test_what_only_a_witness_remembers_is_sent_again(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The journal's disk is lost after one witness has voted: all n answers find that entry."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready)
        old = anna.copy("old")
        for witness in homes[1:4]:
            await witness.crash()
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await until(lambda: bool(anna.ledger.waiting()) and anna.ledger.waiting()[0].seals == 1)
        await anna.crash()
        anna.restore(old)
        for witness in homes[1:4]:
            await witness.up()
        await anna.up()
        await until(lambda: clara.balance == 10)
        await until(lambda: anna.ledger.ready)
        assert anna.balance == START - 10
        assert not await anna.ledger.views.proofs()
        # The bill comes again, since the requester's node has forgotten it too.
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await trio.sleep(100)
        assert anna.balance == START - 10


async def test_a_claim_that_only_a_witness_remembers_finds_its_sources(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The disk that is lost held the certificates that a claim shows: of a pay, of a channel's open
    and of its settlement. Whoever made them believes that they were told."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready and clara.ledger.ready)
        old = clara.copy("old")
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await until(lambda: clara.ledger.standing().claimable == 10)
        await clara.ledger.settle(channel)
        await until(lambda: clara.ledger.standing().claimable == 70)
        await trio.sleep(1)  # Whoever was to be told was told.
        for witness in homes[1:4]:
            await witness.crash()
        clara.ledger.claim_now()
        await until(lambda: bool(clara.ledger.waiting()) and clara.ledger.waiting()[0].seals == 1)
        await clara.crash()
        await anna.crash()
        clara.restore(old)
        for witness in homes[1:4]:
            await witness.up()
        await clara.up()
        await until(lambda: clara.balance == 70)
        await until(lambda: clara.ledger.ready)


async def test_two_daemons_with_one_key(tmp_path: Path, autojump_clock: Clock) -> None:
    """The second does not know what the first has signed; the one witness that does is away when
    it starts. It stops as soon as that one shows it, and says so; nothing is lost."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        await until(lambda: anna.ledger.ready)
        second = anna.copy("second")
        for witness in homes[1:4]:
            await witness.crash()
        await anna.ledger.pay(CLARA.node, 10, b"1" * 32)
        await until(lambda: bool(anna.ledger.waiting()) and anna.ledger.waiting()[0].seals == 1)
        first = anna.copy("first")
        await anna.crash()
        await homes[0].crash()
        anna.restore(second)
        for witness in homes[1:3]:
            await witness.up()
        await anna.up()
        await homes[3].up()
        await until(lambda: anna.ledger.ready)
        await homes[2].crash()
        await anna.ledger.pay(CLARA.node, 7, b"2" * 32)
        await trio.sleep(30)
        await homes[0].up()
        await until(lambda: "Another daemon" in anna.ledger.trouble)
        await homes[2].up()
        await until(lambda: clara.balance == 7)  # It was signed already, and it is certified.
        await anna.ledger.pay(CLARA.node, 3, b"3" * 32)
        await trio.sleep(100)
        assert not anna.ledger.ready
        assert [one.seq for one in anna.ledger.waiting()] == [0]
        (proof,) = await clara.ledger.views.proofs()
        assert isinstance(proof, Contradiction)
        # The first daemon finds that its place is taken, and stops too: its payment waits.
        await anna.crash()
        anna.restore(first)
        await anna.up()
        await until(lambda: "Another daemon" in anna.ledger.trouble)
        await until(lambda: anna.balance == START - 7)
        assert anna.ledger.standing().pending == 10
        await anna.ledger.override()
        await until(lambda: clara.balance == 17)
        assert anna.ledger.trouble == ""


Misdeed = Callable[[FrameStream, bytes], Awaitable[None]]


async def garbage(frames: FrameStream, _request: bytes) -> None:
    await frames.send(b"\xc1 never")


async def silence(_frames: FrameStream, _request: bytes) -> None:
    await trio.sleep_forever()


async def lateness(frames: FrameStream, request: bytes) -> None:
    await trio.sleep(9)
    await any_vote(frames, request)


async def any_vote(frames: FrameStream, request: bytes) -> None:
    """Votes for whatever comes, also for two in one place."""
    ask = ask_decoded(request)
    if isinstance(ask, Submit):
        answer: Answer = Voted(vote_signed(WITNESSES[3], ask.entry.id, NETWORK))
    else:
        answer = Accepted()
    await frames.send(message_encoded(answer))


async def others_vote(frames: FrameStream, request: bytes) -> None:
    """Shows a vote for another entry, with its own signature."""
    ask = ask_decoded(request)
    if isinstance(ask, Submit):
        vote = vote_signed(WITNESSES[3], MessageId(bytes(32)), NETWORK)
        await frames.send(message_encoded(Voted(vote)))
    else:
        await frames.send(message_encoded(Refusal("VOTED_OTHER", "no", shown=None)))


async def missing_all(frames: FrameStream, _request: bytes) -> None:
    await frames.send(message_encoded(Refusal("MISSING", "more", missing_seq=1)))


async def false_rival(frames: FrameStream, request: bytes) -> None:
    """Shows a rival that Anna never signed."""
    ask = ask_decoded(request)
    signer = ask.entry if isinstance(ask, Submit) else Signed(ANNA.node, b"", bytes(64))
    forged = Signed(ANNA.node, signer.body[:-1] + b"\x00", bytes(64))
    await frames.send(message_encoded(Refusal("VOTED_OTHER", "other", shown=forged)))


async def false_breach(frames: FrameStream, request: bytes) -> None:
    ask = ask_decoded(request)
    shown = None
    if isinstance(ask, Submit):
        shown = Breach((Certified(ask.entry, Certificate(ask.entry.id, 0, ())),))
    await frames.send(message_encoded(Refusal("HALTED", "halted", shown=shown)))


@pytest.mark.parametrize(
    "misdeed",
    [garbage, silence, lateness, any_vote, others_vote, missing_all, false_rival, false_breach],
)
async def test_one_witness_lies(tmp_path: Path, autojump_clock: Clock, misdeed: Misdeed) -> None:
    async with open_village(tmp_path) as village:

        async def handle(stream: Stream) -> None:
            frames = FrameStream(stream)
            while (request := await frames.receive()) is not None:
                await misdeed(frames, request)

        async with village.world.open_network(WITNESSES[3].node) as liar:
            liar.serve(LEDGER_PROTOCOL, handle)
            homes = await village.up(*WITNESSES[:3], ANNA, CLARA)
            anna, clara = homes[-2:]
            await until(lambda: anna.ledger.ready)
            for number in (1, 2, 3):
                await anna.ledger.pay(CLARA.node, 10, bytes([number]) * 32)
            await until(lambda: clara.balance == 30)
            assert anna.balance == START - 30
            for home in homes:
                assert home.ledger.trouble == ""
                assert not await home.ledger.views.proofs()
            await verified(homes)


async def test_a_late_joiner_verifies_every_chain(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        for number in range(40):
            await anna.ledger.pay(CLARA.node, 2, bytes([number + 1]) * 32)
        await until(lambda: clara.balance == 80)
        late = village.home(BRUNO)
        await late.up()

        async def is_whole() -> bool:
            terms = await late.ledger.views.terms()
            return terms.entries > 40 and not terms.sources_missing

        await until_async(is_whole, 600)
        terms = await late.ledger.views.terms()
        assert terms.balances + terms.pays_unclaimed == terms.supply == village.charter.supply
        assert late.ledger.audited.signatures >= 40 * 4
        assert not late.ledger.audited.faults
        await verified([late])


async def test_a_peer_that_shows_false_chains_is_blamed(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """A node that has only a liar to ask takes nothing that does not hold."""
    async with open_village(tmp_path) as village:
        good = certified_by(village, signed_pay(village, CLARA, 30), WITNESSES[:3])
        few = Certified(good.entry, Certificate(good.entry.id, 0, good.certificate.seals[:2]))

        async def handle(stream: Stream) -> None:
            frames = FrameStream(stream)
            while (request := await frames.receive()) is not None:
                await frames.send(message_encoded(lie(ask_decoded(request))))

        def lie(ask: object) -> Answer:
            if isinstance(ask, AskProofs):
                return Proofs(())
            if isinstance(ask, AskAccounts):
                return Accounts(())
            return Entries((few,))

        async with village.world.open_network(CLARA.node) as liar:
            liar.serve(LEDGER_PROTOCOL, handle)
            (bruno,) = await village.up(BRUNO)
            await liar.connect(bruno.network.addresses[0])
            await until(lambda: sum(bruno.ledger.audited.faults.values()) >= 3)
            assert set(bruno.ledger.audited.faults) == {Code.BAD_CERTIFICATE}
            assert (await bruno.ledger.views.terms()).entries == 0
            assert bruno.ledger.trouble == ""
