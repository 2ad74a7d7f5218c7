"""`ayni simulate` as a person calls it."""

import json

from click.testing import CliRunner

from node.cli.main import ayni


def test_a_quiet_network() -> None:
    words = "simulate --nodes 4 --witnesses 4 --hours 0.05 --faults none --deeds 30 --json"
    result = CliRunner().invoke(ayni, words.split())
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["broken"] == []
    assert len(told["trace"]) == 64
    assert told["entries"] > 0
    assert told["again"].startswith("ayni simulate --nodes 4")


def test_settlement_without_clocks() -> None:
    words = "simulate --gates off --witnesses 4 --walks 20"
    result = CliRunner().invoke(ayni, words.split())
    assert result.exit_code == 0, result.output
    assert "settled" in result.stdout


def test_an_unknown_fault_is_named() -> None:
    result = CliRunner().invoke(ayni, ["simulate", "--faults", "loss,plague"])
    assert result.exit_code == 2
    assert "plague" in result.output
