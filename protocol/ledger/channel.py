"""A channel as its certified open shows it, and how much certified top-ups add to it."""

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import Entry, Open, TopUp


@dataclass(frozen=True, slots=True)
class Channel:
    """What never changes about a channel. Its id is that of the entry that opened it."""

    id: MessageId
    payer: NodeId
    payee: NodeId
    deposit: int  # Microcredits.
    expiry_ms: int


def channel_of(opened: Opened[Entry]) -> Channel | None:
    """The channel that an entry opens, if it opens one."""
    entry = opened.value
    if not isinstance(entry.body, Open):
        return None
    body = entry.body
    return Channel(opened.id, entry.account, body.payee, body.deposit, body.expiry_ms)


def channel_checked(certified: Certified, charter: Charter) -> Channel:
    """The channel of a certified open that was shown.

    Raises RemoteError NO_CHANNEL for another entry, and what `certified_checked` raises.
    """
    channel = channel_of(certified_checked(certified, charter))
    if channel is None:
        raise RemoteError(
            Code.NO_CHANNEL,
            f"Entry {certified.entry.id.hex()[:8]} opens no channel; show its open.",
        )
    return channel


def funding_shown(channel: Channel, topups: Iterable[Certified], charter: Charter) -> int:
    """The deposit and the certified top-ups shown, in microcredits, each counted once.

    Raises RemoteError UNEXPECTED for what is no top-up of this channel or comes twice, and what
    `certified_checked` raises.
    """
    funding, seen = channel.deposit, set[MessageId]()
    for certified in topups:
        opened = certified_checked(certified, charter)
        body = opened.value.body
        is_of_it = isinstance(body, TopUp) and body.channel == channel.id
        if not is_of_it or opened.value.account != channel.payer or opened.id in seen:
            raise RemoteError(
                Code.UNEXPECTED,
                f"{opened.id.hex()[:8]} is no further top-up of channel {channel.id.hex()[:8]}.",
            )
        assert isinstance(body, TopUp)
        seen.add(opened.id)
        funding += body.amount
    return funding
