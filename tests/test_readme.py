"""README.md and ARCHITECTURE.md are true: commands run, names exist, links lead somewhere."""

import ast
import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import psutil
import pytest
from msgspec.structs import fields, replace

from node.api import chat_request
from node.cli.main import ayni
from node.config import Config, WorkerSettings, find_paths, parse, read_file, write
from node.models.catalogue import load_catalogue
from node.network.hardening import GUARDS
from node.testnet import run
from node.testnet.plan import prepare
from protocol.errors import Code
from protocol.job import provider, requester
from tests.tiny_model import tiny_gguf

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
READY_SECONDS_MAX = 60
RUN_SECONDS_MAX = 120


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks whose first line says so, such as "sh tour"; "sh" is all of shell."""
    return [
        body for said, body in FENCE.findall(text) if said == kind or said.startswith(kind + " ")
    ]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands between backticks, outside of blocks."""
    return SPAN.findall(prose(text))


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
        assert given or rest, f"no verb in {words}"
        if not rest:
            return
        name, chosen, rest = command.resolve_command(context, rest)
        assert chosen is not None
        command, words, parent = chosen, [name or "", *rest], context
    command.make_context(words[0], list(words[1:]), parent=parent).close()


SHELL = sorted({tuple(words) for body in blocks(README, "sh") for words in commands(body)})


@pytest.mark.parametrize("words", SHELL, ids=" ".join)
def test_a_command_exists(words: tuple[str, ...], tmp_path: Path) -> None:
    program, *arguments = words
    match program:
        case "ayni":
            with contextlib.chdir(tmp_path):
                for name in arguments:
                    if name.endswith(".ayni"):  # Made by an earlier command of the text.
                        Path(name).touch()
                understood(list(words))
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
    start, look, ask, lists, scripts, end = blocks(README, "sh tour")
    assert newcomer.types(start).count("process") == 4
    assert "oca" in newcomer.types(look)
    wait_for_providers(newcomer)
    assert newcomer.types(ask).strip()
    told = newcomer.types(lists)
    assert "done" in told
    assert "my-model" in told
    assert "FAIL" not in told
    assert '"text":' in newcomer.types(scripts)
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


# ARCHITECTURE.md.


def mapped() -> Iterator[tuple[str, str]]:
    """Each path of the map with what is said of it; a folder ends in a slash."""
    (text,) = blocks(ARCHITECTURE, "map")
    folders: list[str] = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        prefix = "".join(folders)
        words = line.split()
        if words[0].endswith("/"):
            folders.append(words[0])
            yield prefix + words[0], line
            continue
        for word in words if all(word.endswith(".py") for word in words) else words[:1]:
            yield prefix + word, line


def modules(top: str) -> set[str]:
    paths = (ROOT / top).rglob("*.py")
    return {path.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py"}


def test_the_map_names_what_is_there() -> None:
    paths = [path for path, _ in mapped()]
    assert len(set(paths)) == len(paths)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    there = modules("node") | modules("protocol")
    packages = {f"{path.rpartition('/')[0]}/" for path in there}
    shallow = {path for path in there if path.count("/") == 1}
    assert (packages | shallow) - set(paths) == set(), "give it a line in ARCHITECTURE.md"


def resolves(dotted: str) -> bool:
    """Whether a name such as node.app.run.run_node is there; read, not imported."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            scope: ast.AST = ast.parse(path.with_suffix(".py").read_text())
            break
        if path.is_dir():
            return length == len(parts)
    else:
        return False
    for name in parts[length:]:
        found = [node for node in ast.iter_child_nodes(scope) if name in names_of(node)]
        if not found:
            return False
        scope = found[0]
    return True


def names_of(node: ast.AST) -> set[str]:
    """The names that a statement gives to something."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def test_what_the_pages_name_exists() -> None:
    tops = ("node", "protocol", "tests", "scripts", "configs", "lock")
    found = spans(README + ARCHITECTURE)
    paths = {span for span in found if re.match(rf"({'|'.join(tops)})/[\w./-]*$", span)}
    dotted = {span for span in found if re.match(r"(node|protocol)\.[\w.]+$", span)}
    assert len(paths) >= 30
    assert len(dotted) >= 40
    # What the seams name for later issues stands in brackets among the floors.
    later = {f"node/{name}" for name in re.findall(r"\((\w+)\)", blocks(ARCHITECTURE, "layers")[0])}
    assert {path for path in paths - later if not (ROOT / path).exists()} == set()
    assert {name for name in dotted if not name.endswith(".db") and not resolves(name)} == set(
        {"node.key"} & dotted  # The file of that name.
    )


def test_the_floors_are_those_that_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {one["name"]: one for one in settings["tool"]["importlinter"]["contracts"]}
    assert blocks(ARCHITECTURE, "layers")[0].splitlines() == contracts["floors"]["layers"]


def test_every_guard_has_its_row() -> None:
    rows = re.findall(r"^\| (F\d+) \|", ARCHITECTURE, re.MULTILINE)
    assert rows == sorted(GUARDS, key=lambda guard: int(guard[1:]))


@pytest.mark.parametrize(
    ("kind", "states"), [("provider", provider.State), ("requester", requester.State)]
)
def test_a_diagram_has_every_state(
    kind: str, states: type[provider.State] | type[requester.State]
) -> None:
    (diagram,) = blocks(ARCHITECTURE, f"states {kind}")
    drawn = set(re.findall(r"\b[A-Z]{4,}\b", diagram))
    assert drawn == set(states.__members__)
