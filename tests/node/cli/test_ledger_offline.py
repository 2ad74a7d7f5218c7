"""`ayni ledger verify FILE`: real exports, whole and damaged, with no node and no network."""

import json
import subprocess
import sys

import pytest

from protocol.ids import node_text
from protocol.ledger.export import framed
from protocol.ledger.genesis import NetworkFile, genesis_made, network_file_text
from tests.node.api.wallet_samples import EXPORT, TOWN, exported, in_order
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CLARA,
    GENESIS,
    Chain,
    claim,
    entry_after,
    pay,
    sealed,
    signed_entry,
    start,
    with_seals,
)


@pytest.fixture
def files(tmp_path):
    """(the export's path, the genesis's path), both good."""
    export, genesis = tmp_path / "town.export", tmp_path / "ayllu.ayni"
    export.write_bytes(EXPORT)
    genesis.write_text(network_file_text(NetworkFile(GENESIS, ())))
    return export, genesis


def verified(command, files, *more):
    export, genesis = files
    return command("ledger", "verify", str(export), "--genesis", str(genesis), *more)


@pytest.mark.parametrize("depth", [(), ("--heads",)])
def test_a_good_export_holds(command, files, depth):
    done = verified(command, files, *depth)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("All holds.")
    assert "0.00014, which is the supply" in done.stdout
    shown = json.loads(verified(command, files, *depth, "--json").stdout)
    assert (shown["ok"], shown["entries"], shown["total_microcredits"]) == (True, 5, 140)
    amounts = {one["account"]["node"]: one["amount_microcredits"] for one in shown["balances"]}
    assert amounts == {
        node_text(ANNA.node): 66,
        node_text(BRUNO.node): 5,
        node_text(CLARA.node): 65,
    }


def test_heads_check_fewer_signatures(command, files):
    full = json.loads(verified(command, files, "--json").stdout)
    heads = json.loads(verified(command, files, "--heads", "--json").stdout)
    assert 5 < heads["signatures"] < full["signatures"] == 5 + 16


def with_entry(name, place, certified):
    """The town with one entry in the place of another."""
    changed = dict(TOWN)
    chain = Chain(TOWN[name].identity)
    chain.certified = list(TOWN[name].certified)
    chain.certified[place] = certified
    changed[name] = chain
    return exported(in_order(changed.values()))


def wrong_balance():
    entry = entry_after(start(ANNA), pay(BRUNO, 30), balance=99)
    return with_entry("anna", 0, sealed(signed_entry(ANNA, entry)))


def claim_of_anothers_pay():
    """Clara takes what Anna paid Bruno."""
    entry = entry_after(start(CLARA), claim(TOWN["anna"].certified[1].entry, amounts=[4]))
    return with_entry("clara", 0, sealed(signed_entry(CLARA, entry)))


def forged_seal():
    good = TOWN["anna"].certified[1]
    seals = list(good.certificate.seals)
    seals[1] = type(seals[1])(seals[1].witness, bytes(64))
    return with_entry("anna", 1, with_seals(good, seals))


def too_few_seals():
    return with_entry("bruno", 1, sealed(TOWN["bruno"].certified[1].entry, (0, 1)))


def broken_link():
    entry = entry_after(TOWN["anna"].state, pay(BRUNO, 1), seq=2, prev=bytes(32))
    return with_entry("anna", 1, sealed(signed_entry(ANNA, entry)))


def overdrawn():
    entry = entry_after(start(ANNA), pay(BRUNO, 101))
    return with_entry("anna", 0, sealed(signed_entry(ANNA, entry)))


FORGED = [
    (wrong_balance, ANNA, 1, "BALANCE_WRONG"),
    (claim_of_anothers_pay, CLARA, 1, "NOT_PAYEE"),
    (forged_seal, ANNA, 2, "BAD_CERTIFICATE"),
    (too_few_seals, BRUNO, 2, "BAD_CERTIFICATE"),
    (broken_link, ANNA, 2, "LINK_BROKEN"),
    (overdrawn, ANNA, 1, "OVERDRAWN"),
]


@pytest.mark.parametrize(("forge", "account", "seq", "code"), FORGED)
@pytest.mark.parametrize("depth", [(), ("--heads",)])
def test_a_forged_export_is_refused_with_account_place_and_code(
    command, files, forge, account, seq, code, depth
):
    files[0].write_bytes(forge())
    done = verified(command, files, *depth)
    assert done.exit_code == 1
    place = f"{node_text(account.node)} seq {seq}: {code}: "
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(place)]
    assert line.endswith(".")
    assert len(line) > len(place) + 20
    shown = json.loads(verified(command, files, *depth, "--json").stdout)
    found = [(one["account"]["node"], one["seq"], one["code"]) for one in shown["faults"]
             if one["account"]]  # fmt: skip
    assert (node_text(account.node), seq, code) in found


def flipped_unseen(command, files, *depth):
    """The places where a flipped bit does not show; elsewhere the exit status and a code say so."""
    unseen = []
    for place in range(0, len(EXPORT), 17):
        damaged = bytearray(EXPORT)
        damaged[place] ^= 1
        files[0].write_bytes(damaged)
        done = verified(command, files, *depth, "--json")
        shown = json.loads(done.stdout)
        assert shown["ok"] == (not done.exit_code) == (not shown["faults"])
        unseen += [place] if shown["ok"] else []
    return unseen


def test_a_flipped_bit_shows_wherever_it_is(command, files):
    assert flipped_unseen(command, files) == []


def test_by_heads_only_seals_of_an_entry_that_nobody_claims_go_unseen(command, files):
    """Bruno's claim: his later entry's certificate says that it was certified."""
    unseen = flipped_unseen(command, files, "--heads")
    frame = framed(TOWN["bruno"].certified[0])
    start = EXPORT.index(frame)
    assert unseen
    assert start < min(unseen) <= max(unseen) < start + len(frame)


def test_bytes_that_are_cut_added_or_none_are_found(command, files):
    for data in (EXPORT[:-1], EXPORT[:5], b"", EXPORT + b"\x00", EXPORT * 2, b"\xff" * 3000):
        files[0].write_bytes(data)
        done = verified(command, files)
        assert done.exit_code == 1
        assert "the file" in done.stdout or " seq " in done.stdout


def test_a_file_of_another_network_says_so(command, files):
    other = genesis_made("other", bytes(16), {ANNA.node: 1}, {BRUNO.node})
    files[1].write_text(network_file_text(NetworkFile(other, ())))
    done = verified(command, files)
    assert (done.exit_code, "WRONG_NETWORK" in done.stdout) == (1, True)


def test_without_a_genesis_the_homes_own_network_is_meant(command, files):
    export, genesis = files
    alone = command("ledger", "verify", str(export))
    assert (alone.exit_code, "--genesis" in alone.stderr) == (2, True)
    assert command("network", "join", str(genesis)).exit_code == 0
    assert command("ledger", "verify", str(export)).exit_code == 0


def test_misuse(command, files):
    export, genesis = files
    assert command("ledger", "verify", "--genesis", str(genesis)).exit_code == 2
    assert command("ledger", "verify", f"{export}.none", "--genesis", str(genesis)).exit_code == 2
    done = command("ledger", "verify", str(export), "--genesis", str(export))
    assert (done.exit_code, done.stderr.startswith("BAD_REQUEST: ")) == (1, True)


def test_it_needs_no_daemon_no_network_and_no_event_loop(command, files):
    export, genesis = files
    program = (
        "import sys\nfrom node.cli.main import ayni\n"
        f"try:\n    ayni(['ledger', 'verify', {str(export)!r}, '--genesis', {str(genesis)!r}])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = ('trio', 'libp2p', 'torch', 'sqlite3', 'starlette', 'hypercorn', 'numpy')\n"
        "found = [name for name in heavy if name in sys.modules]\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("All holds.")
