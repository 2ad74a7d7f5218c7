"""The processes of the ledger's benchmark: a witness, a payer of many accounts, a probe.

`python scripts/bench_ledger_node.py witness|payer|probe`, with its task as JSON on the first line
of its input. It says in a line of JSON that it is ready, begins at the next line it is given, and
ends with a line of JSON.
"""

import json
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from bench_ledger_world import (
    NO_REFERENCE,
    PAYEE,
    Chain,
    charter_of,
    identity_of,
    seed_of,
    witness_seeds,
)

from node.ledger import audit
from node.ledger.lines import Lines
from node.ledger.service import Settings, Surroundings, open_ledger
from node.network.base import NetworkError
from node.network.libp2p import open_network
from node.network.quota import Quotas
from node.storage.database import open_database
from protocol.envelope import Signed
from protocol.identity import Identity
from protocol.ids import NodeId
from protocol.ledger.certificate import Certified, Seal, certificate_made, seal_of
from protocol.ledger.charter import Charter
from protocol.ledger.entry import Pay
from protocol.ledger.sync import Accepted, Announce, Submit, Voted
from protocol.limits import INSTANCE_BYTES, VOTE_BURST_ENTRIES

ENTRIES_PER_ACCOUNT = VOTE_BURST_ENTRIES - 1  # Then the next account's turn comes.
PAY = Pay(PAYEE, 1, NO_REFERENCE)
INSTANCE = bytes(INSTANCE_BYTES)
WARM_VOTES = 8  # The first ones open the streams.
VOTES_MIN = 20  # Of a probe, however short it is to be.
PROBE_PAUSE_SECONDS = 0.01


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


async def heard() -> str:
    """The next line of our input; empty when whoever started us is done with us."""
    return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


def accounts_of(task: dict[str, Any]) -> list[Identity]:
    """All that the genesis makes rich, in all processes."""
    return [identity_of("account", number) for number in range(task["accounts"])]


def rules_of(task: dict[str, Any]) -> Charter:
    return charter_of(accounts_of(task), task["witnesses"])


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


# The witness: what a node runs for the ledger, and nothing else.


async def nobody(_node: NodeId) -> None:
    """A witness here is asked, and asks nobody."""
    await trio.lowlevel.checkpoint()
    raise NetworkError("This node dials nobody.")


async def witness(task: dict[str, Any]) -> None:
    seed, quotas = witness_seeds(task["witnesses"])[task["number"]], Quotas()
    async with (
        open_database(Path(task["folder"]) / "ayni.db") as database,
        open_network(seed, ["/ip4/127.0.0.1/tcp/0"], quotas) as network,
    ):
        around = Surroundings(network, quotas, database, nobody, secrets.token_bytes, wall_ms)
        settings = Settings(audit=audit.Settings(round_seconds=3600, check_seconds=3600))
        rules = rules_of(task)
        ledger = await open_ledger(rules, Identity(seed), around, settings)
        async with trio.open_nursery() as nursery:
            await nursery.start(ledger.run)
            say(address=network.addresses[0])
            await heard()
            terms = await ledger.views.terms()
            say(entries=terms.entries, refused=dict(ledger.counter.refused))
            nursery.cancel_scope.cancel()


# Those who ask.


@asynccontextmanager
async def connected(seed_role: str, number: int, addresses: Sequence[str]) -> AsyncIterator[Any]:
    """A network of a node of its own, with connections to all witnesses."""
    async with open_network(seed_of(seed_role, number), []) as network:
        for address in addresses:
            await network.connect(address)
        yield network


class Lane:
    """One entry after another, of one account and then the next, to all witnesses."""

    def __init__(self, lines: Lines, rules: Charter, accounts: Sequence[Identity]) -> None:
        self._lines, self._rules = lines, rules
        self._accounts = list(accounts)
        self.certified = 0
        self.vote_seconds: list[float] = []

    async def run(self) -> None:
        """Until all accounts have spent what witnesses take of each at once."""
        for account in self._accounts:
            chain = Chain(account, self._rules)
            for _ in range(ENTRIES_PER_ACCOUNT):
                await self._certify(chain.signed(PAY))
                self.certified += 1
        raise SystemExit("There were too few accounts for so long a run.")

    async def _certify(self, entry: Signed) -> None:
        """Until all witnesses have stored its certificate, which is what the next entry needs."""
        seals: list[Seal] = []
        async with trio.open_nursery() as nursery:
            for node in self._rules.witnesses:
                nursery.start_soon(self._vote, node, entry, seals)
        certificate = certificate_made(entry.id, seals, self._rules)
        assert certificate is not None
        async with trio.open_nursery() as nursery:
            for node in self._rules.witnesses:
                nursery.start_soon(self._announce, node, Certified(entry, certificate))

    async def _vote(self, node: NodeId, entry: Signed, seals: list[Seal]) -> None:
        began = time.perf_counter()
        answer = await self._lines.ask(node, Submit(entry, (), (), INSTANCE))
        self.vote_seconds.append(time.perf_counter() - began)
        if not isinstance(answer, Voted):
            raise SystemExit(f"A witness did not vote: {answer}")
        if len(seals) < self._rules.quorum:
            seals.append(seal_of(answer.vote, entry.id, self._rules))

    async def _announce(self, node: NodeId, certified: Certified) -> None:
        answer = await self._lines.ask(node, Announce(certified))
        if not isinstance(answer, Accepted):
            raise SystemExit(f"A witness did not take a certificate: {answer}")


async def payer(task: dict[str, Any]) -> None:
    """Keeps as many entries on their way as it has hosts times lanes."""
    everyone = accounts_of(task)
    rules, mine = rules_of(task), everyone[task["first"] : task["last"]]
    lanes: list[Lane] = []
    lanes_count = task["hosts"] * task["lanes"]
    async with AsyncExitStack() as stack:
        for host in range(task["hosts"]):
            seed_number = task["number"] * task["hosts"] + host
            network = await stack.enter_async_context(
                connected("payer", seed_number, task["addresses"])
            )
            lines = Lines(network, nobody)  # One stream to each witness, which all lanes share.
            for _ in range(task["lanes"]):
                lanes.append(Lane(lines, rules, mine[len(lanes) :: lanes_count]))
        say(ready=True)
        await heard()
        with trio.move_on_after(task["warm_seconds"] + task["seconds"]):
            async with trio.open_nursery() as nursery:
                for lane in lanes:
                    nursery.start_soon(lane.run)
                await trio.sleep(task["warm_seconds"])
                before, began = sum(lane.certified for lane in lanes), time.perf_counter()
                say(began=True)
                await trio.sleep_forever()
        say(
            certified=sum(lane.certified for lane in lanes) - before,
            in_all=sum(lane.certified for lane in lanes),
            seconds=time.perf_counter() - began,
            vote_ms=milliseconds([s for lane in lanes for s in lane.vote_seconds]),
        )


async def probe(task: dict[str, Any]) -> None:
    """One submit to one witness after another, each the first entry of a new account."""
    everyone = accounts_of(task)
    rules, mine = rules_of(task), everyone[task["first"] : task["last"]]
    taken: list[float] = []
    until = float("inf")
    async with connected("probe", 0, task["addresses"]) as network:
        lines = Lines(network, nobody)
        for number, account in enumerate(mine):
            if number == WARM_VOTES:
                say(ready=True)
                await heard()
                taken.clear()
                until = time.perf_counter() + task["seconds"]
            entry = Chain(account, rules).signed(PAY)
            node = rules.witnesses[number % len(rules.witnesses)]
            began = time.perf_counter()
            answer = await lines.ask(node, Submit(entry, (), (), INSTANCE))
            taken.append(time.perf_counter() - began)
            if not isinstance(answer, Voted):
                raise SystemExit(f"A witness did not vote: {answer}")
            seal_of(answer.vote, entry.id, rules)
            if len(taken) >= VOTES_MIN and time.perf_counter() >= until:
                break
            await trio.sleep(PROBE_PAUSE_SECONDS)
    say(vote_ms=milliseconds(taken))


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """The median, the 99th of a hundred, and how many they are of."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "p50": round(1000 * cuts[49], 2),
        "p99": round(1000 * cuts[98], 2),
        "count": len(seconds),
    }


def main() -> None:
    part = {"witness": witness, "payer": payer, "probe": probe}[sys.argv[1]]
    trio.run(part, json.loads(sys.stdin.readline()))


if __name__ == "__main__":
    main()
