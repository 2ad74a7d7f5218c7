"""Real processes die between any two steps of paying for a job, and all ends as if none had."""

from collections.abc import Sequence

import pytest

from tests.network.mortals import Mortals, check_verified, entries_of, node_id
from tests.network.testnet import until

PROMPT = "Tell me of the sky."
WORDS = ("--provider", "maize", "--max-tokens", "16")

PAYER = (
    "due.stored",
    "pay.queued",
    "due.handed",
    "entry.signed",
    "vote.stored",
    "entry.certified",
    "payee.told",
)
PAYEE = (
    "debt.stored",
    "vote.stored",
    "income.stored",
    "income.counted",
    "entry.signed",
    "entry.certified",
)
Death = tuple[str, str, int]
EACH: list[Death] = [
    *[("quinoa", step, 1) for step in PAYER],
    *[("maize", step, 1) for step in PAYEE],
    ("quinoa", "vote.stored", 2),  # For the claim.
    ("maize", "vote.stored", 2),  # For its own claim.
    ("oca", "vote.stored", 1),
    ("oca", "vote.stored", 2),
]


def doom(mortals: Mortals, deaths: Sequence[Death]) -> None:
    for name, step, count in deaths:
        mortals.doom(name, step, count)


def pay_for_a_job(mortals: Mortals, deaths: Sequence[Sequence[Death]]) -> None:
    """One job. Of the deaths those of one group come by in any order; then all are revived.
    In the end it is paid and claimed once, to the amount that it costs when nobody dies."""
    quinoa, maize, potato = mortals.quinoa, mortals.maize, mortals.potato
    cost = quinoa.asked(PROMPT, *WORDS)["cost_microcredits"]
    before = mortals.quiet()
    chains = {node: len(entries_of(potato, node)) for node in (quinoa, maize)}
    doom(mortals, deaths[0])
    with quinoa.asking(PROMPT, "--json", *WORDS) as asking:
        done = asking.end()  # With an answer, unless its daemon died over the receipt.
    for group, following in zip(deaths, [*deaths[1:], []], strict=True):
        for name, _, _ in group:
            mortals.wait_dead(name)
        doom(mortals, following)
        mortals.revive()
    after = mortals.quiet()
    changes = {name: after[name].worth - before[name].worth for name in after}
    assert changes == {"quinoa": -cost, "maize": cost, "potato": 0, "oca": 0}, done
    until(
        "both entries at a bystander",
        lambda: all(len(entries_of(potato, node)) > count for node, count in chains.items()),
    )
    [pay] = entries_of(potato, quinoa)[chains[quinoa] :]
    [claim] = entries_of(potato, maize)[chains[maize] :]
    assert (pay["kind"], pay["to"]["node"]) == ("pay", node_id(maize))
    assert pay["change_microcredits"] == -cost
    assert [source["entry"] for source in claim["sources"]] == [pay["entry"]]
    assert quinoa.get("ledger/proofs") == []
    check_verified(potato)


def test_payer_witness_and_payee_die_one_after_another(mortals: Mortals) -> None:
    pay_for_a_job(
        mortals,
        [
            [("maize", "debt.stored", 1), ("quinoa", "pay.queued", 1)],
            [("maize", "entry.certified", 1), ("oca", "vote.stored", 1)],
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("death", EACH, ids=lambda death: f"{death[0]}-{death[1]}-{death[2]}")
def test_a_death_at_each_step_changes_nothing(mortals: Mortals, death: Death) -> None:
    pay_for_a_job(mortals, [[death]])
