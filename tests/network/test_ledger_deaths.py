"""Real processes die between any two steps of a channel's life, and all ends as if none had."""

from collections.abc import Sequence
from contextlib import suppress

import httpx
import pytest

from tests.network.mortals import (
    Mortals,
    check_verified,
    entries_of,
    open_channel,
    settle,
    settled,
)
from tests.network.testnet import until

PROMPT = "Tell me of the sky."
WORDS = ("--provider", "maize", "--max-tokens", "48")

PAYER = (
    "open.queued",
    "entry.signed",
    "vote.stored",
    "entry.certified",
    "seat.stored",
    "settlement.stored",
)
PAYEE = (
    "voucher.stored",
    "proposal.stored",
    "seat.stored",
    "prepare.made",
    "settlement.stored",
    "entry.signed",
    "vote.stored",
    "entry.certified",
    "channel.stored",
)
Death = tuple[str, str, int]
EACH: list[Death] = [
    *[("quinoa", step, 1) for step in PAYER],
    *[("maize", step, 1) for step in PAYEE],
    ("quinoa", "entry.signed", 2),  # What is left of the old channel, and the next one's open.
    ("maize", "voucher.stored", 3),
    ("maize", "seat.stored", 2),  # It has prepared, and now commits.
    ("oca", "seat.stored", 1),
    ("oca", "seat.stored", 2),
    ("oca", "vote.stored", 1),
    ("oca", "settlement.stored", 1),
]


def doom(mortals: Mortals, deaths: Sequence[Death]) -> None:
    for name, step, count in deaths:
        mortals.doom(name, step, count)


def live_through(mortals: Mortals, deaths: Sequence[Sequence[Death]]) -> None:
    """One job out of a channel, which is then settled. Of the deaths those of one group come by in
    any order; then all are revived. In the end both have their shares, each once."""
    quinoa, maize, potato = mortals.quinoa, mortals.maize, mortals.potato
    cost = quinoa.asked(PROMPT, *WORDS)["cost_microcredits"]
    before, channel = mortals.quiet(), open_channel(quinoa, maize)
    chains = {node: len(entries_of(potato, node)) for node in (quinoa, maize)}
    doom(mortals, deaths[0])
    with quinoa.asking(PROMPT, "--json", *WORDS) as asking:
        done = asking.end()  # With an answer, unless a voucher has cost somebody its life.
    for group, following in zip(deaths, [*deaths[1:], []], strict=True):
        with suppress(httpx.TransportError, KeyError):  # It may die of that.
            settle(maize, channel["channel"])
        for name, _, _ in group:
            mortals.wait_dead(name)
        doom(mortals, following)
        mortals.revive()
    settled(quinoa, maize, channel["channel"])
    after = mortals.quiet()

    earned = after["maize"].worth - before["maize"].worth
    changes = {name: after[name].worth - before[name].worth for name in after}
    assert changes == {"quinoa": -earned, "maize": earned, "potato": 0, "oca": 0}, done
    assert earned == cost if done.status == 0 else 0 <= earned <= cost, (earned, cost, done)
    share = channel["moved_microcredits"] + earned
    rest = channel["funding_microcredits"] - share
    for node, amount in ((maize, share), (quinoa, rest)):
        claims = until("its claim", lambda node=node: claims_of(mortals, node, chains[node]))
        assert claims == [(channel["channel"], amount)], node.name
    assert quinoa.get("ledger/proofs") == []
    check_verified(potato)


def claims_of(mortals: Mortals, node: object, since: int) -> list[tuple[str, int]]:
    """What an account has claimed since it had so many entries, as a bystander has it."""
    return [
        (source["entry"], source["amount_microcredits"])
        for entry in entries_of(mortals.potato, node)[since:]  # type: ignore[arg-type]
        for source in entry["sources"]
    ]


def test_payee_witness_and_payer_die_one_after_another(mortals: Mortals) -> None:
    live_through(
        mortals,
        [
            [("maize", "voucher.stored", 2)],
            [("maize", "proposal.stored", 1)],
            [("oca", "seat.stored", 1), ("quinoa", "entry.signed", 1)],
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("death", EACH, ids=lambda death: f"{death[0]}-{death[1]}-{death[2]}")
def test_a_death_at_each_step_changes_nothing(mortals: Mortals, death: Death) -> None:
    live_through(mortals, [[death]])
