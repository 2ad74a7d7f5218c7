"""A provider that says all it has at once and is gone: what came is delivered and paid."""

from msgspec import Struct

from node.network.base import Stream
from node.network.framing import FrameStream
from protocol import codec
from protocol.envelope import seal
from protocol.identity import digest
from protocol.ids import MessageId
from protocol.job.provider import ProviderJob
from protocol.job.provider_actions import Say
from protocol.job.provider_events import (
    ModelBegan,
    ModelEnded,
    ModelSaid,
    OrderCame,
    Paid,
    VoucherCounted,
)
from protocol.job.requester_actions import Deliver, Finished
from protocol.job.terms import Delta, Order, Request
from protocol.job.window import Window
from protocol.ledger.voucher import voucher_note, voucher_opened
from protocol.limits import WINDOW_CHUNKS_MAX
from protocol.messages import JOB_PROTOCOL, job_body, job_frame
from tests.node.jobs.homes import NETWORK, Home, World, asked, job
from tests.node.jobs.test_paid_jobs import two_homes

TOKENS = 64


async def test_what_came_before_a_provider_hung_up_is_delivered_and_signed_for(
    autojump_clock, tmp_path
):
    """The requester holds its channel until it has looked at all that came, however long its own
    words take it."""
    world = World()
    async with two_homes(tmp_path, world) as (maize, quinoa):
        maize.network.serve(JOB_PROTOCOL, Hasty(maize).serve)
        told = await asked(quinoa, job(quinoa, tokens=TOKENS))
        (channel,) = world.between("quinoa", "maize")
        end = told[-1]
        assert isinstance(end, Finished)
        assert sum(len(one.ids) for one in told if isinstance(one, Deliver)) == TOKENS
        assert end.cost == quinoa.payer.signed(channel.id)


class Hasty:
    """A provider that writes a whole answer in one go and hangs up."""

    def __init__(self, home: Home) -> None:
        self._home = home

    async def serve(self, stream: Stream) -> None:
        frames, home = FrameStream(stream), self._home
        opened = job_body(job_frame(await frames.receive()), NETWORK, Request)
        assert home.desk is not None
        terms = home.payee.terms(stream.peer)
        quote = home.desk.quote(opened.value, opened.id, digest(b"chance"), terms)
        await frames.send(self._frame(quote))
        quote_id = MessageId(digest(codec.encode(quote)))
        came = job_body(job_frame(await frames.receive()), NETWORK, Order)
        assert came.value.voucher is not None
        voucher = voucher_opened(came.value.voucher, stream.peer, NETWORK).value
        window = Window(WINDOW_CHUNKS_MAX, 0)
        made = ProviderJob(opened.value, opened.id, quote, quote_id, 0)
        events = [
            OrderCame(came.value, came.id, window, voucher),
            ModelBegan(8, digest(b"ids")),
            VoucherCounted(voucher_note(quote_id, 0)),
            Paid(),
            *(ModelSaid((one,), f"w{one} ", (), (bytes(32),)) for one in range(TOKENS)),
            ModelEnded("stop"),
        ]
        actions = made.handle(events[0], 0)
        window.pay(voucher.cumulative)
        actions += [action for event in events[1:] for action in made.handle(event, 0)]
        said = [action.message for action in actions if isinstance(action, Say)]
        await frames.send(*map(self._frame, said))
        await frames.close()

    def _frame(self, message: Struct) -> bytes:
        if isinstance(message, Delta):
            return codec.encode(message)
        return codec.encode(seal(self._home.identity, NETWORK, message))
