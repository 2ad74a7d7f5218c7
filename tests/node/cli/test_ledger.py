"""`ayni ledger` against a node: verify, export, show, accounts, proofs, resume."""

import json
import os
import pty

import pytest
import trio
from msgspec.structs import replace

from node.api.ledger_views import Party
from node.api.scripted_ledger import ScriptedLedger
from protocol.errors import Code, LocalError
from protocol.ids import node_text
from protocol.ledger.audit import Depth
from protocol.ledger.proof import breach_made
from tests.node.api.wallet_samples import (
    EXPORT,
    REFERENCE,
    RIVALS,
    SHOWING,
    TOWN,
    WALLET,
    exported,
    scripted_ledger,
    verification,
)
from tests.protocol.ledger.chains import ANNA, BRUNO, CHARTER, CLARA, sealed

FEW = exported([sealed(TOWN["anna"].certified[0].entry, (0, 1))])


@pytest.fixture
def ledger(backend) -> ScriptedLedger:
    backend.ledger = scripted_ledger()
    return backend.ledger


async def told(command, backend, *arguments):
    async with command.served(backend):
        return await command.called("ledger", *arguments)


async def test_verify_tells_what_was_checked_and_that_it_adds_up(command, backend, ledger):
    done = await told(command, backend, "verify")
    assert done.exit_code == 0
    shown = " ".join(done.stdout.split())
    for words in (
        "All holds.",
        "entries: 5",
        f"signatures: {ledger.verified.signatures} checked",
        "0.000136 credits, and 0.000004 credits paid but not claimed yet",
        "sum: 0.00014, which is the supply",
    ):
        assert words in shown
    assert ledger.asked == [Depth.FULL]
    heads = json.loads((await told(command, backend, "verify", "--heads", "--json")).stdout)
    assert (heads["depth"], heads["ok"], ledger.asked[1]) == ("heads", True, Depth.HEADS)


async def test_a_fault_is_told_in_one_line_and_by_the_exit_status(command, backend, ledger):
    ledger.verified = verification(FEW)
    done = await told(command, backend, "verify")
    assert done.exit_code == 1
    assert done.stdout.startswith("1 fault.")
    place = f"anna ({node_text(ANNA.node)}) seq 1: BAD_CERTIFICATE: "
    assert [line for line in done.stdout.splitlines() if line.startswith(place)]
    as_json = await told(command, backend, "verify", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["faults"][0]["code"] == "BAD_CERTIFICATE"


async def test_more_faults_than_are_shown_are_counted(command, backend, ledger):
    ledger.verified = replace(verification(FEW), faults_count=7)
    assert "... and 6 more." in (await told(command, backend, "verify")).stdout


async def test_an_export_is_written_whole(command, backend, ledger, tmp_path):
    file = tmp_path / "town.export"
    done = await told(command, backend, "export", str(file))
    assert (done.exit_code, file.read_bytes()) == (0, EXPORT)
    assert f"ayni ledger verify {file}" in done.stdout
    again = await told(command, backend, "export", str(file))
    assert (again.exit_code, again.stderr.startswith("IN_USE: ")) == (1, True)
    second = tmp_path / "second"
    as_json = json.loads((await told(command, backend, "export", str(second), "--json")).stdout)
    assert as_json == {"file": str(second), "bytes": len(EXPORT)}


@pytest.mark.parametrize("begun", [(), (EXPORT[:100],)])
async def test_an_export_that_breaks_off_leaves_no_file(command, backend, ledger, tmp_path, begun):
    ledger.file = (*begun, LocalError(Code.UNAVAILABLE, "The disk is gone."))
    folder = tmp_path / "exports"
    folder.mkdir()
    done = await told(command, backend, "export", str(folder / "town.export"))
    assert (done.exit_code, done.stderr.startswith("UNAVAILABLE: ")) == (1, True)
    assert list(folder.iterdir()) == []


async def test_an_export_to_nowhere_names_the_place(command, backend, ledger, tmp_path):
    done = await told(command, backend, "export", str(tmp_path / "none" / "town.export"))
    assert (done.exit_code, "Name another place" in done.stderr) == (1, True)


@pytest.mark.parametrize("account", ["anna", node_text(ANNA.node), node_text(ANNA.node)[-8:]])
async def test_show_names_each_seal(command, backend, ledger, account):
    shown = (await told(command, backend, "show", account)).stdout
    assert node_text(ANNA.node) in shown
    assert "certified by 3 of 4 or more" in shown
    newest, oldest = [line for line in shown.splitlines() if " pay " in line]
    for words in ("-0.00003", "to bruno", REFERENCE.hex()[:8], "maize, oca and potato"):
        assert words in oldest
    assert "maize, potato and " in newest
    limited = await told(command, backend, "show", account, "--limit", "1")
    assert limited.stdout.count(" pay ") == 1
    assert "1 of 2" in limited.stderr


async def test_show_names_the_pays_that_a_claim_takes(command, backend, ledger):
    shown = (await told(command, backend, "show", "bruno")).stdout
    assert f"of {TOWN['anna'].certified[0].entry.id.hex()[:8]}" in shown
    as_json = json.loads((await told(command, backend, "show", "bruno", "--json")).stdout)
    assert [entry["kind"] for entry in as_json["entries"]] == ["pay", "claim"]


async def test_an_account_without_entries_is_shown_too(command, backend, ledger):
    ledger.chains = ()
    done = await told(command, backend, "show", node_text(CLARA.node))
    assert (done.exit_code, "balance:" in done.stdout) == (0, True)
    unknown = await told(command, backend, "show", "zea")
    assert (unknown.exit_code, unknown.stderr.startswith("NOT_FOUND: ")) == (1, True)


async def test_accounts_are_listed(command, backend, ledger):
    rows = (await told(command, backend, "accounts")).stdout.splitlines()
    assert rows[1].split() == ["anna", f"({node_text(ANNA.node)[-8:]})", "0.000066", "2"]
    assert len(rows) == 4
    limited = await told(command, backend, "accounts", "--limit", "1", "--json")
    assert len(json.loads(limited.stdout)) == 1
    ledger.chains = ()
    assert "no credits" in (await told(command, backend, "accounts")).stdout


async def test_proofs_show_both_entries_side_by_side(command, backend, ledger):
    shown = (await told(command, backend, "proofs")).stdout
    assert f"contradiction: anna {node_text(ANNA.node)}" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if line}
    first, second = ledger.proven[0].entries
    assert rows["entry"].split()[1:] == [first.entry, second.entry]
    assert rows["seq"].split()[1:] == ["1", "1"]
    assert f"({node_text(BRUNO.node)[-8:]})" in rows["what"]
    assert node_text(CLARA.node)[-8:] in rows["what"]
    assert "certified" not in rows
    as_json = json.loads((await told(command, backend, "proofs", "--json")).stdout)
    assert (as_json[0]["kind"], len(as_json[0]["entries"])) == ("contradiction", 2)


async def test_a_breach_shows_who_certified(command, backend, ledger):
    ledger.proven = (SHOWING.proof(breach_made(RIVALS, CHARTER)),)
    shown = (await told(command, backend, "proofs")).stdout
    assert shown.startswith("breach: ")
    assert shown.count("maize, oca and potato") == 2
    ledger.proven = ()
    assert "No proof" in (await told(command, backend, "proofs")).stdout


@pytest.mark.parametrize(
    ("trouble", "arguments", "word"),
    [
        ("halted", (), "out of nothing"),
        ("lapsed", (), "has lost votes"),
        ("restored", ("--override",), "stuck for ever"),
        ("copied", ("--override",), "stuck for ever"),
    ],
)
async def test_resume_needs_the_warning_to_be_read(
    command, backend, ledger, trouble, arguments, word
):
    ledger.purse = replace(WALLET, trouble=trouble, sentence="The disk is old.")
    refused = await told(command, backend, "resume", *arguments)
    assert (refused.exit_code, ledger.asked) == (2, [])
    for words in ("The disk is old.", word, "--yes"):
        assert words in refused.stderr
    done = await told(command, backend, "resume", *arguments, "--yes")
    assert (done.exit_code, "state: in order" in " ".join(done.stdout.split())) == (0, True)
    assert ledger.asked == [bool(arguments)]


@pytest.mark.parametrize("answer", ["y", "n"])
async def test_at_a_terminal_resume_asks(command, backend, ledger, answer):
    ledger.purse = replace(WALLET, trouble="lapsed", sentence="The disk is old.")
    ours, theirs = pty.openpty()
    async with command.served(backend):
        process = await command.process("ledger", "resume", stdin=theirs)
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        said = b""
        with trio.fail_after(20):
            async with process.stdout, process.stderr:
                async for piece in process.stderr:
                    said += piece
            status = await process.wait()
    os.close(ours)
    assert "has lost votes" in said.decode()
    assert (status, ledger.asked) == ((0, [False]) if answer == "y" else (1, []))


@pytest.mark.parametrize("trouble", ["restored", "copied", "doubled", "unwitnessed"])
async def test_what_a_word_alone_does_not_mend_says_so(command, backend, ledger, trouble):
    ledger.purse = replace(
        WALLET, trouble=trouble, sentence="The disk is old.", remedy="Say --override."
    )
    done = await told(command, backend, "resume", "--yes")
    assert (done.exit_code, ledger.asked) == (1, [])
    assert done.stderr == "BAD_REQUEST: The disk is old. Say --override.\n"


async def test_nothing_to_resume_needs_no_warning(command, backend, ledger):
    done = await told(command, backend, "resume")
    assert (done.exit_code, "state:" in done.stdout) == (0, True)


async def test_what_others_call_themselves_does_not_drive_the_terminal(command, backend, ledger):
    evil = Party(node_text(ANNA.node), "\x1b]0;pwned\x07")
    ledger.chains = tuple(
        replace(
            chain,
            account=evil if chain.account.node == evil.node else chain.account,
            entries=tuple(replace(one, seals=(evil,)) for one in chain.entries),
        )
        for chain in ledger.chains
    )
    ledger.proven = tuple(replace(proof, account=evil) for proof in ledger.proven)
    fault = replace(verification(FEW).faults[0], account=evil, sentence="\x1b[2J")
    ledger.verified = replace(verification(FEW), faults=(fault,))
    for arguments in (("show", evil.node), ("proofs",), ("accounts",), ("verify",)):
        done = await told(command, backend, *arguments)
        assert "pwned" in done.stdout
        assert not {"\x1b", "\x07"} & set(done.output)


@pytest.mark.parametrize(
    "arguments",
    [
        *[("verify",), ("export", "new.export"), ("show", "anna"), ("accounts",), ("proofs",)],
        ("resume", "--yes"),
    ],
)
def test_without_a_node_each_says_so(command, arguments):
    done = command("ledger", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "ayni up" in done.stderr
