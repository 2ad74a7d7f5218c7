"""README.md is true: its commands run, names exist, links lead somewhere, and its tour goes so."""

import contextlib
import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import click
import psutil
import pytest
from msgspec.structs import fields, replace

from node.api import chat_request
from node.api.ledger_views import Trouble
from node.cli.main import ayni
from node.config import Config, WorkerSettings, find_paths, parse, read_file, write
from node.models.catalogue import load_catalogue
from node.testnet import run
from node.testnet.plan import prepare
from protocol.errors import Code
from protocol.identity import Identity, Seed, digest
from protocol.ids import node_text
from protocol.ledger.charter import quorum
from tests.pages import ARCHITECTURE, README, ROOT, SPAN, blocks, prose, spans
from tests.tiny_model import tiny_gguf

BIN = Path(sys.executable).parent
READY_SECONDS_MAX = 60
RUN_SECONDS_MAX = 120


def commands(script: str) -> Iterator[list[str]]:
    """Each simple command of a shell script, without assignments; also within `$( )`."""
    for line in script.replace("\\\n", " ").splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for word in [*lexer, ";"]:
            assert ">" not in word, f"the test does not know redirections: {line}"
            if set(word) <= set("();|&"):
                while words and re.match(r"\w+=", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def understood(words: list[str]) -> None:
    """Let click read a command to its end, all but running it. Raises click's own errors."""
    command: click.Command = ayni
    parent: click.Context | None = None
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=words[0], parent=parent)
        given, rest, _ = command.make_parser(context).parse_args(list(words[1:]))
        assert given or rest or command.invoke_without_command, f"no verb in {words}"
        if not rest:
            return
        name, chosen, rest = command.resolve_command(context, rest)
        assert chosen is not None
        command, words, parent = chosen, [name or "", *rest], context
    command.make_context(words[0], list(words[1:]), parent=parent).close()


def filled(word: str) -> str:
    """A word in which names stand for ids, such as $KITCHEN=1000, with ids."""
    return re.sub(
        r"\$([A-Z]+)",
        lambda name: node_text(Identity(Seed(digest(name[1].encode()))).node),
        word,
    )


def made(words: Sequence[str]) -> None:
    """Files that earlier commands of the text would have made."""
    for name in words:
        if name.endswith((".ayni", ".export")):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()


SHELL = sorted({tuple(words) for body in blocks(README, "sh") for words in commands(body)})


@pytest.mark.parametrize("words", SHELL, ids=" ".join)
def test_a_command_exists(words: tuple[str, ...], tmp_path: Path) -> None:
    program, *arguments = words
    match program:
        case "ayni":
            with contextlib.chdir(tmp_path):
                made(arguments)
                understood([filled(word) for word in words])
        case "python3" if arguments[0] != "-c":
            script = ROOT / arguments[0]
            help_ = subprocess.run([sys.executable, script, "--help"], capture_output=True)
            assert help_.returncode == 0
        case "alias":
            name, _, place = arguments[0].partition("=")
            assert place == f"$PWD/.venv/bin/{name}"
        case "curl":
            assert any("/v1/chat/completions" in word for word in arguments)
        case _ if program.startswith("./"):
            assert os.access(ROOT / program, os.X_OK)
        case _:
            # Words of any system; a new one is looked at by a person and added.
            assert program in {"export", "unset", "sudo", "cat", "python3"}


MENTIONED = sorted({span for span in spans(README + ARCHITECTURE) if span.startswith("ayni ")})


@pytest.mark.parametrize("text", MENTIONED)
def test_a_command_in_a_sentence_exists(text: str, tmp_path: Path) -> None:
    words = text.split()
    with contextlib.chdir(tmp_path):
        made(words)
        Path("FILE").touch()
        # A sentence need not give everything, and --help prints and leaves.
        with contextlib.suppress(click.MissingParameter, click.exceptions.Exit):
            understood(words)


def test_the_first_two_commands() -> None:
    assert blocks(README, "sh")[0].split() == ["./scripts/demo", "./scripts/test"]


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", prose(text))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = ROOT / path if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_codes_and_variables_exist() -> None:
    loud = {span for span in spans(README + ARCHITECTURE) if re.fullmatch(r"[A-Z][A-Z_]{3,}", span)}
    sources = "".join(path.read_text() for path in (ROOT / "node").rglob("*.py"))
    variables = {word for word in loud if word.startswith("AYNI_")}
    assert len(variables) >= 3
    assert {word for word in variables if f'"{word}"' not in sources} == set()
    assert len(loud - variables) >= 15
    assert loud - variables - set(Code.__members__) == set()


def test_settings_are_those_of_a_node() -> None:
    examples = blocks(README, "toml config")
    assert len(examples) >= 3
    for example in examples:
        parse(example, Config, "README.md")
    tables = {field.name: field for field in fields(Config)}
    # "`key = value` under `[table]`" in a sentence.
    pattern = r"`(\w+)(?: = [^`]*)?` under `\[(\w+)\]`"
    named = re.findall(pattern, " ".join(prose(README + ARCHITECTURE).split()))
    assert len(named) >= 3
    for key, table in named:
        assert key in {field.name for field in fields(tables[table].type)}, (table, key)


def test_a_model_of_your_own_is_one(tmp_path: Path) -> None:
    (example,) = blocks(README, "toml models")
    own = tmp_path / "models.toml"
    own.write_text(example)
    assert load_catalogue(own).find("my-model").files[0].role == "weights"


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of a table whose first line says so."""
    lines = text[text.index(header) :].splitlines()
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_every_state_of_a_wallet_has_its_row() -> None:
    states = [row[0].strip("`") for row in rows(README, "| state | what has happened |")]
    assert len(states) == len(set(states))
    assert set(states) == set(get_args(Trouble)) - {""}


def test_the_numbers_of_witnesses_are_the_rules() -> None:
    table = rows(README, "| witnesses | must seal a payment |")
    assert len(table) == 4
    for witnesses, seals, faulty in table:
        for count in map(int, re.findall(r"\d+", witnesses)):
            faulty_max, needed = quorum(count)
            assert seals == ("all of them" if needed == count else str(needed))
            assert faulty == (str(faulty_max) if faulty_max else "none")


def test_every_code_that_a_person_may_meet_has_its_row() -> None:
    # What a provider, a witness or the own node may say at the end of `ayni ask`, `wallet send`
    # or `ledger verify`; the rest is between programs.
    told = {
        code for row in rows(README, "| code | what it means |") for code in SPAN.findall(row[0])
    }
    ledger = list(Code)[list(Code).index(Code.LINK_BROKEN) :]
    assert set(ledger) - told == {Code.BAD_PROOF}
    assert {Code.UNPAID, Code.RECEIPT_DISPUTED, Code.BAD_SIGNATURE} <= told


def test_parameters_are_those_of_the_api() -> None:
    listed = README.partition("<!-- parameters -->")[2].partition("<!-- /parameters -->")[0]
    assert set(SPAN.findall(listed)) == set(chat_request._TAKEN)


# The tour of the README, as a newcomer types it, on a testnet with a tiny model.


class Newcomer(NamedTuple):
    """Somebody with an empty home directory who types what the README says."""

    home: Path
    variables: dict[str, str]

    def types(self, script: str) -> str:
        """Run a block of shell; variables that it sets are there for the next one."""
        kept = self.home / "environment"
        script = f"set -euo pipefail\n{script}\nenv -0 > {shlex.quote(str(kept))}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.variables,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        entries = [entry for entry in kept.read_text().split("\0") if entry]
        self.variables.clear()
        self.variables.update(entry.split("=", 1) for entry in entries)
        return done.stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    home = tmp_path_factory.mktemp("newcomer")
    folder = home / "ayni-testnet"
    folder.mkdir()
    weights = home / "tiny.gguf"
    weights.write_bytes(tiny_gguf(1))
    (example,) = blocks(README, "toml models")
    for place in prepare(folder, None):
        paths = find_paths(place.folder)
        config = read_file(paths.config_file, Config)
        # A model of a second's work, so that the tour is quick; all else is as it comes.
        config = replace(
            config,
            share=replace(config.share, models=("my-model",)),
            worker=WorkerSettings(idle_priority=False, threads=1),
        )
        write(paths.config_file, config)
        paths.models_file.write_text(example.replace("~/models/my-model.gguf", str(weights)))
    own = {name: value for name, value in os.environ.items() if not name.startswith("AYNI_")}
    own |= {"HOME": str(home), "PATH": f"{BIN}{os.pathsep}{own['PATH']}"}
    own["AYNI_MODELS_DIR"] = str(home / "models")
    someone = Newcomer(home, own)
    yield someone
    left = [one.pid for one in run.status(folder) if one.pid is not None]
    for pid in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


def wait_for_providers(someone: Newcomer) -> None:
    """The README says that it takes a few seconds."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while someone.types("ayni peers --json").count('"slots_free":1') < 2:
        assert time.monotonic() < deadline, "no model was loaded in time"
        time.sleep(0.1)


def test_the_first_ten_minutes(newcomer: Newcomer) -> None:
    start, look, ask, lists, scripts, money, check, end = blocks(README, "sh tour")
    assert newcomer.types(start).count("process") == 4
    assert "oca" in newcomer.types(look)
    wait_for_providers(newcomer)
    assert newcomer.types(ask).strip()
    told = newcomer.types(lists)
    assert "done" in told
    assert "my-model" in told
    assert "FAIL" not in told
    assert '"text":' in newcomer.types(scripts)
    told = newcomer.types(money)
    assert "spendable:" in told
    assert re.search(r"we pay +(maize|potato) .* open ", told)
    assert "back by" in told
    assert "Sent 2.5 credits to oca, 12D3KooW" in told
    assert ": certified." in told
    told = newcomer.types(check)
    assert "from the genesis: 1000 credits" in told
    assert told.count("All holds.") == 2
    assert told.count("4000, which is the supply") == 2
    flipped_is_found(newcomer)
    one_is_started_again(newcomer)
    (curl,) = blocks(README, "sh tour-api")
    assert '"object":"chat.completion"' in newcomer.types(curl)
    (program,) = blocks(README, "python tour-api")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=newcomer.variables,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Stopped 4 nodes." in newcomer.types(end)
    assert "AYNI_HOME" not in newcomer.variables


def flipped_is_found(someone: Newcomer) -> None:
    """Change one byte of the file, says the README, and it tells which entry is wrong."""
    file = someone.home / "ayni-testnet" / "town.export"
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    file.write_bytes(data)
    done = subprocess.run(
        ["ayni", "ledger", "verify", file, "--genesis", file.with_name("network.ayni")],
        env=someone.variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    assert re.search(r"^12D3KooW\w+ seq \d+: [A-Z_]+: |^the file: [A-Z_]+: ", done.stdout, re.M)


def one_is_started_again(someone: Newcomer) -> None:
    """A node that is down comes back, and the others stay as they are."""
    folder = someone.home / "ayni-testnet"
    before = {one.name: one.pid for one in run.status(folder)}
    someone.types("AYNI_HOME=~/ayni-testnet/oca ayni down")
    psutil.Process(before["oca"]).wait(RUN_SECONDS_MAX)
    (again,) = {span for span in spans(README) if span.endswith("testnet up --detach")}
    someone.types(again)
    after = {one.name: one.pid for one in run.status(folder)}
    assert None not in after.values()
    assert {name for name in after if after[name] != before[name]} == {"oca"}
