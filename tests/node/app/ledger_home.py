"""Anna's real ledger with its backend, alone in a memory world, her disk in a folder."""

import os
from contextlib import asynccontextmanager

import trio

from node.api.ledger_backend import Payment
from node.api.ledger_shown import Showing
from node.app.ledger_backend import OwnLedgerBackend
from node.channels.own import Around
from node.channels.policy import Limits
from node.channels.service import open_channels
from node.ledger.service import Surroundings, open_ledger
from node.network.base import NetworkError
from node.network.memory import MemoryWorld
from node.network.quota import Quotas
from node.storage.channels import VoucherStore
from node.storage.database import open_database
from node.storage.ledger import LedgerStore
from protocol.ledger.charter import charter
from protocol.ledger.genesis import genesis_made
from tests.protocol.ledger.chains import ANNA, BRUNO

GENESIS_ALONE = genesis_made("alone", bytes(16), {ANNA.node: 100, BRUNO.node: 40}, {ANNA.node})
ALONE = charter(GENESIS_ALONE)
"""A network whose only witness is Anna."""
NAMES = {ANNA.node: "anna", BRUNO.node: "bruno"}
SECONDS_MAX = 20


def wall_ms():
    return 1_700_000_000_000


class Open:
    """Anna's ledger with its backend, channels and store."""

    def __init__(self, backend, ledger, channels, store):
        self.backend, self.ledger, self.channels, self.store = backend, ledger, channels, store

    async def send(self, amount, to=BRUNO, reference=bytes(32), wait_ms=SECONDS_MAX * 1000):
        return await self.backend.send(
            Payment(to=to.node, amount_microcredits=amount, reference=reference, wait_ms=wait_ms)
        )


async def nobody(node):
    await trio.lowlevel.checkpoint()
    raise NetworkError("Nobody is there.")


@asynccontextmanager
async def opened(tmp_path, rules, who=ANNA):
    """Anna, or another, alone in the world, the disk in `tmp_path`."""
    async with (
        MemoryWorld().open_network(who.node) as network,
        open_database(tmp_path / "ayni.db") as database,
    ):
        around = Surroundings(network, Quotas(), database, nobody, os.urandom, wall_ms)
        ledger = await open_ledger(rules, who, around)
        channels = await open_channels(
            Around(who, rules, ledger, wall_ms, Limits()), VoucherStore(database), lambda: 32
        )
        showing = Showing(rules, lambda node: NAMES.get(node, ""))
        backend = OwnLedgerBackend(ledger, channels, showing, who.node, tmp_path)
        with trio.fail_after(SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                await nursery.start(ledger.run)
                yield Open(backend, ledger, channels, LedgerStore(database, rules))
                nursery.cancel_scope.cancel()
