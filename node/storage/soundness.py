"""Whether the money statements of this node that are stored are those that were written.

SQLite finds pages that cannot be; a bit that has turned inside a value it takes for the value. A
chain holds itself together by digests, so that such a bit shows.
"""

import sqlite3
from collections.abc import Iterator
from typing import Final

from node.storage.damage import Damaged
from node.storage.ledger_own import OwnChains
from protocol.envelope import Opened
from protocol.errors import RemoteError
from protocol.ids import NodeId
from protocol.ledger.account import Account
from protocol.ledger.certificate import certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import Entry, change, entry_opened, entry_read

ENTRIES_CHECKED_MAX: Final = 4096  # Of our own chain, from its head back: a tenth of a second.


def check_own(connection: sqlite3.Connection, charter: Charter, own: NodeId) -> None:
    """Verify our own chain from its bytes, as far as the bound goes, and the entry on its way.
    Raises Damaged, with what does not hold."""
    connection.execute("BEGIN")
    try:
        _check(OwnChains(connection, charter), own)
    except RemoteError as error:  # A row that cannot be read as what it was.
        raise Damaged(f"a stored statement is none: {error.sentence}") from error
    finally:
        connection.execute("ROLLBACK")


def _check(chains: OwnChains, own: NodeId) -> None:
    account, network = chains.account(own), chains.charter.network
    before: Opened[Entry] | None = None
    for opened in _newest(chains, account):
        if before is not None:
            _check_step(before, opened.value)
        before = opened
    if account.seq and (before is None or _summed(before) != account):
        raise Damaged("the account and the last entry of its chain disagree")
    head = chains.head(own) if account.seq else None
    if head is not None:
        certified_checked(head, chains.charter)
    pending = chains.pending()
    if pending is not None:
        entry_opened(pending, network)


def _newest(chains: OwnChains, account: Account) -> Iterator[Opened[Entry]]:
    first = max(1, account.seq - ENTRIES_CHECKED_MAX + 1)
    expected = first
    for certified in chains.chain(account.account, first, ENTRIES_CHECKED_MAX):
        opened = entry_read(certified.entry, chains.charter.network)
        if opened.value.account != account.account:
            raise Damaged("an entry of another account stands in our chain")
        # What is before a checkpoint may have been pruned; after it nothing may be missing.
        if opened.value.seq != expected and expected != first:
            raise Damaged(f"entry {expected} of our chain is missing")
        expected = opened.value.seq + 1
        yield opened


def _check_step(before: Opened[Entry], entry: Entry) -> None:
    if entry.prev != before.id:
        raise Damaged(f"entry {entry.seq} of our chain does not follow the one before it")
    if entry.balance != before.value.balance + change(entry):
        raise Damaged(f"entry {entry.seq} of our chain does not add up")


def _summed(opened: Opened[Entry]) -> Account:
    entry = opened.value
    return Account(entry.account, entry.seq, opened.id, entry.balance)
