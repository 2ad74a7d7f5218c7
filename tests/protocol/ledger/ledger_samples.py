"""A town with one of everything: what the ledger's vectors are made of."""

from msgspec import Struct

from protocol.envelope import Signed
from protocol.identity import Identity
from protocol.ledger import sync
from protocol.ledger.agreement import commit_of, prepare_of
from protocol.ledger.certificate import statement_signed, vote_signed
from protocol.ledger.checkpoint import (
    OPENED,
    AskCheckpoint,
    AskHoldings,
    CheckpointVote,
    Holding,
    HoldingsPage,
    checkpoint_of,
    checkpoint_seal,
    checkpoint_signed,
    checkpointed_made,
)
from protocol.ledger.entry import entry_opened
from protocol.ledger.proof import breach_made, contradiction_made, split_made
from protocol.ledger.settlement import Seat
from protocol.ledger.statement import Commit, Locked, Prepare, Proposal, Report, TurnAsk
from protocol.ledger.voucher import Voucher
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
from tests.protocol.ledger.channels import Deal, claim_of, earned, prepared, rest, settled

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

# Another life of Anna and Bruno, in which she opens a channel to him.
_deal = Deal()
_payer, _payee = _deal.anna, _deal.bruno
_SETTLED = settled(_deal.id, 35)
_opened = entry_opened(_deal.open.entry, CHARTER.network)
_topped = entry_opened(_deal.topup.entry, CHARTER.network)
_rest = _payer.add(claim_of(rest(_deal.id, 15)))
_earned = _payee.add(claim_of(earned(_deal.id, 35)))
ENTRIES |= {
    "open": (_opened, _deal.open),
    "topup": (_topped, _deal.topup),
    "claim_rest": (_rest, _payer.certified[-1]),
    "claim_earned": (_earned, _payee.certified[-1]),
}

_asked = _deal.ask(2).ask
_reported = _deal.report(1, 2, (1, 35))
_prepared = prepared(_deal.id, 1, 35)
_proposed = _deal.propose(1, 35)
SIGNED: dict[str, tuple[type[Struct], Signed]] = {
    "voucher": (Voucher, _deal.voucher(35)),
    "turn_ask": (TurnAsk, _asked),
    "proposal": (Proposal, _proposed.proposal),
    "report": (Report, _reported.report),
    "report_bare": (Report, _deal.report(0, 2).report),
    "prepare": (Prepare, statement_signed(WITNESSES[0], prepare_of(_prepared), CHARTER.network)),
    "commit": (Commit, statement_signed(WITNESSES[0], commit_of(_prepared), CHARTER.network)),
}
CERTIFICATES: dict[str, Struct] = {
    "prepared": _prepared,
    "settlement": _SETTLED,
    "reportshown": _reported,
}
SEAT = Seat(2, Report(0, _deal.id, 2, Locked(1, 35)), _prepared, None, _prepared)

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
    "breach_settled_twice": split_made(_deal.open, settled(_deal.id, 20, 2), _SETTLED, CHARTER),
}
assert None not in PROOFS.values()

_held = [
    Holding(OPENED, _deal.id, 50),
    Holding("rest", _deal.id, 15),
]
_checkpoint = checkpoint_of(_payer.state, _held)
_checkpoint_votes = [checkpoint_signed(one, _checkpoint, CHARTER) for one in WITNESSES[:3]]
CHECKPOINTED = checkpointed_made(
    _checkpoint,
    [checkpoint_seal(one, _checkpoint, CHARTER) for one in _checkpoint_votes],
    CHARTER,
)
assert CHECKPOINTED is not None

_INSTANCE = bytes(range(16))
_first = _anna.certified[0]
MESSAGES = {
    "submit": sync.Submit(_bruno.certified[0].entry, (_first,), (), _INSTANCE),
    "submit_earned": sync.Submit(_payee.certified[0].entry, (_deal.open,), (_SETTLED,), _INSTANCE),
    "announce": sync.Announce(_first),
    "ask_accounts": sync.AskAccounts(b""),
    "ask_accounts_after": sync.AskAccounts(ANNA.node),
    "ask_heads": sync.AskHeads((ANNA.node, BRUNO.node)),
    "ask_range": sync.AskRange(ANNA.node, 2, 100),
    "ask_entries": sync.AskEntries((_paid.id, _onward.id)),
    "ask_own": sync.AskOwn(ANNA.node, _INSTANCE),
    "ask_proofs": sync.AskProofs(3),
    "ask_report": _deal.ask(2),
    "propose": _proposed,
    "propose_forced": _deal.propose(
        2, 35, _deal.reports(2, None, (1, 35), None), voucher=None, topups=()
    ),
    "lock": _deal.lock(1, 35),
    "ask_settlement": sync.AskSettlement(_deal.id),
    "tell_settlement": sync.TellSettlement(_SETTLED, _deal.open),
    "ask_voucher": sync.AskVoucher(_deal.id),
    "want_settlement": sync.WantSettlement(_deal.id),
    "reported": sync.Reported(_reported),
    "prepare_vote": sync.Prepared(SIGNED["prepare"][1]),
    "commit_vote": sync.Committed(SIGNED["commit"][1]),
    "settled": sync.Settled(_SETTLED),
    "voucher_held": sync.VoucherHeld(SIGNED["voucher"][1]),
    "voucher_held_none": sync.VoucherHeld(None),
    "voted": sync.Voted(vote_signed(WITNESSES[0], _paid.id, CHARTER.network)),
    "accepted": sync.Accepted(),
    "accounts": sync.Accounts((ANNA.node, CLARA.node)),
    "entries": sync.Entries((_first,)),
    "own_state": sync.OwnState(_first, _rival, 1_500),
    "own_state_new": sync.OwnState(None, None, None),
    "proofs": sync.Proofs((PROOFS["contradiction"], PROOFS["breach_alone"])),
    "ask_checkpoint": AskCheckpoint(ANNA.node, _payer.state.seq),
    "ask_holdings": AskHoldings(ANNA.node, 0),
    "checkpoint_vote": CheckpointVote(_checkpoint_votes[0]),
    "holdings": HoldingsPage(CHECKPOINTED, tuple(_held)),
    "refusal_busy": sync.Refusal("BUSY", "Come again.", retry_ms=750),
    "refusal_missing": sync.Refusal("MISSING", "Send those before.", missing_seq=3),
    "refusal_need": sync.Refusal("NEED", "Show them.", needs=(_paid.id,)),
    "refusal_past": sync.Refusal("PAST", "It is certified.", shown=_first),
    "refusal_voted_other": sync.Refusal("VOTED_OTHER", "Another was first.", shown=_rival),
    "refusal_halted": sync.Refusal("HALTED", "It has halted.", shown=PROOFS["breach_rivals"]),
}


def _node(chain: Chain) -> bytes:
    return chain.identity.node


_town = sorted((_anna, _bruno, _clara), key=_node)
EXPORTS = {
    "town": ([], [], [certified for chain in _town for certified in chain.certified]),
    "one_chain": ([_first], [], _bruno.certified),
    "nothing": ([], [], []),
    "channel": (
        [],
        [_SETTLED],
        [one for chain in sorted((_payer, _payee), key=_node) for one in chain.certified],
    ),
    "payee": ([_deal.open], [_SETTLED], _payee.certified),
}
