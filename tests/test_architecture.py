"""ARCHITECTURE.md is true: the map, the floors, the names, the tables and the diagrams."""

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest

from node.network.hardening import GUARDS
from protocol.job import provider, requester
from tests.pages import ARCHITECTURE, README, ROOT, blocks, spans

BRACKETED = re.compile(r"\((\w+)\)")


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
    later = {f"node/{name}" for name in BRACKETED.findall(blocks(ARCHITECTURE, "layers")[0])}
    assert {path for path in paths - later if not (ROOT / path).exists()} == set()
    assert {name for name in dotted if not name.endswith(".db") and not resolves(name)} == set(
        {"node.key"} & dotted  # The file of that name.
    )


def test_the_floors_are_those_that_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {one["name"]: one for one in settings["tool"]["importlinter"]["contracts"]}
    (floors,) = blocks(ARCHITECTURE, "layers")
    checked = "\n".join(contracts["floors"]["layers"])
    assert BRACKETED.sub(r"\1", floors).splitlines() == BRACKETED.sub(r"\1", checked).splitlines()
    # In the contract brackets make a folder optional; on the page they say that it is not there.
    missing = {name for name in re.findall(r"\w+", floors) if not resolves(f"node.{name}")}
    assert missing == set(BRACKETED.findall(floors))


def test_every_step_that_is_on_disk_has_its_row() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "node").rglob("*.py"))
    told = set(re.findall(r"steps\(\"([\w.]+)\"\)", sources))
    tables = ARCHITECTURE.partition("## Who signs what")[2].partition("\n## ")[0]
    shown = {name for row in tables.splitlines() for name in re.findall(r"`(\w+\.\w+)` \|$", row)}
    assert len(told) >= 7
    assert shown == told


def test_every_guard_has_its_row() -> None:
    guards = re.findall(r"^\| (F\d+) \|", ARCHITECTURE, re.MULTILINE)
    assert guards == sorted(GUARDS, key=lambda guard: int(guard[1:]))


@pytest.mark.parametrize(
    ("kind", "states"), [("provider", provider.State), ("requester", requester.State)]
)
def test_a_diagram_has_every_state(
    kind: str, states: type[provider.State] | type[requester.State]
) -> None:
    (diagram,) = blocks(ARCHITECTURE, f"states {kind}")
    drawn = set(re.findall(r"\b[A-Z]{4,}\b", diagram))
    assert drawn == set(states.__members__)
