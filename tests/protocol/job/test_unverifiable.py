"""Jobs in a mode that nobody can check: tokens without names, and bills that both sides count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.errors import Code, RemoteError
from protocol.job.answer import Answer
from protocol.job.commitment import prompt_ids_digest
from protocol.job.terms import Delta, Started
from protocol.job.unverifiable import input_tokens_counted, is_unverifiable
from tests.protocol.job.joint import Joint
from tests.protocol.samples import Agreement, agreement, message_id

MODE = "unverifiable/openai"


def unverifiable(**limits) -> Agreement:
    deal = agreement(**limits)
    request = replace(deal.request, modes=())
    quote = replace(deal.quote, request=message_id(request), mode=MODE)
    order = replace(deal.order, quote=message_id(quote))
    return Agreement(
        request,
        quote,
        order,
        message_id(request),
        message_id(quote),
        message_id(order),
        deal.terms,
    )


DEAL = unverifiable()
MOST = input_tokens_counted(DEAL.request.prompt_bytes)


def answer(input_tokens: int = MOST) -> Answer:
    made = Answer(DEAL.request, DEAL.request_id, DEAL.quote, DEAL.quote_id)
    made.start(Started(DEAL.order_id, input_tokens, prompt_ids_digest(())))
    return made


def refused(made: Answer, delta: Delta) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        made.add(delta)
    assert caught.value.code == Code.CONTRADICTION
    return caught.value


def test_which_modes_are_meant():
    assert is_unverifiable("unverifiable/openai")
    assert not is_unverifiable("native-1/gguf")
    assert not is_unverifiable("unverifiable")


@pytest.mark.parametrize(("size", "tokens"), [(1, 1), (4, 1), (5, 2), (30, 8)])
def test_a_prompt_counts_by_its_bytes(size, tokens):
    assert input_tokens_counted(size) == tokens


def test_no_more_input_is_paid_than_the_bytes_say():
    assert answer(MOST).input_tokens == MOST
    with pytest.raises(RemoteError) as caught:
        answer(MOST + 1)
    assert caught.value.code == Code.CONTRADICTION


def test_a_token_that_claims_a_name_is_refused():
    sentence = refused(answer(), Delta(DEAL.order_id, (7,), "word")).sentence
    assert "nobody can check" in sentence


def test_there_is_text_for_each_token():
    made = answer()
    made.add(Delta(DEAL.order_id, (0, 0), "ab"))
    refused(made, Delta(DEAL.order_id, (0,), ""))
    made.add(Delta(DEAL.order_id, (0,), "c"))


def test_in_other_modes_ids_are_names_and_text_may_follow_them():
    deal = agreement()
    made = Answer(deal.request, deal.request_id, deal.quote, deal.quote_id)
    made.start(Started(deal.order_id, MOST + 1, bytes(32)))
    made.add(Delta(deal.order_id, (7, 8), ""))


@given(
    st.lists(st.text(min_size=1, max_size=5), max_size=30),
    st.integers(1, 16),
    st.integers(0, 300),
    st.integers(1, 25),
)
def test_both_sides_agree_on_any_answer_and_its_bill(words, chunk_tokens, gap_ms, most):
    joint = Joint(unverifiable(chunk_tokens=chunk_tokens, output_tokens_max=most))
    joint.deliver_to_provider()
    joint.deliver_to_requester()
    joint.deliver_to_provider()
    joint.model_begins(MOST)
    for word in words:
        joint.model_says([0], word)
        joint.pass_time(gap_ms)
    joint.model_ends()
    joint.settle()
    finished, ended = joint.finished, joint.ended
    assert finished is not None
    assert ended is not None
    assert joint.complaints == []
    assert ended.receipted
    assert joint.heard_text == "".join(words[:most])
    assert finished.output_tokens == ended.output_tokens == min(len(words), most)
    assert finished.cost == ended.cost
    assert finished.input_tokens == MOST
