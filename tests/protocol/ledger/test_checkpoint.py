"""Checkpoints: the same from every witness, refused when anything in them was changed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.errors import Code, RemoteError
from protocol.ids import MessageId
from protocol.ledger.account import Account
from protocol.ledger.audit import Depth, audit
from protocol.ledger.certificate import Certified
from protocol.ledger.checkpoint import (
    OPENED,
    Checkpointed,
    Holding,
    checkpoint_of,
    checkpoint_seal,
    checkpoint_signed,
    checkpointed_checked,
    checkpointed_decoded,
    checkpointed_made,
    holdings_checked,
    holdings_digest,
)
from protocol.ledger.decoder import packed
from protocol.ledger.entry import FEE, PAY
from protocol.ledger.export import export_header, framed
from protocol.ledger.resumed import Held, Kept, Resumed
from protocol.limits import CHECKPOINT_BYTES_MAX, CHECKPOINT_PAGE_HOLDINGS
from tests.protocol.ledger.chains import ANNA, BRUNO, CHARTER, WITNESSES, Chain, claim, pay

IDS = st.binary(min_size=32, max_size=32).map(MessageId)
HOLDINGS = st.builds(Holding, st.sampled_from([OPENED, PAY, FEE]), IDS, st.integers(1, 1 << 40))
STATES = st.lists(HOLDINGS, max_size=20, unique_by=lambda one: (one.kind, one.id)).map(
    lambda found: sorted(found, key=lambda one: (one.kind, one.id))
)


def sealed_state(account: Account, holdings, by=(0, 1, 2)) -> Checkpointed | None:
    checkpoint = checkpoint_of(account, holdings)
    signed = [checkpoint_signed(WITNESSES[number], checkpoint, CHARTER) for number in by]
    seals = [checkpoint_seal(one, checkpoint, CHARTER) for one in signed]
    return checkpointed_made(checkpoint, seals, CHARTER)


def town() -> tuple[Chain, Chain]:
    """Anna (100) pays Bruno 30, 4 and 5; Bruno claims the 30 and pays Anna 2."""
    anna, bruno = Chain(ANNA), Chain(BRUNO)
    first = anna.add(pay(BRUNO, 30))
    anna.add(pay(BRUNO, 4))
    anna.add(pay(BRUNO, 5))
    bruno.add(claim(first))
    bruno.add(pay(ANNA, 2))
    return anna, bruno


ANNAS, BRUNOS = town()
CLAIMED = Holding(PAY, ANNAS.certified[0].entry.id, 30)


def resumed_file() -> bytes:
    """Both chains from their checkpoints on: what is kept of Anna's is the pay of 4."""
    anna_at = Account(ANNA.node, 2, ANNAS.certified[1].entry.id, 66)
    bruno_at = Account(BRUNO.node, 1, BRUNOS.certified[0].entry.id, 70)
    chains = {
        ANNA.node: [
            Resumed(sealed_state(anna_at, [])),
            Kept(ANNAS.certified[1]),
            ANNAS.certified[2],
        ],
        BRUNO.node: [
            Resumed(sealed_state(bruno_at, [CLAIMED])),
            Held((CLAIMED,)),
            Kept(BRUNOS.certified[0]),
            BRUNOS.certified[1],
        ],
    }
    frames = [frame for node in sorted(chains) for frame in chains[node]]
    entries = sum(isinstance(frame, Kept | Certified) for frame in frames)
    header = export_header(CHARTER, shown=0, entries=entries)
    return header + b"".join(map(framed, frames))


RESUMED = resumed_file()


@given(STATES)
def test_what_every_witness_says_of_one_state_is_the_same_and_holds(state) -> None:
    account = Account(ANNA.node, 7, bytes(range(32)), 55)
    made = sealed_state(account, state)
    assert made is not None
    assert checkpointed_decoded(packed(made)) == made
    assert len(packed(made)) <= CHECKPOINT_BYTES_MAX
    found, past = holdings_checked(made, state, CHARTER)
    assert found == account == checkpointed_checked(made, CHARTER)
    for one in state:
        if one.kind == OPENED:
            assert past.funding(one.id) == one.amount
        else:
            assert past.claimed_at((one.kind, one.id)) == 7


@given(STATES.filter(len), st.data())
def test_other_holdings_than_those_sealed_are_refused(state, data) -> None:
    made = sealed_state(Account(ANNA.node, 7, bytes(range(32)), 55), state)
    place = data.draw(st.integers(0, len(state) - 1))
    fewer = state[:place] + state[place + 1 :]
    more = replace(state[place], amount=state[place].amount + 1)
    for other in (fewer, [*state[:place], more, *state[place + 1 :]], [*state, state[-1]]):
        with pytest.raises(RemoteError) as refused:
            holdings_checked(made, other, CHARTER)
        assert refused.value.code is Code.BAD_PROOF


def test_holdings_out_of_order_or_of_no_kind_have_no_digest() -> None:
    low, high = Holding(PAY, MessageId(bytes(32)), 1), Holding(PAY, MessageId(b"\1" * 32), 1)
    for wrong in ([high, low], [low, low], [Holding("gift", MessageId(bytes(32)), 1)]):
        with pytest.raises(RemoteError) as refused:
            holdings_digest(wrong)
        assert refused.value.code is Code.BAD_PROOF


def test_a_digest_is_of_all_pages() -> None:
    many = [
        Holding(PAY, MessageId(number.to_bytes(32, "big")), 1)
        for number in range(2 * CHECKPOINT_PAGE_HOLDINGS + 1)
    ]
    assert len({holdings_digest(many[:size]) for size in (0, 1024, 1025, 2048, 2049)}) == 5


def test_fewer_than_q_seals_or_a_changed_word_make_no_checkpoint() -> None:
    account = Account(ANNA.node, 7, bytes(range(32)), 55)
    assert sealed_state(account, [], by=(0, 1)) is None
    made = sealed_state(account, [])
    changed = [
        replace(made, seals=made.seals[:2]),
        replace(made, seals=(made.seals[0], *made.seals[:2])),
        replace(made, checkpoint=replace(made.checkpoint, balance=56)),
        replace(made, checkpoint=replace(made.checkpoint, seq=8)),
        replace(made, checkpoint=replace(made.checkpoint, epoch=1)),
        replace(made, checkpoint=replace(made.checkpoint, account=BRUNO.node)),
    ]
    for one in changed:
        with pytest.raises(RemoteError) as refused:
            checkpointed_checked(one, CHARTER)
        assert refused.value.code is Code.BAD_CERTIFICATE


@pytest.mark.parametrize("depth", list(Depth))
def test_an_export_from_checkpoints_adds_up_and_says_that_it_is_not_the_whole(depth) -> None:
    report = audit(CHARTER, lambda: [RESUMED], depth)
    assert report.ok, report.faults
    assert not report.complete
    assert report.balances[ANNA.node] == 61
    assert report.balances[BRUNO.node] == 68
    assert report.pays_unclaimed == 4 + 5 + 2
    assert report.total == report.supply


@settings(max_examples=150, deadline=None)
@given(
    place=st.integers(0, len(RESUMED) - 1),
    bit=st.integers(0, 7),
    depth=st.sampled_from(list(Depth)),
)
def test_no_flipped_bit_of_such_a_file_passes(place, bit, depth) -> None:
    changed = bytearray(RESUMED)
    changed[place] ^= 1 << bit
    report = audit(CHARTER, lambda: [bytes(changed)], depth)
    if report.ok:  # A seal that `heads` does not look at, as in a whole file.
        assert depth is Depth.HEADS
        assert report.balances == audit(CHARTER, lambda: [RESUMED], depth).balances


def test_checkpoints_stand_before_their_own_chains_only() -> None:
    anna = Resumed(sealed_state(Account(ANNA.node, 2, ANNAS.certified[1].entry.id, 66), []))
    last = ANNAS.certified[2]
    for frames in (
        [anna],  # No chain.
        [anna, anna, last],  # Two.
        [Held((CLAIMED,)), last],  # Holdings of nothing.
        [anna, BRUNOS.certified[0]],  # Another's chain.
        [last],  # No beginning.
        [anna, last, Kept(ANNAS.certified[1])],  # Kept after the chain.
        [anna, Kept(ANNAS.certified[2])],  # Kept from beyond the checkpoint.
        [anna, Kept(ANNAS.certified[1]), Kept(ANNAS.certified[0]), last],  # Out of order.
    ):
        entries = sum(isinstance(frame, Kept | Certified) for frame in frames)
        header = export_header(CHARTER, shown=0, entries=entries)
        data = header + b"".join(map(framed, frames))
        for depth in Depth:
            assert not audit(CHARTER, lambda data=data: [data], depth).ok
