"""What tests of channels share: opening one, holding its voucher, waiting for both shares."""

from collections.abc import Sequence
from functools import partial

from protocol.errors import Code
from protocol.ids import MessageId
from protocol.ledger.audit import Depth
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed
from tests.node.ledger.village import Home, Village, until, until_async

LIFE_MS = 60_000


async def opened(payer: Home, payee: Home, deposit: int = 100, life_ms: int = LIFE_MS) -> MessageId:
    """A channel that both know."""
    before = set(payer.channels)
    await payer.ledger.open_channel(payee.node, deposit, payer.wall_ms() + life_ms)
    await until(lambda: bool(set(payer.channels) - before))
    (channel,) = set(payer.channels) - before
    await until(lambda: channel in payee.channels)
    return channel


def hold(payer: Home, payee: Home, channel: MessageId, amount: int) -> None:
    """The payee has a voucher of the payer for so much in all."""
    voucher = Voucher(channel, amount, voucher_note(channel, 0), b"")
    signed = voucher_signed(payer.identity, voucher, payer.village.charter.network)
    payee.vouchers.held[channel] = signed


async def shared_out(payer: Home, payee: Home, channel: MessageId) -> None:
    """Both parties have their share."""
    for home in (payer, payee):
        await until(lambda home=home: home.is_up and channel in home.channels)
        await until(lambda home=home: home.is_up and home.channels[channel].is_claimed)


async def sums(village: Village, homes: Sequence[Home]) -> None:
    """M2 over all, and every store holds from its bytes on, once it has heard of everything."""
    for home in homes:
        await until_async(partial(is_whole, home))
    assert await village.total() == village.charter.supply


async def is_whole(home: Home) -> bool:
    """Whether a home has all that the claims in its store take, so that its own chains add up; what
    lacks nothing else holds, always."""
    terms = await home.ledger.views.terms()
    parts = terms.balances + terms.pays_unclaimed + terms.channel_funds + terms.fees
    if terms.sources_missing or parts != terms.supply:
        return False
    report = await home.ledger.views.verify(Depth.FULL)
    assert all(fault.code is Code.NEED for fault in report.faults), report.faults
    return report.ok and report.complete
