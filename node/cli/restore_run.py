"""A restored node's first start: until its account is as the network knows it."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import trio
from msgspec.structs import replace

from node.api.ledger_views import Wallet
from node.api.views import Status
from node.app.run import run_node
from node.cli.client import Daemon
from node.cli.session import Session
from node.cli.wallet import show_wallet
from node.cli.words import count_words
from node.config import Config
from node.keystore import home_lock
from node.supervise import background
from node.telemetry.logs import setup
from protocol.errors import Code, LocalError
from protocol.identity import Seed
from protocol.ledger.genesis import NetworkFile

_LOOK_SECONDS: Final = 0.25
_HOPELESS: Final = ("halted", "copied")
"""Troubles that waiting does not end."""


@dataclass(frozen=True, slots=True)
class Restoring:
    """One start of a node that shares nothing and only wants to know what it has."""

    session: Session
    config: Config
    seed: Seed
    network: NetworkFile
    override: bool = field(kw_only=True)

    def until_back(self) -> Wallet:
        """What the network knows of the account, once the node may sign again.

        Raises LocalError: CANCELLED where a person breaks it off, HALTED where the ledger has
        stopped for good, and as `run_node` does.
        """
        paths = self.session.paths
        with home_lock(paths.lock_file), open(os.devnull, "w") as nowhere:
            setup(self.config.log.level, None, paths.log_file, nowhere)
            wallet = trio.run(self._run)
        if not self.session.output.as_json:
            show_wallet(self.session, wallet)
        self.session.output.remark("Next: `ayni up`.")
        return wallet

    async def _run(self) -> Wallet:
        stop, ready = trio.Event(), trio.Event()
        config = replace(self.config, share=replace(self.config.share, enabled=False))
        urls: list[str] = []

        def answers(status: Status) -> None:
            urls.append(status.api_url)
            ready.set()

        async def node() -> None:
            await run_node(self.session.paths, config, self.seed, self.network, answers, stop)

        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with background(lambda: _heed(signals, stop)), trio.open_nursery() as nursery:
                nursery.start_soon(node)
                await ready.wait()
                wallet = await self._follow(stop)
                stop.set()
        if wallet is None:
            raise LocalError(
                Code.CANCELLED,
                "Broken off. The home is made and nothing is lost: `ayni up` goes on asking the "
                "witnesses, and `ayni wallet` shows how far that is.",
            )
        return wallet

    async def _follow(self, stop: trio.Event) -> Wallet | None:
        """Tell what is waited for, until it is over; None when a person breaks it off."""
        daemon = Daemon(self.session.paths)
        try:
            if self.override:
                path, body = "/ayni/v1/ledger/resume", {"override": True}
                await trio.to_thread.run_sync(lambda: daemon.post(path, Wallet, body))
            said = ""
            while not stop.is_set():
                now = await trio.to_thread.run_sync(daemon.get, "/ayni/v1/wallet", Wallet)
                if now.trouble in _HOPELESS:
                    raise LocalError(Code.HALTED, f"{now.sentence} {now.remedy}")
                if now.ready or now.trouble == "unwitnessed":
                    return now
                if (words := waited_for(now)) != said:
                    said = words
                    self.session.output.remark(words)
                with trio.move_on_after(_LOOK_SECONDS):
                    await stop.wait()
            return None
        finally:
            daemon.close()


def waited_for(now: Wallet) -> str:
    """How far a restored account is, in one line."""
    if now.answered < now.witnesses:
        asked = count_words(now.witnesses, "witness", "witnesses")
        return f"Asking the witnesses what this account has: {now.answered} of {asked} answered."
    return f"All witnesses have answered: fetching {count_words(now.seq, 'entry', 'entries')}."


async def _heed(signals: AsyncIterator[int], stop: trio.Event) -> None:
    """A signal ends it, in order."""
    async for _ in signals:
        stop.set()
