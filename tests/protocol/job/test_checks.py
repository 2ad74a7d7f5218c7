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
)
from protocol.job.seed import seed_commitment, share_of_user_seed
from protocol.limits import TEMPLATE_TOKENS_MAX
from protocol.pricing import cost
from tests.protocol.samples import DEAL, NETWORK, PROVIDER, REQUESTER


def test_the_sample_job_keeps_every_rule():
    check_request(DEAL.request, NETWORK, PROVIDER.node)
    check_quote(DEAL.quote, DEAL.request, DEAL.quote.price_in, DEAL.quote.price_out)
    check_quote(DEAL.quote, replace(DEAL.request, modes=()), 10**12, 10**12)
    check_order(DEAL.order, DEAL.request)


def test_the_worst_cost_is_that_of_the_longest_prompt_and_answer_or_the_cap():
    request, quote = DEAL.request, DEAL.quote
    tokens_in = request.prompt_bytes + TEMPLATE_TOKENS_MAX
    most = cost(tokens_in, request.output_tokens_max, quote.price_in, quote.price_out)
    assert cost_worst(replace(request, cost_max=most + 1), quote) == most
    assert cost_worst(replace(request, cost_max=most - 1), quote) == most - 1
    assert cost_worst(request, replace(quote, payment="none")) == 0
    assert [payment_for(1, 0), payment_for(0, 1), payment_for(0, 0)] == ["at_end", "at_end", "none"]


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
