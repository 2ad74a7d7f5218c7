"""The ledger's benchmark measures what it says, however little of it; nothing here is timed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protocol.ledger.audit import Depth, audit

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))  # As when a script beside it is run.
    return importlib.import_module("bench_ledger_verify")


@pytest.mark.parametrize("with_claims", [False, True])
def test_the_exports_hold_and_cost_the_signatures_that_each_depth_asks_for(
    verify: ModuleType, with_claims: bool
) -> None:
    rules, data, mix = verify.export_of(500, with_claims=with_claims)
    read = verify.in_pieces(data)
    full, heads = audit(rules, read, Depth.FULL), audit(rules, read, Depth.HEADS)
    assert full.ok, full.faults
    assert heads.ok, heads.faults
    assert full.entries == heads.entries == sum(mix.values()) == 500
    assert bool(mix["claims"]) == with_claims
    assert full.signatures == 500 * (1 + rules.quorum)
    # Beside the authors' signatures: the certificates of heads and of claimed sources, none of
    # which is counted twice here.
    sources = mix["claims"] * verify.CLAIM_SOURCES
    most = 500 + rules.quorum * (verify.ACCOUNTS + sources)
    assert 500 + rules.quorum * max(verify.ACCOUNTS, sources) <= heads.signatures <= most
    assert full.total == full.supply


def test_a_changed_byte_is_not_measured(verify: ModuleType) -> None:
    rules, data, _ = verify.export_of(100, with_claims=False)
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    assert not audit(rules, verify.in_pieces(bytes(changed)), Depth.FULL).ok


@pytest.mark.slow
def test_a_tiny_run_has_every_figure(tmp_path: Path) -> None:
    """Real witnesses and payers; the script itself fails where a store and the payers differ."""
    command = [sys.executable, "scripts/bench_ledger.py", "--quick", "--json"]
    done = subprocess.run(
        [
            *command,
            *("--seconds", "1", "--entries", "500", "--witnesses", "4"),
            *("--folder", str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert {"processor", "cores", "flags", "load_average"} <= figures["machine"].keys()
    assert figures["raw_per_second"] > 0
    assert all(rate > 0 for rate in figures["disk"].values())
    runs = figures["certified"]
    assert [(run["witnesses"], run["shape"]) for run in runs] == [(4, "homes"), (4, "gateways")]
    for run in runs:
        bound = run["bound"]
        assert run["certified"] > 0
        assert run["vote_ms"].keys() == {"unloaded", "loaded", "payers"}
        for one in run["vote_ms"].values():
            assert 0 < one["p50"] <= one["p99"]
        assert bound["bound"] == min(bound["by_disk"], bound["by_signatures"])
        ratio = run["certified_per_second"] / bound["bound"]
        assert bound["ratio"] == pytest.approx(ratio, abs=0.001)
    assert figures["alone"]["entries"] >= 500
    assert figures["alone"]["bound"]["ratio"] > 0
    cores = figures["verification"]["cores"]
    assert [one["depth"] for one in cores["runs"]] == ["full", "heads"]
    files = figures["verification"]["files"]
    assert [(bool(one["claims"]), one["depth"]) for one in files] == [
        (False, "full"),
        (False, "heads"),
        (True, "full"),
        (True, "heads"),
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_catching_up_is_measured_to_the_last_entry() -> None:
    figures = _told("scripts/bench_ledger_catchup.py", "--entries", "600", "--peers", "2")
    assert (figures["entries"], figures["faults"]) == (600, 0)
    assert 1 <= figures["pages_at_once"] <= 4
    assert figures["processor_seconds"] > 0
    assert figures["million_pruned_bytes"] > 0
    assert figures["million_bytes"] > 0


@pytest.mark.slow
def test_vouchers_are_measured_on_disk(tmp_path: Path) -> None:
    words = ("--streams", "4", "16", "--seconds", "0.5", "--folder", str(tmp_path))
    figures = _told("scripts/bench_vouchers.py", *words)
    assert [run["streams"] for run in figures["runs"]] == [4, 16]
    for run in figures["runs"]:
        assert run["vouchers"] >= 16 * 32 / 16
        assert run["vouchers_per_group"] >= 1
        assert 0 < run["ratio"] <= 1.1


def _told(script: str, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, script, "--json", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
