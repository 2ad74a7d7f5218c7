"""Jobs between mortal nodes: one that asks, the provider that it prefers, and a dearer second."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from node.channels import policy
from node.jobs.around import Surroundings
from node.jobs.attempt import Job
from node.jobs.inference import Served
from node.jobs.provider import Provider
from node.jobs.requester import Requester
from node.jobs.scripted import Script, ScriptedInference
from node.market.choice import Market
from node.market.desk import Desk
from node.network.quota import Quotas
from node.sharing import Sharing
from node.storage.bills import BillStore
from node.storage.channels import VoucherStore
from node.storage.jobs import JobRecord, Role
from protocol.capacity import ModelOffer
from protocol.identity import Identity, Seed, digest
from protocol.ids import JobId, MessageId, ModelId, NodeId, node_text
from protocol.job.kinds import MODEL_GENERATES
from protocol.job.requester_actions import Candidate, Finished
from protocol.job.sampling import Sampling
from protocol.job.terms import Message, Prompt
from protocol.messages import JOB_PROTOCOL
from tests.recovery.job_wire import Seen, Wire
from tests.recovery.mortal_life import check_chains, settled_down
from tests.recovery.mortal_world import PAYEE, START, Doom, Home, World, open_world, until

SECOND: Final = Identity(Seed(bytes([3]) * 32))
MODEL: Final = ModelId(digest(b"a model"))
SERVED: Final = Served(MODEL, "scripted", "cpu-f32/gguf", 2048, 4, 400_000, 20_000, MODEL_GENERATES)
PRICE_IN: Final = 500_000
PRICES_OUT: Final = {PAYEE.node: 2_000_000, SECOND.node: 3_000_000}
TOKENS: Final = 14
SCRIPT: Final = Script([(number, f"w{number} ") for number in range(TOKENS)], 0.1, 0.06)
CHUNK_COST: Final = 1_000
"""So high that whoever pays for these jobs stays a stranger."""
LIMITS: Final = policy.Limits(idle_ms=10**12, settle_above=10**12, settle_percent=10**9)
NOWHERE: Final = Path("nowhere") / "paused"
QUIET_SECONDS: Final = 8.0
"""Longer than anybody waits for a last word or for the disk."""

Plan = Mapping[str, Doom]
"""Where each of "payer", "payee" and "second" dies."""


class History:
    """A history that nobody reads."""

    async def put(self, record: JobRecord) -> None:
        """Forget it."""


@dataclass
class Jobs:
    """Made by `open_jobs`. What the nodes of a world do for one another."""

    world: World
    second: Home
    wire: Wire
    requesters: dict[NodeId, Requester] = field(default_factory=dict)
    numbers: int = 0
    spare: defaultdict[MessageId, int] = field(default_factory=lambda: defaultdict(int))
    """Of each channel: what is paid at most for what is not known to have come."""

    def named(self, name: str) -> Home:
        """Of those that can be in a plan."""
        return self.second if name == "second" else self.world.named(name)

    @property
    def providers(self) -> tuple[Home, Home]:
        return self.world.payee, self.second

    def put_into(self, home: Home, quotas: Quotas) -> None:
        """A new process asks for jobs, or serves them."""
        network, channels = home.network, home.channels
        around = Surroundings(
            home.identity, self.world.charter.network, network, quotas, History(),
            self.world.chance.randbytes, home.wall_ms,
        )  # fmt: skip
        bills = BillStore(home.database)
        if home.node in PRICES_OUT:
            price_out = PRICES_OUT[home.node]
            inference = ScriptedInference([SERVED], lambda task: SCRIPT)
            offer = ModelOffer(
                MODEL, SERVED.name, SERVED.kind, SERVED.mode, SERVED.context_tokens, PRICE_IN,
                price_out, SERVED.prefill_millitokens_per_second,
                SERVED.decode_millitokens_per_second, SERVED.slots, SERVED.slots,
            )  # fmt: skip
            desk = Desk(Sharing(enabled=True, pause_file=NOWHERE), lambda: [offer])
            provider = Provider(around, desk, inference, channels.payee, bills)
            network.serve(JOB_PROTOCOL, provider.serve)
            return

        async def connect(node: NodeId) -> None:
            await network.connect(f"/memory/x/p2p/{node_text(node)}")

        market = Market(dict, lambda _: False)
        self.requesters[home.node] = Requester(around, market, connect, channels.payer, bills)

    async def ask(self) -> Finished | None:
        """A job, of the payer as it lives now; None where it died with it."""
        self.numbers += 1
        payer, end = self.world.payer, None
        with trio.CancelScope() as scope:
            payer.ends_with_it.append(scope)
            async with self.requesters[payer.node].ask(_job(self.numbers)) as told:
                async for one in told:
                    end = one if isinstance(one, Finished) else None
        return end

    async def whole(self) -> None:
        """Until all are back, and nothing of the last job is left to say or to write."""
        await self.back()
        await trio.sleep(QUIET_SECONDS)

    async def back(self) -> None:
        """Until all live."""
        homes = self.world.homes.values()
        await until(lambda: all(home.is_whole for home in homes), "all nodes are back")

    async def lived(self, plan: Plan) -> None:
        """A job in which nodes die, and the next one, which goes well."""
        before = {home.node: (home.deaths, home.channels.payee.lost) for home in self.providers}
        known, payer_deaths = set(self.wire.orders), self.world.payer.deaths
        for name, doom in plan.items():
            self.named(name).doom = doom
        end = await self.ask()
        await self.whole()
        for name in plan:
            self.named(name).doom = None
        await self.back()
        assert end is not None or self.world.payer.deaths > payer_deaths
        orders = [one for one in self.wire.orders.values() if one.id not in known]
        for home in self.providers:
            await self._check_provider(home, orders, *before[home.node])
        await self.goes_well()

    async def goes_well(self) -> None:
        """A job with which nothing is wrong."""
        end = await self.ask()
        await self.whole()
        assert not self.wire.wrongs, self.wire.wrongs
        assert end is not None
        assert (end.reason, end.output_tokens) == ("stop", TOKENS), end.failures
        await self._check_paid(end)

    async def _check_provider(self, home: Home, orders: list[Seen], deaths: int, lost: int) -> None:
        """What is delivered is paid, or booked as lost where the provider has lived."""
        held = {book.facts.id: book.held for book in home.channels.payee.books}
        vouchers = await VoucherStore(home.database).vouchers()
        on_disk = {one.channel: one.cumulative for one in vouchers}
        assert on_disk == {channel: total for channel, total in held.items() if total}
        for channel, total in held.items():
            assert total <= self.wire.signed[channel], "nobody has what was not signed"
            assert total >= self.wire.counted.get(channel, 0), "what was counted stays"
            self.wire.counted[channel] = total
        if home.deaths > deaths:
            # What it delivered it has forgotten; vouchers for that which it did not keep come as
            # part of the next one.
            for own in self.world.payer.channels.payer.own:
                if own.facts.payee == home.node:
                    kept = held.get(own.facts.id, 0)
                    self.spare[own.facts.id] = max(0, (own.signed or 0) - kept)
            return
        unpaid = 0
        for order in [one for one in orders if one.payee == home.node]:
            bill = await BillStore(home.database).bill_of(Role.PROVIDER, order.id)
            amount, left = (0, 0) if bill is None else (bill.amount, bill.lost)
            # The chunk in which the requester died closes with what went out of it.
            out = order.previewed * PRICES_OUT[home.node]
            most = -(-(order.tokens_in * PRICE_IN + out) // 1_000_000) if order.previewed else 0
            assert amount in (order.delivered, most), (amount, order)
            paid = order.paid(held.get(order.channel, 0), amount)
            # What was paid ahead for prompts of which nothing came counts for what comes later.
            spare = self.spare[order.channel]
            assert 0 <= amount - paid - left <= spare, (left, amount, paid, spare, held, order)
            self.spare[order.channel] += max(0, order.ahead - amount) - (amount - paid - left)
            unpaid += left
        assert home.channels.payee.lost - lost == unpaid, "what nobody paid is booked as lost"
        losses = await VoucherStore(home.database).losses()
        assert sum(loss.amount for loss in losses) == sum(
            book.window.lost for book in home.channels.payee.books
        ), "and written down"

    async def _check_paid(self, end: Finished) -> None:
        """A job that went well is paid to the last microcredit, and has both receipts."""
        order = list(self.wire.orders.values())[-1]
        home = self.world.homes[order.payee]
        held = {book.facts.id: book.held for book in home.channels.payee.books}[order.channel]
        assert order.delivered == end.cost == order.paid(held, end.cost)
        assert order.receipts == [order.payee, order.payer]
        bills = [
            await BillStore(one.database).bill_of(role, order.id)
            for role, one in ((Role.PROVIDER, home), (Role.REQUESTER, self.world.payer))
        ]
        assert [(one.amount, one.paid, one.countersigned) for one in bills if one] == [
            (end.cost, end.cost, True)
        ] * 2

    async def settled(self) -> None:
        """All channels are settled and claimed: each provider has what its vouchers say."""
        payer = self.world.payer
        best: dict[MessageId, int] = {}
        for home in self.providers:
            for voucher in await VoucherStore(home.database).vouchers():
                best[voucher.channel] = voucher.cumulative
        for own in payer.channels.payer.own:
            await payer.channels.settle(own.facts.id)
        await until(lambda: all(one.is_claimed for one in payer.ledger.channels()), "the rests")
        for home in self.providers:
            facts = home.ledger.channels
            await until(lambda facts=facts: all(one.is_claimed for one in facts()), "the shares")
        await settled_down(self.world)
        values = {one.id: one.settled or 0 for one in payer.ledger.channels()}
        for channel, total in best.items():
            assert values[channel] == total, "a provider gets what its highest voucher says"
        for channel, total in values.items():
            assert total <= self.wire.signed[channel], "nobody has what was not signed"
            assert total >= self.wire.counted.get(channel, 0), "what was counted is paid"
        shares = [
            sum(one.settled or 0 for one in home.ledger.channels()) for home in self.providers
        ]
        starts = (START, 0)
        for home, start, share in zip(self.providers, starts, shares, strict=True):
            assert home.ledger.standing().balance == start + share
        assert payer.ledger.standing().balance == START - sum(shares)
        assert sum(shares) == sum(values.values())
        await check_chains(self.world)


@asynccontextmanager
async def open_jobs() -> AsyncIterator[Jobs]:
    """A world with a second provider, in which channels are opened and topped up as in life."""
    async with open_world() as world:
        second = Home(world, SECOND)
        jobs = Jobs(world, second, Wire(world))
        world.homes[SECOND.node] = second
        world.hear = jobs.wire.hear
        for home in (world.payer, *jobs.providers):
            home.limits, home.chunk_cost, home.also = LIMITS, CHUNK_COST, jobs.put_into
            home.die()
            if home is not second:
                await home.gone()
            await home.up()
        await settled_down(world)
        await jobs.goes_well()
        yield jobs


def _job(number: int) -> Job:
    """One that the cheaper provider gets first."""
    return Job(
        id=JobId(digest(number.to_bytes(8, "big"))[:16]),
        candidates=[Candidate(node, MODEL, PRICE_IN, price) for node, price in PRICES_OUT.items()],
        modes=(),
        prompt=Prompt((Message("user", "Why is the sky blue?"),), "", ()),
        stop=(),
        sampling=Sampling(),
        output_tokens_max=100,
        time_ms_max=60_000,
        cost_max=10_000,
        user_seed=None,
        model_names={MODEL: SERVED.name},
    )
