"""What to sign next: a claim that is due, else the first that waits and the balance bears."""

from dataclasses import dataclass
from typing import Final

import msgspec

from node.storage.ledger_own import IncomeRow, OwnChains
from protocol.envelope import Opened
from protocol.errors import RemoteError
from protocol.identity import digest
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account, Shown, check
from protocol.ledger.certificate import Certified
from protocol.ledger.decoder import packed
from protocol.ledger.entry import (
    EARNED,
    REST,
    Body,
    Claim,
    Entry,
    Source,
    change,
    entry_read,
    sources_of,
)
from protocol.ledger.sources import Proofs
from protocol.ledger.statement import Settlement
from protocol.ledger.witness import ChainPast
from protocol.limits import CLAIM_SOURCES_MAX, FRAME_BYTES_MAX

QUEUE_LOOKED_AT_MAX: Final = (
    64  # Pays, opens and top-ups tried in order for one that the balance bears.
)
PROOFS_BYTES_MAX: Final = FRAME_BYTES_MAX - (64 << 10)  # The rest is for the claim itself.


@dataclass(frozen=True, slots=True)
class Plan:
    """The next entry, right by all rules, and not yet signed."""

    before: Account
    entry: Entry
    payment: int | None  # The number of what it does, in the queue.


def planned(chains: OwnChains, node: NodeId, *, is_claim_due: bool) -> Plan | None:
    """The next entry of this node, or None where there is nothing to do. What the balance cannot
    bear waits, and lets the incomes be claimed at once."""
    account = chains.account(node)
    fee = chains.charter.entry_fee
    queue = chains.queued(QUEUE_LOOKED_AT_MAX)
    payable = next((one for one in queue if one.amount + fee <= account.balance), None)
    body: Body | None = None
    if is_claim_due or (queue and payable is None):
        body = _claim(chains)
    if body is None and payable is not None:
        return _plan(chains, account, payable.body, payable.number)
    return None if body is None else _plan(chains, account, body, None)


def proofs_of(chains: OwnChains, entry: Entry) -> Proofs:
    """The certificates of what a claim of ours takes, as far as they are here."""
    entries: dict[MessageId, Certified] = {}
    settlements: dict[MessageId, Settlement] = {}
    for source in sources_of(entry):
        certified, settlement = _proof(chains, source.kind, source.id)
        if certified is not None:
            entries[source.id] = certified
        if settlement is not None:
            settlements[source.id] = settlement
    return Proofs(tuple(entries.values()), tuple(settlements.values()))


def _proof(
    chains: OwnChains, kind: str, source: MessageId
) -> tuple[Certified | None, Settlement | None]:
    """What one source is shown with. A rest needs no open: our own chain has it."""
    certified = None if kind == REST else chains.certified_by_id(source)
    return certified, chains.settlement(source) if kind in (EARNED, REST) else None


def _plan(chains: OwnChains, account: Account, body: Body, payment: int | None) -> Plan:
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


def _claim(chains: OwnChains) -> Claim | None:
    """As many credits as one claim takes, if they are worth its fee."""
    sources: list[Source] = []
    bytes_left = PROOFS_BYTES_MAX
    for income in chains.unclaimed(CLAIM_SOURCES_MAX):
        bytes_left -= _proof_bytes(chains, income)
        if bytes_left < 0:
            break
        sources.append(Source(income.kind, income.id, income.amount))
    if sum(source.amount for source in sources) <= chains.charter.entry_fee:
        return None
    return Claim(tuple(sources))


def _proof_bytes(chains: OwnChains, income: IncomeRow) -> int:
    proofs = [proof for proof in _proof(chains, income.kind, income.id) if proof is not None]
    assert proofs, "what is set aside for us is kept with its certificates"
    return sum(len(packed(proof)) for proof in proofs)


def _check(chains: OwnChains, account: Account, entry: Entry) -> None:
    """The same function that the witnesses call, before anything is signed."""
    network, proofs = chains.charter.network, proofs_of(chains, entry)
    shown = Shown(
        {one.entry.id: entry_read(one.entry, network).value for one in proofs.entries},
        {settlement.channel: settlement for settlement in proofs.settlements},
    )
    opened = Opened(entry, MessageId(digest(packed(entry))), entry.account)
    past = ChainPast(chains, entry.account)
    try:
        check(account, past, opened, shown, charter=chains.charter)
    except RemoteError as error:
        raise AssertionError("we were about to sign what witnesses refuse") from error
