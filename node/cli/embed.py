"""`ayni embed`: texts to vectors, as JSON lines for a program or in a few words for a person."""

import base64
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from node.api.chat_request import MODEL_ANY
from node.api.embedding_shapes import EmbeddingsAnswer
from node.cli.client import Daemon, connect
from node.cli.options import credits_given
from node.cli.session import Session, Verb
from node.cli.words import count_words, listed_words, node_words
from protocol.errors import Code, LocalError, RemoteError
from protocol.limits import PROMPT_BYTES_MAX
from protocol.units import credits_text

CALL_TEXTS_MAX: Final = 512  # So many vectors are shown as soon as they are there.
FILE_BYTES_MAX: Final = 64 << 20  # Some 300,000 sentences.
_SHOWN_CHARACTERS: Final = 48


@click.command(cls=Verb, example='ayni embed --compare "a cat" "a kitten" "a tax form"')
@click.argument("texts", nargs=-1)
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="One text a line; empty lines are passed over.",
)
@click.option("--model", default=MODEL_ANY, help="A model's name; any for embeddings, if left out.")
@click.option("--compare", is_flag=True, help="How alike each text is to the first: 1 is the same.")
@click.option("--provider", help="Ask this node only: its name, id, or the end of its id.")
@click.option("--max-cost", callback=credits_given, help="At most so many credits.")
@click.pass_obj
def embed(
    session: Session,
    /,
    texts: Sequence[str],
    path: Path | None,
    compare: bool,
    **options: Any,
) -> None:
    """Turn texts into vectors, to search and compare them by meaning.

    The texts are TEXTS, or the lines of a file, or those of standard input. With --json each
    vector is a line of its own, and the last line tells what it took. A text that is longer than
    the model reads (256 tokens, some 200 words, for all-minilm-l6-v2) is cut there.
    """
    wanted = _texts(texts, path)
    daemon, output = connect(session.paths), session.output
    took = _Took()
    first: tuple[float, ...] = ()
    for start, batch in _batches(wanted):
        answer = _asked(daemon, batch, options, took)
        for number, vector in enumerate(_vectors(answer), start):
            first = first or vector
            alike = _alike(first, vector)
            if output.as_json:
                likeness = {"similarity": alike} if compare else {}
                output.json({"index": number, **likeness, "vector": vector})
            else:
                shown = f"{alike:7.4f}" if compare else f"{len(vector)} numbers"
                output.line(f"{shown}  {_short(wanted[number])}")
    took.conclude(session, len(wanted))


def _alike(first: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between vectors of length 1. Raises RemoteError CONTRADICTION where
    providers of one model gave vectors of two widths."""
    if len(first) != len(other):
        raise RemoteError(
            Code.CONTRADICTION,
            f"The vectors of this model have {len(first)} numbers from one node and {len(other)} "
            "from another: ask one of them with --provider.",
        )
    return round(sum(a * b for a, b in zip(first, other, strict=True)), 6)


class _Took:
    """What all calls took together."""

    def __init__(self) -> None:
        self.answers: list[EmbeddingsAnswer] = []

    @property
    def cost_microcredits(self) -> int:
        return sum(answer.ayni.cost_microcredits for answer in self.answers)

    def conclude(self, session: Session, texts: int) -> None:
        orders = [order for answer in self.answers for order in answer.ayni.orders]
        tokens = sum(answer.usage.prompt_tokens for answer in self.answers)
        cost = self.cost_microcredits
        if session.output.as_json:
            session.output.json(
                {
                    "model": self.answers[0].model,
                    "texts": texts,
                    "input_tokens": tokens,
                    "orders": orders,
                    "cost_microcredits": cost,
                    "cost_credits": credits_text(cost),
                }
            )
            return
        nodes = dict.fromkeys(node_words(one.provider_name, one.provider) for one in orders)
        session.output.remark(
            f"{listed_words(list(nodes))}: {self.answers[0].model}, {count_words(texts, 'text')}, "
            f"{count_words(tokens, 'token')}, {credits_text(cost)} credits"
        )


def _texts(texts: Sequence[str], path: Path | None) -> list[str]:
    if texts and path is not None:
        raise click.UsageError("Give TEXTS or --file, not both.")
    if not texts:
        if path is None and sys.stdin.isatty():
            raise click.UsageError("Which texts? Give TEXTS or --file, or pipe them in.")
        data = _read(path)
        if len(data) > FILE_BYTES_MAX:
            raise click.UsageError(f"There are more than {FILE_BYTES_MAX} bytes: split them.")
        texts = data.decode("utf-8", "replace").split("\n")
    found = [text for text in (one.strip() for one in texts) if text]
    if not found:
        raise click.UsageError("There is no text.")
    return found


def _read(path: Path | None) -> bytes:
    if path is None:
        return sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise LocalError(Code.NOT_FOUND, f"{path} cannot be read: {error.strerror}.") from None


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """(place of the first, texts) of each call; one that fits an order costs one."""
    start = size = 0
    for number, text in enumerate(texts):
        length = len(text.encode())
        if number > start and (
            number - start == CALL_TEXTS_MAX or size + length > PROMPT_BYTES_MAX // 2
        ):
            yield start, texts[start:number]
            start, size = number, 0
        size += length
    yield start, texts[start:]


def _asked(
    daemon: Daemon, texts: Sequence[str], options: dict[str, Any], took: _Took
) -> EmbeddingsAnswer:
    extras: dict[str, Any] = {}
    if options["provider"]:
        extras["provider"] = options["provider"]
    if options["max_cost"] is not None:
        extras["cost_max_microcredits"] = max(0, options["max_cost"] - took.cost_microcredits)
    # Whatever model did the first call does the others; others may have its name.
    model = took.answers[0].ayni.model if took.answers else options["model"]
    body = {"model": model, "input": texts, "encoding_format": "base64", "ayni": extras}
    answer = daemon.post("/v1/embeddings", EmbeddingsAnswer, body, long=True)
    took.answers.append(answer)
    return answer


def _vectors(answer: EmbeddingsAnswer) -> Iterator[tuple[float, ...]]:
    for item in answer.data:
        assert isinstance(item.embedding, str)
        raw = base64.b64decode(item.embedding)
        yield struct.unpack(f"<{len(raw) // 4}f", raw)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
