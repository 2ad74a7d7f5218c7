"""A model's chat template: Jinja that came with the weights, so it runs in a sandbox with bounds.

What people write must never become a control token. So while the template runs, what they wrote
carries marks that break any such token up; the marks are taken out when the rendered text has been
cut at its control tokens, which are then those of the template alone.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from protocol.errors import Code, LocalError
from protocol.limits import MESSAGES_MAX, PROMPT_BYTES_MAX

ROLES: Final = ("system", "user", "assistant", "tool")
RENDERED_CHARACTERS_MAX: Final = 2 * PROMPT_BYTES_MAX  # Marks can double a prompt of "<<<<".
TEMPLATE_LINES_MAX: Final = 1_000_000  # Lines of compiled template run: well below a second.
RANGE_MAX: Final = 4 * MESSAGES_MAX

# What a template, a program that somebody else wrote, can raise while it runs.
_FAULTS = (
    TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip


class _TooLong(Exception):
    """The template ran for too many lines or wrote too much."""


class _Refused(Exception):
    """The template called raise_exception."""


class _Generation(Extension):
    """`{% generation %}`, a mark for trainers found in published templates: its body counts."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """Operators that make much of little are checked before they run."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sized = [side for side in (left, right) if isinstance(side, str | list | tuple)]
        if operator == "*" and sized:
            raise SecurityError("a text or list cannot be multiplied here")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("a text cannot be formatted by % here")
        if operator == "**" or any(isinstance(s, int) and abs(s) >> 64 for s in (left, right)):
            raise SecurityError("a power or a very large number has no use here")
        return super().call_binop(context, operator, left, right)


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(str(message))


def _bounded_range(*bounds: int) -> range:
    counted = range(*bounds)
    if len(counted) > RANGE_MAX:
        raise SecurityError("a range of this length has no use here")
    return counted


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class ChatTemplate:
    """One compiled template. Raises LocalError BAD_MODEL from the start if it is no Jinja."""

    def __init__(self, source: str, variables: dict[str, str], control: Sequence[str]) -> None:
        environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.globals = {
            "raise_exception": _raise_exception,
            "range": _bounded_range,
            "namespace": environment.globals["namespace"],
            "dict": dict,
        }
        for name in ("center", "indent", "wordwrap", "pprint", "xmlattr", "format"):
            environment.filters.pop(name)  # Each can write far more than it was given.
        environment.filters["tojson"] = _tojson
        self._source = source
        self._variables = variables
        self._edges = frozenset(t[0] for t in control), frozenset(t[-1] for t in control)
        try:
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError, SyntaxError) as error:
            raise LocalError(
                Code.BAD_MODEL, f"The chat template is no valid Jinja ({type(error).__name__})."
            ) from None

    def render(self, messages: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """The rendered chat, in which a mark stands beside what a person wrote, and the mark.

        Raises LocalError BAD_REQUEST for a role that there is none, or messages that the template
        refuses or cannot take. The sentence never repeats a message.
        """
        for role, _ in messages:
            if role not in ROLES:
                raise LocalError(
                    Code.BAD_REQUEST, f"A message has an unknown role: use {', '.join(ROLES)}."
                )
        mark = _unused_character(content for _, content in messages)
        turns = [
            {"role": role, "content": self._marked(content, mark)} for role, content in messages
        ]
        return self._run(turns), mark

    def _marked(self, content: str, mark: str) -> str:
        """Marks within each character that begins or ends a control token, and around the whole
        (inside its white space, so that a template can still trim it). Then nothing that holds a
        character of a person reads as a control token, whatever the template puts beside it."""
        firsts, lasts = self._edges
        marked = "".join(
            (mark if character in lasts else "") + character + (mark if character in firsts else "")
            for character in content
        )
        core = marked.strip()
        if not core:
            return marked
        before, _, after = marked.partition(core)
        return f"{before}{mark}{core}{mark}{after}"

    def _run(self, turns: list[dict[str, str]]) -> str:
        written: list[str] = []
        size = 0
        pieces = self._template.generate(
            messages=turns, add_generation_prompt=True, **self._variables
        )
        try:
            for piece in _bounded(pieces):
                size += len(piece)
                if size > RENDERED_CHARACTERS_MAX:
                    raise _TooLong
                written.append(piece)
        except _Refused as refusal:
            # Only a sentence that the template itself spells out may leave: another could quote.
            said = refusal.args[0]
            known = f": {said}" if said in self._source else "."
            raise LocalError(
                Code.BAD_REQUEST, f"The model's chat template refuses these messages{known}"
            ) from None
        except _TooLong:
            raise LocalError(
                Code.BAD_REQUEST, "The model's chat template runs too long on these messages."
            ) from None
        except _FAULTS as error:
            kind = type(error).__name__
            raise LocalError(
                Code.BAD_REQUEST, f"The model's chat template fails on these messages ({kind})."
            ) from None
        return "".join(written)


def _unused_character(texts: Iterable[str]) -> str:
    """A character of a private plane that no text uses: there are more than a prompt has room."""
    used = {c for text in texts for c in text if c >= "\U000f0000"}
    return next(c for c in map(chr, range(0xF0000, 0x10FFFE)) if c not in used)


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    """The same pieces, but the lines that run to make them are counted, so that a template that
    never ends does. Counting lines, not seconds, gives the same answer on every machine."""
    lines = 0

    def watch(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        nonlocal lines
        lines += 1
        if lines > TEMPLATE_LINES_MAX:
            raise _TooLong
        return watch

    while True:
        before = sys.gettrace()
        sys.settrace(watch)
        try:
            piece = next(pieces, None)
        finally:
            sys.settrace(before)
        if piece is None:
            return
        yield piece
