"""A node that was away: what it costs to take over what others certified meanwhile.

    .venv/bin/python scripts/bench_ledger_catchup.py [--entries 100000] [--peers 3] [--json]

Peers are processes on loopback that hold the same chains; the node is a process with identity,
network, database and ledger. Told are its processor seconds, its memory, and how long a view for
people takes meanwhile. Its database's size for a million entries stands beside it, whole and pruned
to checkpoints.
"""

import argparse
import json
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio
from bench_ledger_node import milliseconds, nobody, say, wall_ms
from bench_ledger_verify import raw_rate
from bench_ledger_world import (
    NO_REFERENCE,
    Chain,
    certified_of,
    charter_of,
    identity_of,
    seed_of,
    witnesses,
)
from bench_net import machine

from node.ledger import audit
from node.ledger.service import Settings, Surroundings, open_ledger
from node.network.base import Stream
from node.network.framing import FrameStream
from node.network.libp2p import open_network
from node.network.quota import Quotas
from node.storage.checkpoints import CheckpointStore
from node.storage.database import open_database
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.certificate import Certified, seals_ordered
from protocol.ledger.checkpoint import Checkpointed, checkpoint_seal, checkpoint_signed
from protocol.ledger.entry import PAY, Claim, Pay, Source
from protocol.ledger.sync import (
    LEDGER_PROTOCOL,
    Accounts,
    Answer,
    Ask,
    AskAccounts,
    AskHeads,
    AskProofs,
    AskRange,
    Entries,
    Proofs,
    ask_decoded,
    entries_page,
    message_encoded,
)

ENTRIES, PEERS, ACCOUNTS = 100_000, 3, 50
CLAIM_SOURCES = 16
GOAL_SECONDS = 60  # Of processor, for a hundred thousand entries.
LOOK_SECONDS = 0.1
MILLION = 1_000_000


def accounts_of() -> list[Identity]:
    return [identity_of("account", number) for number in range(ACCOUNTS)]


def chains_of(entries: int) -> dict[NodeId, list[Certified]]:
    """Each account pays the next one, which claims sixteen pays at a time."""
    identities = accounts_of()
    rules, sealers = charter_of(identities), witnesses()
    chains = [Chain(identity, rules) for identity in identities]
    found: list[list[Certified]] = [[] for _ in chains]
    owed: list[list[Source]] = [[] for _ in chains]
    for number in range(entries):
        which = number % ACCOUNTS
        if len(owed[which]) >= CLAIM_SOURCES:
            signed = chains[which].signed(Claim(tuple(owed[which][:CLAIM_SOURCES])))
            del owed[which][:CLAIM_SOURCES]
        else:
            other = (which + 1) % ACCOUNTS
            signed = chains[which].signed(Pay(identities[other].node, 1, NO_REFERENCE))
            owed[other].append(Source(PAY, signed.id, 1))
        found[which].append(certified_of(signed, sealers, rules))
    return {one.node: chain for one, chain in zip(identities, found, strict=True) if chain}


class Library:
    """Answers about chains that it has in memory."""

    def __init__(self, chains: dict[NodeId, list[Certified]]) -> None:
        self._chains = chains

    async def handle(self, stream: Stream) -> None:
        frames = FrameStream(stream)
        while (data := await frames.receive()) is not None:
            await frames.send(message_encoded(self._answer(ask_decoded(data))))

    def _answer(self, ask: Ask) -> Answer:
        match ask:
            case AskAccounts(after):
                return Accounts(tuple(one for one in sorted(self._chains) if one > after))
            case AskHeads(accounts):
                return Entries(
                    tuple(self._chains[one][-1] for one in accounts if one in self._chains)
                )
            case AskRange(account, first, limit):
                chain = self._chains.get(account, [])
                return entries_page(chain[first - 1 : first - 1 + limit])
            case AskProofs():
                return Proofs(())
            case _:
                return Entries(())


async def peer(number: int, entries: int) -> None:
    library = Library(chains_of(entries))
    async with open_network(seed_of("library", number), ["/ip4/127.0.0.1/tcp/0"]) as network:
        network.serve(LEDGER_PROTOCOL, library.handle)
        say(address=network.addresses[0])
        await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


async def newcomer(folder: Path, addresses: Sequence[str], entries: int, pace: int) -> None:
    seed, quotas = seed_of("newcomer", 0), Quotas()
    rules, file = charter_of(accounts_of()), folder / "ayni.db"
    views: list[float] = []
    async with open_database(file) as database, open_network(seed, [], quotas) as network:
        around = Surroundings(network, quotas, database, nobody, secrets.token_bytes, wall_ms)
        settings = Settings(audit=audit.Settings(round_seconds=1, entries_per_second=pace))
        ledger = await open_ledger(rules, Identity(seed), around, settings)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            began, spent = time.perf_counter(), time.process_time()
            for address in addresses:
                await network.connect(address)
            while ledger.audited.entries < entries:
                looked = time.perf_counter()
                await ledger.views.history(20)
                views.append(time.perf_counter() - looked)
                await trio.sleep(LOOK_SECONDS)
            seconds, spent = time.perf_counter() - began, time.process_time() - spent
            figures = ledger.audited
            nursery.cancel_scope.cancel()
        whole = await database.read(_live_bytes)
        store = CheckpointStore(database, rules, network.node)
        await _pruned(store, rules)
        kept = await database.read(_live_bytes)
    say(
        seconds=seconds,
        processor_seconds=spent,
        faults=sum(figures.faults.values()),
        pages_at_once=figures.pages_at_once,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        view_ms=milliseconds(views),
        database_bytes=whole,
        pruned_bytes=kept,
    )


def _live_bytes(connection: Any) -> int:
    """What the database would have after a VACUUM: its pages without the free ones."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


async def _pruned(store: CheckpointStore, rules: Any) -> None:
    """Every chain to a checkpoint, sealed here by the witnesses' own keys."""
    for account in await store.due(1, ACCOUNTS):
        checkpoint = await store.statement(account.account, account.seq)
        signed = [checkpoint_signed(one, checkpoint, rules) for one in witnesses()]
        seals = [checkpoint_seal(one, checkpoint, rules) for one in signed]
        ordered = seals_ordered(seals, rules)
        assert ordered is not None
        await store.keep(Checkpointed(checkpoint, ordered))
        after = await store.prune(account.account, 0)
        while after:
            after = await store.prune(account.account, after)


def figures_of(folder: Path, entries: int, peers: int, pace: int) -> dict[str, Any]:
    """One run, with real processes."""
    script = [sys.executable, __file__, "--entries", str(entries), "--pace", str(pace)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    libraries = [
        subprocess.Popen([*script, "--peer", str(number)], **pipes) for number in range(peers)
    ]
    try:
        told = [json.loads(library.stdout.readline()) for library in libraries]
        command = [*script, "--newcomer", str(folder), *(one["address"] for one in told)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        run = json.loads(done.stdout.splitlines()[-1])
    finally:
        for library in libraries:
            library.kill()
            with suppress(OSError):
                library.communicate(timeout=10)
    scale = MILLION / entries
    return {
        "machine": machine(),
        "raw_per_second": round(raw_rate()),
        "entries": entries,
        "peers": peers,
        **run,
        "processor_seconds_for_100000": round(run["processor_seconds"] * 100_000 / entries, 1),
        "million_bytes": round(run["database_bytes"] * scale),
        "million_pruned_bytes": round(run["pruned_bytes"] * scale),
    }


def lines_of(figures: dict[str, Any]) -> list[str]:
    """For people."""
    views = figures["view_ms"]
    return [
        json.dumps(figures["machine"]),
        f"{figures['entries']} entries from {figures['peers']} peers: "
        f"{figures['processor_seconds']:.1f} s of processor ({figures['seconds']:.1f} s passed; "
        f"raw {figures['raw_per_second']} verifications/s); for 100,000 entries "
        f"{figures['processor_seconds_for_100000']} s (goal: {GOAL_SECONDS}); "
        f"{figures['pages_at_once']} pages held at once, {figures['memory_bytes'] >> 20} MiB",
        f"a view meanwhile: p50 {views['p50']} ms, p99 {views['p99']} ms",
        f"disk for 1,000,000 entries: {figures['million_bytes'] / 1e6:.0f} MB whole, "
        f"{figures['million_pruned_bytes'] / 1e6:.0f} MB pruned to checkpoints",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--peers", type=int, default=PEERS)
    parser.add_argument("--pace", type=int, default=audit.Settings().entries_per_second)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--newcomer", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peer is not None:
        trio.run(peer, chosen.peer, chosen.entries)
    elif chosen.newcomer:
        folder, *addresses = chosen.newcomer
        trio.run(newcomer, Path(folder), addresses, chosen.entries, chosen.pace)
    else:
        with tempfile.TemporaryDirectory(prefix="ayni-bench-") as folder:
            figures = figures_of(Path(folder), chosen.entries, chosen.peers, chosen.pace)
        print(json.dumps(figures) if chosen.json else "\n".join(lines_of(figures)))


if __name__ == "__main__":
    main()
