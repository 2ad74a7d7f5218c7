"""From a task to a request of the OpenAI API; what cannot be said there is refused by name."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from node.jobs.inference import Task
from protocol.errors import Code, LocalError
from protocol.job.commitment import prompt_size
from protocol.job.sampling import Sampling
from protocol.job.terms import Message, Prompt
from protocol.job.unverifiable import input_tokens_counted
from protocol.units import MILLION

# Fields of Sampling, and what all such servers or only some of them call these wishes.
_EVERYWHERE: Final = {
    "temperature_millionths": "temperature",
    "top_p_millionths": "top_p",
    "frequency_penalty_millionths": "frequency_penalty",
    "presence_penalty_millionths": "presence_penalty",
}
_SOMEWHERE: Final = {
    "top_k": "top_k",
    "min_p_millionths": "min_p",
    "repetition_penalty_millionths": "repetition_penalty",
}
_SEED_BITS: Final = 31  # The least that a server of this kind takes.


@dataclass(frozen=True, slots=True)
class Call:
    """One request: where below the server's URL, and its JSON."""

    path: str
    body: dict[str, Any]


def call_of(task: Task, name: str, takes: Collection[str]) -> Call:
    """The request for a task; `name` is the model's name there, `takes` are the wishes beyond
    OpenAI's own that the server understands. Raises LocalError BAD_REQUEST."""
    if task.prefix_ids or task.first_t:
        raise _unfit("to go on with another node's answer")
    body: dict[str, Any] = {
        "model": name,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": task.output_tokens_max,
        # Of the order's, so that a user's own seed means something here too.
        "seed": int.from_bytes(task.seed[:4], "little") & ((1 << _SEED_BITS) - 1),
        **_wishes(task.sampling, takes),
    }
    if task.stop:
        body["stop"] = list(task.stop)
    if task.messages:
        body["messages"] = [{"role": role, "content": text} for role, text in task.messages]
        return Call("chat/completions", body)
    return Call("completions", {**body, "prompt": task.text})


def _wishes(sampling: Sampling, takes: Collection[str]) -> dict[str, int | float]:
    wishes: dict[str, int | float] = {}
    for field in msgspec.structs.fields(Sampling):
        value = getattr(sampling, field.name)
        asked = value != _default(field)
        name = _EVERYWHERE.get(field.name, "")
        if not name and asked:
            name = _SOMEWHERE.get(field.name, "")
            if name not in takes:
                raise _unfit(f"of {field.name.removesuffix('_millionths')!r}")
        if name and (asked or field.name == "temperature_millionths"):
            wishes[name] = value / MILLION if field.name.endswith("_millionths") else value
    return wishes


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def prompt_tokens(task: Task) -> int:
    """What the prompt of a task counts as where nobody can count its tokens."""
    messages = tuple(Message(role, text) for role, text in task.messages)
    return input_tokens_counted(prompt_size(Prompt(messages, task.text, ())))


def refusal(status: int) -> LocalError:
    """What a status other than 200 means to whoever asked. Its body is not shown: servers quote
    the prompt there."""
    if status in (400, 413, 422):
        return LocalError(
            Code.BAD_REQUEST,
            f"The server behind this model refused the request (HTTP {status}); most often the "
            "prompt and the answer together are longer than its context.",
        )
    if status == 404:
        return LocalError(Code.MODEL_NOT_SERVED, "The server no longer has this model.")
    if status in (429, 503):
        return LocalError(
            Code.BUSY, "The server behind this model is busy: try again soon.", retry_ms=5_000
        )
    if status in (401, 403):
        return LocalError(Code.WORKER_FAILED, "The server behind this model refused our key.")
    return LocalError(Code.WORKER_FAILED, f"The server behind this model failed (HTTP {status}).")


def _unfit(wish: str) -> LocalError:
    return LocalError(
        Code.BAD_REQUEST,
        f"The server behind this model knows no wish {wish}; leave it out, or ask another node.",
    )
