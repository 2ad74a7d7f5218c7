"""A node that kills itself, as a power cut would, right after a step that a test has named.

`python -m tests.network.mortal_node HOME` is `ayni up` but for this: while HOME/die-at holds
"STEP N", the node ends by SIGKILL at the Nth time that it comes by this step from then on.
"""

import os
import signal
import sys
from pathlib import Path

import trio

from node.app.run import run_node
from node.cli.network_file import read_network
from node.config import Config, Paths, load
from node.keystore import home_lock, load_key
from node.telemetry.logs import setup

DIE_AT = "die-at"


class Fate:
    """Implements `node.ledger.keeper.Steps`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def __call__(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        try:
            step, left = self._file.read_text().split()
        except FileNotFoundError:
            return
        if step != name:
            return
        if int(left) > 1:
            self._file.write_text(f"{step} {int(left) - 1}")
            return
        self._file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


async def _serve(paths: Paths, config: Config, fate: Fate) -> None:
    stop = trio.Event()
    seed = load_key(paths.key_file, lambda: b"")
    network = read_network(paths.network_file)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def heed() -> None:
                async for _ in signals:
                    stop.set()

            nursery.start_soon(heed)
            await run_node(paths, config, seed, network, lambda _: None, stop, steps=fate)
            nursery.cancel_scope.cancel()


def main(home: Path) -> None:
    paths, config = load(home)
    setup(config.log.level, None, paths.log_file)
    with home_lock(paths.lock_file):
        trio.run(_serve, paths, config, Fate(home / DIE_AT))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
