"""The frames of the ledger's protocol: each comes back, within its bound, and no other does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import Code, RemoteError
from protocol.ledger import sync
from protocol.ledger.certificate import Certificate, Seal, vote_signed
from protocol.ledger.decoder import packed
from protocol.ledger.proof import breach_made, contradiction_made
from protocol.limits import (
    ACCOUNTS_PAGE_MAX,
    CLAIM_SOURCES_MAX,
    FRAME_BYTES_MAX,
    HEADS_MAX,
    RANGE_ENTRIES_MAX,
    SENTENCE_BYTES_MAX,
    WITNESSES_MAX,
)
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    WITNESSES,
    Chain,
    entry_after,
    pay,
    sealed,
    signed_entry,
    start,
)
from tests.protocol.ledger.ledger_samples import MESSAGES

CHAIN = Chain(ANNA)
for amount in (1, 2, 3):
    CHAIN.add(pay(BRUNO, amount))
ONE = CHAIN.certified[0]
RIVAL = signed_entry(ANNA, entry_after(start(ANNA), pay(BRUNO, 31)))
INSTANCE = bytes(16)
BREACH = breach_made((ONE, sealed(RIVAL)), CHARTER)
CONTRADICTION = contradiction_made(ONE.entry, RIVAL, CHARTER)
IDS = tuple(number.to_bytes(32, "big") for number in range(1024))

SETTLING = (
    *sync.SettlementAsk.__args__,
    *sync.ChannelAsk.__args__,
    *sync.CheckpointAsk.__args__,
)
ASKS = [
    sync.Submit(ONE.entry, (ONE,), (), INSTANCE),
    sync.Announce(ONE),
    sync.AskAccounts(b""),
    sync.AskAccounts(ANNA.node),
    sync.AskHeads(IDS[:HEADS_MAX]),
    sync.AskRange(ANNA.node, 1, RANGE_ENTRIES_MAX),
    sync.AskEntries(IDS[:CLAIM_SOURCES_MAX]),
    sync.AskOwn(ANNA.node, INSTANCE),
    sync.AskProofs(0),
    *(one for one in MESSAGES.values() if type(one) in SETTLING),
]
SAID = (
    *sync.SettlementAnswer.__args__,
    sync.VoucherHeld,
    sync.CheckpointVote,
    sync.HoldingsPage,
)
ANSWERS = [
    *(one for one in MESSAGES.values() if type(one) in SAID),
    sync.Voted(vote_signed(WITNESSES[0], RIVAL.id, CHARTER.network)),
    sync.Accepted(),
    sync.Accounts(IDS[:ACCOUNTS_PAGE_MAX]),
    sync.Entries(tuple(CHAIN.certified)),
    sync.OwnState(None, None, None),
    sync.OwnState(ONE, RIVAL, 12),
    sync.Proofs((CONTRADICTION, BREACH)),
    sync.Refusal("BUSY", "Come again.", 750),
    sync.Refusal("NEED", "Show them.", needs=IDS[:CLAIM_SOURCES_MAX]),
    sync.Refusal("PAST", "Certified.", shown=ONE),
    sync.Refusal("VOTED_OTHER", "Voted.", shown=RIVAL),
    sync.Refusal("HALTED", "Halted.", shown=BREACH),
]


@pytest.mark.parametrize("message", ASKS, ids=lambda message: type(message).__name__)
def test_an_ask_comes_back(message):
    data = sync.message_encoded(message)
    assert data == codec.encode(message)
    assert sync.ask_decoded(data) == message
    with pytest.raises(RemoteError):
        sync.answer_decoded(data)


@pytest.mark.parametrize("message", ANSWERS, ids=lambda message: type(message).__name__)
def test_an_answer_comes_back(message):
    data = sync.message_encoded(message)
    assert data == codec.encode(message)
    assert sync.answer_decoded(data) == message
    with pytest.raises(RemoteError):
        sync.ask_decoded(data)


@pytest.mark.parametrize("message", [*ASKS, *ANSWERS], ids=lambda one: type(one).__name__)
def test_the_slow_decoder_takes_each_too(message):
    """It is no deeper and has no more items than any message may."""
    assert codec.decode(packed(message), type(message)) == message


def test_the_largest_pages_are_within_the_codec_s_bounds():
    seals = tuple(Seal(number, bytes(64)) for number in range(WITNESSES_MAX))
    sealed_by_all = type(ONE)(ONE.entry, Certificate(ONE.entry.id, 0, seals))
    page = sync.entries_page([sealed_by_all] * 2_000)
    assert codec.decode(packed(page), sync.Entries) == page
    page = sync.entries_page([ONE] * 2_000)
    assert codec.decode(packed(page), sync.Entries) == page


def test_every_message_is_here_and_has_a_bound():
    assert {type(message) for message in [*ASKS, *ANSWERS]} == set(sync.MESSAGE_BYTES_MAX)
    assert max(sync.MESSAGE_BYTES_MAX.values()) <= FRAME_BYTES_MAX


def test_what_is_too_large_for_its_kind_is_refused():
    padded = sync.AskEntries(IDS[: CLAIM_SOURCES_MAX + 1])
    with pytest.raises(RemoteError, match="BAD_MESSAGE"):
        sync.ask_decoded(packed(padded))
    body = type(RIVAL)(RIVAL.signer, bytes(30_000), RIVAL.signature)
    with pytest.raises(RemoteError, match="TOO_LARGE: A message announce of"):
        sync.ask_decoded(packed(sync.Announce(type(ONE)(body, ONE.certificate))))


def test_a_page_holds_what_fits_one_frame():
    assert sync.entries_page(CHAIN.certified).entries == tuple(CHAIN.certified)
    large = type(RIVAL)(RIVAL.signer, bytes(14 << 10), RIVAL.signature)
    many = [type(ONE)(large, ONE.certificate)] * 100
    page = sync.entries_page(many)
    assert 60 < len(page.entries) < 100
    assert len(sync.message_encoded(page)) <= FRAME_BYTES_MAX
    assert len(sync.entries_page([ONE] * 2_000).entries) == RANGE_ENTRIES_MAX
    assert len(sync.proofs_page([CONTRADICTION] * 99).proofs) == 16


def test_a_refusal_fits_whatever_it_was_made_of():
    answer = sync.refusal(RemoteError(Code.BUSY, "é" * 1_000, 1 << 40))
    assert len(answer.sentence.encode()) <= SENTENCE_BYTES_MAX
    assert sync.answer_decoded(sync.message_encoded(answer)) == answer


@given(st.binary(max_size=200), st.sampled_from([*ASKS, *ANSWERS]), st.data())
def test_any_bytes_are_a_message_or_refused(data, message, draw):
    whole = packed(message)
    at = draw.draw(st.integers(0, len(whole)))
    for given_bytes in (data, whole[:at] + data, whole[:at] + data[:1] + whole[at + 1 :]):
        for decode in (sync.ask_decoded, sync.answer_decoded):
            try:
                value = decode(given_bytes)
            except RemoteError:
                continue
            assert packed(value) == given_bytes
            assert codec.decode(given_bytes, type(value)) == value
