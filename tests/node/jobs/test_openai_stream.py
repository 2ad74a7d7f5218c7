"""What a server streams, in any pieces, and whatever else it may send."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.jobs.openai_pace import Timing
from node.jobs.openai_stream import (
    LINE_BYTES_MAX,
    RESPONSE_BYTES_MAX,
    Closed,
    Counted,
    Event,
    EventStream,
    Said,
    Stopped,
    pieces,
)
from protocol.errors import Code, LocalError
from protocol.limits import TOKEN_TEXT_BYTES_MAX
from tests.node.jobs.openai_fake import DONE, event, finish, said, usage

COUNT_MAX = 1 << 53  # Of protocol.units.CountField, which an advert's rates are.
WHOLE = said("Maize") + b": a comment\n\n" + said(" grün") + finish("length") + usage(3, 2) + DONE
EVENTS = [Said("Maize"), Said(" grün"), Stopped("length"), Counted(3, 2), Closed()]


def heard(*data: bytes) -> list[Event]:
    stream = EventStream()
    return [one for piece in data for one in stream.feed(piece)]


@given(st.lists(st.integers(0, len(WHOLE)), max_size=20), st.booleans())
def test_the_pieces_do_not_count(places: list[int], carriage: bool) -> None:
    cuts = [0, *sorted(places), len(WHOLE)]
    data = [WHOLE[a:b] for a, b in itertools.pairwise(cuts)]
    if carriage:
        data = [piece.replace(b"\n", b"\r\n") for piece in data]
    assert heard(*data) == EVENTS


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"data: ", b"\n\n", WHOLE]), max_size=9))
def test_anything_is_understood_or_refused_without_quoting(data: list[bytes]) -> None:
    assert refusal_of(data) in (None, Code.WORKER_FAILED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "delta", "content", "usage"]), inner)
    ),
    max_leaves=9,
)


@given(st.dictionaries(st.sampled_from(["choices", "usage", "error", "id"]), json_values))
def test_any_json_is_understood_or_refused(value: dict[str, object]) -> None:
    assert refusal_of([event(json.dumps(value).encode())]) in (None, Code.WORKER_FAILED)


def refusal_of(data: list[bytes]) -> Code | None:
    try:
        heard(*data)
    except LocalError as refusal:
        return refusal.code
    return None


@given(st.text(max_size=3000) | st.integers(0, 5000).map("ä€😀".__mul__))
def test_a_text_is_cut_into_tokens_of_bounded_bytes(text: str) -> None:
    found = list(pieces(text))
    assert "".join(found) == text
    assert all(0 < len(piece.encode()) <= TOKEN_TEXT_BYTES_MAX for piece in found)


def test_an_answer_without_end_is_cut_off() -> None:
    block = (b":" + b"x" * 99_998 + b"\n") * 10
    with pytest.raises(LocalError, match="more than"):
        heard(*[block] * (RESPONSE_BYTES_MAX // len(block) + 1))


def test_an_event_of_endless_empty_lines_is_cut_off() -> None:
    with pytest.raises(LocalError, match="an event of more than"):
        heard(*[b"data:\n" * 10_000] * (LINE_BYTES_MAX // 10_000 + 1))


@pytest.mark.parametrize("claimed", [1 << 63, 10**400])
def test_what_a_server_says_of_its_tokens_makes_no_rate_that_no_advert_holds(claimed: int) -> None:
    timing = Timing(0)
    for one in heard(said("Maize"), said(" too"), usage(claimed, claimed)):
        timing.hear(one, 1)
    assert all(0 < rate <= COUNT_MAX for rate in timing.rates())


def test_only_the_first_of_several_answers_counts() -> None:
    both = event({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]})
    assert heard(both) == [Said("a")]
