"""How much this node puts into channels, how far it trusts, and when it settles: pure arithmetic.

Amounts are microcredits. The bounds keep a channel's deposit small beside what its owner has: of a
deposit nothing can be lost, but until its channel is settled it cannot be spent elsewhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocol.capacity import ModelOffer
from protocol.ledger.charter import Charter
from protocol.limits import (
    CHUNK_TOKENS_MAX,
    COUNT_AHEAD_GRACES,
    SETTLE_AHEAD_GRACES,
    TOPUPS_SHOWN_MAX,
    WINDOW_CHUNKS_MAX,
    WINDOW_CHUNKS_STRANGER,
)
from protocol.pricing import cost

DEPOSIT_JOBS: Final = 50  # Of the dearest job that is expected there: a day or two of questions.
PERCENT: Final = 100
TOP_UP_QUARTER: Final = 4  # A channel is topped up when less than a quarter of its deposit is left.
USE_AHEAD_GRACES: Final = COUNT_AHEAD_GRACES + 3  # An order that begins now still is paid in time.
TRUST_SHARE: Final = 20  # What is risked with a payer is a twentieth of what it has paid before.
FAST_CHUNK_MS: Final = 100  # A stream of 160 tokens a second: a window for it suits slower ones.


@dataclass(frozen=True, slots=True)
class Limits:
    """The owner's wishes: shares in percent, lengths of time in milliseconds."""

    life_ms: int = 3 * 86_400_000
    idle_ms: int = 86_400_000
    deposit_percent: int = 2  # Of the balance, in one channel.
    locked_percent: int = 20  # Of all that the owner has, in all channels.
    settle_above: int = 10_000_000  # What is earned and not settled in one channel.
    settle_percent: int = 25  # The same, as a share of the own balance.


@dataclass(frozen=True, slots=True)
class Means:
    """What the owner has: free, of it not yet promised to others, and locked in own channels."""

    balance: int
    spendable: int
    locked: int


def deposit(limits: Limits, means: Means, dearest: int) -> int:
    """What to put into a channel ahead of need, where the dearest job expected costs `dearest`;
    0 where the bounds do not leave enough for one such job."""
    wealth = means.balance + means.locked
    bounds = (
        DEPOSIT_JOBS * dearest,
        means.balance * limits.deposit_percent // PERCENT,
        wealth * limits.locked_percent // PERCENT - means.locked,
        means.spendable,
    )
    amount = max(0, min(bounds))
    return amount if amount >= dearest else 0


def deposit_now(limits: Limits, means: Means, dearest: int, cost_worst: int) -> int:
    """What to put into a channel for a job at hand: its worst cost at least, which may be above
    the owner's shares, or a person with few credits could ask nothing; 0 where even that is more
    than can be spent."""
    amount = max(cost_worst, deposit(limits, means, max(dearest, cost_worst)))
    return amount if amount <= means.spendable else 0


def top_up(limits: Limits, means: Means, dearest: int, left: int) -> int:
    """What to add, ahead of need, to a channel in which so much is left; 0 for nothing yet."""
    wanted = min(DEPOSIT_JOBS * dearest, (means.balance + left) * limits.deposit_percent // PERCENT)
    if left * TOP_UP_QUARTER >= wanted:
        return 0
    wealth = means.balance + means.locked
    room = wealth * limits.locked_percent // PERCENT - means.locked
    amount = max(0, min(wanted - left, room, means.spendable))
    return amount if left + amount >= dearest else 0


def may_top_up(topups: int) -> bool:
    """Whether a payee counts one more top-up of a channel."""
    return topups < TOPUPS_SHOWN_MAX


def chunk_cost_most(offers: Iterable[ModelOffer]) -> int:
    """What a chunk costs at most where this is for sale: the first of an answer bears the price of
    the prompt, which may fill the context."""
    return max(
        (
            cost(offer.context_tokens, CHUNK_TOKENS_MAX, offer.price_in, offer.price_out)
            for offer in offers
        ),
        default=0,
    )


def window_chunks(paid: int, chunk_cost: int, turnaround_ms: int) -> int:
    """How many chunks to deliver ahead of a payer's vouchers.

    More than a stranger's only as far as it has paid for far more, and only as many as it takes
    for the stream not to wait: `turnaround_ms` is from a chunk to its voucher, as measured.
    """
    trusted = WINDOW_CHUNKS_STRANGER + paid // (TRUST_SHARE * max(1, chunk_cost))
    needed = WINDOW_CHUNKS_STRANGER + turnaround_ms // FAST_CHUNK_MS
    return max(WINDOW_CHUNKS_STRANGER, min(trusted, needed, WINDOW_CHUNKS_MAX))


def is_stranger(paid: int, chunk_cost: int) -> bool:
    """Whether a payer has not yet paid for far more than prompts and a window may cost us."""
    return paid < TRUST_SHARE * WINDOW_CHUNKS_STRANGER * max(1, chunk_cost)


def life_ms(limits: Limits, charter: Charter) -> int:
    """How long a new channel is to live: as the owner says, and never so short that it would
    hardly be of use before its payee stops counting."""
    return max(limits.life_ms, 2 * USE_AHEAD_GRACES * charter.grace_ms)


def can_be_used(expiry_ms: int, now_ms: int, charter: Charter) -> bool:
    """Whether a payer may begin an order on a channel: its last voucher still will be counted."""
    return expiry_ms - now_ms >= USE_AHEAD_GRACES * charter.grace_ms


def counts(expiry_ms: int, now_ms: int, charter: Charter) -> bool:
    """Whether a payee still counts vouchers of a channel. It stops long before it settles (Delta),
    so it delivers nothing in the time in which unreachable witnesses could cost it its pay."""
    return expiry_ms - now_ms >= COUNT_AHEAD_GRACES * charter.grace_ms


def settle_at_ms(expiry_ms: int, charter: Charter) -> int:
    """When a payee settles at the latest, by the wall clock: Delta before the expiry."""
    return expiry_ms - SETTLE_AHEAD_GRACES * charter.grace_ms


def is_worth_settling(limits: Limits, held: int, balance: int) -> bool:
    """Whether so much is earned in one channel that it should not be at risk any longer."""
    least = max(1, balance * limits.settle_percent // PERCENT)
    above = max(1, limits.settle_above)  # Where the owner says 0, whatever has been earned.
    return held >= above or (held >= least and held >= above // 10)


def back_at_ms(expiry_ms: int, now_ms: int, charter: Charter) -> int:
    """When what is locked in a channel comes back to its payer at the latest, by the wall clock:
    at the end of its own turn, the next even one."""
    begin = expiry_ms + charter.grace_ms
    turns = max(0, now_ms - begin) // charter.window_ms
    return begin + (turns + 1 + turns % 2) * charter.window_ms
