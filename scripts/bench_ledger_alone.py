"""One witness without a network: what the ledger itself costs, signatures and disk included."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from bench_ledger_world import (
    NO_REFERENCE,
    PAYEE,
    Chain,
    certified_of,
    charter_of,
    identity_of,
    witnesses,
)

from node.ledger.keeper import Keeper, no_steps
from node.ledger.witness import Desk
from node.storage.database import open_database
from node.storage.ledger import LedgerStore
from protocol.ids import NodeId
from protocol.ledger.certificate import Certified
from protocol.ledger.entry import Pay
from protocol.ledger.settlement import Clock
from protocol.ledger.sync import (
    Accepted,
    Announce,
    Submit,
    Voted,
    answer_decoded,
    ask_decoded,
    message_encoded,
)
from protocol.limits import INSTANCE_BYTES, VOTE_BURST_ENTRIES

AT_ONCE = 64  # Accounts whose entries wait for the disk together.
ENTRIES_PER_ACCOUNT = VOTE_BURST_ENTRIES - 10


async def _asked(desk: Desk, peer: NodeId, ask: Submit | Announce, kind: type) -> None:
    """One question and its answer, each through its bytes."""
    answer = await desk.answer(peer, ask_decoded(message_encoded(ask)))
    answered = answer_decoded(message_encoded(answer))
    assert isinstance(answered, kind), answered


async def _chain(desk: Desk, entries: Sequence[Certified]) -> None:
    for certified in entries:
        peer = certified.entry.signer
        await _asked(desk, peer, Submit(certified.entry, (), (), bytes(INSTANCE_BYTES)), Voted)
        await _asked(desk, peer, Announce(certified), Accepted)


async def _run(folder: Path, entries: int) -> dict[str, Any]:
    numbers = range(-(-entries // ENTRIES_PER_ACCOUNT))
    accounts = [identity_of("account", number) for number in numbers]
    rules, sealers = charter_of(accounts), witnesses()
    chains: list[list[Certified]] = []
    for account in accounts:
        chain = Chain(account, rules)
        signed = [chain.signed(Pay(PAYEE, 1, NO_REFERENCE)) for _ in range(ENTRIES_PER_ACCOUNT)]
        chains.append([certified_of(one, sealers, rules) for one in signed])
    me = sealers[0]
    async with open_database(folder / "alone.db") as database:
        keeper = Keeper(rules, me.node, LedgerStore(database, rules), no_steps)
        desk = Desk(
            me, keeper, lambda: round(trio.current_time() * 1000), lambda: Clock(0, is_trusted=True)
        )
        turns = trio.CapacityLimiter(AT_ONCE)

        async def take(one: Sequence[Certified]) -> None:
            async with turns:
                await _chain(desk, one)

        began, spent = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for one in chains:
                nursery.start_soon(take, one)
        count = sum(len(one) for one in chains)
        seconds, spent = time.perf_counter() - began, time.process_time() - spent
    return {
        "entries": count,
        "certified_per_second": round(count / seconds, 1),
        "processor_ms_per_entry": round(1000 * spent / count, 3),
    }


def alone_figures(folder: Path, entries: int) -> dict[str, Any]:
    """A vote and a certificate for each entry, of 64 accounts at a time."""
    return trio.run(_run, folder, entries)
