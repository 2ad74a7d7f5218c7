"""`ayni ask`: one question, streamed, and one line of what it took."""

import sys
from collections.abc import Iterable
from typing import Any

import click
from msgspec import UNSET

from node.api.chat_request import MODEL_ANY
from node.api.chat_shapes import AyniPart, Chunk
from node.cli.client import connect
from node.cli.options import credits_given
from node.cli.output import Output
from node.cli.session import Session, Verb
from node.cli.words import node_words
from protocol.errors import Code, LocalError
from protocol.limits import OUTPUT_TOKENS_MAX, PROMPT_BYTES_MAX

# A small model at the API's own default of 1 often loses the thread; a person wants an answer.
TEMPERATURE_DEFAULT = 0.6
TOP_P_DEFAULT = 0.9

_PARAMETERS = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
)
"""Options that have the name of the API's parameter."""


@click.command(cls=Verb, example='ayni ask --max-tokens 80 "Why is the sky blue?"')
@click.argument("prompt", required=False)
@click.option("--model", default=MODEL_ANY, help="A model's name; any, when left out.")
@click.option("--system", help="Instructions that go before the question.")
@click.option("--max-tokens", type=click.IntRange(1, OUTPUT_TOKENS_MAX), help="At most so many.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=TEMPERATURE_DEFAULT,
    show_default=True,
    help="0 says the likeliest words, 1 and more surprising ones.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=TOP_P_DEFAULT,
    show_default=True,
    help="Only the likeliest words that together make up this share.",
)
@click.option(
    "--top-k", type=click.IntRange(0, 1 << 20), help="Only the so many likeliest words; 0 is all."
)
@click.option(
    "--min-p",
    type=click.FloatRange(0, 1),
    help="Only words at least so likely, the likeliest's share.",
)
@click.option(
    "--repetition-penalty",
    type=click.FloatRange(0, 10, min_open=True),
    help="Above 1: seldom a word that was there before, also in the question.",
)
@click.option(
    "--frequency-penalty",
    type=click.FloatRange(-2, 2),
    help="Above 0: less of a word each time that it is said.",
)
@click.option(
    "--presence-penalty", type=click.FloatRange(-2, 2), help="Above 0: rather words not said yet."
)
@click.option("--stop", multiple=True, help="End before this text; may be given several times.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="The same answer again.")
@click.option("--provider", help="Ask this node only: its name, id, or the end of its id.")
@click.option(
    "--checkable-only",
    is_flag=True,
    default=None,
    help="Only by a node whose answer somebody could check by doing the same again.",
)
@click.option("--max-cost", callback=credits_given, help="At most so many credits.")
@click.pass_obj
def ask(session: Session, /, prompt: str | None, **options: Any) -> None:
    """Ask a model in the network and stream its answer.

    The question is PROMPT, or standard input where there is none. The answer goes to standard
    output, and what it took, in one line, to standard error. Ctrl-C cancels the job.
    """
    body = _body(_prompt(prompt), options)
    output = session.output
    answer = _Answer(output)
    try:
        with connect(session.paths).chat(body) as chunks:
            answer.follow(chunks)
    except KeyboardInterrupt:
        output.line()
        raise LocalError(Code.CANCELLED, "Cancelled; what was said so far is charged.") from None
    finally:
        answer.end_line()
    answer.conclude()


def _prompt(prompt: str | None) -> str:
    if prompt is None:
        if sys.stdin.isatty():
            raise click.UsageError("What is the question? Give PROMPT, or pipe it in.")
        data = sys.stdin.buffer.read(PROMPT_BYTES_MAX + 1)
        if len(data) > PROMPT_BYTES_MAX:
            raise click.UsageError(f"The question is longer than {PROMPT_BYTES_MAX} bytes.")
        prompt = data.decode("utf-8", "replace")
    if not prompt.strip():
        raise click.UsageError("The question is empty.")
    return prompt


def _body(prompt: str, options: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    if options["system"]:
        messages.insert(0, {"role": "system", "content": options["system"]})
    wishes = {name: options[name] for name in _PARAMETERS} | {"stop": options["stop"] or None}
    extras = {
        "notices": True,
        "provider": options["provider"],
        "cost_max_microcredits": options["max_cost"],
        "checkable_only": options["checkable_only"],
    }
    return {
        "model": options["model"],
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ayni": {name: value for name, value in extras.items() if value is not None},
        **{name: value for name, value in wishes.items() if value is not None},
    }


class _Answer:
    """An answer as it comes in."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._texts: list[str] = []
        self._model = ""
        self._reason: str | None = None
        self._part = AyniPart()
        self._notices: list[dict[str, str]] = []
        self._line_open = False

    def follow(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self._model = chunk.model or self._model
            part = chunk.ayni
            if part is not UNSET and part.notice is not UNSET:
                self._notices.append({"code": part.notice.code, "message": part.notice.sentence})
                self.end_line()
                self._output.remark(part.notice.sentence)
            elif part is not UNSET:
                self._part = part
            for choice in chunk.choices:
                if choice.delta.content:
                    self._texts.append(choice.delta.content)
                    self._line_open = not choice.delta.content.endswith("\n")
                    self._output.piece(choice.delta.content)
                self._reason = choice.finish_reason or self._reason

    def end_line(self) -> None:
        """So that what follows the answer stands on a line of its own."""
        if self._line_open:
            self._line_open = False
            self._output.line()

    def conclude(self) -> None:
        """Raises LocalError LOST when the answer broke off without a word."""
        if self._reason is None:
            raise LocalError(Code.LOST, "The node ended before its answer did. Ask again.")
        figures = self._figures()
        if self._output.as_json:
            self._output.json(figures)
        else:
            self._output.remark(
                f"{node_words(figures['provider_name'], figures['provider'])}: "
                f"{figures['output_tokens']} tokens, "
                f"{figures['seconds_first']:.2f} s to the first, "
                f"{figures['tokens_per_second']:.1f} tokens/s, {figures['cost_credits']} credits"
            )

    def _figures(self) -> dict[str, Any]:
        part = self._part
        assert part.output_tokens is not UNSET
        assert part.ms_first is not UNSET
        assert part.ms_total is not UNSET
        # The first token's time is the prompt's; the others show how fast the answer ran.
        decode_ms = max(1, part.ms_total - part.ms_first)
        return {
            "text": "".join(self._texts),
            "model": self._model,
            "provider": part.provider,
            "provider_name": part.provider_name,
            "mode": part.mode,
            "finish_reason": self._reason,
            "input_tokens": part.input_tokens,
            "output_tokens": part.output_tokens,
            "seconds_first": part.ms_first / 1000,
            "seconds_total": part.ms_total / 1000,
            "tokens_per_second": round(max(0, part.output_tokens - 1) * 1000 / decode_ms, 3),
            "cost_microcredits": part.cost_microcredits,
            "cost_credits": part.cost_credits,
            "notices": self._notices,
        }
