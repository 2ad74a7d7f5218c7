"""Rules on one message: each thing that can be wrong with it, alone."""

import pytest
from msgspec.structs import replace

from protocol.errors import Code, RemoteError
from protocol.ids import NetworkId
from protocol.job.checks import (
    check_order,
    check_quote,
    check_request,
    cost_worst,
    payment_for,
    prompt_first,
)
from protocol.job.seed import seed_commitment, share_of_user_seed
from protocol.limits import PROMPT_BYTES_PER_TOKEN, TEMPLATE_TOKENS_MAX
from protocol.pricing import cost, prompt_prepaid
from tests.protocol.samples import DEAL, NETWORK, PROVIDER, REQUESTER


def test_the_sample_job_keeps_every_rule():
    check_request(DEAL.request, NETWORK, PROVIDER.node)
    check_quote(DEAL.quote, DEAL.request, DEAL.quote.price_in, DEAL.quote.price_out)
    check_quote(DEAL.quote, replace(DEAL.request, modes=()), 10**12, 10**12)
    check_order(DEAL.order, DEAL.request)


def test_who_advertises_a_gift_is_not_paid_by_a_channel():
    """The requester has looked for none."""
    free = replace(DEAL.quote, price_in=0, price_out=0)
    check_quote(replace(free, payment="none"), DEAL.request, 0, 0)
    check_quote(free, DEAL.request, 1, 0)
    with pytest.raises(RemoteError) as caught:
        check_quote(free, DEAL.request, 0, 0)
    assert caught.value.code is Code.COST_EXCEEDED


def test_the_worst_cost_is_that_of_the_longest_prompt_and_answer_or_the_cap():
    request, quote = DEAL.request, DEAL.quote
    tokens_in = request.prompt_bytes + TEMPLATE_TOKENS_MAX
    most = cost(tokens_in, request.output_tokens_max, quote.price_in, quote.price_out)
    assert cost_worst(replace(request, cost_max=most + 1), quote) == most
    assert cost_worst(replace(request, cost_max=most - 1), quote) == most - 1
    assert cost_worst(request, replace(quote, payment="none")) == 0


@pytest.mark.parametrize(("is_first", "word"), [(True, "channel-prompt-first"), (False, "channel")])
def test_what_costs_anything_is_paid_by_a_channel(is_first, word):
    prices = [(1, 0), (0, 1), (0, 0)]
    said = [payment_for(*each, is_prompt_first=is_first) for each in prices]
    assert said == [word, word, "none"]


def test_what_a_prompt_pays_first_is_by_its_bytes_and_never_more_than_the_order_can_cost():
    request, quote = DEAL.request, DEAL.quote
    tokens = -(-request.prompt_bytes // PROMPT_BYTES_PER_TOKEN)
    assert (
        prompt_first(request, quote)
        == tokens * 2
        == prompt_prepaid(request.prompt_bytes, 2_000_000)
    )
    assert prompt_first(replace(request, cost_max=3), quote) == 3
    assert prompt_first(request, replace(quote, price_in=0)) == 0
    assert prompt_first(request, replace(quote, payment="channel")) == 0
    assert prompt_first(request, replace(quote, payment="none")) == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2}, Code.WRONG_VERSION),
        ({"network": NetworkId(bytes(32))}, Code.WRONG_NETWORK),
        ({"provider": REQUESTER.node}, Code.WRONG_PROVIDER),
        ({"kind": "train"}, Code.KIND_NOT_SERVED),
        ({"first_t": 1}, Code.KIND_NOT_SERVED),
        ({"prefix_hash": bytes(32)}, Code.KIND_NOT_SERVED),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_request_that_may_not_be_served_is_refused_by_code(changes, code):
    with pytest.raises(RemoteError) as caught:
        check_request(replace(DEAL.request, **changes), NETWORK, PROVIDER.node)
    assert caught.value.code is code


@pytest.mark.parametrize("bias", [((5, 1), (5, 2)), ((6, 1), (5, 1))])
def test_biases_stand_in_rising_order_each_token_once(bias):
    sampling = replace(DEAL.request.sampling, bias=bias)
    with pytest.raises(RemoteError) as caught:
        check_request(replace(DEAL.request, sampling=sampling), NETWORK, PROVIDER.node)
    assert caught.value.code is Code.BAD_MESSAGE


def test_a_user_seed_is_eight_bytes_and_no_more():
    share = share_of_user_seed(42)
    request = replace(DEAL.request, seed_source="user", seed_commitment=seed_commitment(share))
    check_order(replace(DEAL.order, r=share), request)
    longer = share[:31] + b"\x01"
    request = replace(request, seed_commitment=seed_commitment(longer))
    with pytest.raises(RemoteError) as caught:
        check_order(replace(DEAL.order, r=longer), request)
    assert caught.value.code is Code.PROMPT_MISMATCH
