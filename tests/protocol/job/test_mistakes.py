"""Every lie of a provider that a requester can see is seen, and costs it the bill."""

from collections.abc import Sequence

import pytest
from msgspec import Struct
from msgspec.structs import replace

from protocol.errors import Code
from protocol.job.commitment import RUNNING_START, running_hash
from protocol.job.terms import Chunk, Delta, Receipt, Started
from protocol.limits import TEMPLATE_TOKENS_MAX, TOKEN_TEXT_BYTES_MAX
from protocol.pricing import cost
from tests.protocol.job.joint import Joint, Tamper
from tests.protocol.samples import ANSWER_IDS, ANSWER_TEXT, DEAL, PROMPT_IDS, agreement

PROMPT_TOKENS_MAX = DEAL.request.prompt_bytes + TEMPLATE_TOKENS_MAX
WRONG = bytes([1]) * 32


def changing(kind: type[Struct], **changes: object) -> Tamper:
    """Send messages of this kind with these fields changed; a callable is given the message."""

    def tamper(message: Struct) -> Sequence[Struct]:
        if not isinstance(message, kind):
            return [message]
        made = {
            name: value(message) if callable(value) else value for name, value in changes.items()
        }
        return [replace(message, **made)]

    return tamper


def without(kind: type[Struct]) -> Tamper:
    return lambda message: [] if isinstance(message, kind) else [message]


def twice(kind: type[Struct]) -> Tamper:
    return lambda message: [message, message] if isinstance(message, kind) else [message]


def dear_start(message: Struct) -> Sequence[Struct]:
    """As many input tokens as the rule on bytes allows, then a bill for them and no answer."""
    tokens, prices = PROMPT_TOKENS_MAX, (DEAL.quote.price_in, DEAL.quote.price_out)
    match message:
        case Started():
            return [replace(message, prompt_tokens=tokens)]
        case Delta():
            return []
        case Chunk():
            running = running_hash(RUNNING_START, 0, (), "")
            said = cost(tokens, 0, *prices)
            return [replace(message, ids=(), running=running, cost=said)]
        case Receipt():
            running, said = running_hash(RUNNING_START, 0, (), ""), cost(tokens, 0, *prices)
            bill = replace(message, input_tokens=tokens, output_tokens=0, cost=said)
            return [replace(bill, running=running)]
    return [message]


def flood_of_text(message: Struct) -> Sequence[Struct]:
    """Text that no token stands for: nothing would bound what a requester keeps of it."""
    if isinstance(message, Delta):
        flood = replace(message, ids=(), text="x" * TOKEN_TEXT_BYTES_MAX)
        return [message, *[flood] * (len(ANSWER_IDS) + 1)]
    return [message]


def exchanged(message: Struct) -> Sequence[Struct]:
    """Sign other tokens than were shown, with a running hash that fits what is signed."""
    if isinstance(message, Chunk):
        ids = message.ids[::-1]
        return [replace(message, ids=ids, running=running_hash(RUNNING_START, 0, ids, ANSWER_TEXT))]
    return [message]


MISTAKES: dict[str, tuple[Tamper, Code]] = {
    "a chunk that costs one more": (
        changing(Chunk, cost=lambda chunk: chunk.cost + 1),
        Code.CONTRADICTION,
    ),
    "a chunk that costs one less": (
        changing(Chunk, cost=lambda chunk: chunk.cost - 1),
        Code.CONTRADICTION,
    ),
    "a chunk that skips a token": (
        changing(Chunk, ids=lambda chunk: chunk.ids[:-1]),
        Code.CONTRADICTION,
    ),
    "a chunk with a token that never came": (
        changing(Chunk, ids=lambda chunk: (*chunk.ids, 5)),
        Code.CONTRADICTION,
    ),
    "a chunk with its tokens exchanged": (
        changing(Chunk, ids=lambda chunk: chunk.ids[::-1]),
        Code.CONTRADICTION,
    ),
    "a chunk with its tokens exchanged and a hash that fits": (exchanged, Code.CONTRADICTION),
    "a chunk of another place": (changing(Chunk, first_t=1), Code.CONTRADICTION),
    "a chunk of other terms": (changing(Chunk, terms=WRONG), Code.CONTRADICTION),
    "a chunk with a wrong running hash": (changing(Chunk, running=WRONG), Code.CONTRADICTION),
    "a chunk over another text": (
        changing(Delta, text=lambda delta: delta.text + "!"),
        Code.CONTRADICTION,
    ),
    "a chunk without its delta": (without(Delta), Code.CONTRADICTION),
    "a chunk of another order": (changing(Chunk, order=WRONG), Code.UNEXPECTED),
    "a delta that comes twice": (twice(Delta), Code.CONTRADICTION),
    "a delta of another order": (changing(Delta, order=WRONG), Code.UNEXPECTED),
    "more tokens than one chunk may hold": (
        changing(Delta, ids=tuple(range(17))),
        Code.CONTRADICTION,
    ),
    "more tokens than the order allows": (
        changing(Delta, ids=tuple(range(9))),
        Code.COST_EXCEEDED,
    ),
    "more text than its tokens can make": (flood_of_text, Code.CONTRADICTION),
    "more input tokens than the prompt has": (
        changing(Started, prompt_tokens=PROMPT_TOKENS_MAX + 1),
        Code.CONTRADICTION,
    ),
    "input tokens beyond the cap, and no answer": (dear_start, Code.COST_EXCEEDED),
    "no start": (without(Started), Code.UNEXPECTED),
    "two starts": (twice(Started), Code.UNEXPECTED),
    "no last chunk": (without(Chunk), Code.UNEXPECTED),
    "two last chunks": (twice(Chunk), Code.UNEXPECTED),
    "a receipt for one token more": (
        changing(Receipt, output_tokens=len(ANSWER_IDS) + 1),
        Code.RECEIPT_DISPUTED,
    ),
    "a receipt for one input token more": (
        changing(Receipt, input_tokens=len(PROMPT_IDS) + 1),
        Code.RECEIPT_DISPUTED,
    ),
    "a receipt that costs one more": (
        changing(Receipt, cost=lambda receipt: receipt.cost + 1),
        Code.RECEIPT_DISPUTED,
    ),
    "a receipt over another answer": (changing(Receipt, running=WRONG), Code.RECEIPT_DISPUTED),
    "a receipt of another order": (changing(Receipt, order=WRONG), Code.UNEXPECTED),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_caught_and_nothing_is_signed(name):
    tamper, code = MISTAKES[name]
    deal = agreement(output_tokens_max=8, cost_max=200)
    joint = Joint(deal, tamper)
    joint.deliver_to_provider()
    joint.deliver_to_requester()
    joint.deliver_to_provider()
    joint.model_begins()
    joint.model_says(ANSWER_IDS, ANSWER_TEXT)
    joint.model_ends()
    joint.settle()
    assert joint.complaints == [code]
    assert joint.finished is not None
    assert joint.finished.receipt is None
    assert joint.finished.failures[-1].code is code
    assert joint.finished.cost <= deal.request.cost_max
    assert len(joint.heard_text) <= TOKEN_TEXT_BYTES_MAX * (len(ANSWER_IDS) + 1)
    assert joint.ended is not None
    assert not joint.ended.receipted


def test_a_token_beyond_the_cap_in_money_is_caught_when_it_comes():
    cost_max = cost(len(PROMPT_IDS), len(ANSWER_IDS), DEAL.quote.price_in, DEAL.quote.price_out)
    more = changing(Delta, ids=lambda delta: (*delta.ids, 5))
    joint = Joint(agreement(cost_max=cost_max), more)
    joint.deliver_to_provider()
    joint.deliver_to_requester()
    joint.deliver_to_provider()
    joint.model_begins()
    joint.model_says(ANSWER_IDS, ANSWER_TEXT)
    joint.settle()
    assert joint.complaints == [Code.COST_EXCEEDED]
    assert joint.heard_ids == []


def test_without_a_mistake_the_same_job_is_signed_by_both():
    joint = Joint(agreement(output_tokens_max=8, cost_max=200))
    joint.deliver_to_provider()
    joint.deliver_to_requester()
    joint.deliver_to_provider()
    joint.model_begins()
    joint.model_says(ANSWER_IDS, ANSWER_TEXT)
    joint.model_ends()
    joint.settle()
    assert joint.complaints == []
    assert joint.ended is not None
    assert joint.ended.receipted
