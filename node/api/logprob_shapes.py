"""OpenAI's shapes of log probabilities, and ours of the network in them."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from protocol.job.logprob import Logprob
from protocol.units import MILLION


class TopLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


class ChoiceLogprobs(Struct, frozen=True):
    content: tuple[TokenLogprob, ...]
    refusal: None = None


def choice_logprobs(places: Iterable[Sequence[Logprob]]) -> ChoiceLogprobs | None:
    """Of the tokens of an answer, or of a part of it: at each place itself first, then the
    likeliest. None where the provider has told none."""
    content = tuple(_token(itself, top) for itself, *top in places)
    return ChoiceLogprobs(content) if content else None


def _token(itself: Logprob, top: Sequence[Logprob]) -> TokenLogprob:
    shown = _top(itself)
    return TokenLogprob(shown.token, shown.logprob, shown.bytes, tuple(_top(one) for one in top))


def _top(one: Logprob) -> TopLogprob:
    # Half a character cannot be written here; the bytes say what it is.
    text = one.text.decode("utf-8", "replace")
    return TopLogprob(text, one.micrologprob / MILLION, tuple(one.text))
