"""`ayni wallet`: what a person reads, and that credits go to whom the person meant."""

import json
import os
import pty

import pytest
import trio
from msgspec.structs import replace

from node.api.ledger_backend import Payment
from node.api.ledger_views import Party, SettlementWaiting
from node.api.scripted_ledger import ScriptedLedger
from node.cli.words import time_words
from protocol.ids import node_text
from tests.node.api.wallet_samples import BACK_MS, REFERENCE, WALLET, party, scripted_ledger
from tests.protocol.ledger.chains import ANNA, BRUNO, CLARA, WITNESSES

TO = node_text(BRUNO.node)
EVIL = "\x1b]0;pwned\x07"


@pytest.fixture
def ledger(backend) -> ScriptedLedger:
    backend.ledger = scripted_ledger()
    return backend.ledger


async def told(command, backend, *arguments):
    async with command.served(backend):
        return await command.called("wallet", *arguments)


async def test_a_person_reads_what_there_is_and_what_waits_for_whom(command, backend, ledger):
    shown = " ".join((await told(command, backend)).stdout.split())
    for words in (
        f"anna {node_text(ANNA.node)}",
        "balance: 10 credits",
        "pending: 2 credits",
        "reserved: 0.5 credits",
        "spendable: 7.5 credits",
        "locked: 0.06 credits in channels 0.06 bruno",
        f"back by {time_words(BACK_MS)}",
        "earned: 0.04 credits not settled yet, and 1.25 credits to be claimed",
        "lost: 0.000007 credits, delivered and never paid",
        f"owed to us: 0.000026 credits 0.000026 {node_text(CLARA.node)[-8:]}",
        "pay of 2 credits to bruno",
        "waiting for 2 of 3 witnesses; maize and oca have not answered",
        "state: in order, 2 entries",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ready": False}, "before 3 of 4 have answered"),
        ({"owed_to_us": (), "lost_microcredits": 0}, "owed to us: nothing lost: nothing"),
        ({"locked": ()}, "locked: nothing earned"),
        (
            {"trouble": "lapsed", "sentence": "Votes are lost.", "remedy": "`ayni ledger resume`."},
            "state: lapsed: Votes are lost. `ayni ledger resume`.",
        ),
    ],
)
async def test_the_state_is_told_with_what_to_do(command, backend, ledger, changed, words):
    ledger.purse = replace(WALLET, **changed)
    assert words in " ".join((await told(command, backend)).stdout.split())


async def test_a_settlement_that_waits_for_witnesses_is_not_hidden(command, backend, ledger):
    waits = SettlementWaiting(
        channel="3f9c01ab" * 8, party=party(BRUNO.node), waits_for=1, quorum=3
    )
    ledger.purse = replace(WALLET, waiting=(), settlements=(waits,))
    shown = " ".join((await told(command, backend)).stdout.split())
    assert "waiting: settlement of 3f9c01ab with bruno" in shown
    assert "waiting for 1 of 3 witnesses" in shown


async def test_what_waits_for_its_turn_waits_for_no_witness(command, backend, ledger):
    ledger.purse = replace(WALLET, waiting=(replace(WALLET.waiting[0], seq=0, silent=()),))
    shown = " ".join((await told(command, backend)).stdout.split())
    assert "to bruno" in shown
    assert "waits for its turn" in shown
    assert "witnesses" not in shown


async def test_json_is_the_view(command, backend, ledger):
    shown = json.loads((await told(command, backend, "--json")).stdout)
    assert shown["spendable_microcredits"] == 7_500_000
    assert shown["waiting"][0]["silent"][0]["name"] == "maize"
    lines = json.loads((await told(command, backend, "history", "--json")).stdout)
    assert [line["seq"] for line in lines] == [3, 2, 1]
    # Also where --json stands before the verb below.
    lines = json.loads((await told(command, backend, "--json", "history")).stdout)
    assert len(lines) == 3


async def test_history_has_a_line_for_each_entry(command, backend, ledger):
    shown = (await told(command, backend, "history", "--limit", "2")).stdout.splitlines()
    assert len(shown) == 3
    for word in ("paid", "-0.000003", "bruno", REFERENCE.hex()[:8], "1 of 4", "pending"):
        assert word in shown[1]
    assert "3 of 4" in shown[2]
    claimed = (await told(command, backend, "history")).stdout.splitlines()[-1]
    assert "claimed" in claimed
    assert "several" in claimed
    assert "+3" in claimed
    ledger.lines = ()
    assert "No entries yet" in (await told(command, backend, "history")).stdout


async def test_channels_are_listed_with_what_happens_next_and_when(command, backend, ledger):
    shown = (await told(command, backend, "channels")).stdout.splitlines()
    ours, theirs = shown[1:]
    for words in ("3f3f3f3f", "we pay", "bruno", "0.1", "0.04", "open", "settle it if it stays"):
        assert words in ours
    assert f"at {time_words(BACK_MS - 3_600_000)}; back by {time_words(BACK_MS)}" in ours
    for words in ("pays us", "settling", "waiting for 2 of 3 witnesses", "0.000007 credits lost"):
        assert words in theirs
    lines = json.loads((await told(command, backend, "channels", "--json")).stdout)
    assert [line["role"] for line in lines] == ["payer", "payee"]
    ledger.channel_lines = ()
    assert "No channels" in (await told(command, backend, "channels")).stdout


async def test_a_channel_is_settled_by_the_first_digits_of_its_id(command, backend, ledger):
    done = await told(command, backend, "settle", "3F3f3f3f")
    assert (done.exit_code, ledger.asked) == (0, [bytes.fromhex("3f" * 32)])
    assert done.stdout.startswith("3f3f3f3f: settling; ask its payee")
    for wrong in ("3f3f3f3", "3", "aaaaaaaa"):
        refused = await told(command, backend, "settle", wrong)
        assert refused.exit_code == 1
        assert "NOT_FOUND" in refused.stderr
    unknown = await told(command, backend, "settle", "aa" * 32, "--json")
    assert json.loads(unknown.stdout)["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("node", [TO, TO[-8:], "bruno"])
async def test_sent_by_name_or_id_it_says_the_whole_id(command, backend, ledger, node):
    done = await told(command, backend, "send", node, "2.5")
    assert done.exit_code == 0
    assert TO in done.stdout
    assert "2.5 credits" in done.stdout
    assert "certified." in done.stdout
    assert ledger.asked == [
        Payment(to=BRUNO.node, amount_microcredits=2_500_000, reference=bytes(32), wait_ms=5_000)
    ]


async def test_what_waits_says_for_whom_and_that_it_is_safe(command, backend, ledger):
    ledger.silent = (party(WITNESSES[1].node), party(WITNESSES[2].node))
    digest = REFERENCE.hex()
    done = await told(command, backend, "send", TO, "1", "--no-wait", "--note-digest", digest)
    assert done.exit_code == 0
    assert "on disk" in done.stdout
    assert "waiting for 1 of 3 witnesses; oca and potato have not answered" in done.stdout
    assert (ledger.asked[0].wait_ms, ledger.asked[0].reference) == (0, REFERENCE)
    as_json = await told(command, backend, "send", TO, "1", "--json")
    assert json.loads(as_json.stdout)["certified"] is False


async def test_more_than_is_spendable_is_refused(command, backend, ledger):
    done = await told(command, backend, "send", TO, "7.500001")
    assert (done.exit_code, done.stderr.startswith("OVERDRAWN: ")) == (1, True)
    assert ledger.purse == WALLET


async def test_a_name_that_means_nobody_or_two_is_sent_nothing(command, backend, ledger):
    nobody = await told(command, backend, "send", "zea", "1")
    peer = backend.known_peers[0]
    backend.known_peers = (peer, replace(peer, node=node_text(WITNESSES[5].node), name="bruno"))
    two = await told(command, backend, "send", "bruno", "1")
    for done, word in ((nobody, "no node that"), (two, "several nodes")):
        assert (done.exit_code, done.stderr.startswith("NOT_FOUND: ")) == (1, True)
        assert word in done.stderr
    assert ledger.asked == []


@pytest.mark.parametrize(
    "arguments",
    [("0",), ("-1",), ("1e3",), ("0.0000001",), ("x",), (), ("1", "--note-digest", "ab")],
)
def test_an_amount_or_digest_that_is_none_is_misuse(command, arguments):
    assert command("wallet", "send", TO, *arguments).exit_code == 2


async def test_what_others_call_themselves_does_not_drive_the_terminal(command, backend, ledger):
    evil = Party(TO, EVIL)
    waiting = replace(WALLET.waiting[0], to=evil, silent=(evil,))
    ledger.purse = replace(WALLET, account=evil, waiting=(waiting,))
    ledger.lines = tuple(replace(line, party=evil) for line in ledger.lines)
    ledger.silent = (evil,)
    for arguments in ((), ("history",), ("send", node_text(CLARA.node), "1")):
        done = await told(command, backend, *arguments)
        assert "pwned" in done.stdout
        assert not {"\x1b", "\x07"} & set(done.output)


@pytest.mark.parametrize("answer", ["y", "n"])
async def test_at_a_terminal_a_name_is_confirmed_by_its_id(command, backend, ledger, answer):
    ours, theirs = pty.openpty()
    async with command.served(backend):
        process = await command.process("wallet", "send", "bruno", "1", stdin=theirs)
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        asked = b""
        with trio.fail_after(20):
            async with process.stdout, process.stderr:
                async for piece in process.stderr:
                    asked += piece
            status = await process.wait()
    os.close(ours)
    assert TO in asked.decode()
    assert (status, len(ledger.asked)) == ((0, 1) if answer == "y" else (1, 0))


async def test_a_payment_whose_answer_was_lost_is_not_sent_again_unseen(command, backend, ledger):
    """The node ends in the middle: whether it paid, the person has to see."""
    command.home.mkdir(parents=True)

    class Gone(ScriptedLedger):
        async def send(self, payment):
            self.asked.append(payment)
            closed.set()
            await trio.sleep_forever()

    closed, results = trio.Event(), []
    backend.ledger = Gone()
    async with trio.open_nursery() as nursery:

        async def send():
            results.append(await command.called("wallet", "send", TO, "1"))

        async with command.served(backend):
            nursery.start_soon(send)
            await closed.wait()
    assert results[0].exit_code == 1
    assert "ayni wallet history" in results[0].stderr


@pytest.mark.parametrize("arguments", [(), ("history",), ("send", TO, "1")])
def test_without_a_node_each_says_so(command, arguments):
    done = command("wallet", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "ayni up" in done.stderr
    failed = json.loads(command("wallet", *arguments, "--json").stdout)
    assert failed["error"]["code"] == "UNAVAILABLE"
