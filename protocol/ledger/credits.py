"""What certified entries set aside for others, and the claims that take it, matched."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.charter import Charter
from protocol.ledger.entry import EARNED, FEE, PAY, Entry, Open, Pay, Source, SourceKey


@dataclass(frozen=True, slots=True)
class Credit:
    """What an account may claim; microcredits."""

    account: NodeId
    amount: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """A source as a certified entry claims it."""

    account: NodeId
    seq: int
    source: Source


def credits_of(
    opened: Opened[Entry], settled: Mapping[MessageId, int], charter: Charter
) -> dict[SourceKey, Credit]:
    """What an entry sets aside for other accounts; `settled` holds the values of the channels
    whose settlement is known. The rest of a channel is its own account's, and not among these."""
    entry, found = opened.value, dict[SourceKey, Credit]()
    if isinstance(entry.body, Pay):
        found[PAY, opened.id] = Credit(entry.body.to, entry.body.amount)
    elif isinstance(entry.body, Open) and settled.get(opened.id, 0):
        found[EARNED, opened.id] = Credit(entry.body.payee, settled[opened.id])
    owner = charter.fee_owner(opened.id)
    if entry.fee and owner is not None:
        found[FEE, opened.id] = Credit(owner, entry.fee)
    return found


class Credits:
    """Credits and claims, in whichever order they come. It holds those that have no match yet."""

    def __init__(self) -> None:
        self.free: dict[SourceKey, Credit] = {}
        self.waiting: dict[SourceKey, Claimed] = {}

    def offer(self, key: SourceKey, credit: Credit) -> Claimed | None:
        """Set a credit aside. Returns the claim that waited for it, which takes it, if it may.

        Raises RemoteError as `claim`; the claim is forgotten then, and the credit stays.
        """
        claimed = self.waiting.pop(key, None)
        self.free[key] = credit
        if claimed is not None:
            self.claim(claimed)
        return claimed

    def claim(self, claimed: Claimed) -> None:
        """Take a credit, or wait for it.

        Raises RemoteError: NOT_PAYEE or AMOUNT_WRONG where it is another's or another amount,
        ALREADY_CLAIMED where a claim waits for the same.
        """
        source = claimed.source
        credit = self.free.get(source.key)
        if credit is None:
            if source.key in self.waiting:
                first = self.waiting[source.key].account
                raise RemoteError(
                    Code.ALREADY_CLAIMED,
                    f"{first.hex()[:8]} has claimed {source.id.hex()[:8]}.",
                )
            self.waiting[source.key] = claimed
            return
        if credit.account != claimed.account:
            raise RemoteError(
                Code.NOT_PAYEE,
                f"{source.id.hex()[:8]} as {source.kind} is {credit.account.hex()[:8]}'s; only its "
                "payee can claim it.",
            )
        if credit.amount != source.amount:
            raise RemoteError(
                Code.AMOUNT_WRONG,
                f"The claim takes {source.amount} microcredits of {source.id.hex()[:8]} as "
                f"{source.kind}; it gives {credit.amount}.",
            )
        del self.free[source.key]

    def total(self, kind: str) -> int:
        """The sum of all credits of a kind that nobody has claimed."""
        return sum(credit.amount for (one, _), credit in self.free.items() if one == kind)
