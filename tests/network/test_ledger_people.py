"""Credits as people meet them: sent by name, refused in clear words, got by a newcomer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.config import Config, LedgerSettings, NetworkSettings, ShareSettings, write
from tests.network.mortals import CHANNELS, Mortals, channels, check_verified, money, node_id
from tests.network.testnet import Node, until

PROMPT = "Tell me of the sky."
WORDS = ("--max-tokens", "8")


@pytest.fixture
def newcomer(mortals: Mortals, tmp_path: Path) -> Iterator[Node]:
    """A fifth node, with an account that the genesis does not know."""
    node = Node(tmp_path / "chuno", mortals.variables)
    assert node.ayni("init", "--no-passphrase", "--name", "chuno").status == 0
    write(
        node.paths.config_file,
        Config(
            network=NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",)),
            share=ShareSettings(enabled=False),
            ledger=LedgerSettings(claim_seconds=1, audit_seconds=1),
            channels=CHANNELS,
        ),
    )
    text = mortals.maize.paths.models_file.read_text()
    node.paths.models_file.write_text(text)
    file = tmp_path / "town.ayni"
    invited = mortals.quinoa.ayni("network", "invite", "-o", str(file))
    assert invited.status == 0, invited
    joined = node.ayni("network", "join", str(file))
    assert joined.status == 0, joined
    process = node.start("--json")
    try:
        until("it answers", lambda: node.answers() or process.poll() is not None)
        assert process.poll() is None, (node.folder / "up.log").read_text()
        until("providers", lambda: node.sharing() == {"maize", "potato"})
        yield node
    finally:
        process.terminate()
        process.wait(60)


def test_credits_are_sent_by_name_and_no_more_than_there_are(mortals: Mortals) -> None:
    quinoa, oca = mortals.quinoa, mortals.oca
    before = mortals.quiet()
    sent = quinoa.ayni("wallet", "send", "oca", "2.5")
    assert sent.status == 0, sent
    assert sent.out == f"Sent 2.5 credits to oca, {node_id(oca)}: certified.\n"
    after = mortals.quiet()
    assert after["quinoa"].worth == before["quinoa"].worth - 2_500_000
    assert after["oca"].worth == before["oca"].worth + 2_500_000

    spendable = quinoa.read("wallet")["spendable_microcredits"]
    refused = quinoa.ayni("wallet", "send", "oca", f"{(spendable + 1) / 1_000_000:.6f}")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("OVERDRAWN: ")
    assert "ayni wallet" in refused.err
    assert quinoa.ayni("wallet", "send", "pachamama", "1").status == 1
    assert mortals.quiet() == after

    [line] = quinoa.read("wallet", "history", "--limit", "1")
    assert (line["kind"], line["party"]["name"], line["state"]) == ("pay", "oca", "certified")
    assert (line["change_microcredits"], line["seals"] >= 3) == (-2_500_000, True)
    [line] = oca.read("wallet", "history", "--limit", "1")
    assert (line["kind"], line["party"]["name"]) == ("claim", "quinoa")
    shown = quinoa.ayni("wallet", "history", "--limit", "1")
    assert ("paid" in shown.out, "oca" in shown.out, "-2.5" in shown.out) == (True, True, True)


def test_a_newcomer_without_credits_is_told_how_they_are_got_and_asks_with_some(
    mortals: Mortals, newcomer: Node
) -> None:
    assert newcomer.read("wallet")["balance_microcredits"] == 0
    refused = newcomer.ayni("ask", *WORDS, PROMPT)
    assert refused.status == 1
    assert refused.err.startswith("OVERDRAWN: ")
    for way in ("share a model", "sent to you"):
        assert way in refused.err.lower()

    # All that was paid before it came is verified by it now, from the genesis on.
    theirs = check_verified(mortals.potato)
    until("all chains", lambda: newcomer.read("ledger", "verify")["entries"] >= theirs["entries"])
    assert check_verified(newcomer)["signatures"] >= theirs["signatures"]

    sent = mortals.quinoa.ayni("wallet", "send", node_id(newcomer), "0.01")
    assert sent.status == 0, sent
    until("its credits", lambda: newcomer.get("wallet")["balance_microcredits"] == 10_000)
    answer = newcomer.asked(PROMPT, *WORDS)
    cost = answer["cost_microcredits"]
    assert cost > 0
    # Most of what it has is free still, and the rest of its channels comes back when it asks.
    [line] = channels(newcomer, "payer", answer["provider_name"])
    assert line["moved_microcredits"] == cost
    shown = newcomer.ayni("wallet", "channels")
    assert ("we pay" in shown.out, "back by" in shown.out) == (True, True)
    said = newcomer.ayni("wallet", "settle", line["channel"][:8])
    assert (said.status, line["channel"][:8] in said.out) == (0, True), said
    until(
        "its share", lambda: line["channel"] not in [one["channel"] for one in channels(newcomer)]
    )
    until("the rest is back", lambda: money(newcomer).worth == 10_000 - cost)
    assert newcomer.read("wallet")["seq"] >= 3  # A claim, an open, and a claim of the rest.
    mortals.quiet()
    check_verified(newcomer)
    check_verified(mortals.oca)
