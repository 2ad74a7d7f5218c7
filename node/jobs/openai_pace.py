"""How fast a server of another program answers, from what it says itself of each answer."""

from dataclasses import dataclass
from typing import Final

from node.jobs.inference import Task
from node.jobs.openai_stream import Counted, Event, Said
from protocol.ids import ModelId
from protocol.job.sampling import Sampling

TOKENS_MIN: Final = 8  # Fewer tell nothing of a rate.
SHARE: Final = 4  # A new measurement counts as one part of four: a server has other users too.
_MILLI: Final = 1000

# Long enough that reading it takes a measurable time, and known to all: no one's words.
_QUESTION: Final = (
    "The potato was first grown in the Andes, north and south of Lake Titicaca, some eight "
    "thousand years ago. Farmers there still keep thousands of kinds, in all colours, each for a "
    "height, a soil or a season of its own, and freeze-dry some in the cold of the night. "
    "Continue this text in plain English, with three sentences about maize and quinoa."
)


def probe(model: ModelId) -> Task:
    """A first question to a model."""
    return Task(
        model=model,
        messages=(("user", _QUESTION),),
        text="",
        stop=(),
        sampling=Sampling(),
        seed=bytes(32),
        first_t=0,
        prefix_ids=(),
        output_tokens_max=24,
    )


class Timing:
    """Notes when what of one answer came, in seconds."""

    def __init__(self, sent_at: float) -> None:
        self._sent_at = sent_at
        self._first_at: float | None = None
        self._last_at = sent_at
        self._pieces = 0
        self._counted: Counted | None = None

    def hear(self, event: Event, now: float) -> None:
        if isinstance(event, Said):
            self._first_at = now if self._first_at is None else self._first_at
            self._last_at = now
            self._pieces += 1
        elif isinstance(event, Counted):
            self._counted = event

    def rates(self) -> tuple[int, int]:
        """Thousandths of a token a second, read and written; 0 for what cannot be said."""
        if self._first_at is None:
            return 0, 0
        read = 0 if self._counted is None else self._counted.prompt_tokens
        written = self._pieces if self._counted is None else self._counted.output_tokens
        prefill = _rate(read, self._first_at - self._sent_at)
        decode = _rate(written - 1, self._last_at - self._first_at)
        return prefill, decode if written >= TOKENS_MIN else 0


def _rate(tokens: int, seconds: float) -> int:
    return round(max(0, tokens) * _MILLI / max(seconds, 0.001))


@dataclass(frozen=True, slots=True)
class Pace:
    """What to say of a model's speed; 0 before it is known."""

    prefill_millitokens_per_second: int = 0
    decode_millitokens_per_second: int = 0

    def after(self, timing: Timing) -> "Pace":
        """The pace once one more answer is known."""
        prefill, decode = timing.rates()
        return Pace(
            _mixed(self.prefill_millitokens_per_second, prefill),
            _mixed(self.decode_millitokens_per_second, decode),
        )


def _mixed(known: int, new: int) -> int:
    if not known or not new:
        return known or new
    return known + (new - known) // SHARE
