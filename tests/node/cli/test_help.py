"""Every verb explains itself with an example, and the way there is short."""

import json
import subprocess
import sys

import click
import pytest

from node.cli.main import _VERBS, ayni
from node.cli.session import Verb


def all_commands(group, words=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*words, name))


COMMANDS = dict(all_commands(ayni))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_has_an_example_of_the_verb(command, words):
    shown = command(*words, "--help")
    assert shown.exit_code == 0
    assert f"Example: ayni {' '.join(words)}" in " ".join(shown.output.split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_verb_has_json_and_home(words):
    found = COMMANDS[words]
    if not isinstance(found, click.Group):
        assert isinstance(found, Verb)
        options = {option for parameter in found.params for option in parameter.opts}
        assert {"--json", "--home"} <= options


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_example_is_a_command_that_exists(words):
    example = COMMANDS[words].epilog.removeprefix("Example: ayni ").split()
    parent = COMMANDS[words]
    if isinstance(parent, click.Group):
        assert tuple(example[:2]) in COMMANDS
    else:
        assert tuple(example[: len(words)]) == words


def test_the_verbs_are_those_of_the_design():
    wanted = "init up down status pause resume ask embed peers jobs models wallet ledger network"
    more = ("testnet", "doctor", "version", "restore", "key", "simulate")
    assert sorted(_VERBS) == sorted([*wanted.split(), *more])


@pytest.mark.parametrize("arguments", [["nothing"], ["peers", "--wrong"], ["jobs", "--limit", "0"]])
def test_misuse_is_status_2(command, arguments):
    assert command(*arguments).exit_code == 2


def test_version_in_both_forms(command):
    told = json.loads(command("version", "--json").stdout)
    assert told["protocol"] == 1
    assert command("version").stdout.startswith(f"ayni {told['ayni']}, protocol 1, Python 3.")


HEAVY = ("torch", "libp2p", "starlette", "hypercorn", "tokenizers", "numpy")


@pytest.mark.parametrize(
    ("load", "unloaded"),
    [
        ("from node.cli.main import ayni; ayni(['--help'])", (*HEAVY, "trio", "httpx", "rich")),
        ("import node.cli.ask, node.cli.control, node.cli.doctor, node.cli.lists", HEAVY),
        ("import node.cli.up, node.cli.testnet, node.cli.network, node.cli.init", HEAVY),
        ("import node.cli.restore, node.cli.key_verb", (*HEAVY, "trio", "httpx")),
        ("import node.cli.wallet, node.cli.ledger, node.cli.doctor", (*HEAVY, "trio")),
    ],
)
def test_what_is_slow_to_import_is_not_on_the_way(load, unloaded):
    program = (
        f"import sys\ntry:\n    {load}\nexcept SystemExit:\n    pass\n"
        f"found = [name for name in {unloaded!r} if name in sys.modules]\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
