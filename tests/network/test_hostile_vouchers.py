"""Vouchers that are old, another's, forged or no vouchers at all, from a requester with a real key
and a real channel: a real provider counts what holds, and goes on."""

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio
from msgspec.structs import replace

from node.network.base import NetworkError
from node.network.framing import FrameStream
from node.network.libp2p import open_network
from protocol import codec
from protocol.envelope import Signed, seal
from protocol.errors import Code
from protocol.identity import Identity, Seed, digest
from protocol.ids import JobId, MessageId, ModelId, NodeId, node_parsed
from protocol.job.checks import CHANNEL_PROMPT_FIRST
from protocol.job.commitment import prompt_commitment, prompt_size, stop_digest
from protocol.job.sampling import Sampling
from protocol.job.seed import seed_commitment
from protocol.job.terms import Chunk, Message, Order, Prompt, Quote, Refuse, Request, Started
from protocol.ledger.entry import Open
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed
from protocol.messages import JOB_PROTOCOL, FromProvider, job_body, job_frame
from tests.network.mortals import Mortals, channels, check_verified, node_id, open_channel
from tests.network.paper import Paper
from tests.network.testnet import Node, until

PROMPT = Prompt((Message("user", "Tell me of the sky."),), "", ())
R, SALT = digest(b"r"), digest(b"salt")
FUNDING, AHEAD = 20_000, 1_000
"""Of the channel; and what is paid before each job, far more than it costs."""
NOBODY = Identity(Seed(b"n" * 32))


@dataclass
class Payer:
    """Says on the job's wire what a test wants, paid out of one channel to maize."""

    paper: Paper
    maize: NodeId
    model: ModelId
    channel: MessageId
    signed: int = 0

    def voucher(self, cumulative: int, **wrong: object) -> Signed:
        made = Voucher(self.channel, cumulative, voucher_note(self.channel, 0), b"")
        return voucher_signed(
            self.paper.identity, replace(made, **wrong), self.paper.charter.network
        )

    async def order(self, frames: FrameStream, tokens: int) -> None:
        """Begin a job that is paid for in full before it begins."""
        await self.say(frames, self._request(tokens))
        quote = await self.hear(frames)
        assert isinstance(quote, Quote), quote
        quote_id = MessageId(digest(codec.encode(quote)))
        self.signed += AHEAD
        ahead = self.voucher(self.signed, note=voucher_note(quote_id, 0))
        # Only of a stranger it is asked with the order.
        first = ahead if quote.payment == CHANNEL_PROMPT_FIRST else None
        await self.say(frames, Order(quote_id, R, SALT, PROMPT, (), (), self.channel, first))
        assert isinstance(await self.hear(frames), Started)
        await frames.send(codec.encode(ahead))

    async def say(self, frames: FrameStream, message: Request | Order) -> None:
        await frames.send(
            codec.encode(seal(self.paper.identity, self.paper.charter.network, message))
        )

    async def hear(self, frames: FrameStream) -> object:
        """The next signed message, or None at the end."""
        while (data := await frames.receive()) is not None:
            frame = job_frame(data)
            if isinstance(frame, Signed):
                return job_body(frame, self.paper.charter.network, FromProvider).value
        return None

    async def answer(self, frames: FrameStream) -> Sequence[Chunk]:
        """What comes until the last chunk."""
        chunks: list[Chunk] = []
        while not chunks or chunks[-1].finish == "none":
            came = await self.hear(frames)
            assert came is not None
            if isinstance(came, Chunk):
                chunks.append(came)
        return chunks

    async def refused(self, frames: FrameStream) -> str:
        """By which code the job ends; "" where the stream breaks without a word."""
        try:
            while (came := await self.hear(frames)) is not None:
                if isinstance(came, Refuse):
                    return came.code
        except NetworkError:
            pass
        return ""

    def _request(self, tokens: int) -> Request:
        return Request(
            version=1,
            network=self.paper.charter.network,
            provider=self.maize,
            job=JobId(os.urandom(16)),
            kind="chat",
            model=self.model,
            modes=(),
            sampling=Sampling(),
            stop_digest=stop_digest(SALT, ()),
            output_tokens_max=tokens,
            time_ms_max=60_000,
            cost_max=FUNDING,
            prompt_bytes=prompt_size(PROMPT),
            prompt_commitment=prompt_commitment(SALT, PROMPT),
            seed_commitment=seed_commitment(R),
            seed_source="drawn",
            first_t=0,
            prefix_hash=b"",
        )


@asynccontextmanager
async def job_stream(payer: Payer, address: str) -> AsyncIterator[FrameStream]:
    async with open_network(payer.paper.seed, []) as network:
        await network.connect(address)
        yield FrameStream(await network.open(payer.maize, JOB_PROTOCOL))


async def funded(mortals: Mortals) -> Payer:
    """A stranger with a certified channel to maize."""
    paper, maize = Paper(mortals), node_parsed(node_id(mortals.maize))
    witnesses = mortals.living()
    [income] = await paper.sent(mortals.quinoa, FUNDING)
    await paper.certify(paper.claim([income]), witnesses, [income])
    expiry_ms = time.time_ns() // 1_000_000 + 3_600_000
    entry = paper.next(Open(maize, FUNDING, expiry_ms))
    await paper.certify(entry, witnesses)
    [offer] = mortals.quinoa.peers()["maize"]["offers"]
    return Payer(paper, maize, ModelId(bytes.fromhex(offer["model"])), entry.id)


def line(maize: Node, channel: MessageId) -> dict[str, object]:
    return next(one for one in channels(maize, "payee") if one["channel"] == channel.hex())


def bad_frames(payer: Payer) -> dict[str, tuple[bytes, set[str]]]:
    """What is sent in the place of a voucher, and how the job may end."""
    best = payer.signed + 5
    forged = replace(payer.voucher(best), signature=bytes(64))
    anothers = voucher_signed(
        NOBODY, Voucher(payer.channel, best, bytes(32), b""), payer.paper.charter.network
    )
    elsewhere = voucher_signed(
        payer.paper.identity, Voucher(payer.channel, best, bytes(32), b""), payer.channel
    )
    signed = {
        "beyond the funding": (payer.voucher(FUNDING + 1), {Code.BAD_VOUCHER}),
        "of another channel": (payer.voucher(best, channel=bytes(32)), {Code.BAD_VOUCHER}),
        "with a lock": (payer.voucher(best, lock=bytes(32)), {Code.BAD_VOUCHER}),
        "with a wrong signature": (forged, {Code.BAD_SIGNATURE}),
        "signed by another": (anothers, {Code.WRONG_SIGNER}),
        "of another network": (elsewhere, {Code.BAD_SIGNATURE}),
    }
    frames = {what: (codec.encode(one), codes) for what, (one, codes) in signed.items()}
    return {**frames, "no message at all": (b"\xc1" * 200, {""})}


async def test_bad_vouchers_end_their_job_and_change_nothing(mortals: Mortals) -> None:
    quinoa, maize = mortals.quinoa, mortals.maize
    quinoa.asked("Tell me of the sky.", "--provider", "maize", "--max-tokens", "8")
    before = mortals.quiet()
    payer = await funded(mortals)
    until("maize knows the channel", lambda: line_is_there(maize, payer.channel))
    address = maize.get("status")["addresses"][0]
    async with job_stream(payer, address) as frames:
        # An old one changes nothing, however often it comes; what follows counts.
        await payer.order(frames, 16)
        for cumulative in (1, 1, payer.signed - 1):
            await frames.send(codec.encode(payer.voucher(cumulative)))
        assert (await payer.answer(frames))[-1].finish == "length"
        assert line(maize, payer.channel)["moved_microcredits"] == payer.signed
        payer.signed += 7
        await frames.send(codec.encode(payer.voucher(payer.signed)))
        await trio.to_thread.run_sync(until, "it counts", partial(counted, maize, payer))

    for what in bad_frames(payer):
        async with job_stream(payer, address) as frames:
            await payer.order(frames, 4_000)
            data, codes = bad_frames(payer)[what]
            await frames.send(data)
            with trio.fail_after(60):
                assert await payer.refused(frames) in codes, what
        assert line(maize, payer.channel)["moved_microcredits"] == payer.signed, what
        until("maize is free", lambda: maize.free)
    # Whoever is honest is served all the while, out of its own channel.
    honest = open_channel(quinoa, maize)["channel"]
    cost = quinoa.asked("Tell me.", "--provider", "maize", "--max-tokens", "8")["cost_microcredits"]
    assert open_channel(quinoa, maize)["channel"] == honest

    with maize.http() as client:
        settle = {"channel": payer.channel.hex()}
        assert client.post("/ayni/v1/wallet/settle", json=settle).status_code == 200
    until("it is settled", lambda: not line_is_there(maize, payer.channel))
    after = mortals.quiet()
    assert after["maize"].worth == before["maize"].worth + payer.signed + cost
    assert after["quinoa"].worth == before["quinoa"].worth - FUNDING - cost
    check_verified(mortals.potato)


def counted(maize: Node, payer: Payer) -> bool:
    return line(maize, payer.channel)["moved_microcredits"] == payer.signed


def line_is_there(maize: Node, channel: MessageId) -> bool:
    return any(one["channel"] == channel.hex() for one in channels(maize, "payee"))
