"""What counting vouchers costs a provider: checked, durable in groups, then counted.

    .venv/bin/python scripts/bench_vouchers.py [--streams 64] [--seconds 5] [--folder F] [--json]

Many channels pay at once, each one voucher after another as a stream of chunks brings them; all
goes through `node.channels.payee.OwnPayee` and the node's own database. Against raw verification by
PyNaCl on one core, measured before and after, in processor time; wall time stands beside it.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from bench_ledger_disk import disk_figures
from bench_ledger_verify import raw_rate
from bench_ledger_world import charter_of, identity_of
from bench_net import machine

from node.channels.own import Around
from node.channels.payee import OwnPayee, open_payee
from node.channels.policy import Limits
from node.ledger.scripted import ScriptedLedger, ScriptedLedgers
from node.storage.channels import VoucherStore
from node.storage.database import open_database
from protocol.envelope import Signed
from protocol.identity import Identity
from protocol.ids import MessageId
from protocol.ledger.voucher import Voucher, voucher_note, voucher_signed

STREAMS, SECONDS = 64, 5.0
CHUNKS_PER_SECOND = 4  # Of one stream: each chunk brings one voucher.
DEPOSIT_MICROCREDITS = 1_000_000
CHUNK_MICROCREDITS = 7
LIFE_MS = 3 * 86_400_000
WAYS = 1000  # Vouchers of one stream are signed ahead, this many at a time, off the clock.
ORDER_CHUNKS = 32  # Of an order at least: an answer of five hundred tokens.
GOAL = 0.5


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Stream:
    """One payer's channel, and its vouchers in order."""

    def __init__(self, payer: Identity, channel: MessageId, network: Any) -> None:
        self.payer, self.channel, self._network = payer, channel, network
        self._note = voucher_note(channel, 0)
        self.cumulative = 0

    def next(self, count: int) -> Sequence[Signed]:
        signed = []
        for _ in range(count):
            self.cumulative += CHUNK_MICROCREDITS
            voucher = Voucher(self.channel, self.cumulative, self._note, b"")
            signed.append(voucher_signed(self.payer, voucher, self._network))
        return signed


async def _opened(ledgers: ScriptedLedgers, provider: Identity, streams: int) -> list[Stream]:
    """So many channels to the provider, certified at once as the script has it."""
    made = []
    for number in range(streams):
        payer = identity_of("payer", number)
        ledger = ScriptedLedger(ledgers, payer.node)
        await ledger.open_channel(provider.node, DEPOSIT_MICROCREDITS, wall_ms() + LIFE_MS)
        (facts,) = ledger.channels()
        made.append(Stream(payer, facts.id, charter_of([]).network))
    return made


async def _count(payee: OwnPayee, stream: Stream, vouchers: Sequence[Signed]) -> None:
    async with payee.earn(stream.payer.node, stream.channel) as earning:
        for voucher in vouchers:
            await earning.count(voucher)


async def _run(folder: Path, streams: int, seconds: float) -> dict[str, Any]:
    provider = identity_of("provider", 0)
    payers = {identity_of("payer", number).node: 10**9 for number in range(streams)}
    ledgers = ScriptedLedgers({provider.node: 10**9, **payers})
    counted, spent, passed, groups = 0, 0.0, 0.0, 0
    async with open_database(folder / f"vouchers-{streams}.db") as database:
        store = VoucherStore(database)
        own = ScriptedLedger(ledgers, provider.node)
        around = Around(provider, charter_of([]), own, wall_ms, Limits())
        payee = await open_payee(around, store, lambda: CHUNK_MICROCREDITS)
        made = await _opened(ledgers, provider, streams)
        each = max(ORDER_CHUNKS, WAYS // streams)
        while passed < seconds:
            ahead = [(stream, stream.next(each)) for stream in made]
            began, began_spent = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as nursery:
                for stream, vouchers in ahead:
                    nursery.start_soon(_count, payee, stream, vouchers)
            passed += time.perf_counter() - began
            spent += time.process_time() - began_spent
            counted += each * streams
        groups = store.groups
        held = sum(book.held for book in payee.books)
        assert held == sum(stream.cumulative for stream in made), "each was counted"
    return {
        "streams": streams,
        "vouchers": counted,
        "vouchers_per_second": round(counted / passed),
        "per_processor_second": round(counted / spent),
        "vouchers_per_group": round(counted / groups, 1),
    }


def figures_of(folder: Path, streams: Sequence[int], seconds: float) -> dict[str, Any]:
    """Each number of streams, with raw verification measured around it."""
    runs = []
    for count in streams:
        before = raw_rate()
        run = trio.run(_run, folder, count, seconds)
        raw = (before + raw_rate()) / 2
        runs.append(
            {
                **run,
                "raw_per_second": round(raw),
                "ratio": round(run["per_processor_second"] / raw, 3),
                "ratio_of_wall": round(run["vouchers_per_second"] / raw, 3),
                "streams_paid_for": run["vouchers_per_second"] // CHUNKS_PER_SECOND,
            }
        )
    return {"machine": machine(), "disk": disk_figures(folder, seconds / 5), "runs": runs}


def lines_of(figures: dict[str, Any]) -> list[str]:
    """For people."""
    disk = figures["disk"]
    return [
        json.dumps(figures["machine"]),
        f"disk: {disk['database_groups_per_second']} groups of {disk['group']} changes/s",
        *(
            f"{run['streams']} streams: {run['vouchers_per_second']} vouchers/s on disk and "
            f"counted, {run['vouchers_per_group']} for each wait for the disk; "
            f"{run['per_processor_second']} for a second of processor, {run['ratio']} of raw "
            f"({run['raw_per_second']}/s; goal: {GOAL}; by the wall clock {run['ratio_of_wall']}): "
            f"one core is enough to be paid for {run['streams_paid_for']} streams of "
            f"{CHUNKS_PER_SECOND} chunks/s"
            for run in figures["runs"]
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[8, STREAMS, 8 * STREAMS])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else a temporary one")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ayni-bench-", dir=chosen.folder) as folder:
        figures = figures_of(Path(folder), chosen.streams, chosen.seconds)
    print(json.dumps(figures) if chosen.json else "\n".join(lines_of(figures)))


if __name__ == "__main__":
    main()
