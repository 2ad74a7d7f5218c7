"""Jobs for the scheduler over a model of hashes, and what each says when it runs alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.worker.engine.model import BLOCK_TOKENS
from node.worker.engine.rows import RowStore
from node.worker.engine.scheduler import Event, Pace, Scheduler, Settings
from node.worker.engine.sequence import Job
from node.worker.engine.speculation import NEVER, Speculation
from node.worker.pipe import Ended, Failed, Progress
from node.worker.text_stream import TextStream
from protocol.job.sampling import Sampling
from tests.node.worker.hash_model import END, HashModel

LETTERS = [b""] + [bytes([65 + n % 26]) for n in range(1, 100)]
SMALL = Pace(alone=40, beside=7)


def job(number: int, prompt: int | Sequence[int] = 3, most: int = 5, **changes: object) -> Job:
    values: dict[str, object] = {
        "number": number,
        "requester": b"r",
        "prompt": [7] * prompt if isinstance(prompt, int) else list(prompt),
        "prefix": [],
        "text": TextStream(LETTERS, []),
        "sampling": Sampling(),
        "seed": bytes(32),
        "first_t": 0,
        "output_tokens_max": most,
    }
    return Job(**(values | changes))  # type: ignore[arg-type]


def made(
    model: HashModel | None = None,
    slots: int = 2,
    context: int = 100,
    public: Sequence[Sequence[int]] = (),
    speculation: Speculation = NEVER,
) -> Scheduler:
    settings = Settings(slots, context, frozenset({END}), public, speculation)
    model = model or HashModel(slots * -(-context // BLOCK_TOKENS))
    scheduler = Scheduler(model, settings, RowStore())
    scheduler.pace = SMALL
    return scheduler


def run(scheduler: Scheduler) -> list[Event]:
    events: list[Event] = []
    while not scheduler.idle:
        events += scheduler.step()
    return events


@dataclass
class Said:
    """All that one job gave out."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    leaves: list[bytes] = field(default_factory=list)
    ends: list[Ended | Failed] = field(default_factory=list)


def said(events: Sequence[Event]) -> dict[int, Said]:
    """By job, whatever pieces it came in. Nothing may come after an end."""
    all_: dict[int, Said] = {}
    for event in events:
        mine = all_.setdefault(event.task, Said())
        assert not mine.ends
        if isinstance(event, Progress):
            mine.ids += event.ids
            mine.text += event.text
            mine.leaves += event.leaves
        else:
            mine.ends.append(event)
    return all_


def alone(job_: Job, context: int) -> Said:
    """What this job says with a model of its own that guesses nothing."""
    scheduler = made(HashModel(-(-context // BLOCK_TOKENS)), 1, context)
    return said([*scheduler.add(job_), *run(scheduler)])[job_.number]
