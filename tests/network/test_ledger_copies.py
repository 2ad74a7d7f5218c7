"""Data folders that come back from an old copy, as after a backup was restored; real processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.config import Config, read_file, write
from tests.network.mortals import (
    Mortals,
    channels,
    check_verified,
    entries_of,
    node_id,
    open_channel,
    open_mortals,
    send,
    settled,
)
from tests.network.testnet import SECONDS_MAX, Node, until

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
    send(quinoa, node_id(mortals.maize), 1000)
    [*_, paid] = entries_of(quinoa, quinoa)
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
    quinoa, maize, potato = mortals.quinoa, mortals.maize, mortals.potato
    copied(mortals, "quinoa", tmp_path / "kept")
    cost = sum(quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] for _ in range(2))
    line = open_channel(quinoa, maize)
    assert line["moved_microcredits"] == cost
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
    # The chain that it had forgotten goes on: no second entry for a seq, no second channel.
    chain_now = entries_of(potato, quinoa)
    assert [one["entry"] for one in chain_now[: len(chain)]] == [one["entry"] for one in chain]
    assert chain_now[len(chain)]["prev"] == chain[-1]["entry"]
    for node in mortals.living():
        assert not [
            one for one in node.get("ledger/proofs") if one["account"]["node"] == node_id(quinoa)
        ]
    check_verified(potato)
    # It opened that channel after the copy was made, and its payee tells what it signed there.
    assert quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] == cost // 2
    [again] = [one for one in channels(quinoa, "payer") if one["channel"] == line["channel"]]
    assert again["moved_microcredits"] == cost + cost // 2
    assert mortals.quiet()["maize"].worth == after["maize"].worth + cost // 2


@pytest.mark.parametrize("has_second_copy", [False, True])
def test_a_payee_from_an_old_copy_has_what_its_second_copy_has(
    mortals: Mortals, tmp_path: Path, has_second_copy: bool
) -> None:
    quinoa, maize = mortals.quinoa, mortals.maize
    if has_second_copy:
        config = read_file(maize.paths.config_file, Config)
        stick = replace(config.channels, voucher_copy=str(tmp_path / "stick"))
        write(maize.paths.config_file, replace(config, channels=stick))
        mortals.stop("maize")
        mortals.revive()
        mortals.whole()
    cost = quinoa.asked(PROMPT, *WORDS)["cost_microcredits"]
    line = open_channel(quinoa, maize)
    copied(mortals, "maize", tmp_path / "kept")
    assert quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] == cost
    before = mortals.quiet()
    restored(mortals, "maize", tmp_path / "kept")
    mortals.start("maize")
    held = 2 * cost if has_second_copy else cost
    until("its channel", lambda: _moved(maize, line["channel"]) == held)
    mortals.whole()
    # What it lost it lost alone: quinoa has signed for it, and takes back what is not asked for.
    settled(quinoa, maize, line["channel"])
    after = mortals.quiet()
    assert after["maize"].worth == before["maize"].worth - 2 * cost + held
    assert after["quinoa"].worth == before["quinoa"].worth + 2 * cost - held
    check_verified(mortals.potato)


def test_two_daemons_with_one_key_find_each_other_out(mortals: Mortals, tmp_path: Path) -> None:
    oca = mortals.oca
    mortals.stop("oca")
    copy = Node(tmp_path / "copy", oca.variables)
    shutil.copytree(oca.folder, copy.folder)
    mortals.start("oca")
    mortals.whole()
    process = copy.start()
    try:
        until("the copy is up", copy.answers)
        for node in (oca, copy):
            until(
                f"{node.folder.name} knows",
                lambda node=node: node.get("wallet")["trouble"] in ("doubled", "copied", "lapsed"),
                2 * SECONDS_MAX,
            )
        assert "Another daemon runs with this node's key" in oca.ayni("wallet").out
    finally:
        process.terminate()
        process.wait(SECONDS_MAX)
    # As a witness it may have met seals of the other's.
    until("oca is alone", lambda: oca.get("wallet")["trouble"] in ("", "lapsed"), 4 * SECONDS_MAX)


def _moved(node: Node, channel: str) -> int | None:
    found = [one["moved_microcredits"] for one in channels(node) if one["channel"] == channel]
    return found[0] if found else None
