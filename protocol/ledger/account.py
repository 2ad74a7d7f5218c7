"""The one place with the money rules: client, witness and auditor all check an entry here.

Whether an entry is valid depends on its own certified chain and the certificates shown with it
and on nothing else: no clock, no other account's moving state. So every honest witness says the
same, and credits cannot be insufficient "in the view" of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.charter import Charter
from protocol.ledger.entry import PAY, Claim, Entry, Pay, Source, SourceKey, change, sources_of

ClaimedAt = Callable[[SourceKey], int | None]
"""The seq at which an account's certified chain claimed a source; None while it has not."""
Sources = Mapping[MessageId, Entry]
"""Entries by their ids, each with a certificate that was checked."""


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
            f"The claim needs the certified entries of {len(needs)} sources, the first "
            f"{needs[0].hex()[:8]}; send them with it.",
        )
        self.needs = needs


def opening(charter: Charter, account: NodeId) -> Account:
    """An account before its first entry: what the genesis allocates to it, or nothing."""
    return Account(account, 0, charter.network, charter.allocations.get(account, 0))


def check(
    account: Account,
    claimed_at: ClaimedAt,
    opened: Opened[Entry],
    sources: Sources,
    *,
    charter: Charter,
) -> Account:
    """The account after an entry whose signature holds.

    Raises RemoteError: all that `follow` and `sources_shown` raise. The witness calls the two by
    themselves, so that it checks no certificate for an entry that its own chain refuses.
    """
    after = follow(account, claimed_at, opened, charter)
    sources_shown(opened.value, sources)
    return after


def sources_shown(entry: Entry, sources: Sources) -> None:
    """Whether all that an entry claims is shown and is what it says.

    Raises RemoteError NEED (a SourcesNeeded), and what `source_checked` raises.
    """
    claimed = sources_of(entry)
    needs = tuple(source.id for source in claimed if source.id not in sources)
    if needs:
        raise SourcesNeeded(needs)
    for source in claimed:
        source_checked(entry.account, source, sources[source.id].body)


def follow(
    account: Account, claimed_at: ClaimedAt, opened: Opened[Entry], charter: Charter
) -> Account:
    """The account after an entry, by all rules that its own chain decides.

    Enough where the entry is certified; a vote needs `check`. Raises RemoteError: PAST or MISSING
    where it is not the next, LINK_BROKEN, OVERDRAWN, ALREADY_CLAIMED, BALANCE_WRONG, and what
    `form_checked` raises.
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
    for source in sources_of(entry):
        if (seq := claimed_at(source.key)) is not None:
            raise RemoteError(
                Code.ALREADY_CLAIMED,
                f"Entry {seq} of this chain has claimed {source.id.hex()[:8]}.",
            )
    if entry.balance != balance:
        raise RemoteError(
            Code.BALANCE_WRONG,
            f"Entry {entry.seq} says that {entry.balance} microcredits are left; it is {balance}.",
        )
    return Account(account.account, entry.seq, opened.id, balance)


def form_checked(entry: Entry, charter: Charter) -> None:
    """The rules that an entry keeps or breaks by itself.

    Raises RemoteError: AMOUNT_WRONG below the genesis's minima, BAD_MESSAGE for a pay to oneself,
    ALREADY_CLAIMED for a source twice in a list, KIND_NOT_SERVED for a source of a later version.
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
        case Claim(sources):
            for source in sources:
                if source.kind != PAY:
                    raise RemoteError(
                        Code.KIND_NOT_SERVED,
                        f"A claim of kind {source.kind[:16]} came; this version takes pay.",
                    )
            if len({source.key for source in sources}) < len(sources):
                raise RemoteError(Code.ALREADY_CLAIMED, "The claim names a source twice.")


def source_checked(account: NodeId, source: Source, body: Pay | Claim) -> None:
    """Whether the body of a certified entry is what `account` claims it to be.

    Raises RemoteError NOT_PAYEE or AMOUNT_WRONG.
    """
    if not isinstance(body, Pay) or body.to != account:
        raise RemoteError(
            Code.NOT_PAYEE,
            f"{source.id.hex()[:8]} is no pay to {account.hex()[:8]}; only its payee can claim it.",
        )
    if body.amount != source.amount:
        raise RemoteError(
            Code.AMOUNT_WRONG,
            f"The claim takes {source.amount} microcredits from {source.id.hex()[:8]}; it pays "
            f"{body.amount}.",
        )
