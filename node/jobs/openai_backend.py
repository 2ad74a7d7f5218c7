"""Jobs done by a server of the OpenAI API on this machine, such as vLLM, llama.cpp's or Ollama."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import trio

from node.jobs.inference import Begun, EmbedTask, Ended, Event, Inference, Served, Task, Tokens
from node.jobs.openai_http import OK, call, place_of
from node.jobs.openai_pace import Pace, Timing, probe
from node.jobs.openai_request import Call, call_of, prompt_tokens, refusal
from node.jobs.openai_server import ServerSettings, listed
from node.jobs.openai_stream import Closed, Counted, EventStream, Said, Stopped, broken
from node.supervise import BackOff, background
from node.telemetry.logs import Log
from protocol.errors import Code, LocalError
from protocol.ids import ModelId
from protocol.job.commitment import prompt_ids_digest
from protocol.job.unverifiable import TOKEN_UNNAMED, UNVERIFIABLE
from protocol.limits import MODEL_NAME_BYTES_MAX

MODE: Final = f"{UNVERIFIABLE}openai"
_EVENTS_MAX: Final = 16  # Between the server and a slow requester; then the server waits.

_log = Log("backend")


@dataclass(frozen=True, slots=True)
class _Taken:
    """The server has taken the call."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the server may take, in seconds."""

    begin: float = 4  # Then a job counts as begun, without a word: a requester waits ten.
    silence: float = 300  # A long prompt takes a small machine so long.
    probe: float = 120  # To load a model and answer a first question.
    look: float = 30  # From one look at what it has to the next.
    back_off: BackOff = field(default_factory=BackOff)


class OpenAiBackend(Inference):
    """One server. `run` must run beside the jobs: it finds out what the server has, offers those
    of the wanted models that answer, and none while the server is down."""

    def __init__(
        self,
        settings: ServerSettings,
        changed: Callable[[], None] = lambda: None,
        patience: Patience | None = None,
    ) -> None:
        """`changed` is called whenever `served` or the free slots are others."""
        self._settings = settings
        self._changed = changed
        self._patience = Patience() if patience is None else patience
        self._place = place_of(settings.url)
        self._key = ""
        self._paces: dict[ModelId, Pace] = {}
        self._proven: set[ModelId] = set()  # Models that have answered since they last failed.
        self._up: frozenset[ModelId] = frozenset()
        self._running = 0
        self._look_now = trio.Event()
        self.fault = ""
        """Why a model that is wanted is not offered now; "" when all are."""

    # As Inference.
    @property
    def served(self) -> Sequence[Served]:
        return [self._served(model) for model in self._settings.models if model in self._up]

    def slots_free(self, model: ModelId) -> int:
        return max(0, self._settings.slots - self._running) if model in self._up else 0

    def generate(self, task: Task) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return self._generate(task)

    def embed(self, task: EmbedTask) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        raise LocalError(
            Code.MODEL_NOT_SERVED, "The server behind this model is asked for no vectors here."
        )

    def _served(self, model: ModelId) -> Served:
        wanted, pace = self._settings.models[model], self._paces.get(model, Pace())
        return Served(
            model=model,
            name=wanted.serve_as,
            mode=MODE,
            context_tokens=wanted.context_tokens,
            slots=self._settings.slots,
            prefill_millitokens_per_second=pace.prefill_millitokens_per_second,
            decode_millitokens_per_second=pace.decode_millitokens_per_second,
        )

    @asynccontextmanager
    async def _generate(self, task: Task) -> AsyncIterator[AsyncIterator[Event]]:
        if task.model not in self._up:
            raise LocalError(
                Code.MODEL_NOT_SERVED,
                # A stranger reads this: what else the owner's server lacks is not for them.
                "The server behind this model does not offer it now: try again soon.",
                retry_ms=5_000,
            )
        if self.slots_free(task.model) < 1:
            raise LocalError(
                Code.BUSY, "The server is given no more jobs now: try again soon.", retry_ms=1_000
            )
        asked = call_of(task, self._settings.models[task.model].name, self._settings.takes)
        give, take = trio.open_memory_channel[Event | LocalError](_EVENTS_MAX)
        self._count(1)
        try:
            # Leaving this cancels the call, which closes the connection: so the server knows.
            async with (
                background(partial(self._carry, task, asked, give)),
                aclosing(self._events(task, take)) as events,
            ):
                yield events
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._running += change
        self._changed()

    async def _events(
        self, task: Task, take: trio.MemoryReceiveChannel[Event | LocalError]
    ) -> AsyncGenerator[Event, None]:
        """What the requester hears. The server may be reading the prompt for long before it says
        anything; what is counted of a prompt is known before that."""
        waiting: Event | LocalError | None = None
        with trio.move_on_after(self._patience.begin):
            waiting = await take.receive()
        if isinstance(waiting, LocalError):
            raise waiting
        yield Begun(prompt_tokens(task), prompt_ids_digest(()))
        async for event in take:
            if isinstance(event, LocalError):
                raise event
            if not isinstance(event, Begun):
                yield event

    async def _carry(
        self,
        task: Task,
        asked: Call,
        give: trio.MemorySendChannel[Event | LocalError],
    ) -> None:
        """One call from its first byte to its last, into `give`; never raises a fault."""
        tokens = 0
        with give:
            try:
                async with aclosing(self._stream(task.model, asked)) as said:
                    async for one in said:
                        if isinstance(one, Said) and tokens == task.output_tokens_max:
                            one = Stopped("length")  # The server does not keep to the limit.
                        match one:
                            case Said(text):
                                tokens += 1
                                await give.send(Tokens((TOKEN_UNNAMED,), text))
                            case Stopped(reason):
                                await give.send(Ended(reason))
                                return
                            case _Taken():
                                await give.send(Begun(0, b""))
            except LocalError as error:
                self._doubt(task.model, error)
                await give.send(error)

    def _doubt(self, model: ModelId, error: LocalError) -> None:
        """After a failure that is not the request's own a model has to prove itself anew."""
        if error.code not in (Code.BAD_REQUEST, Code.BUSY):
            self._proven.discard(model)
            self._look_now.set()

    async def _stream(
        self, model: ModelId, asked: Call
    ) -> AsyncGenerator[_Taken | Said | Stopped, None]:
        """Its words, once it has taken the call, and then why they ended.

        Raises LocalError: those of `refusal`, WORKER_FAILED.
        """
        timing, stream = Timing(trio.current_time()), EventStream()
        stopped: Stopped | None = None
        body = msgspec.json.encode(asked.body)
        async with call(self._place, asked.path, self._key, body, self._patience.silence) as reply:
            if reply.status != OK:
                raise refusal(reply.status)
            yield _Taken()
            closed = False
            while not closed and (data := await reply.read()):
                for event in stream.feed(data):
                    timing.hear(event, trio.current_time())
                    match event:
                        case Said():
                            yield event
                        case Stopped():
                            stopped = event
                        case Closed():
                            stopped, closed = stopped or Stopped("stop"), True
                        case Counted():
                            pass
        if stopped is None:
            raise broken("ended its answer without saying so")
        self._paces[model] = self._paces.get(model, Pace()).after(timing)
        yield stopped

    # What the server has.
    async def run(self) -> None:
        """Look at the server again and again, until cancelled."""
        patience, back_off = self._patience, self._patience.back_off
        wait: float | None = None
        try:
            while True:
                self._key = await self._settings.api_key()
                if await self._look():
                    wait = None
                    self._look_now = trio.Event()
                    with trio.move_on_after(patience.look):
                        await self._look_now.wait()
                else:
                    wait = back_off.next(wait, 0)
                    await trio.sleep(wait)
        finally:
            self._offer(frozenset(), "")

    async def _look(self) -> bool:
        """Find out which models answer, and offer them. False where none does."""
        try:
            names = await listed(self._place, self._key)
        except LocalError as error:
            self._offer(frozenset(), error.sentence)
            return False
        found: set[ModelId] = set()
        faults: list[str] = []
        for model, wanted in self._settings.models.items():
            if not wanted.is_among(names):
                has = ", ".join(name[:MODEL_NAME_BYTES_MAX] for name in sorted(names)[:8]) or "none"
                faults.append(f"{self._settings.url} has no model {wanted.name!r}; it has {has}.")
            elif model in self._proven or await self._probed(model, faults):
                found.add(model)
        self._offer(frozenset(found), " ".join(faults))
        return bool(found)

    async def _probed(self, model: ModelId, faults: list[str]) -> bool:
        """Ask it a first question: whether it answers, and how fast. A server may load it now."""
        asked = call_of(probe(model), self._settings.models[model].name, ())
        name = self._settings.models[model].name
        try:
            with trio.fail_after(self._patience.probe):
                async with aclosing(self._stream(model, asked)) as said:
                    async for _ in said:
                        pass
        except trio.TooSlowError:
            faults.append(f"The model {name!r} gave no first answer in time.")
            return False
        except LocalError as error:
            faults.append(f"The model {name!r} gave no first answer: {error.sentence}")
            return False
        self._proven.add(model)
        return True

    def _offer(self, up: frozenset[ModelId], fault: str) -> None:
        if fault and fault != self.fault:
            _log.warning("backend.lacks", url=self._settings.url, why=fault)
        if up != self._up:
            names = " ".join(self._settings.models[model].serve_as for model in up)
            _log.info("backend.offers", url=self._settings.url, models=names)
        self.fault, self._up = fault, up
        self._changed()
