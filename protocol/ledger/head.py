"""What a node does before its first new signature: go on, catch up, send again, wait or stop.

A journal that was fsynced before each sending knows all. A restored or copied one does not, and a
second entry for one seq can wedge the account. Counts over all vote and answer sets (facts of the
ledger, 2.2): q answers never miss a certified entry, only all n never miss one voted for.
Sending the journal's pending entry again is no new signature: that needs no answer at all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.envelope import Opened, Signed
from protocol.errors import Code, RemoteError
from protocol.ids import NodeId
from protocol.ledger.account import Account, Past, follow
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import Entry, entry_opened
from protocol.ledger.sync import OwnState


@dataclass(frozen=True, slots=True)
class Journal:
    """What this node's own store says of its chain."""

    account: Account
    past: Past
    pending: Signed | None
    """The entry signed last, while it is not certified."""
    restored: bool
    """Whether it was found to be older than what a witness has seen, and all have not answered
    since; stored as soon as `Wait.restored` says so."""


@dataclass(frozen=True, slots=True)
class View:
    """A witness's answer whose signatures and certificate hold."""

    head: tuple[Certified, Opened[Entry]] | None
    voted: tuple[Signed, Opened[Entry]] | None


@dataclass(frozen=True, slots=True)
class Wait:
    """For as many answers of different witnesses in all."""

    answers: int
    restored: bool


@dataclass(frozen=True, slots=True)
class Adopt:
    """Fetch, follow and store the certified entries from `first_seq` to this head; ask again."""

    head: Certified
    first_seq: int


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Send exactly this entry to all witnesses until it is certified; then ask again."""

    entry: Signed


@dataclass(frozen=True, slots=True)
class Stop:
    """Sign nothing: another daemon has this key, and signed `other` where we signed `ours`."""

    ours: Signed
    other: Signed


@dataclass(frozen=True, slots=True)
class GoOn:
    """The journal is complete: new entries may be signed."""


Step = Wait | Adopt | Resubmit | Stop | GoOn


def view_checked(answer: OwnState, account: NodeId, charter: Charter) -> View:
    """A witness's answer, checked; one that raises counts as no answer.

    Raises RemoteError UNEXPECTED where it speaks of another account, and what `certified_checked`
    and `entry_opened` raise.
    """
    head, voted = answer.head, answer.voted
    view = View(
        None if head is None else (head, certified_checked(head, charter)),
        None if voted is None else (voted, entry_opened(voted, charter.network)),
    )
    for pair in (view.head, view.voted):
        if pair is not None and pair[1].value.account != account:
            raise RemoteError(Code.UNEXPECTED, "The witness answered about another account.")
    return view


def next_step(
    journal: Journal, answers: Mapping[int, View], charter: Charter, *, override: bool = False
) -> Step:
    """What to do with these answers, by the numbers of the witnesses that gave them.

    `override` is the owner's word, after being told the risk: do not wait for all witnesses, and
    go on in spite of a rival.
    """
    if len(answers) < charter.quorum:
        return Wait(charter.quorum, journal.restored)
    rival = _rival(journal, answers.values())
    if rival is not None and not override:
        assert journal.pending is not None
        return Stop(journal.pending, rival)
    restored = journal.restored or _newer(journal, answers.values())
    if restored and not override and len(answers) < len(charter.witnesses):
        return Wait(len(charter.witnesses), restored)
    account = journal.account
    heads = [view.head for view in answers.values() if view.head is not None]
    longest = max(heads, key=lambda pair: pair[1].value.seq, default=None)
    if longest is not None:
        certified, opened = longest
        # Another head at the same seq is a breach, which following it brings to light.
        ours = (account.seq, account.head)
        if opened.value.seq > account.seq or _at(heads, account.seq) - {ours}:
            return Adopt(certified, min(account.seq + 1, opened.value.seq))
    again = _again(journal, answers.values(), charter)
    return GoOn() if again is None else Resubmit(again)


def _at(heads: Iterable[tuple[Certified, Opened[Entry]]], seq: int) -> set[tuple[int, bytes]]:
    return {(seq, opened.id) for _, opened in heads if opened.value.seq == seq}


def _seen(views: Iterable[View]) -> Iterable[tuple[Signed, int]]:
    """Every entry with this account's signature that the answers show, with its seq."""
    for view in views:
        if view.head is not None:
            yield view.head[0].entry, view.head[1].value.seq
        if view.voted is not None:
            yield view.voted[0], view.voted[1].value.seq


def _rival(journal: Journal, views: Iterable[View]) -> Signed | None:
    """An entry in the place of the pending one that is not the pending one."""
    pending, place = journal.pending, journal.account.seq + 1
    if pending is None:
        return None
    rivals = [one for one, seq in _seen(views) if seq == place and one.id != pending.id]
    return min(rivals, key=lambda signed: signed.id, default=None)


def _newer(journal: Journal, views: Iterable[View]) -> bool:
    """Whether a witness shows an entry of ours that the journal does not hold."""
    pending = None if journal.pending is None else journal.pending.id
    return any(seq > journal.account.seq and one.id != pending for one, seq in _seen(views))


def _again(journal: Journal, views: Iterable[View], charter: Charter) -> Signed | None:
    """The entry to send again: our pending one, else what most witnesses voted for."""
    if journal.pending is not None and _rival(journal, views := list(views)) is None:
        return journal.pending
    votes: Counter[bytes] = Counter()
    entries: dict[bytes, Signed] = {}
    for view in views:
        if view.voted is None:
            continue
        signed, opened = view.voted
        if opened.value.seq == journal.account.seq + 1 and _follows(journal, opened, charter):
            votes[opened.id] += 1
            entries[opened.id] = signed
    best = max(votes, key=lambda entry: (votes[entry], entry), default=None)
    return journal.pending if best is None else entries[best]


def _follows(journal: Journal, opened: Opened[Entry], charter: Charter) -> bool:
    """Whether honest witnesses may vote for it: one with a mistake is dead and may be replaced."""
    try:
        follow(journal.account, journal.past, opened, charter)
    except RemoteError:
        return False
    return True
