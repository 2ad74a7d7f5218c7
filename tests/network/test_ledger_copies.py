"""Data folders that come back from an old copy, as after a backup was restored; real processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.mortals import (
    Mortals,
    check_verified,
    entries_of,
    node_id,
    open_mortals,
    send,
)
from tests.network.testnet import Node, until

pytestmark = pytest.mark.slow

PROMPT = "Tell me of the sky."
WORDS = ("--provider", "maize", "--max-tokens", "8")


@pytest.fixture
def mortals(tmp_path: Path) -> Iterator[Mortals]:
    """Four witnesses of this test's own: after a restore one of them has said something else."""
    with open_mortals(tmp_path) as mortals:
        mortals.whole()
        yield mortals


def copied(mortals: Mortals, name: str, kept: Path) -> None:
    """Keep a copy of what a node has on disk, and let it go on."""
    mortals.stop(name)
    shutil.copytree(data_of(mortals.nodes[name]), kept)
    mortals.revive()
    mortals.whole()


def restored(mortals: Mortals, name: str, kept: Path) -> None:
    """Put the copy in the place of what the node has; it is down when this returns."""
    mortals.stop(name)
    data = data_of(mortals.nodes[name])
    shutil.rmtree(data)
    shutil.copytree(kept, data)


def data_of(node: Node) -> Path:
    return node.paths.database_file.parent


def test_a_witness_from_an_old_copy_says_so_and_votes_no_more(
    mortals: Mortals, tmp_path: Path
) -> None:
    quinoa, oca = mortals.quinoa, mortals.oca
    copied(mortals, "oca", tmp_path / "kept")
    # Votes of oca that the copy will not have: with maize away no quorum can do without them.
    mortals.kill("maize")
    for _ in range(3):
        send(quinoa, node_id(mortals.potato), 1000)
    mortals.start("maize")
    mortals.whole()
    restored(mortals, "oca", tmp_path / "kept")
    mortals.start("oca")
    until("oca notices", lambda: oca.get("wallet")["trouble"] == "lapsed")
    shown = oca.ayni("wallet")
    assert shown.status == 0
    assert "lapsed: " in shown.out
    assert "ayni ledger resume" in shown.out
    assert "lapsed: " in oca.ayni("doctor").out

    # The other three go on, and it gives no seal.
    before = len(entries_of(quinoa, quinoa))
    assert quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] > 0
    until("it is paid", lambda: len(entries_of(quinoa, quinoa)) > before)
    [paid] = entries_of(quinoa, quinoa)[before:]
    assert {one["name"] for one in paid["seals"]} == {"quinoa", "maize", "potato"}
    # It follows all the same, as any node does.
    until("oca has it", lambda: len(entries_of(oca, quinoa)) > before)
    check_verified(oca)

    unread = oca.ayni("ledger", "resume")
    assert unread.status == 2
    assert "--yes" in unread.err
    assert oca.get("wallet")["trouble"] == "lapsed"
    resumed = oca.ayni("ledger", "resume", "--yes")
    assert resumed.status == 0, resumed
    until("oca is in order", lambda: oca.get("wallet")["trouble"] == "")
    mortals.quiet()
    mortals.kill("maize")
    send(quinoa, node_id(mortals.potato), 1000)  # Only oca's vote makes three.
    mortals.start("maize")
    mortals.whole()
    assert quinoa.get("ledger/proofs") == oca.get("ledger/proofs") == []
    check_verified(quinoa)


def test_a_payer_from_an_old_copy_finds_its_head_before_it_signs(
    mortals: Mortals, tmp_path: Path
) -> None:
    quinoa, potato = mortals.quinoa, mortals.potato
    copied(mortals, "quinoa", tmp_path / "kept")
    costs = [quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] for _ in range(2)]
    mortals.kill("oca")  # So what follows has the seals of all others, quinoa's own too.
    send(quinoa, node_id(potato), 1000)
    before = mortals.quiet()
    chain = entries_of(potato, quinoa)
    restored(mortals, "quinoa", tmp_path / "kept")
    mortals.start("quinoa")  # Not all witnesses are there, so it waits with its first new entry.
    until("quinoa notices", lambda: quinoa.get("wallet")["trouble"] == "restored")
    until("all who are there", lambda: "3 of 4 have" in quinoa.get("wallet")["sentence"])
    shown = quinoa.ayni("wallet")
    assert "restored: " in shown.out
    assert "ayni ledger resume --override" in shown.out
    queued = quinoa.ayni("wallet", "send", "potato", "0.000005", "--no-wait")
    assert (queued.status, "not certified yet" in queued.out) == (0, True), queued
    until("it waits", lambda: bool(quinoa.get("wallet")["waiting"]))
    assert [one["entry"] for one in entries_of(potato, quinoa)] == [one["entry"] for one in chain]

    mortals.start("oca")
    # It signs again; as a witness it has lost votes, and says that now.
    until("quinoa signs again", lambda: not quinoa.get("wallet")["waiting"])
    until("it has noticed that, too", lambda: quinoa.get("wallet")["trouble"] == "lapsed")
    assert quinoa.ayni("ledger", "resume", "--yes").status == 0
    mortals.whole()
    assert quinoa.get("wallet")["trouble"] == ""
    after = mortals.quiet()
    assert after["quinoa"].worth == before["quinoa"].worth - 5
    assert after["potato"].worth == before["potato"].worth + 5
    assert after["maize"].worth == before["maize"].worth
    # The chain that it had forgotten goes on: no second entry for a seq, no second pay for a job.
    [*old, new] = entries_of(potato, quinoa)
    assert [one["entry"] for one in old] == [one["entry"] for one in chain]
    assert (new["seq"], new["prev"]) == (chain[-1]["seq"] + 1, chain[-1]["entry"])
    assert sum(costs) > 0
    for node in mortals.living():
        assert not [
            one for one in node.get("ledger/proofs") if one["account"]["node"] == node_id(quinoa)
        ]
    check_verified(potato)
    cost = quinoa.asked(PROMPT, *WORDS)["cost_microcredits"]
    assert mortals.quiet()["maize"].worth == after["maize"].worth + cost
