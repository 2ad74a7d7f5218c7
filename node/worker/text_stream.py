"""From tokens to text as it comes: never half a character, never part of a stop string."""

import codecs
from collections.abc import Sequence


class StopFinder:
    """Lets text through until a stop string stands in it, wherever its pieces were cut.

    It holds back the longest end of the text that could still become a stop string, and no more.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What may be shown now. Once a stop string is found it, and all after it, never is."""
        assert not self.found
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """The text that was held back and is no stop string after all, since nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


class TextStream:
    """The text of one answer. A byte-level token may end inside a character; its bytes wait."""

    def __init__(self, token_bytes: Sequence[bytes], stops: Sequence[str]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = StopFinder(stops)

    @property
    def stopped(self) -> bool:
        """A stop string has come."""
        return self._stop.found

    def push(self, token: int) -> str:
        """The text that this token completes; nothing for a control token."""
        return self._stop.push(self._decoder.decode(self.spelled(token)))

    def finish(self) -> str:
        """The rest, at the end of the answer. Half a character, cut off by a limit, is dropped."""
        return self._stop.finish()

    def spelled(self, token: int) -> bytes:
        """The bytes of one token, wherever it stands; none of a control token, nor of a number
        above the vocabulary's: weights may have such rows for the sake of a round count."""
        return self._token_bytes[token] if token < len(self._token_bytes) else b""
