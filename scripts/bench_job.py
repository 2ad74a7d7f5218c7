"""The whole path of a job against the bare worker, in one run on this machine.

    .venv/bin/python scripts/bench_job.py [--model smollm2-135m-instruct | tiny] [--json]

The bare worker is `WorkerPool.generate` called in this process; the whole path is this process
-> HTTP -> a requester's daemon -> libp2p -> a provider's daemon -> its worker, all on loopback.
Both get the same prompt, seed and number of tokens, in turns, and the median of each is shown.

The jobs of the whole path are paid by vouchers on a channel. What that adds to the first token is
measured against a second network, of which the provider takes nothing: single jobs in turns.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import trio
from bench_idle import idle_figures, idle_lines
from bench_net import ROOT, machine, open_net
from msgspec.structs import replace

from node.app.own_models import model_files
from node.config import Config, ShareSettings, find_paths
from node.config import WorkerSettings as DaemonWorkerSettings
from node.jobs.inference import Task, Tokens
from node.jobs.pool import PoolSettings, WorkerPool, open_pool
from node.jobs.worker_settings import WorkerSettings
from node.keystore import read_api_key
from node.models.cache import ModelCache, ReadyModel
from node.models.catalogue import Catalogue, load_catalogue
from protocol.job.sampling import Sampling
from protocol.job.seed import USER, order_seed, share_of_user_seed

PROMPT = "Write a long story about a llama that crosses the Andes to bring salt to the coast."
STREAMS = (1, 2, 8)
SLOTS = 8
TEMPERATURE_MILLIONTHS = 800_000
READY_SECONDS_MAX = 300
RATIO_GOAL = 0.97
ADDED_MS_GOAL = 30
PAID_TOKENS = 8  # Of the answers whose first word alone is timed.

TINY_CATALOGUE = """
[[models]]
name = "tiny"
licence = "Apache-2.0"
context_tokens = 8192
files = [{{ role = "weights", name = "{name}", sources = [{{ path = '{path}' }}] }}]
"""


@dataclass(frozen=True)
class Answer:
    """When its first and last words came, in seconds after it was asked for."""

    first: float
    last: float
    tokens: int
    text: str

    @property
    def rate(self) -> float:
        """Tokens a second after the first one, whose time is the prompt's."""
        return (self.tokens - 1) / (self.last - self.first)


Ask = Callable[[int], Awaitable[Answer]]
"""One answer for a seed."""


async def answer_of(pieces: AsyncIterator[tuple[str, int]]) -> Answer:
    """From (text, tokens) as they come."""
    began = trio.current_time()
    times: list[float] = []
    texts: list[str] = []
    tokens = 0
    async for text, count in pieces:
        if text:
            times.append(trio.current_time() - began)
        texts.append(text)
        tokens += count
    return Answer(times[0], times[-1], tokens, "".join(texts))


async def ask_worker(pool: WorkerPool, ready: ReadyModel, tokens: int, seed: int) -> Answer:
    """The bare worker's."""
    task = Task(
        model=ready.model,
        messages=[("user", PROMPT)],
        text="",
        stop=(),
        sampling=Sampling(temperature_millionths=TEMPERATURE_MILLIONTHS),
        seed=order_seed(USER, share_of_user_seed(seed), b"", b""),
        first_t=0,
        prefix_ids=(),
        output_tokens_max=tokens,
    )

    async def pieces() -> AsyncIterator[tuple[str, int]]:
        async with pool.generate(task) as events:
            async for event in events:
                if isinstance(event, Tokens):
                    yield event.text, len(event.ids)

    return await answer_of(pieces())


async def ask_network(client: httpx.AsyncClient, model: str, tokens: int, seed: int) -> Answer:
    """The whole path's."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "seed": seed,
        "temperature": TEMPERATURE_MILLIONTHS / 1_000_000,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    async def pieces() -> AsyncIterator[tuple[str, int]]:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise SystemExit((await response.aread()).decode())
            rest = b""
            async for data in response.aiter_bytes():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        continue
                    chunk = json.loads(event.removeprefix(b"data: "))
                    if "error" in chunk:
                        raise SystemExit(chunk["error"]["message"])
                    text = "".join(one["delta"].get("content") or "" for one in chunk["choices"])
                    yield text, (chunk.get("usage") or {}).get("completion_tokens", 0)

    return await answer_of(pieces())


async def at_once(ask: Ask, streams: int) -> list[Answer]:
    """One answer for each of the seeds 1, 2, ..., all asked for at the same time."""
    answers: dict[int, Answer] = {}

    async def run(seed: int) -> None:
        answers[seed] = await ask(seed)

    async with trio.open_nursery() as nursery:
        for seed in range(1, streams + 1):
            nursery.start_soon(run, seed)
    return [answers[seed] for seed in sorted(answers)]


@dataclass(frozen=True)
class Round:
    """One turn of one side."""

    rate: float  # Tokens a second of all streams together.
    first_ms: float  # Of the median stream.
    tokens: int
    texts: tuple[str, ...]


async def one_round(ask: Ask, streams: int) -> Round:
    answers = await at_once(ask, streams)
    return Round(
        rate=sum(answer.rate for answer in answers),
        first_ms=1000 * statistics.median(answer.first for answer in answers),
        tokens=sum(answer.tokens for answer in answers),
        texts=tuple(answer.text for answer in answers),
    )


@dataclass(frozen=True)
class Sides:
    """What is compared, and the daemons of the whole path."""

    bare: Ask
    whole: Ask
    daemons: dict[str, psutil.Process]

    def processor_seconds(self) -> dict[str, float]:
        """Of the daemons, and of this process, which plays the person's program."""
        spent = {name: sum(daemon.cpu_times()[:2]) for name, daemon in self.daemons.items()}
        return {**spent, "client": time.process_time()}


async def compare(sides: Sides, streams: int, rounds: int) -> dict[str, Any]:
    """Both sides in turns."""
    bare, whole = [], []
    spent = dict.fromkeys(sides.processor_seconds(), 0.0)
    for _ in range(rounds):
        bare.append(await one_round(sides.bare, streams))
        before = sides.processor_seconds()
        whole.append(await one_round(sides.whole, streams))
        for name, seconds in sides.processor_seconds().items():
            spent[name] += seconds - before[name]
    tokens = sum(one.tokens for one in whole)
    bare_rate = statistics.median(one.rate for one in bare)
    whole_rate = statistics.median(one.rate for one in whole)
    bare_ms = statistics.median(one.first_ms for one in bare)
    whole_ms = statistics.median(one.first_ms for one in whole)
    return {
        "streams": streams,
        "bare_tokens_per_second": round(bare_rate, 2),
        "whole_tokens_per_second": round(whole_rate, 2),
        "ratio": round(whole_rate / bare_rate, 4),
        "ratios": [round(b.rate / a.rate, 3) for a, b in zip(bare, whole, strict=True)],
        "bare_ms_first": round(bare_ms, 1),
        "whole_ms_first": round(whole_ms, 1),
        "added_ms_first": round(whole_ms - bare_ms, 1),
        "processor_ms_per_token": {
            name: round(1000 * seconds / tokens, 2) for name, seconds in spent.items()
        },
        "same_text": all(a.texts == b.texts for a, b in zip(bare, whole, strict=True)),
    }


async def compare_paid(
    opening: Answer, free: Ask, paid: Ask, rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds to the first token: of the job for which the channel was opened, and of later
    ones, free and paid, in turns; quartiles, since other work of the machine is in both."""
    times: dict[str, list[float]] = {"free": [], "paid": [], "added": []}
    for _ in range(rounds):
        one = 1000 * (await free(1)).first
        other = 1000 * (await paid(1)).first
        times["free"].append(one)
        times["paid"].append(other)
        times["added"].append(other - one)
    figures = {name: _quartiles(each) for name, each in times.items()}
    return {"opening": {"ms": round(1000 * opening.first, 1)}, **figures}


def _quartiles(times: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(times, n=4)
    return {"low": round(low, 1), "median": round(middle, 1), "high": round(high, 1)}


async def ready_model(catalogue: Catalogue, name: str) -> ReadyModel:
    paths = find_paths()
    return await ModelCache(paths.models_folder, Path()).get(catalogue.find(name))


async def wait_for_offer(client: httpx.AsyncClient) -> None:
    deadline = trio.current_time() + READY_SECONDS_MAX
    while True:
        if any(peer["offers"] for peer in (await client.get("/ayni/v1/peers")).json()):
            return
        if trio.current_time() > deadline:
            raise SystemExit("The provider was not ready in time.")
        await trio.sleep(0.2)


@asynccontextmanager
async def open_asker(node: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a node that asks, once somebody offers it a model."""
    key = read_api_key(find_paths(Path(node["home"])).api_key_file)
    async with httpx.AsyncClient(
        base_url=node["url"],
        headers={"authorization": f"Bearer {key}"},
        timeout=600,
        trust_env=False,
    ) as client:
        await wait_for_offer(client)
        yield client


async def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model, tokens = chosen.model, chosen.tokens
    models = tiny_catalogue(folder) if model == "tiny" else ""
    own = folder / "models.toml"
    own.write_text(models, encoding="utf-8")
    ready = await ready_model(load_catalogue(own), model)
    settings = Config(
        share=ShareSettings(models=(model,), slots=SLOTS),
        worker=DaemonWorkerSettings(idle_priority=not chosen.normal_priority),
    )
    worker = WorkerSettings(idle_priority=settings.worker.idle_priority, slots=SLOTS)
    files = [model_files(ready, folder / "packed", 0)]
    with open_net(2, settings, models) as (asker, provider):
        async with open_asker(asker) as client, open_pool(PoolSettings(files, worker)) as pool:
            while not pool.served:
                await pool.wait_changed()
            bare = partial(ask_worker, pool, ready, tokens)
            whole = partial(ask_network, client, model, tokens)
            opening = await ask_network(client, model, tokens, 1)
            for ask in (bare, whole):  # The first answer of each warms up what is lazy.
                await ask(1)
            daemons = {node["name"]: psutil.Process(node["pid"]) for node in (asker, provider)}
            sides = Sides(bare, whole, daemons)
            jobs = [await compare(sides, streams, chosen.rounds) for streams in chosen.streams]
        free = replace(settings, share=replace(settings.share, price_in=0, price_out=0))
        with open_net(2, free, models) as (other, _):
            async with open_asker(asker) as paying, open_asker(other) as unpaying:
                sides_of = [
                    partial(ask_network, client, model, PAID_TOKENS)
                    for client in (unpaying, paying)
                ]
                for ask in sides_of:
                    await ask(1)
                paid = await compare_paid(opening, *sides_of, 4 * chosen.rounds)
    return {"jobs": jobs, "paid_ms_first": paid}


def tiny_catalogue(folder: Path) -> str:
    sys.path.insert(0, str(ROOT))  # The tests are part of the checkout, not of the package.
    from tests.network.testnet import tiny_weights

    weights = tiny_weights(folder / "tiny.gguf")
    return TINY_CATALOGUE.format(name=weights.name, path=weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="or tiny")
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS, help="at once")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer, at most")
    parser.add_argument("--rounds", type=int, default=5, help="of each side; the median counts")
    parser.add_argument(
        "--normal-priority",
        action="store_true",
        help="on a machine with other work: workers that do not yield to it",
    )
    parser.add_argument("--no-idle", action="store_true", help="only the jobs")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine(), "model": chosen.model}
    with tempfile.TemporaryDirectory(prefix="ayni-bench-") as folder:
        figures.update(trio.run(measure, chosen, Path(folder)))
    if not chosen.no_idle:
        figures["idle"] = idle_figures()
    if chosen.json:
        print(json.dumps(figures))
        return
    print(json.dumps(figures["machine"]))
    for job in figures["jobs"]:
        print(
            f"{job['streams']} streams: bare {job['bare_tokens_per_second']} tokens/s, whole path "
            f"{job['whole_tokens_per_second']}: ratio {job['ratio']} (goal: {RATIO_GOAL}; rounds "
            f"{job['ratios']}); to the first token {job['bare_ms_first']} + "
            f"{job['added_ms_first']} ms (goal: {ADDED_MS_GOAL}); "
            f"{job['processor_ms_per_token']} ms of processor a token; "
            f"{'the same text' if job['same_text'] else 'other texts'}"
        )
    paid = figures["paid_ms_first"]
    print(
        f"one job alone, to the first token: free {paid['free']['median']} ms, paid on an open "
        f"channel {paid['paid']['median']} ms: {paid['added']['median']} ms added (quartiles "
        f"{paid['added']['low']} to {paid['added']['high']}); the first of all, with the channel "
        f"to open, {paid['opening']['ms']} ms"
    )
    for line in [] if chosen.no_idle else idle_lines(figures["idle"]):
        print(line)


if __name__ == "__main__":
    main()
