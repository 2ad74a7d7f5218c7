"""A model's chat template: Jinja that came with the weights, so it runs in a sandbox with bounds.

What people write must never become a control token. So while the template runs, what they wrote
carries marks that break any such token up; the marks are taken out when the rendered text has been
cut at its control tokens, which are then those of the template alone.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

from jinja2 import TemplateError

from node.worker.pipe import CHAT_TEMPLATE_BYTES_MAX
from node.worker.template_sandbox import TEXT_CHARACTERS_MAX, Sandbox, TooLongError
from protocol.errors import Code, LocalError

ROLES: Final = ("system", "user", "assistant", "tool")

# What a template, a program that somebody else wrote, can raise while it runs.
_FAULTS = (
    TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip


class _Refused(Exception):
    """The template called raise_exception."""


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(str(message))


class ChatTemplate:
    """One compiled template. Raises LocalError BAD_MODEL from the start if it is no Jinja."""

    def __init__(self, source: str, variables: dict[str, str], control: Sequence[str]) -> None:
        self._sandbox = Sandbox()
        self._sandbox.globals["raise_exception"] = _raise_exception
        self._source = source
        self._variables = variables
        self._edges = frozenset(t[0] for t in control), frozenset(t[-1] for t in control)
        if len(source.encode("utf-8", "replace")) > CHAT_TEMPLATE_BYTES_MAX:
            raise LocalError(
                Code.BAD_MODEL,
                f"The chat template has more than {CHAT_TEMPLATE_BYTES_MAX} bytes: name another.",
            )
        try:
            self._template = self._sandbox.from_string(source)
        except (*_FAULTS, AssertionError, SyntaxError, TooLongError) as error:
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
            for piece in self._sandbox.bounded(pieces):
                size += len(piece)
                if size > TEXT_CHARACTERS_MAX:
                    raise TooLongError
                written.append(piece)
        except _Refused as refusal:
            # Only a sentence that the template itself spells out may leave: another could quote.
            said = refusal.args[0]
            known = f": {said}" if said in self._source else "."
            raise LocalError(
                Code.BAD_REQUEST, f"The model's chat template refuses these messages{known}"
            ) from None
        except TooLongError:
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
