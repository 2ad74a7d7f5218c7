"""What the wallet's and the ledger's calls show: plain values, as in `node.api.views`.

Amounts are microcredits; nodes are in their text form, other ids and references in hex.
"""

from typing import Final, Literal

from msgspec import Struct

LINES_DEFAULT: Final = 20
LINES_MAX: Final = 200  # Of the longest claims, so many make an answer of 8 MB.
ACCOUNTS_SHOWN_MAX: Final = 10_000  # As many as a genesis has: an answer of a megabyte.
WAIT_MS_DEFAULT: Final = 5_000
WAIT_MS_MAX: Final = 20_000  # Below the time that the command line waits for any answer.

Trouble = Literal["", "halted", "lapsed", "restored", "copied", "doubled", "unwitnessed"]
"""Why a ledger does not go on by itself: witnesses were dishonest; this witness has lost votes; the
journal is older than what witnesses have seen; another daemon signs with this key; the network
has no witnesses at all."""


class Party(Struct, frozen=True):
    """A node as people know it; the name is what it calls itself, "" where it is not known."""

    node: str
    name: str = ""


class Debt(Struct, frozen=True, kw_only=True):
    """What one account has received of this node and has not signed for yet."""

    party: Party
    amount_microcredits: int


class Locked(Struct, frozen=True, kw_only=True):
    """What this node has in a channel to a provider and has not spent there; `back_ms` is when it
    comes back at the latest, in milliseconds since 1970."""

    channel: str
    party: Party
    amount_microcredits: int
    back_ms: int


class Waiting(Struct, frozen=True, kw_only=True):
    """An own entry on its way to a certificate: `seals` of `quorum` are there; `silent` are the
    witnesses that have not answered. `seq` is 0 while a payment waits for its turn: an account
    signs one entry after another."""

    seq: int
    kind: str
    amount_microcredits: int
    to: Party | None
    reference: str
    seals: int
    quorum: int
    silent: tuple[Party, ...] = ()


class SettlementWaiting(Struct, frozen=True, kw_only=True):
    """The settlement of a channel with `party`, for which `waits_for` of `quorum` witnesses are
    missing."""

    channel: str
    party: Party
    waits_for: int
    quorum: int


class Wallet(Struct, frozen=True, kw_only=True):
    """This node's own account. `spendable` is what a new pay or order may count on; `locked` is in
    channels to providers; `earned` stands in vouchers and is not settled yet; `claimable` is
    certified for this node and not yet part of the balance; `owed_to_us` was delivered a moment
    ago, and its vouchers are on their way; `lost` was delivered and never paid. `waiting` and
    `settlements` are what waits for witnesses. `answered`
    witnesses have told what they know of the account since this node started or lost its place.
    `remedy` says what to do about trouble, which `sentence` tells."""

    account: Party
    ready: bool
    seq: int
    balance_microcredits: int
    pending_microcredits: int
    reserved_microcredits: int
    spendable_microcredits: int
    claimable_microcredits: int
    witnesses: int
    quorum: int
    earned_microcredits: int = 0
    lost_microcredits: int = 0
    locked: tuple[Locked, ...] = ()
    answered: int = 0
    owed_to_us: tuple[Debt, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    settlements: tuple[SettlementWaiting, ...] = ()
    trouble: Trouble = ""
    sentence: str = ""
    remedy: str = ""


class Sent(Struct, frozen=True, kw_only=True):
    """A pay that is on disk and will be certified, however long that takes."""

    to: Party
    amount_microcredits: int
    reference: str
    certified: bool
    waiting: Waiting | None = None


class HistoryLine(Struct, frozen=True, kw_only=True):
    """One entry of this node's own chain, or a payment that waits for its turn: then `state` is
    "queued", `seq` 0 and `entry` "". The change is negative where the balance falls. `party` is a
    pay's payee; of a claim the payer, None where it takes pays of several."""

    seq: int
    entry: str
    kind: str
    change_microcredits: int
    party: Party | None
    reference: str
    balance_microcredits: int
    seals: int
    witnesses: int
    state: str


class ClaimedSource(Struct, frozen=True, kw_only=True):
    """What a claim takes: a pay or a channel's share, by the entry that made it, or a fee."""

    entry: str
    amount_microcredits: int


class ShownEntry(Struct, frozen=True, kw_only=True):
    """One signed entry of any chain; `seals` are the witnesses that certified it. `to` is whom it
    pays or opens a channel to; `reference` is a pay's, or the channel that a top-up is for."""

    seq: int
    entry: str
    prev: str
    kind: str
    change_microcredits: int
    to: Party | None
    reference: str
    sources: tuple[ClaimedSource, ...]
    fee_microcredits: int
    balance_microcredits: int
    seals: tuple[Party, ...]


class Chain(Struct, frozen=True, kw_only=True):
    """The newest entries of one account that this node has, the newest first."""

    account: Party
    seq: int
    balance_microcredits: int
    allocated_microcredits: int
    witnesses: int
    quorum: int
    entries: tuple[ShownEntry, ...]


class AccountLine(Struct, frozen=True, kw_only=True):
    """An account as far as this node has its chain."""

    account: Party
    seq: int
    balance_microcredits: int


class ShownProof(Struct, frozen=True, kw_only=True):
    """A proof of misbehaviour that anyone can check. A contradiction has two entries that one
    account signed for one place; a breach one or two certified ones that no honest quorum can
    have made."""

    kind: Literal["contradiction", "breach"]
    account: Party
    sentence: str
    entries: tuple[ShownEntry, ...]


class Fault(Struct, frozen=True, kw_only=True):
    """What does not hold; `account` is None where the bytes themselves are at fault."""

    account: Party | None
    seq: int
    code: str
    sentence: str


class Balance(Struct, frozen=True, kw_only=True):
    account: Party
    amount_microcredits: int


class Verification(Struct, frozen=True, kw_only=True):
    """What an audit found. `total` is balances, pays not yet claimed and fees: the supply, where
    it is `complete`, that is, where each claimed pay stands in a chain that was verified too.
    `balances` and `faults` are the first of them, the counts are of all."""

    network: str
    depth: Literal["full", "heads"]
    ok: bool
    complete: bool
    accounts: int
    entries: int
    signatures: int
    supply_microcredits: int
    balances_microcredits: int
    pays_unclaimed_microcredits: int
    channels_microcredits: int
    fees_microcredits: int
    total_microcredits: int
    balances: tuple[Balance, ...]
    faults_count: int
    faults: tuple[Fault, ...]
