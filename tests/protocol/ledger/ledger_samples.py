"""A town with one of everything: what the ledger's vectors are made of."""

from protocol.identity import Identity
from protocol.ledger import sync
from protocol.ledger.certificate import vote_signed
from protocol.ledger.proof import breach_made, contradiction_made
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    GENESIS,
    WITNESSES,
    Chain,
    claim,
    entry_after,
    pay,
    sealed,
    signed_entry,
    start,
)

__all__ = ["CHARTER", "GENESIS"]  # They belong to the samples, wherever they are made.

ACCOUNT_SEEDS = [
    (identity, bytes([number]) * 32) for number, identity in ((1, ANNA), (2, BRUNO), (3, CLARA))
]
_SEED_OF = {Identity(bytes([100 + n]) * 32).node: bytes([100 + n]) * 32 for n in range(7)}
WITNESS_SEEDS = [(identity, _SEED_OF[identity.node]) for identity in WITNESSES[:4]]

_anna, _bruno, _clara = Chain(ANNA), Chain(BRUNO), Chain(CLARA)
_paid = _anna.add(pay(BRUNO, 30))
_receipt = _anna.add(pay(CLARA, 20, reference=bytes([0xAB]) * 32), (0, 1, 2, 3))
_claimed = _bruno.add(claim(_paid), (1, 2, 3))
_onward = _bruno.add(pay(CLARA, 70), (0, 2, 3))
_gathered = _clara.add(claim(_receipt, _onward))

ENTRIES = {
    "pay": (_paid, _anna.certified[0]),
    "pay_with_reference": (_receipt, _anna.certified[1]),
    "claim": (_claimed, _bruno.certified[0]),
    "pay_all": (_onward, _bruno.certified[1]),
    "claim_of_two": (_gathered, _clara.certified[0]),
}

_rival = signed_entry(ANNA, entry_after(start(ANNA), pay(CLARA, 31)))
_unlinked = Chain(ANNA)
_unlinked.state = _anna.state
_unlinked.add(pay(CLARA, 1), prev=bytes(32))
_again = Chain(BRUNO)
_again.state = _bruno.state
_again.add(claim(_paid))
_alone = Chain(CLARA)
_alone.add(pay(ANNA, 1), balance=9)

PROOFS = {
    "contradiction": contradiction_made(_anna.certified[0].entry, _rival, CHARTER),
    "breach_rivals": breach_made((_anna.certified[0], sealed(_rival)), CHARTER),
    "breach_link": breach_made((_anna.certified[1], _unlinked.certified[0]), CHARTER),
    "breach_claimed_twice": breach_made((_bruno.certified[0], _again.certified[0]), CHARTER),
    "breach_alone": breach_made((_alone.certified[0],), CHARTER),
}
assert None not in PROOFS.values()

_INSTANCE = bytes(range(16))
_first = _anna.certified[0]
MESSAGES = {
    "submit": sync.Submit(_bruno.certified[0].entry, (_first,), _INSTANCE),
    "announce": sync.Announce(_first),
    "ask_accounts": sync.AskAccounts(b""),
    "ask_accounts_after": sync.AskAccounts(ANNA.node),
    "ask_heads": sync.AskHeads((ANNA.node, BRUNO.node)),
    "ask_range": sync.AskRange(ANNA.node, 2, 100),
    "ask_entries": sync.AskEntries((_paid.id, _onward.id)),
    "ask_own": sync.AskOwn(ANNA.node, _INSTANCE),
    "ask_proofs": sync.AskProofs(3),
    "voted": sync.Voted(vote_signed(WITNESSES[0], _paid.id, CHARTER.network)),
    "accepted": sync.Accepted(),
    "accounts": sync.Accounts((ANNA.node, CLARA.node)),
    "entries": sync.Entries((_first,)),
    "own_state": sync.OwnState(_first, _rival, 1_500),
    "own_state_new": sync.OwnState(None, None, None),
    "proofs": sync.Proofs((PROOFS["contradiction"], PROOFS["breach_alone"])),
    "refusal_busy": sync.Refusal("BUSY", "Come again.", retry_ms=750),
    "refusal_missing": sync.Refusal("MISSING", "Send those before.", missing_seq=3),
    "refusal_need": sync.Refusal("NEED", "Show them.", needs=(_paid.id,)),
    "refusal_past": sync.Refusal("PAST", "It is certified.", shown=_first),
    "refusal_voted_other": sync.Refusal("VOTED_OTHER", "Another was first.", shown=_rival),
    "refusal_halted": sync.Refusal("HALTED", "It has halted.", shown=PROOFS["breach_rivals"]),
}

_town = sorted((_anna, _bruno, _clara), key=lambda chain: chain.identity.node)
EXPORTS = {
    "town": ([], [certified for chain in _town for certified in chain.certified]),
    "one_chain": ([_first], _bruno.certified),
    "nothing": ([], []),
}
