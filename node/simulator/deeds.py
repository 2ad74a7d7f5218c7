"""What the owners of simulated nodes do: ask for jobs, send credits, settle channels early."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import trio

from node.jobs.attempt import Job
from node.simulator.machine import Machine
from node.simulator.parts import MODEL, MODEL_NAME, PRICE_IN, PRICE_OUT, Parts
from node.simulator.schedule import Event
from node.simulator.trace import Trace
from protocol.errors import LocalError
from protocol.identity import digest
from protocol.ids import JobId, NodeId
from protocol.job.requester_actions import Candidate, Finished
from protocol.job.sampling import Sampling
from protocol.job.terms import Message, Prompt

JOB_SECONDS_MAX: Final = 600.0
TOKENS_MAX: Final = 60
COST_MAX: Final = 500_000
FAVOURITES: Final = 3  # Providers that a node asks, so that its channels are used again.


class Deeds:
    """Carries out one deed at a time of each event; what cannot be done now is not done."""

    def __init__(self, machines: Sequence[Machine | None], trace: Trace) -> None:
        """By their numbers; None for a node that is no machine."""
        self._machines, self._trace = machines, trace

    def do(self, event: Event) -> None:
        """Have it done by the process of whoever does it, if that is up."""
        machine = self._machines[event.who]
        if machine is not None:
            machine.do(partial(self._do, machine, event))

    async def _do(self, machine: Machine, event: Event) -> None:
        parts = machine.parts
        if parts is None:
            return
        try:
            match event.name:
                case "job":
                    await self._job(machine, parts, event)
                case "pay":
                    await self._pay(parts, event)
                case "settle" | "want":
                    await self._settle(machine, parts, event)
        except* LocalError as refused:
            for error in refused.exceptions:
                code = error.code if isinstance(error, LocalError) else "SEVERAL"
                self._trace.note(f"refused {code}", machine.node)

    async def _pay(self, parts: Parts, event: Event) -> None:
        """Now and then the same payment a second time, as whoever is not sure does."""
        other = self._machines[event.other]
        if other is None:
            return
        reference = digest(event.number.to_bytes(8))
        for _ in range(1 + event.size % 3 // 2):
            await parts.ledger.pay(other.node, event.size % 100_000 + 1, reference)

    async def _job(self, machine: Machine, parts: Parts, event: Event) -> None:
        tokens = 1 + event.size % TOKENS_MAX
        question = Prompt((Message("user", "Why?" * (1 + event.size % 7)),), "", ())
        job = Job(
            id=JobId(digest(b"job", event.number.to_bytes(8))[:16]),
            candidates=[
                Candidate(node, MODEL, PRICE_IN, PRICE_OUT) for node in self._favourites(event)
            ],
            modes=(),
            prompt=question,
            stop=(),
            sampling=Sampling(),
            output_tokens_max=tokens,
            time_ms_max=120_000,
            cost_max=COST_MAX,
            user_seed=None,
            model_names={MODEL: MODEL_NAME},
        )
        with trio.move_on_after(JOB_SECONDS_MAX):
            async with parts.requester.ask(job) as told:
                async for word in told:
                    if isinstance(word, Finished):
                        self._trace.note(f"job {word.reason}", machine.node, job.id)

    def _favourites(self, event: Event) -> Sequence[NodeId]:
        """Two of the few that this node asks."""
        count = len(self._machines)
        near = [(event.who + step) % count for step in range(1, count)]
        known = [one for one in (self._machines[number] for number in near) if one is not None]
        first = event.size % min(FAVOURITES, len(known))
        return [one.node for one in (*known[first : first + 1], *known[:1])]

    async def _settle(self, machine: Machine, parts: Parts, event: Event) -> None:
        """One of its channels, whichever side it is on."""
        channels = [
            facts
            for facts in parts.ledger.channels()
            if facts.settled is None
            and (facts.payee if event.name == "settle" else facts.payer) == machine.node
        ]
        if channels:
            await parts.channels.settle(channels[event.size % len(channels)].id)
