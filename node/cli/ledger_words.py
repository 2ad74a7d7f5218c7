"""How the wallet's and the ledger's values are written for a person."""

from collections.abc import Sequence

from node.api.ledger_views import (
    Debt,
    Fault,
    Locked,
    Party,
    SettlementWaiting,
    ShownEntry,
    Waiting,
)
from node.cli.words import count_words, listed_words, node_words, time_words
from protocol.units import credits_text

DEBTS_SHOWN_MAX = 10  # The largest; a script gets all of them.
SHORT_DIGITS = 8  # Of ids and references: enough to tell them apart, and to look them up.


def party_words(party: Party) -> str:
    return node_words(party.name, party.node)


def change_words(amount: int) -> str:
    """Credits with their sign."""
    return credits_text(amount) if amount < 0 else f"+{credits_text(amount)}"


def credits_words(amount: int) -> str:
    text = credits_text(amount)
    return f"{text} credit" if text == "1" else f"{text} credits"


def waiting_words(waiting: Waiting) -> str:
    """What waits, and for whom."""
    to = "" if waiting.to is None else f" to {party_words(waiting.to)}"
    return (
        f"{waiting.kind} of {credits_words(waiting.amount_microcredits)}{to}: {seals_lack(waiting)}"
    )


def settlement_words(waiting: SettlementWaiting) -> str:
    """Which settlement waits, and for how many witnesses."""
    return (
        f"settlement of {waiting.channel[:SHORT_DIGITS]} with {party_words(waiting.party)}: "
        f"{lack_words(waiting.waits_for, waiting.quorum)}"
    )


def lack_words(lack: int, quorum: int) -> str:
    """ "waiting for 2 of 3 witnesses"."""
    return f"waiting for {lack} of {count_words(quorum, 'witness', 'witnesses')}"


def seals_lack(waiting: Waiting) -> str:
    """ "waiting for 2 of 3 witnesses; maize and oca have not answered"."""
    if not waiting.seq:
        return "it waits for its turn, behind what this node signed before"
    lack = max(0, waiting.quorum - waiting.seals)
    said = lack_words(lack, waiting.quorum)
    if not waiting.silent:
        return said
    names = listed_words([one.name or party_words(one) for one in waiting.silent])
    return f"{said}; {names} {'has' if len(waiting.silent) == 1 else 'have'} not answered"


def debts_words(debts: Sequence[Debt]) -> str:
    """The sum, then each on a line of its own."""
    total = sum(debt.amount_microcredits for debt in debts)
    lines = [
        f"{credits_text(debt.amount_microcredits)} {party_words(debt.party)}"
        for debt in debts[:DEBTS_SHOWN_MAX]
    ]
    if len(debts) > len(lines):
        lines.append(f"and {len(debts) - len(lines)} more accounts")
    return "\n".join([credits_words(total) if debts else "nothing", *lines])


def locked_words(locked: Sequence[Locked]) -> str:
    """The sum, then what comes back first, each on a line of its own with its hour."""
    if not locked:
        return "nothing"
    total = sum(one.amount_microcredits for one in locked)
    lines = [
        f"{credits_text(one.amount_microcredits)} {party_words(one.party)}, back by "
        f"{time_words(one.back_ms)}"
        for one in locked[:DEBTS_SHOWN_MAX]
    ]
    if len(locked) > len(lines):
        lines.append(f"and {count_words(len(locked) - len(lines), 'more channel')}")
    return "\n".join([f"{credits_words(total)} in channels", *lines])


def what_words(entry: ShownEntry) -> str:
    """Whom an entry pays, or what it claims."""
    if entry.to is not None:
        return f"to {party_words(entry.to)}"
    shown = [source.entry[:SHORT_DIGITS] for source in entry.sources[:3]]
    more = len(entry.sources) - len(shown)
    return f"of {', '.join(shown)}" + (f" and {more} more" if more else "")


def seals_words(entry: ShownEntry) -> str:
    """The witnesses that sealed an entry, by name."""
    return listed_words([one.name or party_words(one) for one in entry.seals])


def fault_words(fault: Fault) -> str:
    """Where, by which stable code, and what is wrong."""
    where = "the file" if fault.account is None else fault.account.node
    if fault.account is not None and fault.account.name:
        where = f"{fault.account.name} ({fault.account.node})"
    place = f" seq {fault.seq}" if fault.seq else ""
    return f"{where}{place}: {fault.code}: {fault.sentence}"
