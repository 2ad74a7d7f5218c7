"""`ayni testnet`: a whole network on this machine."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.session import Session, VerbGroup
from node.cli.words import count_words, short_node
from protocol.errors import AyniError

if TYPE_CHECKING:
    import trio

    from node.testnet.run import Running


@click.group(cls=VerbGroup, epilog="Example: ayni testnet up --nodes 4")
def testnet() -> None:
    """Run a whole network on this machine to try things out.

    Its homes are kept in the folder that --home names.
    """


def _folder(session: Session) -> Path:
    return session.home or session.paths.data_folder / "testnet"


@testnet.command(example="ayni testnet up --nodes 4 --detach")
@click.option("--nodes", type=click.IntRange(1), help="How many; as configured, when left out.")
@click.option("--detach", is_flag=True, help="Return when all are up; `testnet down` ends them.")
@click.pass_obj
def up(session: Session, nodes: int | None, detach: bool) -> None:
    """Start a testnet: several real nodes as processes of their own.

    Without --detach they run until Ctrl-C.
    """
    import trio

    trio.run(_up, session, nodes, detach)


async def _up(session: Session, nodes: int | None, detach: bool) -> None:
    import trio

    from node.testnet import run

    folder = _folder(session)
    failure: AyniError | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_once, signals, nursery.cancel_scope)
            try:
                found = await run.up(folder, nodes, session.output.remark)
                _show(session, found)
                session.output.remark(
                    "All witnesses of a testnet are yours, so its credits are play money."
                )
                if not detach:
                    session.output.remark("Ctrl-C stops the testnet.")
                    await _until_cancelled(folder)
            except AyniError as error:
                failure = error  # Out of the nursery it would come within a group.
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_at_once(signals: AsyncIterator[int], scope: "trio.CancelScope") -> None:
    async for _ in signals:
        scope.cancel()


async def _until_cancelled(folder: Path) -> None:
    import trio

    from node.testnet import run

    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await run.down(folder)


@testnet.command(example="ayni testnet down")
@click.pass_obj
def down(session: Session) -> None:
    """Stop every node of the testnet; its homes stay for the next time."""
    import trio

    from node.testnet import run

    stopped = trio.run(run.down, _folder(session))
    if session.output.as_json:
        session.output.json({"stopped": stopped})
    else:
        session.output.line(
            f"Stopped {count_words(stopped, 'node')}." if stopped else "No node was running."
        )


@testnet.command(example="ayni testnet status --json")
@click.pass_obj
def status(session: Session) -> None:
    """Show the nodes of the testnet and how to speak to each."""
    from node.testnet import run

    found = run.status(_folder(session))
    if not found and not session.output.as_json:
        session.output.line("There is no testnet here: `ayni testnet up` makes one.")
        return
    _show(session, found)


def _show(session: Session, found: "list[Running]") -> None:
    if session.output.as_json:
        session.output.json(found)
        return
    rows = [
        (
            one.name,
            short_node(one.node),
            "stopped" if one.pid is None else f"process {one.pid}",
            "shares" if one.shares else "shares nothing",
            one.url or "-",
            f"ayni --home {one.home} status",
        )
        for one in found
    ]
    columns = ("node", "id", "state", "sharing", "API", "speak to it by")
    session.output.table("Testnet", columns, rows)
