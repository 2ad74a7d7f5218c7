"""Each guard around libp2p: the fault is there without it, and gone with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from node.network import hardening, hardening_check
from protocol.errors import Code, LocalError

ROOT = Path(__file__).parents[3]
FAULTS = Path(__file__).with_name("faults.py")

# What is seen without each guard.
SEEN = {
    "F1": "guest 6 is refused, though nobody is connected",
    "F2": "died: RuntimeError",
    "F3": "died: UnicodeDecodeError",
    "F4": "died: DecodeError",
    "F5": "died: DecodeError",
    "F6": "died: RuntimeError",
    "F7": "the connection is lost before stream",
    "F8": "are lost",
    "F9": "bytes are kept for one unread stream",
    "F10": "an honest peer is refused",
    "F11": "streams open",
    "F12": "places and",
    "F13": "a dead connection counts as open",
    "F14": "dialled an address that somebody claimed",
    "F15": "bytes of a protocol's name are taken",
    "F16": "verifications for 20 messages",
    "F17": "messages with bad signatures were looked at",
}


@pytest.fixture(scope="session")
def outcomes() -> dict[str, dict[str, str]]:
    """Every case, run once with its guard and once without."""
    done = subprocess.run(
        [sys.executable, str(FAULTS)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    lines = (json.loads(line) for line in done.stdout.splitlines())
    return {line["case"]: line for line in lines}


@pytest.mark.parametrize("guard", sorted(SEEN))
def test_the_fault_is_there_without_its_guard_only(
    guard: str, outcomes: dict[str, dict[str, str]]
) -> None:
    assert outcomes[guard]["with"] == "healthy"
    assert SEEN[guard] in outcomes[guard]["without"]


def test_every_guard_has_its_fault() -> None:
    assert set(SEEN) == hardening.GUARDS


def test_the_libp2p_here_is_the_one_that_the_guards_fit() -> None:
    hardening.install()
    hardening.install()
    assert hardening_check.VERSION == "0.8.1"


def test_another_version_is_refused() -> None:
    with pytest.raises(LocalError, match=r"the guards fit 9\.9\.9") as caught:
        hardening_check.check(wanted="9.9.9")
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("network.swarm:Swarm.upgrade_inbound_raw_conn", "self other"),
        ("network.swarm:Swarm.no_such_name", "self"),
        ("no_such_module:name", "self"),
    ],
)
def test_an_altered_libp2p_is_refused(name: str, parameters: str) -> None:
    hardening.install()  # The stand-ins that importing libp2p needs.
    with pytest.raises(LocalError, match="missing or altered") as caught:
        hardening_check.check({name: parameters})
    assert caught.value.code is Code.UNAVAILABLE
