"""A disk that is damaged, a home that is started twice; real processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.config import Config, read_file, write
from tests.network.mortals import (
    Mortals,
    check_verified,
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
    with open_mortals(tmp_path) as mortals:
        mortals.whole()
        yield mortals


def damage(node: Node) -> None:
    """Garbage in the place of some pages, as from a disk that wears out."""
    file = node.paths.database_file
    with file.open("r+b") as opened:
        opened.seek(4096 * 4)
        opened.write(b"\xa5" * 4096 * 8)


def checks_of(node: Node) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in node.get("doctor")}


def test_a_damaged_database_is_set_aside_and_comes_back_from_the_witnesses(
    mortals: Mortals, tmp_path: Path
) -> None:
    """maize earns, and keeps a second copy of its vouchers."""
    quinoa, maize = mortals.quinoa, mortals.maize
    mortals.stop("maize")
    config = read_file(maize.paths.config_file, Config)
    copy = tmp_path / "other disk"
    copy.mkdir()
    kept = replace(config.channels, voucher_copy=str(copy / "vouchers"))
    write(maize.paths.config_file, replace(config, channels=kept))
    mortals.revive()
    mortals.whole()
    assert quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] > 0
    before = mortals.quiet()
    earned = maize.get("wallet")["earned_microcredits"]
    assert earned > 0
    mortals.stop("maize")
    damage(maize)
    mortals.start("maize")
    [folder] = maize.paths.data_folder.glob("damaged-*")
    assert "database set aside" in checks_of(maize)
    assert str(folder) in maize.ayni("doctor").out
    # Its account and its channel come back from the others, its vouchers from the copy. It is a
    # witness too, and says that it has lost votes.
    until("maize notices", lambda: maize.get("wallet")["trouble"] == "lapsed")
    assert any("casts no votes" in one for one in maize.get("status")["troubles"])
    assert "casts no votes" in maize.ayni("status").out
    until("its earnings are back", lambda: maize.get("wallet")["earned_microcredits"] == earned)
    assert maize.ayni("ledger", "resume", "--yes").status == 0
    mortals.whole()
    assert mortals.quiet() == before
    check_verified(maize)


def test_two_daemons_with_one_key_find_each_other(mortals: Mortals, tmp_path: Path) -> None:
    quinoa, potato = mortals.quinoa, mortals.potato
    mortals.stop("quinoa")
    copied = tmp_path / "copied"
    shutil.copytree(quinoa.folder, copied)
    mortals.revive()
    mortals.whole()
    twin = Node(copied, mortals.variables)
    mortals.restart(twin)
    for node in (quinoa, twin):
        until("it is told", lambda node=node: node.get("wallet")["trouble"] == "doubled")
        assert "Stop one of the two" in node.get("wallet")["sentence"]
        assert "doubled: " in node.ayni("doctor").out
        assert any("Another daemon runs" in one for one in node.get("status")["troubles"])
    # It is a word of warning; what stops a node is a signature that it has not made.
    assert twin.ayni("down").status == 0
    until("it is over", lambda: quinoa.get("wallet")["trouble"] == "")
    mortals.whole()
    send(quinoa, node_id(potato), 1000)
    assert quinoa.get("ledger/proofs") == []
