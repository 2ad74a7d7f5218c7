"""The vouchers of one order on their way to the disk: which of many are counted."""

import trio

from node.channels.base import Earning
from node.jobs.vouchers import Vouchers
from protocol.envelope import Signed
from protocol.job.provider_events import Event, VoucherCounted
from protocol.job.window import Window
from protocol.ledger.voucher import Voucher, voucher_signed
from protocol.units import Microcredits
from tests.node.jobs.homes import NETWORK, identity

QUINOA = identity("quinoa")


class Slow(Earning):
    """A disk that takes a second for each voucher."""

    def __init__(self) -> None:
        self.counted: list[Signed] = []

    @property
    def window(self) -> Window:
        return Window(2, 0)

    async def count(self, voucher: Signed) -> None:
        await trio.sleep(1)
        self.counted.append(voucher)

    async def changed(self) -> None:
        await trio.sleep_forever()

    def lost(self, amount: Microcredits, chunks: int) -> None:
        raise AssertionError("nothing was delivered")


def voucher(number: int) -> Signed:
    said = Voucher(bytes(32), number, bytes([number]) * 32, b"")
    return voucher_signed(QUINOA, said, NETWORK)


async def test_a_prompts_voucher_is_counted_whatever_comes_at_once_after_it(autojump_clock) -> None:
    """Else a requester that sends another with its order has the model run for nothing: the job
    would wait for the first one until its time is over."""
    told: list[Event] = []
    earning = Slow()

    async def tell(event: Event) -> None:
        told.append(event)

    vouchers = Vouchers(earning, tell, voucher(9))
    for number in (1, 2, 3):
        vouchers.put(voucher(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vouchers.run)
        await vouchers.wait_idle()
        nursery.cancel_scope.cancel()
    assert earning.counted == [voucher(9), voucher(3)]
    assert told == [VoucherCounted(bytes([number]) * 32) for number in (9, 3)]
