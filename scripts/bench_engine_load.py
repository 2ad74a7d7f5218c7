"""A mixed load: requests that come when they come, and how long each waits for its tokens."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

import trio
from bench_engine_figures import percentile

PROMPT_TOKENS: Final = (20, 800)
ANSWER_TOKENS: Final = (10, 300)
CONTEXT_TOKENS: Final = 1536  # Of one slot, on both sides.
SLOTS: Final = 8
SHARE: Final = 0.7  # Of what llama.cpp can do by its own measured rates.
# Each is one token behind a space, to SmolLM2 and to most others: prompts of a known length, all
# of them different, so that no cache of prefixes helps either side.
WORDS: Final = (
    "time", "people", "year", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place",
    "case", "week", "company", "system", "program", "question", "work", "government", "number",
    "night", "point", "home", "water", "room", "mother", "area", "money", "story", "fact", "month",
    "lot", "right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind",
    "head", "house", "service", "friend", "father", "power", "hour", "game", "line", "end",
    "member", "law", "car", "city", "community", "name", "president", "team", "minute", "idea",
    "body", "information", "back",
)  # fmt: skip


# As people chat, by llama.cpp's own defaults: greedy answers of so small a model go in circles, and
# circles are guessed ahead all too easily.
TEMPERATURE: Final = 0.8
TOP_K: Final = 40
TOP_P: Final = 0.95
MIN_P: Final = 0.05


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request."""

    at_seconds: float
    prompt: str
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """When it was asked for, and when each of its tokens came; seconds of trio's clock."""

    asked: float
    times: Sequence[float]


class Answerer(Protocol):
    """A server under load."""

    async def answer(self, prompt: str, tokens: int) -> Sequence[float]:
        """When each token of an answer of exactly so many came, drawn as above."""


def _between(choose: random.Random, bounds: tuple[int, int]) -> int:
    """As many between 20 and 40 as between 400 and 800."""
    low, high = bounds
    return round(math.exp(choose.uniform(math.log(low), math.log(high))))


def plan(seed: int, count: int, per_second: float) -> list[Arrival]:
    """A Poisson process: the gaps are exponential. The same seed gives the same requests, at any
    rate."""
    choose = random.Random(seed)
    arrivals, at = [], 0.0
    for _ in range(count):
        at += choose.expovariate(1.0)
        prompt = " ".join(choose.choices(WORDS, k=_between(choose, PROMPT_TOKENS)))
        arrivals.append(Arrival(at / per_second, prompt, _between(choose, ANSWER_TOKENS)))
    return arrivals


def mean_tokens(bounds: tuple[int, int]) -> float:
    """Of what `plan` chooses between them."""
    low, high = bounds
    return (high - low) / math.log(high / low)


def arrivals_per_second(prefill: float, decode: float) -> float:
    """So many that a server of these rates (tokens a second) is busy for SHARE of its time."""
    seconds = mean_tokens(PROMPT_TOKENS) / prefill + mean_tokens(ANSWER_TOKENS) / decode
    return SHARE / seconds


async def drive(server: Answerer, arrivals: Sequence[Arrival]) -> list[Answer]:
    """Ask for each when its time comes. A request that finds no free slot waits its turn here, and
    that is part of its time."""
    answers: list[Answer] = []
    slots = trio.Semaphore(SLOTS)
    began = trio.current_time()

    async def one(arrival: Arrival) -> None:
        asked = began + arrival.at_seconds
        await trio.sleep_until(asked)
        async with slots:
            answers.append(
                Answer(asked, await server.answer(arrival.prompt, arrival.answer_tokens))
            )

    async with trio.open_nursery() as nursery:
        for arrival in arrivals:
            nursery.start_soon(one, arrival)
    return answers


def load_figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """Milliseconds to the first token and between two, and tokens a second from the first request
    to the last token."""
    first = [1000 * (answer.times[0] - answer.asked) for answer in answers]
    between = [
        1000 * (late - early) for answer in answers for early, late in pairwise(answer.times)
    ]
    tokens = sum(len(answer.times) for answer in answers)
    began = min(answer.asked for answer in answers)
    passed = max(answer.times[-1] for answer in answers) - began
    return {
        "requests": len(answers),
        "tokens_per_second": round(tokens / passed, 1),
        "first_token_ms": {
            "p50": round(percentile(first, 0.5), 1),
            "p99": round(percentile(first, 0.99), 1),
        },
        "between_tokens_ms": {
            "p50": round(percentile(between, 0.5), 2),
            "p99": round(percentile(between, 0.99), 2),
        },
    }
