"""Our worker process as a program under load: the real one, over its pipe, without a daemon."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from bench_engine_load import CONTEXT_TOKENS, MIN_P, SLOTS, TEMPERATURE, TOP_K, TOP_P
from bench_engine_process import favour

from node.jobs.worker_process import open_process, worker_command
from node.worker import pipe
from protocol.ids import ModelId
from protocol.job.sampling import Sampling
from protocol.units import MILLION

MODEL: Final = ModelId(bytes(32))  # The worker takes any name for the one model that it has here.
READ_BYTES: Final = 64 << 10
# Ends of text of SmolLM2: so unlikely by this that each answer has the length that was asked for.
NEVER_TOKENS: Final = (0, 1, 2)
SAMPLING: Final = Sampling(
    temperature_millionths=round(TEMPERATURE * MILLION),
    top_k=TOP_K,
    top_p_millionths=round(TOP_P * MILLION),
    min_p_millionths=round(MIN_P * MILLION),
    bias=tuple((token, -100 * MILLION) for token in NEVER_TOKENS),
)


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What it loads and how it runs."""

    weights: Path
    threads: int
    packed_path: str = ""
    engine: str = "auto"
    favoured: bool = False


def start_message(plan: WorkerPlan) -> pipe.Start:
    return pipe.Start(
        threads=plan.threads,
        idle_priority=False,
        device="cpu",
        compute="auto",
        engine=plan.engine,
        readable=[path for path in (str(plan.weights), plan.packed_path) if path],
    )


def load_message(plan: WorkerPlan) -> pipe.Load:
    return pipe.Load(
        model=MODEL,
        name="bench",
        files=[pipe.File("weights", plan.weights.name, str(plan.weights))],
        packed_path=plan.packed_path,
        chat_template="",
        slots=SLOTS,
        context_tokens_max=CONTEXT_TOKENS,
        memory_bytes_max=0,
        public_prefixes=[],
    )


class BareWorker:
    """Implements bench_engine_load.Answerer."""

    def __init__(self, process: trio.Process) -> None:
        self.pid = process.pid
        self.began = trio.current_time()
        self.ready_seconds = 0.0
        self.loaded_seconds = 0.0
        self.loaded: pipe.Loaded | None = None
        self._process = process
        self._frames = pipe.Frames()
        self._heard: list[bytes] = []
        self._sending = trio.Lock()  # One message after another: tasks begin side by side.
        self._numbers = 0
        self._tasks: dict[int, trio.MemorySendChannel[pipe.FromWorker]] = {}

    async def start(self, plan: WorkerPlan) -> None:
        """Until the model is there."""
        await self._send(pipe.Start(plan.threads, False, "cpu", "auto", plan.engine, ["/"]))
        await self._send(load_message(plan))
        while self.loaded is None:
            match await self._hear():
                case pipe.Ready():
                    self.ready_seconds = trio.current_time() - self.began
                case pipe.Loaded() as loaded:
                    self.loaded = loaded
                case pipe.LoadFailed(sentence=sentence):
                    raise SystemExit(sentence)
        self.loaded_seconds = trio.current_time() - self.began

    async def listen(self) -> None:
        """Hands every message to the task that it is for, until cancelled."""
        while True:
            message = await self._hear()
            task = self._tasks.get(getattr(message, "task", 0))
            if task is not None:
                await task.send(message)

    async def answer(self, prompt: str, tokens: int) -> Sequence[float]:
        self._numbers += 1
        number = self._numbers
        send, receive = trio.open_memory_channel[pipe.FromWorker](tokens + 4)
        self._tasks[number] = send
        await self._send(
            pipe.Add(
                task=number,
                model=MODEL,
                requester=b"",
                messages=[],
                text=prompt,
                stop=[],
                sampling=SAMPLING,
                seed=number.to_bytes(32, "big"),
                first_t=0,
                prefix_ids=[],
                output_tokens_max=tokens,
            )
        )
        times: list[float] = []
        async for message in receive:
            match message:
                case pipe.Progress(ids=ids):
                    times += [trio.current_time()] * len(ids)
                case pipe.Failed(sentence=sentence):
                    raise SystemExit(sentence)
                case pipe.Ended():
                    break
        del self._tasks[number]
        await self._send(pipe.Forget(number))
        if len(times) != tokens:
            raise SystemExit(f"The worker gave {len(times)} tokens of {tokens}.")
        return times

    async def _send(self, message: pipe.ToWorker) -> None:
        assert self._process.stdin is not None
        async with self._sending:
            await self._process.stdin.send_all(pipe.frame(message))

    async def _hear(self) -> pipe.FromWorker:
        assert self._process.stdout is not None
        while not self._heard:
            data = await self._process.stdout.receive_some(READ_BYTES)
            if not data:
                assert self._process.stderr is not None
                said = (await self._process.stderr.receive_some(READ_BYTES)).decode()
                raise SystemExit(f"{said}The worker ended with {await self._process.wait()}.")
            self._heard += self._frames.feed(data)
        return pipe.from_worker(self._heard.pop(0))


@asynccontextmanager
async def open_worker(plan: WorkerPlan) -> AsyncIterator[BareWorker]:
    """Its model is loaded; on leaving it has ended."""
    async with open_process(worker_command()) as process, trio.open_nursery() as nursery:
        worker = BareWorker(process)
        await worker.start(plan)
        if plan.favoured:  # Only now: at first it is in the session of this program.
            favour(process.pid)
        nursery.start_soon(worker.listen)
        try:
            yield worker
        finally:
            nursery.cancel_scope.cancel()
