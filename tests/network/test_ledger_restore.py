"""A disk is lost: 24 words and the network bring identity, balance and channels back."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.config import Config, NetworkSettings, ShareSettings, write
from tests.network.mortals import (
    PACE,
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
from tests.network.testnet import ROOT, SAID_SECONDS_MAX, Done, Node, until

PROMPT = "Tell me of the sky."
WORDS = ("--provider", "maize", "--max-tokens", "48")


@pytest.fixture
def mortals(tmp_path: Path) -> Iterator[Mortals]:
    """Four witnesses of this test's own: one of them loses its votes with its disk."""
    with open_mortals(tmp_path) as mortals:
        mortals.whole()
        yield mortals


def restored(node: Node, words: str, *options: str) -> Done:
    """`ayni restore`, with the words on its standard input."""
    done = subprocess.run(
        node.command("restore", "--no-passphrase", *options),
        input=words.encode(),
        capture_output=True,
        timeout=SAID_SECONDS_MAX,
        env=node.variables,
        cwd=ROOT,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_words_bring_back_who_one_is_and_what_one_has(mortals: Mortals, tmp_path: Path) -> None:
    quinoa, maize = mortals.quinoa, mortals.maize
    words = " ".join(quinoa.read("key", "words")["words"])
    cost = quinoa.asked(PROMPT, *WORDS)["cost_microcredits"]
    before, identity = mortals.quiet(), node_id(quinoa)
    line = open_channel(quinoa, maize)
    assert line["moved_microcredits"] == cost
    invitation = tmp_path / "town.ayni"
    assert maize.ayni("network", "invite", "-o", str(invitation)).status == 0
    mortals.stop("quinoa")
    settings = quinoa.paths.config_file.read_text()
    models = quinoa.paths.models_file.read_text()
    shutil.rmtree(quinoa.folder)

    # A wrong word leaves nothing behind.
    wrong = restored(quinoa, words.replace(words.split()[5], "pachamama"))
    assert (wrong.status, wrong.out) == (1, "")
    assert "'pachamama'" in wrong.err
    assert not quinoa.folder.exists()
    # With one witness away it waits for that one, and says so.
    mortals.kill("potato")
    quinoa.folder.mkdir()
    quinoa.paths.config_file.write_text(settings)
    quinoa.paths.models_file.write_text(models)
    waiting = subprocess.Popen(
        quinoa.command("restore", "--no-passphrase", "--network", str(invitation), "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=quinoa.variables,
        cwd=ROOT,
    )
    with waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        waiting.stdin.write(words.encode())
        waiting.stdin.close()
        until("it is up", quinoa.answers)
        until("all but one", lambda: quinoa.get("wallet")["answered"] == 3)
        wallet = quinoa.get("wallet")
        assert (wallet["ready"], wallet["trouble"]) == (False, "restored")
        mortals.start("potato")
        back = json.loads(waiting.stdout.read())
    assert waiting.wait(SAID_SECONDS_MAX) == 0
    assert (back["account"]["node"], back["ready"]) == (identity, True)
    assert back["seq"] == before["quinoa"].entries
    for path in quinoa.folder.rglob("*"):
        assert not path.is_file() or words.encode() not in path.read_bytes(), path

    # It goes on as if nothing had been lost, but its votes: as a witness it says so.
    mortals.start("quinoa")
    until("its channel", lambda: _moved(quinoa, line["channel"]) == cost)
    assert quinoa.get("wallet")["trouble"] == "lapsed"
    assert quinoa.ayni("ledger", "resume", "--yes").status == 0
    mortals.whole()
    assert mortals.quiet()["quinoa"].worth == before["quinoa"].worth
    assert quinoa.asked(PROMPT, *WORDS)["cost_microcredits"] == cost
    settled(quinoa, maize, line["channel"])
    after = mortals.quiet()
    earned = after["maize"].worth - before["maize"].worth
    assert earned == cost
    assert after["quinoa"].worth == before["quinoa"].worth - earned
    chain = entries_of(mortals.oca, identity)
    assert [entry["seq"] for entry in chain] == list(range(1, len(chain) + 1))
    assert mortals.oca.get("ledger/proofs") == []
    check_verified(mortals.oca)


@pytest.mark.slow
def test_an_account_that_is_no_witness_comes_back_and_has_nothing_to_resume(
    mortals: Mortals, tmp_path: Path
) -> None:
    first, again = (Node(tmp_path / name, mortals.variables) for name in ("first", "again"))
    made = json.loads(first.ayni("init", "--no-passphrase", "--words", "--json").out)
    send(mortals.quinoa, made["node"], 10_000)
    invitation = tmp_path / "town.ayni"
    assert mortals.maize.ayni("network", "invite", "-o", str(invitation)).status == 0
    again.folder.mkdir()
    loopback = NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",))
    idle = ShareSettings(enabled=False)
    write(again.paths.config_file, Config(network=loopback, share=idle, ledger=PACE))
    done = restored(again, " ".join(made["words"]), "--network", str(invitation), "--json")
    assert done.status == 0, done
    back = json.loads(done.out)
    assert (back["account"]["node"], back["trouble"], back["ready"]) == (made["node"], "", True)
    process = again.start()
    try:
        until("it is up", again.answers)
        # What it was sent before its disk was lost is claimed now.
        until("its credits", lambda: again.get("wallet")["balance_microcredits"] == 10_000)
        assert again.get("wallet")["trouble"] == ""
    finally:
        process.terminate()
        process.wait(SAID_SECONDS_MAX)


def _moved(node: Node, channel: str) -> int | None:
    found = [one["moved_microcredits"] for one in channels(node) if one["channel"] == channel]
    return found[0] if found else None
