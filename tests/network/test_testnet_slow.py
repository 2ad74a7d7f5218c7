"""The real model over real processes, and the demo as a newcomer runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Code
from protocol.units import MICROCREDITS_PER_CREDIT
from tests.network.testnet import ROOT, environment, open_testnet

SMOLLM2 = "smollm2-135m-instruct"

pytestmark = pytest.mark.slow


def test_the_demo_holds_and_tells_all_its_figures() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "demo", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0, done
    figures = json.loads(done.stdout)
    assert (figures["held"], figures["failure"]) == (True, None)
    assert figures["peers"] == 3
    assert set(figures["advertised_tokens_per_second"]) == {"maize", "potato"}
    assert figures["ask"]["output_tokens"] > 5
    assert figures["ask"]["pieces"] >= 5
    assert figures["ask"]["cost_microcredits"] > 0
    assert figures["curl"]["finish_reason"] in ("stop", "length")
    assert figures["two_at_once"]["providers"] == ["maize", "potato"]
    assert figures["two_at_once"]["third"] == "BUSY"
    killed = figures["kill"]
    assert killed["fresh_job_at"] == "potato"
    assert 0 < killed["delivered_and_paid_microcredits"] <= killed["signed_microcredits"]
    check_money(figures)
    assert figures["witnesses_down"] == {"waited_for": 1, "completed_after_restart": True}


def check_money(figures: dict[str, Any]) -> None:
    """What was paid is what was earned, and the terms of the sum are the supply."""
    money, ledger = figures["money"], figures["ledger"]
    earned, start = money["earned_microcredits"], 1000 * MICROCREDITS_PER_CREDIT
    assert set(earned) == {"maize", "potato"}
    assert min(earned.values()) > 0
    assert money["paid_microcredits"] == sum(earned.values())
    assert money["settled_microcredits"] == earned["maize"]
    assert ledger["quorum"] == 3
    assert set(ledger["seals"]) <= {3, 4}
    assert ledger["supply_microcredits"] == 4 * start
    assert sum(ledger["terms_microcredits"].values()) == ledger["supply_microcredits"]
    assert ledger["entries"] >= 5  # Two channels, one of them settled: two claims; and a pay.
    # Of each entry its author's signature and three seals at least.
    assert ledger["signatures_checked"] >= 4 * ledger["entries"]
    assert ledger["flipped_byte"] in set(Code)
    assert figures["refusals"] == {
        "a wrong balance": "BALANCE_WRONG",
        "more than there is": "OVERDRAWN",
        "a claim of another's pay": "NOT_PAYEE",
        "a second entry for one place": "PAST",
    }


def test_a_real_model_answers_sensibly_from_another_node(tmp_path: Path) -> None:
    question = "Why is the sky blue? Answer in two sentences."
    fetch = [sys.executable, "-m", "node", "models", "--fetch", SMOLLM2]
    variables = environment(None)
    subprocess.run(fetch, check=True, capture_output=True, timeout=900, env=variables, cwd=ROOT)
    with open_testnet(tmp_path, 2, SMOLLM2) as testnet:
        wish = ("--temperature", "0", "--max-tokens", "80")
        answer, again = (testnet.quinoa.asked(question, *wish) for _ in range(2))
    assert (answer["provider_name"], answer["model"]) == ("maize", SMOLLM2)
    assert answer["finish_reason"] in ("stop", "length")
    words = answer["text"].lower()
    assert "blue" in words
    assert "light" in words or "scatter" in words
    assert again["text"] == answer["text"]
