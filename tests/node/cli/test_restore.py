"""`ayni restore` before any node runs: words from a pipe or a terminal, and the home of them."""

import json
import os
import pty
import re
import sqlite3

import pytest
import trio

from node.cli.network_file import read_network
from node.cli.restore_run import waited_for
from node.cli.seed_words import seed_of_words, seed_words
from node.config import find_paths
from node.keystore import load_key
from protocol.identity import Identity, Seed
from protocol.ids import NodeId, node_text

SEED = Seed(bytes(range(32)))
WORDS = seed_words(SEED)
NODE = node_text(Identity(SEED).node)
TEXT = " ".join(WORDS)


@pytest.fixture
def network(tmp_path, command):
    file = tmp_path / "field.ayni"
    witness = node_text(NodeId(b"f" * 32))
    done = command("network", "create", "field", "--witness", witness, "-o", str(file))
    assert done.exit_code == 0, done.output
    return file


def restored(command, *more, stdin=TEXT):
    return command("restore", "--no-passphrase", *more, stdin=stdin)


def state_of(command):
    with sqlite3.connect(find_paths(command.home).database_file) as database:
        return database.execute("SELECT name FROM ledger_state ORDER BY name").fetchall()


def test_words_on_standard_input_make_the_home_of_the_key(command, network):
    done = restored(command, "--no-wait", "--network", str(network), "--name", "quinoa", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"node": NODE, "ready": False}
    paths = find_paths(command.home)
    assert load_key(paths.key_file, lambda: b"") == SEED
    assert read_network(paths.network_file) == read_network(network)
    assert 'name = "quinoa"' in paths.config_file.read_text()
    # Until all witnesses have told what they know, its ledger signs nothing.
    assert state_of(command) == [("forgot",), ("restored",)]


def test_without_a_network_it_says_what_comes_next(command):
    done = restored(command)
    assert done.exit_code == 0
    assert "`ayni network join FILE`, then `ayni up`" in done.stdout
    assert state_of(command) == [("forgot",), ("restored",)]


def test_no_word_is_left_on_the_disk(command, network):
    assert restored(command, "--no-wait", "--network", str(network)).exit_code == 0
    files = [path for path in command.home.rglob("*") if path.is_file()]
    assert len(files) >= 5
    for path in files:
        assert b" ".join(word.encode() for word in WORDS[:3]) not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (TEXT.replace(WORDS[3], "zooo"), r"BAD_KEY: Word 2, 'zooo', "),
        (TEXT.rpartition(" ")[0], r"BAD_KEY: 23 words came, and a key has 24"),
        ("", r"BAD_KEY: 0 words came"),
        (" ".join(["abandon"] * 24), r"BAD_KEY: .* together they are no key"),
        ("zoo " * 2000, r"BAD_KEY: 24 words were wanted; far more came"),
    ],
)
def test_words_that_are_no_key_leave_nothing_behind(command, typed, said):
    refused = restored(command, stdin=typed)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert re.match(said, refused.stderr)
    assert not command.home.exists()


def test_nothing_is_restored_over_a_key(command):
    assert command("init", "--no-passphrase").exit_code == 0
    before = find_paths(command.home).key_file.read_bytes()
    refused = restored(command)
    assert (refused.exit_code, refused.stderr.startswith("BAD_KEY: ")) == (1, True)
    assert "`ayni up` goes on" in refused.stderr
    assert find_paths(command.home).key_file.read_bytes() == before


def test_a_database_that_a_node_has_used_is_not_taken(command):
    assert restored(command).exit_code == 0
    paths = find_paths(command.home)
    paths.key_file.unlink()
    # What a run that was cut off has left is taken up again.
    assert restored(command).exit_code == 0
    paths.key_file.unlink()
    with sqlite3.connect(paths.database_file) as database:
        database.execute("INSERT INTO ledger_votes VALUES (?, 1, ?)", (b"a" * 32, b"entry"))
    refused = restored(command)
    assert (refused.exit_code, refused.stderr.startswith("IN_USE: ")) == (1, True)
    assert not paths.key_file.exists()


def test_an_override_is_warned_of_first(command, network):
    refused = restored(command, "--override", "--network", str(network))
    assert refused.exit_code == 2
    assert "stuck for ever" in refused.stderr
    assert "--override --yes" in refused.stderr
    assert not command.home.exists()


async def at_terminal(command, *arguments, typed):
    """What a person sees who answers each question with a line; a terminal at all three ends."""
    ours, theirs = pty.openpty()
    process = await command.process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen, lines = "", iter(typed)
    answered = 0
    with trio.fail_after(20):
        async with trio.lowlevel.FdStream(ours) as terminal:
            try:
                while piece := await terminal.receive_some():
                    seen += piece.decode()
                    # A question ends in a colon and a space, and waits there.
                    if seen.endswith(": ") and len(seen) > answered:
                        await terminal.send_all(next(lines).encode() + b"\n")
                        answered = len(seen)
            except trio.BrokenResourceError:
                pass  # How Linux says that nobody is at the other end any more.
        status = await process.wait()
    return seen, status


async def test_words_are_asked_for_until_there_are_24(command):
    typed = [
        " ".join(WORDS[:5]),
        f"{WORDS[5]} bananna",  # This line is not taken, and asked for again.
        " ".join(WORDS[5:20]),
        " ".join(f"{number}. {WORDS[number - 1]}" for number in range(21, 25)),
    ]
    seen, status = await at_terminal(command, "restore", "--no-passphrase", typed=typed)
    assert status == 0, seen
    assert "Word 7, 'bananna'" in seen
    assert seen.count("19 more: ") == 2
    assert WORDS[0] in seen
    assert load_key(find_paths(command.home).key_file, lambda: b"") == SEED


async def test_words_can_be_typed_unseen(command):
    seen, status = await at_terminal(command, "restore", "--no-passphrase", "--hide", typed=[TEXT])
    assert status == 0, seen
    assert not set(WORDS) & set(seen.split())


async def test_init_shows_its_words_once_and_asks_whether_they_are_kept(command):
    seen, status = await at_terminal(command, "init", "--no-passphrase", typed=["n"])
    assert status == 0, seen
    listed = re.findall(r"(\d+)\. ([a-z]+)", seen)
    assert [int(number) for number, _ in listed] == list(range(1, 25))
    seed = load_key(find_paths(command.home).key_file, lambda: b"")
    assert seed_of_words([word for _, word in listed]) == seed
    assert "ayni key words" in seen.rpartition("Are they on paper?")[2]
    again, status = await at_terminal(command, "init", "--no-passphrase", typed=[])
    assert (status, re.findall(r"\d+\. [a-z]+", again)) == (0, [])


def test_what_is_waited_for_is_told(backend):
    wallet = backend.ledger.wallet()
    asked = type(wallet)(**{**_fields(wallet), "witnesses": 4, "answered": 2})
    assert "2 of 4 witnesses answered" in waited_for(asked)
    told = type(wallet)(**{**_fields(wallet), "witnesses": 4, "answered": 4})
    assert waited_for(told).startswith("All witnesses have answered")


def _fields(wallet):
    return {name: getattr(wallet, name) for name in wallet.__struct_fields__}
