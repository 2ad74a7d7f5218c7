"""Parties and witnesses that lie while a channel settles: what they say is refused, or useless."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from node.ledger.lines import Lines
from node.ledger.settle_round import Round
from node.network.base import NetworkError, Stream
from node.network.framing import FrameStream
from node.storage.ledger import LedgerStore
from protocol.envelope import Signed, seal
from protocol.errors import Code
from protocol.identity import Identity
from protocol.ids import MessageId
from protocol.ledger.agreement import commit_of, prepare_of, prepared_made, settlement_made
from protocol.ledger.certificate import EPOCH, Certified, Seal, statement_seal, statement_signed
from protocol.ledger.statement import (
    Commit,
    Locked,
    PrepareCertificate,
    Proposal,
    Report,
    ReportShown,
    Settlement,
    TurnAsk,
)
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Answer,
    Ask,
    AskReport,
    AskSettlement,
    AskVoucher,
    Committed,
    Lock,
    Prepared,
    Propose,
    Refusal,
    Reported,
    Settled,
    TellSettlement,
    VoucherHeld,
    WantSettlement,
    ask_decoded,
    message_encoded,
)
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed
from tests.node.ledger.channels import LIFE_MS, hold, opened, shared_out, sums
from tests.node.ledger.test_ledger_faults import Voice, codes
from tests.node.ledger.village import (
    ANNA,
    BRUNO,
    CLARA,
    START,
    WITNESSES,
    Home,
    Village,
    dial,
    open_village,
    rules,
    until,
)

Clock = trio.testing.MockClock
RULES = rules()
NETWORK = RULES.network


async def shown_open(home: Home, channel: MessageId) -> Certified:
    store = LedgerStore(home.database, home.village.charter)
    (certified, *_) = await store.read(lambda chains: chains.funds(channel))
    return certified


def proposed(by: Identity, channel: MessageId, turn: int, value: int) -> Signed:
    return seal(by, NETWORK, Proposal(channel, turn, value))


def voucher(by: Identity, channel: MessageId, amount: int) -> Signed:
    note = voucher_note(channel, 0)
    return voucher_signed(by, Voucher(channel, amount, note, b""), NETWORK)


def prepare_certificate(channel: MessageId, turn: int, value: int, count: int = 3):
    """What these witnesses would make if they were dishonest."""
    proposal = Proposal(channel, turn, value)
    return PrepareCertificate(EPOCH, channel, turn, value, sealed(prepare_of(proposal), count))


def settlement(channel: MessageId, turn: int, value: int, count: int = 3) -> Settlement:
    commit = Commit(EPOCH, channel, turn, value)
    return Settlement(EPOCH, channel, turn, value, sealed(commit, count))


def sealed(statement, count: int) -> tuple[Seal, ...]:
    votes = [statement_signed(one, statement, NETWORK) for one in WITNESSES[:count]]
    return tuple(statement_seal(vote, statement, RULES) for vote in votes)


async def test_what_a_party_may_not_is_refused_by_code(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        certified = await shown_open(anna, channel)
        voice = Voice(village, BRUNO)
        good = voucher(ANNA, channel, 60)

        def propose(by: Identity, turn: int, value: int, held: Signed | None) -> Propose:
            return Propose(proposed(by, channel, turn, value), certified, (), held, ())

        asked = seal(ANNA, NETWORK, TurnAsk(channel, 2))
        assert codes(
            await voice.ask(
                homes[0],
                propose(BRUNO, 1, 60, good),
                propose(ANNA, 1, 0, None),
                propose(CLARA, 1, 60, None),
                propose(CLARA, 1, 61, good),
                propose(CLARA, 1, 60, voucher(BRUNO, channel, 60)),
                propose(CLARA, 1, 101, voucher(ANNA, channel, 101)),
                propose(CLARA, 3, 60, good),
                AskReport(asked, certified),
                Lock(prepare_certificate(channel, 1, 60, 2), certified),
                AskSettlement(channel),
                TellSettlement(settlement(channel, 1, 60, 2), certified),
            )
        ) == [
            "WRONG_SIGNER",
            "WRONG_SIGNER",
            "BAD_VOUCHER",
            "BAD_VOUCHER",
            "WRONG_SIGNER",
            "OVERDRAWN",
            "NOT_THIS_TURN",
            "NOT_THIS_TURN",
            "BAD_CERTIFICATE",
            "NOT_FOUND",
            "BAD_CERTIFICATE",
        ]
        voice = Voice(village, CLARA)
        await clara.crash()
        answers = await voice.ask(
            homes[0],
            propose(CLARA, 1, 60, good),
            propose(CLARA, 1, 60, good),
            propose(CLARA, 1, 30, voucher(ANNA, channel, 30)),
        )
        assert codes(answers) == ["Prepared", "Prepared", "VOTED_OTHER"]
        assert answers[0] == answers[1]
        await homes[0].crash_and_lose()
        await homes[0].up()
        assert (await voice.ask(homes[0], propose(CLARA, 1, 60, good)))[0] == answers[0]
        assert codes(await voice.ask(anna, propose(CLARA, 1, 60, good))) == ["NOT_WITNESS"]


async def test_only_the_payer_is_told_of_vouchers(tmp_path: Path, autojump_clock: Clock) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        voice = Voice(village, BRUNO)
        asks = AskVoucher(channel), WantSettlement(channel), AskVoucher(MessageId(bytes(32)))
        assert codes(await voice.ask(clara, *asks)) == ["NO_CHANNEL"] * 3
        assert not clara.vouchers.asked
        await anna.crash()
        (held, wanted, nothing) = await Voice(village, ANNA).ask(clara, *asks)
        assert held == VoucherHeld(clara.vouchers.held[channel])
        assert codes([wanted, nothing]) == ["Accepted", "NO_CHANNEL"]
        assert clara.vouchers.asked == [channel]


async def test_a_party_that_forges_again_and_again_is_cut(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        certified = await shown_open(anna, channel)
        forged = Propose(proposed(CLARA, channel, 1, 60), certified, (), None, ())
        await clara.crash()
        with pytest.raises(Exception, match=r"gone|reset|closed|refused|answer|connected"):
            await Voice(village, CLARA).ask(homes[0], *[forged] * 200)
        assert homes[0].ledger.counter.refused[Code.BAD_VOUCHER] < 200
        assert homes[0].ledger.trouble == ""


async def test_two_settlements_of_one_channel_halt_the_ledger(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        certified = await shown_open(anna, channel)
        voice = Voice(village, BRUNO)
        two = [TellSettlement(settlement(channel, 1, value), certified) for value in (60, 20)]
        assert codes(await voice.ask(homes[0], two[0], two[0], two[1])) == [
            "Accepted",
            "Accepted",
            "HALTED",
        ]
        # The proof goes round, and whoever holds it signs nothing more.
        await until(lambda: all("halted" in home.ledger.trouble for home in homes))
        (answer,) = await voice.ask(homes[1], AskReport(proposed(ANNA, channel, 2, 0), certified))
        assert isinstance(answer, Refusal)
        assert answer.code == Code.HALTED
        assert not clara.ledger.ready


async def test_a_halted_ledger_sends_no_proposal_again_until_its_owner_resumes(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """It would take no settlement, and so ask for the same one again and again without a pause."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel, other = await opened(anna, clara), await opened(anna, clara)
        hold(anna, clara, channel, 60)
        certified = await shown_open(anna, other)
        for home in homes[:-1]:
            await home.crash()
        await clara.ledger.settle(channel)
        two = [TellSettlement(settlement(other, 1, value), certified) for value in (60, 20)]
        await Voice(village, BRUNO).ask(clara, *two)
        assert "halted" in clara.ledger.trouble
        await clara.crash()
        await clara.up()
        await trio.sleep(10)
        assert clara.ledger.settler.at_work == 0
        await clara.ledger.resume()
        await until(lambda: clara.ledger.settler.at_work == 1)
        for home in homes[:-1]:
            await home.up()
        await until(lambda: clara.channels[channel].settled == 60)


async def test_the_other_party_may_bring_the_settlement(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Whoever brings it: what q witnesses committed to is final."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        tell = TellSettlement(settlement(channel, 1, 60), await shown_open(anna, channel))
        for home in (anna, clara):
            assert codes(await Voice(village, BRUNO).ask(home, tell)) == ["Accepted"]
        await shared_out(anna, clara, channel)
        assert (anna.balance, clara.balance) == (START - 60, 60)
        await sums(village, homes)


async def test_what_comes_of_a_third_ends_what_is_at_work(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        hold(anna, clara, channel, 60)
        await until(lambda: clara.ledger.ready)
        for witness in homes[:2]:
            await witness.crash()
        await clara.ledger.settle(channel)
        await until(lambda: clara.ledger.settler.at_work == 1)
        tell = TellSettlement(settlement(channel, 1, 60), await shown_open(anna, channel))
        assert codes(await Voice(village, BRUNO).ask(clara, tell)) == ["Accepted"]
        await until(lambda: clara.ledger.settler.at_work == 0, seconds=1)
        assert not clara.ledger.settling()


@pytest.mark.parametrize("shown", ["prepares", "settlement", "report"])
async def test_a_witness_with_old_seats_signs_no_more(
    tmp_path: Path, autojump_clock: Clock, shown: str
) -> None:
    """It is shown what it has signed and does not remember: so it may have forgotten others' seats
    as well, and says so."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara, life_ms=1_000)
        certified = await shown_open(anna, channel)
        voice, first = Voice(village, BRUNO), homes[0]
        await anna.crash()
        await clara.crash()
        old = first.copy("old")
        ask: Ask = TellSettlement(settlement(channel, 1, 0), certified)
        if shown == "report":
            report = Report(EPOCH, channel, 2, None)
            signed = [statement_signed(one, report, NETWORK) for one in WITNESSES]
            reports = tuple(ReportShown(one, None) for one in signed)
            ask = Propose(proposed(ANNA, channel, 2, 0), certified, (), None, reports)
            await trio.sleep(4)  # Now it is turn 2.
        else:
            good = Propose(proposed(CLARA, channel, 1, 0), certified, (), None, ())
            lock = Lock(prepare_certificate(channel, 1, 0), certified)
            assert codes(await voice.ask(first, good, lock)) == ["Prepared", "Committed"]
            ask = lock if shown == "prepares" else ask
        await first.crash()
        first.restore(old)
        witness = await first.up()
        assert witness.trouble == ""
        (answer,) = codes(await voice.ask(first, ask))
        assert answer == ("Accepted" if shown == "settlement" else "FORGOT")
        assert "does not remember" in witness.trouble
        await first.crash()
        witness = await first.up()
        assert "does not remember" in witness.trouble
        await witness.resume()
        # What it was shown it knows from now on.
        (answer,) = codes(await voice.ask(first, ask))
        known = {"prepares": "Committed", "settlement": "Accepted", "report": "Prepared"}
        assert answer == known[shown]
        assert witness.trouble == ""


async def test_two_values_at_once_are_one(tmp_path: Path, autojump_clock: Clock) -> None:
    """A payee shows a witness two proposals of one turn at the same moment, by two peers."""
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        anna, clara = homes[-2:]
        channel = await opened(anna, clara)
        certified = await shown_open(anna, channel)
        await clara.crash()
        answered: dict[int, str] = {}
        dialled = {60: trio.Event(), 30: trio.Event()}

        async def ask(by: Identity, value: int) -> None:
            signed = proposed(CLARA, channel, 1, value)
            held = voucher(ANNA, channel, value)
            async with village.world.open_network(by.node) as network:
                lines = Lines(network, lambda node: dial(network, node))
                await lines.ask(homes[0].node, AskSettlement(channel))
                dialled[value].set()
                await dialled[90 - value].wait()
                answer = await lines.ask(homes[0].node, Propose(signed, certified, (), held, ()))
            (answered[value],) = codes([answer])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, BRUNO, 60)
            nursery.start_soon(ask, CLARA, 30)
        assert sorted(answered.values()) == ["Prepared", "VOTED_OTHER"]


Misdeed = Callable[[FrameStream, bytes], Awaitable[None]]


async def silence(_frames: FrameStream, _request: bytes) -> None:
    await trio.sleep_forever()


async def false_settlement(frames: FrameStream, request: bytes) -> None:
    """Says that all is settled at 1, with too few seals; and at 1 of another channel."""
    ask = ask_decoded(request)
    channel = ask.open.entry.id if isinstance(ask, AskReport | Propose) else MessageId(bytes(32))
    await frames.send(message_encoded(Settled(settlement(channel, 1, 1, 2))))


async def false_lock(frames: FrameStream, request: bytes) -> None:
    """Reports a lock that nobody made, prepares and commits to other values."""
    ask, liar = ask_decoded(request), WITNESSES[3]
    match ask:
        case AskReport():
            asked = ask.open.entry.id
            report = Report(EPOCH, asked, 2, Locked(1, 1))
            lock = prepare_certificate(asked, 1, 1, 2)
            signed = statement_signed(liar, report, NETWORK)
            await frames.send(message_encoded(Reported(ReportShown(signed, lock))))
        case Propose():
            other = prepare_of(Proposal(ask.open.entry.id, 1, 1))
            await frames.send(message_encoded(Prepared(statement_signed(liar, other, NETWORK))))
        case Lock(certificate):
            other = Commit(EPOCH, certificate.channel, certificate.turn, 1)
            await frames.send(message_encoded(Committed(statement_signed(liar, other, NETWORK))))
        case _:
            await frames.send(message_encoded(Refusal("BUSY", "later", retry_ms=1_000)))


async def all_over(frames: FrameStream, _request: bytes) -> None:
    await frames.send(message_encoded(Refusal("OLD_TURN", "this turn is over")))


async def signs_all(frames: FrameStream, request: bytes) -> None:
    """Signs whatever it is asked for, whatever it signed before."""
    ask, liar = ask_decoded(request), WITNESSES[3]
    match ask:
        case AskReport():
            report = Report(EPOCH, ask.open.entry.id, 2, None)
            shown = ReportShown(statement_signed(liar, report, NETWORK), None)
            await frames.send(message_encoded(Reported(shown)))
        case Propose():
            proposal = Proposal(ask.open.entry.id, 2, 0)
            prepare = statement_signed(liar, prepare_of(proposal), NETWORK)
            await frames.send(message_encoded(Prepared(prepare)))
        case Lock(certificate):
            commit = statement_signed(liar, commit_of(certificate), NETWORK)
            await frames.send(message_encoded(Committed(commit)))
        case _:
            await frames.send(message_encoded(Refusal("BUSY", "later", retry_ms=1_000)))


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("misdeed", [silence, false_settlement, false_lock, all_over, signs_all])
async def test_one_witness_lies(
    tmp_path: Path, autojump_clock: Clock, misdeed: Misdeed, turn: int
) -> None:
    async with open_village(tmp_path) as village:

        async def handle(stream: Stream) -> None:
            frames = FrameStream(stream)
            while (request := await frames.receive()) is not None:
                await misdeed(frames, request)

        async with village.world.open_network(WITNESSES[3].node) as liar:
            liar.serve(LEDGER_PROTOCOL, handle)
            homes = await village.up(*WITNESSES[:3], ANNA, CLARA)
            await settled_among(village, homes, turn)


async def settled_among(village: Village, homes: list[Home], turn: int) -> None:
    anna, clara = homes[-2:]
    channel = await opened(anna, clara)
    hold(anna, clara, channel, 60)
    await until(lambda: all(home.ledger.ready for home in homes))
    if turn == 1:
        await clara.ledger.settle(channel)
    else:
        await trio.sleep(LIFE_MS / 1000)
    await shared_out(anna, clara, channel)
    assert anna.channels[channel].settled == (60 if turn == 1 else 0)
    assert anna.channels[channel].settled == clara.channels[channel].settled
    for home in homes:
        assert home.ledger.trouble == ""
    await sums(village, homes)


async def test_a_lie_alone_is_worth_nothing() -> None:
    """The helpers here make what q would have to sign: fewer make nothing."""
    channel = MessageId(b"c" * 32)
    proposal = Proposal(channel, 1, 1)
    few = sealed(prepare_of(proposal), 2)
    assert prepared_made(proposal, few, RULES) is None
    certificate = prepare_certificate(channel, 1, 1)
    assert settlement_made(certificate, sealed(commit_of(certificate), 2), RULES) is None


class Panel:
    """Four witnesses by the script: what each does with what it is asked."""

    def __init__(self, *misdeeds: str) -> None:
        self.misdeeds = misdeeds
        self.asked: list[tuple[int, str]] = []

    async def ask(self, number: int, ask: Ask) -> Answer:
        await trio.lowlevel.checkpoint()
        self.asked.append((number, type(ask).__name__))
        if self.misdeeds[number] == "away":
            raise NetworkError("away")
        if self.misdeeds[number] == "over":
            return Refusal("OLD_TURN", "over")
        if self.misdeeds[number] == "others":
            number = (number + 1) % 4  # Shows what another witness signed.
        witness = WITNESSES[number]
        match ask:
            case AskReport():
                report = Report(EPOCH, ask.open.entry.id, 2, None)
                return Reported(ReportShown(statement_signed(witness, report, NETWORK), None))
            case Propose():
                proposal = Proposal(ask.open.entry.id, 2, 0)
                return Prepared(statement_signed(witness, prepare_of(proposal), NETWORK))
            case Lock(certificate):
                return Committed(statement_signed(witness, commit_of(certificate), NETWORK))
        raise AssertionError(ask)


@pytest.mark.parametrize(
    ("misdeeds", "is_settled"),
    [
        (("", "", "", ""), True),
        (("", "", "", "over"), True),
        (("", "", "", "others"), True),
        (("", "", "over", "over"), False),
        (("away", "over", "", "over"), False),
    ],
)
async def test_a_round_ends_when_it_can_come_to_nothing(
    tmp_path: Path, autojump_clock: Clock, misdeeds: tuple[str, ...], is_settled: bool
) -> None:
    async with open_village(tmp_path) as village:
        homes = await village.up(*WITNESSES, ANNA, CLARA)
        channel = await opened(*homes[-2:])
        certified = await shown_open(homes[-2], channel)
    panel = Panel(*misdeeds)
    at_hand = Round(RULES, certified, 2, panel.ask)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at_hand.attend)
        with trio.fail_after(60):
            reports = await at_hand.reports(seal(ANNA, NETWORK, TurnAsk(channel, 2)))
            assert at_hand.is_over is not is_settled
            if is_settled:
                assert len(reports) >= 3
                ask = Propose(proposed(ANNA, channel, 2, 0), certified, (), None, reports)
                certificate = await at_hand.prepared(ask)
                assert certificate is not None
                settled = await at_hand.committed(certificate)
                assert settled is not None
                assert (settled.turn, settled.value) == (2, 0)
                assert at_hand.stage == "settled"
        nursery.cancel_scope.cancel()
