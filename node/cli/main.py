"""The verbs of `ayni`, each loaded only when it is used, so that `ayni --help` is quick."""

from importlib import import_module
from pathlib import Path
from typing import Final

import click

from node.cli.session import HOME_VARIABLE, remember_home

# Verb -> the module that has a command of this name, and what the list of verbs says of it.
_VERBS: Final = {
    "init": ("init", "Make this node's key and configuration."),
    "restore": ("restore", "Bring a node back from the 24 words of its key."),
    "key": ("key_verb", "Show the 24 words of this node's key."),
    "up": ("up", "Run the node, until Ctrl-C or `ayni down`."),
    "down": ("control", "Stop the node: running jobs get a grace time to finish."),
    "status": ("control", "Show what the node is and does."),
    "pause": ("control", "Take no new jobs of others until `ayni resume`."),
    "resume": ("control", "Take jobs of others again."),
    "ask": ("ask", "Ask a model in the network and stream its answer."),
    "embed": ("embed", "Turn texts into vectors, to search and compare them."),
    "peers": ("lists", "List the other nodes, their hardware, models and prices."),
    "jobs": ("lists", "List running and past jobs: counts and money, never text."),
    "models": ("models", "List models: served here, in the network, in the catalogue."),
    "wallet": ("wallet", "Show this node's credits; send some."),
    "ledger": ("ledger", "Verify, export and show who paid whom."),
    "network": ("network", "Create, join, show or hand on a network."),
    "testnet": ("testnet", "Run a whole network on this machine to try things out."),
    "simulate": ("simulate", "Simulate a network with faults, in virtual time."),
    "doctor": ("doctor", "Check this node and say what to do about each lack."),
    "version": ("version", "Show the version."),
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = getattr(import_module(f"node.cli.{_VERBS[cmd_name][0]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without loading any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, said) for verb, (_, said) in _VERBS.items()])


@click.group(
    cls=_Verbs,
    epilog='Example: ayni ask "Why is the sky blue?"',
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="VERB ...",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=HOME_VARIABLE,
    show_envvar=True,
    help="Keep configuration and data in this folder.",
)
@click.pass_context
def ayni(ctx: click.Context, home: Path | None) -> None:
    """Ayni: home machines that run AI for one another.

    `ayni VERB --help` tells more about a verb and gives an example.
    """
    remember_home(ctx, home)
