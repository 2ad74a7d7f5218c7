"""Streamed text never holds half a character nor any part of a stop string."""

from hypothesis import given
from hypothesis import strategies as st

from node.worker.text_stream import StopFinder, TextStream

BYTES = [bytes([value]) for value in range(256)]
few = st.text(alphabet="ab<é🦙", max_size=20)


@given(few)
def test_bytes_one_by_one_give_whole_characters(text: str) -> None:
    stream = TextStream(BYTES, [])
    pieces = [stream.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_half_a_character_at_the_end_is_dropped() -> None:
    stream = TextStream(BYTES, [])
    pieces = [stream.push(byte) for byte in "x🦙".encode()[:-1]]
    assert "".join(pieces) + stream.finish() == "x"


@given(st.lists(few, max_size=8), st.lists(st.text("ab<é", min_size=1, max_size=4), max_size=3))
def test_stops_are_found_as_in_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    finder = StopFinder(stops)
    shown = ""
    for number, piece in enumerate(pieces):
        shown += finder.push(piece)
        so_far = "".join(pieces[: number + 1])
        places = [so_far.find(stop) for stop in stops if stop in so_far]
        assert finder.found == bool(places)
        if finder.found:
            assert shown == so_far[: min(places)]
            return
        # All is shown but the longest end that may yet become a stop string.
        longest = max(
            (n for stop in stops for n in range(1, len(stop)) if so_far.endswith(stop[:n])),
            default=0,
        )
        assert shown == so_far[: len(so_far) - longest]
    assert shown + finder.finish() == "".join(pieces)


def test_a_stop_string_over_many_tokens() -> None:
    stream = TextStream([b"He", b"l", b"lo", b"lo!", b"END"], ["lolo"])
    assert [stream.push(token) for token in (0, 1, 2)] == ["He", "", "l"]
    assert not stream.stopped
    assert stream.push(3) == ""
    assert stream.stopped
