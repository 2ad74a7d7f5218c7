"""What to sign next: a claim that is due, else the first payment that the balance bears."""

from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from node.storage.ledger_own import OwnChains, Payment
from protocol.envelope import Opened
from protocol.errors import RemoteError
from protocol.identity import digest
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account, check
from protocol.ledger.certificate import Certified
from protocol.ledger.decoder import packed
from protocol.ledger.entry import PAY, Claim, Entry, Pay, Source, change, entry_read, sources_of
from protocol.limits import CLAIM_SOURCES_MAX, FRAME_BYTES_MAX

QUEUE_LOOKED_AT_MAX: Final = 64  # Payments tried in order for one that the balance bears.
PROOFS_BYTES_MAX: Final = FRAME_BYTES_MAX - (64 << 10)  # The rest is for the claim itself.


@dataclass(frozen=True, slots=True)
class Plan:
    """The next entry, right by all rules, and not yet signed."""

    before: Account
    entry: Entry
    payment: int | None  # The number of what it pays.


def planned(chains: OwnChains, node: NodeId, *, is_claim_due: bool) -> Plan | None:
    """The next entry of this node, or None where there is nothing to do. What the balance cannot
    bear waits, and lets the incomes be claimed at once."""
    account = chains.account(node)
    fee = chains.charter.entry_fee
    queue = chains.queued(QUEUE_LOOKED_AT_MAX)
    payable = next((one for one in queue if one.amount + fee <= account.balance), None)
    body: Pay | Claim | None = None
    if is_claim_due or (queue and payable is None):
        body = _claim(chains)
    if body is None and payable is not None:
        return _plan(chains, account, _pay(payable), payable.number)
    return None if body is None else _plan(chains, account, body, None)


def proofs_of(chains: OwnChains, entry: Entry) -> tuple[Certified, ...]:
    """The certified sources of a claim of ours, as far as they are here."""
    found = (chains.certified_by_id(source.id) for source in sources_of(entry))
    return tuple(certified for certified in found if certified is not None)


def _plan(chains: OwnChains, account: Account, body: Pay | Claim, payment: int | None) -> Plan:
    entry = Entry(
        network=chains.charter.network,
        account=account.account,
        seq=account.seq + 1,
        prev=account.head,
        body=body,
        fee=chains.charter.entry_fee,
        balance=0,
    )
    entry = msgspec.structs.replace(entry, balance=account.balance + change(entry))
    _check(chains, account, entry)
    return Plan(account, entry, payment)


def _pay(payment: Payment) -> Pay:
    return Pay(payment.payee, payment.amount, payment.reference)


def _claim(chains: OwnChains) -> Claim | None:
    """As many incomes as one claim takes, if they are worth its fee."""
    sources: list[Source] = []
    bytes_left = PROOFS_BYTES_MAX
    for income in chains.unclaimed(CLAIM_SOURCES_MAX):
        certified = chains.certified_by_id(income.id)
        assert certified is not None, "an income is kept with its certificate"
        bytes_left -= len(packed(certified))
        if bytes_left < 0:
            break
        sources.append(Source(PAY, income.id, income.amount))
    if sum(source.amount for source in sources) <= chains.charter.entry_fee:
        return None
    return Claim(tuple(sources))


def _check(chains: OwnChains, account: Account, entry: Entry) -> None:
    """The same function that the witnesses call, before anything is signed."""
    network = chains.charter.network
    shown = {
        certified.entry.id: entry_read(certified.entry, network).value
        for certified in proofs_of(chains, entry)
    }
    opened = Opened(entry, MessageId(digest(packed(entry))), entry.account)
    claimed_at = partial(chains.claimed_at, entry.account)
    try:
        check(account, claimed_at, opened, shown, charter=chains.charter)
    except RemoteError as error:
        raise AssertionError("we were about to sign what witnesses refuse") from error
