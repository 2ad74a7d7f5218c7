"""Either side of a job is killed in mid-answer: what was delivered and signed for is paid."""

from protocol.limits import CHUNK_TOKENS_MAX, WINDOW_CHUNKS_STRANGER
from protocol.pricing import cost
from tests.network.mortals import (
    Mortals,
    channels,
    check_verified,
    open_channel,
    settled,
)
from tests.network.testnet import Node, until

PROMPT = "Tell me of the sky."
LONG = ("--provider", "maize", "--max-tokens", "8000")
ENOUGH_MICROCREDITS = 200  # More than the prompt and several chunks of the answer cost.


def moved(node: Node, channel: str) -> int:
    """What vouchers have moved in a channel, as one side of it has it."""
    line = next(one for one in channels(node) if one["channel"] == channel)
    return int(line["moved_microcredits"])


def chunk_cost(maize: Node) -> int:
    """What a whole chunk of an answer of maize's costs."""
    [offer] = maize.get("status")["offers"]
    return cost(0, CHUNK_TOKENS_MAX, 0, offer["price_out_microcredits"])


def begun(mortals: Mortals) -> tuple[str, int]:
    """A channel of quinoa's to maize, and what was paid out of it."""
    mortals.quinoa.asked(PROMPT, "--provider", "maize", "--max-tokens", "8")
    mortals.quiet()
    line = open_channel(mortals.quinoa, mortals.maize)
    return line["channel"], line["moved_microcredits"]


def test_a_provider_killed_in_mid_answer_is_paid_for_what_it_delivered(mortals: Mortals) -> None:
    quinoa, maize = mortals.quinoa, mortals.maize
    channel, had = begun(mortals)
    before, chunk = mortals.quiet(), chunk_cost(maize)
    with quinoa.asking(PROMPT, *LONG) as asking:
        asking.wait_for_words()
        until("vouchers", lambda: moved(maize, channel) >= had + ENOUGH_MICROCREDITS)
        mortals.kill("maize")
        done = asking.end()
    assert done.status == 1
    assert "LOST: maize: " in done.err
    signed = moved(quinoa, channel)
    [job, *_] = quinoa.read("jobs")
    assert (job["code"], job["cost_microcredits"]) == ("LOST", signed - had)

    mortals.start("maize")
    held = moved(maize, channel)  # On disk before it counted, so nothing of it is gone.
    assert had + ENOUGH_MICROCREDITS <= held <= signed
    # The kill may have met vouchers on their way, as many as the window has chunks.
    assert signed - held <= (WINDOW_CHUNKS_STRANGER + 1) * chunk
    settled(quinoa, maize, channel)
    after = mortals.quiet()
    assert after["maize"].worth == before["maize"].worth + held - had
    assert after["quinoa"].worth == before["quinoa"].worth - held + had
    check_verified(mortals.oca)


def test_a_requester_killed_in_mid_answer_costs_its_provider_a_window_at_most(
    mortals: Mortals,
) -> None:
    quinoa, maize = mortals.quinoa, mortals.maize
    channel, had = begun(mortals)
    before, chunk = mortals.quiet(), chunk_cost(maize)
    lost_before = maize.get("wallet")["lost_microcredits"]
    with quinoa.asking(PROMPT, *LONG) as asking:
        asking.wait_for_words()
        until("vouchers", lambda: moved(maize, channel) >= had + ENOUGH_MICROCREDITS)
        mortals.kill("quinoa")
        asking.end()
    until("maize is free", lambda: maize.free)
    held = moved(maize, channel)
    [job, *_] = maize.read("jobs")
    lost = maize.get("wallet")["lost_microcredits"] - lost_before
    assert job["cost_microcredits"] - (held - had) == lost
    assert 0 <= lost <= (WINDOW_CHUNKS_STRANGER + 1) * chunk
    if lost:
        assert "delivered and never paid" in maize.ayni("wallet").out

    # What it has signed quinoa keeps nowhere: it takes its highest voucher back from maize.
    mortals.start("quinoa")
    until("quinoa knows", lambda: _known(quinoa, channel))
    assert moved(quinoa, channel) == held
    settled(quinoa, maize, channel)
    after = mortals.quiet()
    assert after["maize"].worth == before["maize"].worth + held - had
    assert after["quinoa"].worth == before["quinoa"].worth - held + had
    check_verified(mortals.oca)


def _known(node: Node, channel: str) -> bool:
    return any(
        one["channel"] == channel and one["moved_microcredits"] is not None
        for one in channels(node)
    )
