"""Jinja in which a program that somebody else wrote can neither reach out nor grow without end.

What runs is counted: lines of the compiled template, and the characters and items that it makes or
writes, each container with all that it holds. Counting gives the same answer on every machine; the
clock is looked at only so that what costs more than it counts ends as well.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import wraps
from types import FrameType
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from protocol.limits import MESSAGES_MAX, PROMPT_BYTES_MAX

TEXT_CHARACTERS_MAX: Final = 2 * PROMPT_BYTES_MAX  # Marks can double a prompt of "<<<<".
WORK_MAX: Final = 200_000  # Lines that run, and items: below a second; a long chat takes 10,000.
CHARACTERS_A_LINE: Final = 128  # So many that are made count as a line that runs.
SECONDS_MAX: Final = 5.0
RANGE_MAX: Final = 4 * MESSAGES_MAX
_SHORT: Final = 16  # Of what is put between or before the items of JSON.
_BETWEEN_MAX: Final = 64  # Characters that are put between items which may be very many.
# What published templates use, and some more of their kind; none can write far more than it was
# given, but those that are checked for it.
_FILTERS: Final = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "replace", "reverse", "safe", "select", "selectattr", "sort", "string",
    "sum", "title", "trim", "unique", "upper",
)  # fmt: skip
_TEXT_METHODS: Final = frozenset(
    {
        "capitalize", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
        "isdigit", "islower", "isnumeric", "isspace", "isupper", "join", "lower", "lstrip",
        "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition",
        "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
    }
)  # fmt: skip


class TooLongError(Exception):
    """The template ran for too many lines or made too much."""


class _Generation(Extension):
    """`{% generation %}`, a mark for trainers found in published templates: its body counts."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Counted(CodeGenerator):
    """Texts that are joined and containers that are made go through the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Any) -> None:
        self._held(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:
        self._held(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:
        if node.ctx == "load":
            self._held(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _held(self, visit: Callable[[Any, Any], None], node: nodes.Expr, frame: Any) -> None:
        self.write("environment.held(")
        visit(node, frame)
        self.write(")")


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment for one template."""

    code_generator_class = _Counted
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            finalize=self.held,
        )
        self._work = 0
        self._ends_at = float("inf")
        # There is no strftime_now: a prompt would be another one on another day, and a job that
        # moves between machines could not go on. Published templates have a date for this case.
        self.globals = {
            "range": _bounded_range,
            "namespace": self.globals["namespace"],
            "dict": dict,
        }
        self.filters = {name: self._counted(name, self.filters[name]) for name in _FILTERS}
        self.filters["tojson"] = self._counted("tojson", _tojson)

    def spend(self, work: int) -> None:
        """Raises TooLongError once too much has been done."""
        self._work += work
        if self._work > WORK_MAX or time.monotonic() > self._ends_at:
            raise TooLongError

    def held(self, value: Any) -> Any:
        """The same value, once all that it holds is counted, as often as it holds it."""
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self._check_length(len(one))
                self.spend(1 + len(one) // CHARACTERS_A_LINE)
            elif isinstance(one, list | tuple | dict):
                self.spend(1 + len(one))
                waiting.extend(one)
                if isinstance(one, dict):
                    waiting.extend(one.values())
        return value

    def joined(self, parts: tuple[Any, ...]) -> str:
        """`a ~ b`."""
        for part in parts:
            self.held(part)
        return str(self.held("".join(map(str, parts))))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sized = [side for side in (left, right) if isinstance(side, str | list | tuple)]
        if operator == "*" and sized:
            raise SecurityError("a text or list cannot be multiplied here")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("a text cannot be formatted by % here")
        if operator == "**" or any(isinstance(s, int) and abs(s) >> 64 for s in (left, right)):
            raise SecurityError("a power or a very large number has no use here")
        self._check_length(sum(map(len, sized)))
        return self.held(super().call_binop(context, operator, left, right))

    # The names are the base class's own, so that a template's arguments can have any.
    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        receiver = getattr(__obj, "__self__", None)
        if isinstance(receiver, str):
            __self._check_growth(getattr(__obj, "__name__", ""), receiver, args, kwargs)
        return __self.held(super().call(__context, __obj, *args, **kwargs))

    def _check_growth(self, name: str, text: str, args: Any, kwargs: dict[str, Any]) -> None:
        """Before a method of a text writes more than it was given."""
        if name == "replace":
            self._check_replaced(text, *map(str, args[:2]))
        elif name == "join" and args:
            joined = list(args[0])
            self._check_length(sum(len(str(one)) + len(text) for one in self.held(joined)))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The base class gives formatting that reaches no attributes; this bounds its length."""
        inner = super().wrap_str_format(value)
        if inner is None:
            return None
        text = str(value.__self__)

        def formatted(*args: Any, **kwargs: Any) -> str:
            if ":" in text or "%" in text:
                raise SecurityError("a text is formatted without widths here")
            longest = max(
                (len(str(self.held(one))) for one in [*args, *kwargs.values()]), default=0
            )
            self._check_length(len(text) + text.count("{") * longest)
            return inner(*args, **kwargs)

        return formatted

    def _check_replaced(self, text: str, old: str = "", new: str = "") -> None:
        self._check_length(len(text) + text.count(old) * len(new))

    def _check_length(self, characters: int) -> None:
        if characters > TEXT_CHARACTERS_MAX:
            raise TooLongError

    def _counted(self, name: str, filtered: Callable[..., Any]) -> Callable[..., Any]:
        """The filter, with what it takes and what it gives counted."""

        @wraps(filtered)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            for one in [*args, *kwargs.values()]:
                self.held(one)
            if name == "replace":  # The first argument is the context.
                self._check_replaced(*map(str, args[1:4]))
            if name == "join":
                between = kwargs.get("d", args[2] if len(args) > 2 else "")
                if len(str(between)) > _BETWEEN_MAX:
                    raise SecurityError("what stands between items is short")
            return self.held(filtered(*args, **kwargs))

        return wrapped

    def bounded(self, pieces: Iterator[str]) -> Iterator[str]:
        """The same pieces; the lines that run to make them are counted from 0. Raises
        TooLongError, whatever the template does to go on for ever."""
        self._work = 0
        self._ends_at = time.monotonic() + SECONDS_MAX

        def watch(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
            if frame.f_code.co_filename != "<template>":
                return None
            self.spend(1)
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


def _bounded_range(*bounds: int) -> range:
    counted = range(*bounds)
    if len(counted) > RANGE_MAX:
        raise SecurityError("a range of this length has no use here")
    return counted


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """With the arguments that transformers give it, and as it: no letter is escaped for HTML."""
    if indent is not None and not 0 <= indent <= _SHORT:
        raise SecurityError("an indent of this width has no use here")
    if separators is not None and any(len(one) > _SHORT for one in separators):
        raise SecurityError("separators of this length have no use here")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
