"""A node that is started for the first time after the others have paid one another."""

from pathlib import Path

import pytest

from tests.network.mortals import (
    check_verified,
    entries_of,
    open_channel,
    open_mortals,
    settled,
)
from tests.network.testnet import until

pytestmark = pytest.mark.slow

PROMPT = "Tell me of the sky."


def test_a_latecomer_verifies_all_that_was_paid_before_it(tmp_path: Path) -> None:
    with open_mortals(tmp_path, ("quinoa", "maize", "potato")) as mortals:
        quinoa = mortals.quinoa
        until("providers", lambda: quinoa.sharing() == {"maize", "potato"})
        for name in ("maize", "potato", "maize"):
            until(f"{name} is free", lambda name=name: mortals.nodes[name].free)
            quinoa.asked(PROMPT, "--provider", name, "--max-tokens", "8")
        for name in ("maize", "potato"):
            node = mortals.nodes[name]
            settled(quinoa, node, open_channel(quinoa, node)["channel"])
        mortals.quiet()
        chains = [entries_of(quinoa, mortals.nodes[name]) for name in mortals.alive]
        assert [len(chain) > 0 for chain in chains] == [True, True, True]

        mortals.start("oca")
        oca = mortals.oca
        entries = sum(len(chain) for chain in chains)
        until("oca has all", lambda: check_verified(oca)["entries"] == entries)
        report = oca.read("ledger", "verify")
        # Of each entry its author's signature and three seals at least.
        assert report["signatures"] >= 4 * entries
        assert report["accounts"] >= 3
        here = [entries_of(oca, mortals.nodes[name]) for name in ("quinoa", "maize", "potato")]
        assert here == chains
        said = oca.ayni("ledger", "verify")
        assert said.status == 0
        assert "All holds." in said.out

        # Its export is verified with the genesis file of another machine, and no daemon.
        file, genesis = tmp_path / "oca.export", tmp_path / "maize.ayni"
        assert oca.ayni("ledger", "export", str(file)).status == 0
        genesis.write_text(mortals.maize.paths.network_file.read_text())
        for name in mortals.alive:
            mortals.stop(name)
        offline = oca.read("ledger", "verify", str(file), "--genesis", str(genesis))
        assert (offline["ok"], offline["complete"]) == (True, True)
        counts = ("accounts", "entries", "signatures", "total_microcredits")
        assert [offline[one] for one in counts] == [report[one] for one in counts]
        heads = oca.read("ledger", "verify", str(file), "--genesis", str(genesis), "--heads")
        assert (heads["ok"], heads["entries"]) == (True, entries)
        assert heads["signatures"] <= report["signatures"]
