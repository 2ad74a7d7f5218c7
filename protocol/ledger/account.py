"""The one place with the money rules: client, witness and auditor all check an entry here.

Whether an entry is valid depends on its own certified chain and the certificates shown with it
and on nothing else: no clock, no other account's moving state. So every honest witness says the
same, and credits cannot be insufficient "in the view" of one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.charter import Charter
from protocol.ledger.entry import (
    EARNED,
    FEE,
    PAY,
    REST,
    SOURCE_KINDS,
    Claim,
    Entry,
    Open,
    Pay,
    Source,
    SourceKey,
    TopUp,
    change,
    sources_of,
)
from protocol.ledger.statement import Settlement


class Past(Protocol):
    """What an account's own certified chain says beyond its head."""

    def claimed_at(self, source: SourceKey) -> int | None:
        """The seq at which it claimed a source; None while it has not."""

    def funding(self, channel: MessageId) -> int | None:
        """The microcredits that it moved into a channel of its own, deposit and top-ups; None
        where it opened no such channel."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What came with a claim, by the ids of entries and channels; every certificate was checked."""

    entries: Mapping[MessageId, Entry] = field(default_factory=dict)
    settlements: Mapping[MessageId, Settlement] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """What a certified chain adds up to; which sources it has claimed is asked for apart."""

    account: NodeId
    seq: int  # Of the last certified entry; 0 before the first.
    head: bytes  # Its id; the network id before the first.
    balance: int  # Microcredits.


class SourcesNeeded(RemoteError):
    """A claim came without the certificates of these sources (NEED); never held against it."""

    def __init__(self, needs: tuple[MessageId, ...]) -> None:
        super().__init__(
            Code.NEED,
            f"The claim needs the certificates of {len(needs)} sources, the first "
            f"{needs[0].hex()[:8]}; send them with it.",
        )
        self.needs = needs


def opening(charter: Charter, account: NodeId) -> Account:
    """An account before its first entry: what the genesis allocates to it, or nothing."""
    return Account(account, 0, charter.network, charter.allocations.get(account, 0))


def check(
    account: Account,
    past: Past,
    opened: Opened[Entry],
    shown: Shown,
    *,
    charter: Charter,
) -> Account:
    """The account after an entry whose signature holds.

    Raises RemoteError: all that `follow` and `sources_shown` raise. The witness calls the two by
    themselves, so that it checks no certificate for an entry that its own chain refuses.
    """
    after = follow(account, past, opened, charter)
    sources_shown(opened.value, past, shown)
    return after


def sources_shown(entry: Entry, past: Past, shown: Shown) -> None:
    """Whether all that an entry claims is shown and is what it says.

    Raises RemoteError NEED (a SourcesNeeded), and what `source_checked` raises.
    """
    claimed = sources_of(entry)
    needs = tuple(source.id for source in claimed if not _is_shown(source, shown))
    if needs:
        raise SourcesNeeded(needs)
    for source in claimed:
        source_checked(entry.account, past, source, shown)


def _is_shown(source: Source, shown: Shown) -> bool:
    """A rest needs no open: the account's own chain has it."""
    has_entry = source.kind == REST or source.id in shown.entries
    return has_entry and (source.kind not in (EARNED, REST) or source.id in shown.settlements)


def follow(account: Account, past: Past, opened: Opened[Entry], charter: Charter) -> Account:
    """The account after an entry, by all rules that its own chain decides.

    Enough where the entry is certified; a vote needs `check`. Raises RemoteError: PAST or MISSING
    where it is not the next, LINK_BROKEN, OVERDRAWN, BALANCE_WRONG, and what `form_checked` and
    `_past_checked` raise.
    """
    entry = opened.value
    assert entry.account == account.account
    if entry.seq <= account.seq:
        raise RemoteError(
            Code.PAST, f"Entry {entry.seq} came; this chain is certified up to {account.seq}."
        )
    if entry.seq > account.seq + 1:
        raise RemoteError(
            Code.MISSING,
            f"Entry {entry.seq} came; the certified entries from {account.seq + 1} on must come "
            "first.",
        )
    if entry.prev != account.head:
        raise RemoteError(
            Code.LINK_BROKEN,
            f"Entry {entry.seq} follows {entry.prev.hex()[:8]}; the one before it is "
            f"{account.head.hex()[:8]}.",
        )
    form_checked(entry, charter)
    balance = account.balance + change(entry)
    if balance < 0:
        raise RemoteError(
            Code.OVERDRAWN,
            f"Entry {entry.seq} takes {account.balance - balance} microcredits; the account has "
            f"{account.balance}.",
        )
    _past_checked(entry, past)
    if entry.balance != balance:
        raise RemoteError(
            Code.BALANCE_WRONG,
            f"Entry {entry.seq} says that {entry.balance} microcredits are left; it is {balance}.",
        )
    return Account(account.account, entry.seq, opened.id, balance)


def _past_checked(entry: Entry, past: Past) -> None:
    """Raises RemoteError: ALREADY_CLAIMED; NO_CHANNEL for a top-up or a rest of a channel that
    this account did not open; CHANNEL_CLOSED for a top-up after its rest was claimed; AMOUNT_WRONG
    for a rest beyond the funding."""
    if isinstance(entry.body, TopUp):
        channel = entry.body.channel
        _funding(past, channel)
        if (seq := past.claimed_at((REST, channel))) is not None:
            raise RemoteError(
                Code.CHANNEL_CLOSED,
                f"Entry {seq} of this chain has taken the rest of channel {channel.hex()[:8]}; "
                "open another.",
            )
    for source in sources_of(entry):
        if (seq := past.claimed_at(source.key)) is not None:
            raise RemoteError(
                Code.ALREADY_CLAIMED,
                f"Entry {seq} of this chain has claimed {source.id.hex()[:8]}.",
            )
    for source in sources_of(entry):
        if source.kind == REST and source.amount > (funding := _funding(past, source.id)):
            raise _amount_wrong(source, funding)


def _funding(past: Past, channel: MessageId) -> int:
    funding = past.funding(channel)
    if funding is None:
        raise RemoteError(
            Code.NO_CHANNEL,
            f"This chain opened no channel {channel.hex()[:8]}; only its own count.",
        )
    return funding


def form_checked(entry: Entry, charter: Charter) -> None:
    """The rules that an entry keeps or breaks by itself.

    Raises RemoteError: AMOUNT_WRONG below the genesis's minima, BAD_MESSAGE for a pay or a channel
    to oneself, ALREADY_CLAIMED for a source twice in a list, NOT_PAYEE for the fee of an entry
    whose number is another's, KIND_NOT_SERVED for a source of a later version.
    """
    if entry.fee < charter.entry_fee:
        raise RemoteError(
            Code.AMOUNT_WRONG,
            f"The fee is {entry.fee} microcredits; this network asks for {charter.entry_fee}.",
        )
    match entry.body:
        case Pay(to, amount):
            if to == entry.account:
                raise RemoteError(Code.BAD_MESSAGE, "An account cannot pay itself.")
            if amount < charter.pay_min:
                raise RemoteError(
                    Code.AMOUNT_WRONG,
                    f"The pay is of {amount} microcredits; at least {charter.pay_min} are moved.",
                )
        case Open(payee):
            if payee == entry.account:
                raise RemoteError(Code.BAD_MESSAGE, "An account opens no channel to itself.")
        case Claim(sources):
            _sources_form_checked(entry.account, sources, charter)


def _sources_form_checked(account: NodeId, sources: tuple[Source, ...], charter: Charter) -> None:
    for source in sources:
        if source.kind not in SOURCE_KINDS:
            raise RemoteError(
                Code.KIND_NOT_SERVED,
                f"A claim of kind {source.kind[:16]} came; this version takes "
                f"{', '.join(SOURCE_KINDS)}. Update the node.",
            )
    for source in sources:
        if source.kind == FEE and charter.fee_owner(source.id) != account:
            raise RemoteError(
                Code.NOT_PAYEE,
                f"The fee of {source.id.hex()[:8]} belongs to another witness than "
                f"{account.hex()[:8]}.",
            )
    if len({source.key for source in sources}) < len(sources):
        raise RemoteError(Code.ALREADY_CLAIMED, "The claim names a source twice.")


def source_checked(account: NodeId, past: Past, source: Source, shown: Shown) -> None:
    """Whether a source that is shown is what `account` claims it to be.

    Raises RemoteError NOT_PAYEE or AMOUNT_WRONG, and NO_CHANNEL as `follow` does.
    """
    if source.kind == REST:
        amount = _funding(past, source.id) - shown.settlements[source.id].value
    else:
        value = None if source.kind != EARNED else shown.settlements[source.id].value
        amount = _credit(account, source, shown.entries[source.id], value)
    if amount != source.amount:
        raise _amount_wrong(source, amount)


def _credit(account: NodeId, source: Source, entry: Entry, settled: int | None) -> int:
    """What a certified entry sets aside for an account, as this kind of source."""
    body = entry.body
    if source.kind == FEE:
        return entry.fee  # Whose it is, the form of the claim says.
    if source.kind == PAY and isinstance(body, Pay) and body.to == account:
        return body.amount
    if source.kind == EARNED and isinstance(body, Open) and body.payee == account:
        assert settled is not None
        return settled
    raise RemoteError(
        Code.NOT_PAYEE,
        f"{source.id.hex()[:8]} is no {source.kind} of {account.hex()[:8]}; only its payee can "
        "claim it.",
    )


def _amount_wrong(source: Source, amount: int) -> RemoteError:
    return RemoteError(
        Code.AMOUNT_WRONG,
        f"The claim takes {source.amount} microcredits of {source.id.hex()[:8]} as {source.kind}; "
        f"it gives {amount}.",
    )
