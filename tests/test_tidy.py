"""Checks on the code itself, after TigerBeetle's tidy.zig: sizes, banned names, dead files."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOPS = ("protocol", "node", "configs")
FILES = sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 6

BANNED_EVERYWHERE = {
    r"\bpickle\b": "protocol.codec",
    r"\bassert .* and ": "two asserts",
    r"\b(TODO|FIXME|XXX)\b": "an issue",
    r"#\s*type: ignore(?!\[)": "type: ignore[code]",
    r"#\s*noqa(?!: [A-Z])": "noqa: CODE",
}
BANNED_IN_PROTOCOL = {
    r"\bfloat\b": "protocol.units",
    r"\basync \b": "a machine that returns actions",
    r"\bdict\[str, Any\]": "a Struct",
}
# A path of the machine that a file was written on, or the host of a package registry, is true for
# nobody else. Written so that the patterns do not match themselves.
BANNED_IN_TEXT = {
    r"(?<![\w.~-])/(root|work|opt/(wheels|pypi\S*))(/|\b)": "a path relative to the checkout",
    r"/(home|Users)/[a-z]\w*/": "~ or a path relative to the checkout",
    r"p[y]pi\.(org|python)|p[y]thonhosted|download\.p[y]torch": "pip's own configuration",
}
CATCHES_EVERYTHING = {"node/supervise.py", "node/network/hardening.py"}
PRINTS = ("node/cli/", "node/__main__.py", "node/worker/engine/kernels/build.py")
# Loaded by name: the CLI's verbs when they are called, and what `python -m` starts.
LOADED_BY_NAME = re.compile(
    r"(^|\.)__(init|main)__$|^node\.cli\.|^node\.(models\.hub_fetch|worker\.pack)$"
)
# Fakes are product code that only tests use yet; the simulator will.
FAKES = {
    "node.api.scripted",
    "node.channels.scripted",
    "node.jobs.scripted",
    "node.ledger.scripted",
    "node.network.memory",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def texts() -> list[Path]:
    """Every text file that is, or could be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def caught(handler: ast.ExceptHandler) -> set[str]:
    """The names that an except clause catches; a bare one catches BaseException."""
    if handler.type is None:
        return {"BaseException"}
    return {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}


def reraises(handler: ast.ExceptHandler, file: ast.AST) -> bool:
    """Whether what was caught goes on: by `raise`, or kept under a name that is raised later."""
    kept = {
        target.id
        for node in ast.walk(handler)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)
        if node.value.id == handler.name
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    here = [node for node in ast.walk(handler) if isinstance(node, ast.Raise)]
    later = [node.exc for node in ast.walk(file) if isinstance(node, ast.Raise)]
    return any(node.exc is None for node in here) or any(
        isinstance(raised, ast.Name) and raised.id in kept for raised in later
    )


def breaches(text: str, banned: dict[str, str]) -> list[str]:
    """Each banned thing in a text: its line and what to write in its place."""
    return [
        f"line {number}: use {instead}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, instead in banned.items()
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize("path", FILES + SCRIPTS, ids=name_of)
def test_file_is_small_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= FILE_LINES_MAX
    assert ast.get_docstring(tree), "a module says in one line what it is for"
    for function in functions(tree):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < FUNCTION_LINES_MAX, function.name
        arguments = function.args
        # What is named at each call does not count: nobody has to remember its place.
        assert len(arguments.posonlyargs + arguments.args) <= PARAMETERS_MAX, function.name


@pytest.mark.parametrize("path", FILES + SCRIPTS, ids=name_of)
def test_file_has_nothing_banned(path: Path) -> None:
    banned = dict(BANNED_EVERYWHERE)
    if path.is_relative_to(ROOT / "protocol") and path.name != "commitment.py":
        banned |= BANNED_IN_PROTOCOL  # Hidden rows are the one place where numbers are no integers.
    assert breaches(path.read_text(), banned) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_supervisors_catch_everything(path: Path) -> None:
    file = ast.parse(path.read_text())
    for node in ast.walk(file):
        if not isinstance(node, ast.ExceptHandler):
            continue
        names = caught(node)
        if "Exception" in names:
            assert name_of(path) in CATCHES_EVERYTHING, f"line {node.lineno}: name what is expected"
        if "BaseException" in names:
            assert reraises(node, file), f"line {node.lineno}: raise it again, or a cancel is lost"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_terminal_is_printed_to(path: Path) -> None:
    if name_of(path).startswith(PRINTS):
        return
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == [], "log it, or return it to the caller"


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=name_of)
def test_init_holds_a_docstring_and_nothing_else(path: Path) -> None:
    assert len(ast.parse(path.read_text()).body) == 1


def test_every_folder_of_code_is_a_package() -> None:
    assert {path.parent for path in FILES} == {p.parent for p in FILES if p.name == "__init__.py"}


def test_no_text_names_this_machine_or_a_registry() -> None:
    found = {name_of(path): breaches(path.read_text(), BANNED_IN_TEXT) for path in texts()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_no_dead_file() -> None:
    imported: set[str] = set()
    for path in FILES + SCRIPTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
            elif isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES}
    roots = {module for module in modules if LOADED_BY_NAME.search(module)}
    assert modules - roots - FAKES - imported == set()


@pytest.mark.parametrize(
    ("text", "banned"),
    [
        ("import pickle", BANNED_EVERYWHERE),
        ("assert a and b", BANNED_EVERYWHERE),
        ("x = 1  # type: ignore", BANNED_EVERYWHERE),
        ("price: float", BANNED_IN_PROTOCOL),
        ("see /ro" + "ot/notes", BANNED_IN_TEXT),
        ("in /ho" + "me/ana/ayni", BANNED_IN_TEXT),
        ("from files.python" + "hosted.org", BANNED_IN_TEXT),
    ],
)
def test_the_bans_bite(text: str, banned: dict[str, str]) -> None:
    assert len(breaches(text, banned)) == 1


@pytest.mark.parametrize(
    ("code", "names", "goes_on"),
    [
        ("try: ...\nexcept (OSError, Exception): ...", {"OSError", "Exception"}, False),
        ("try: ...\nexcept: raise", {"BaseException"}, True),
        ("try: ...\nexcept BaseException as e: kept = e\nraise kept", {"BaseException"}, True),
        ("try: ...\nexcept BaseException as e: kept = e", {"BaseException"}, False),
        ("try: ...\nexcept BaseException as e: raise OSError from e", {"BaseException"}, False),
    ],
)
def test_what_is_caught_is_seen_in_any_form(code: str, names: set[str], goes_on: bool) -> None:
    file = ast.parse(code)
    handlers = [node for node in ast.walk(file) if isinstance(node, ast.ExceptHandler)]
    assert [caught(handler) for handler in handlers] == [names]
    assert [reraises(handler, file) for handler in handlers] == [goes_on]
