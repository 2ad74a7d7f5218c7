"""What was read from a TOML file as a typed table, and errors that name what is wrong in it."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct

from protocol.errors import Code, LocalError

SHOWN_CHARACTERS_MAX = 60  # How much of a wrong value an error repeats.

T = TypeVar("T")


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of every table: frozen, and strict about its keys."""


def checked(plain: object, kind: type[T], where: str) -> T:
    """Parsed TOML as a `kind`. Raises LocalError BAD_CONFIG that names the file, the key, what
    came, what is allowed and, for a key that does not exist, the nearest that does."""
    try:
        return msgspec.convert(plain, kind, strict=True)
    except msgspec.ValidationError:
        wrong = _find_wrong(plain, kind, ())
    assert wrong is not None  # What the whole refuses, one of its parts refuses too.
    key = ".".join(str(part) for part in wrong.keys)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", wrong.sentence, re.DOTALL)
    if unknown:
        raise LocalError(
            Code.BAD_CONFIG,
            f"{where}: {f'[{key}]' if key else 'the file'} has no key {_shown(unknown[1])}."
            + _nearest(unknown[1], wrong.kind),
        )
    if wrong.sentence.startswith("Object missing"):
        raise LocalError(Code.BAD_CONFIG, f"{where}: {key or 'the file'}: {wrong.sentence}.")
    allowed = wrong.sentence
    if get_origin(wrong.kind) is Literal:
        allowed = "Allowed: " + ", ".join(f'"{choice}"' for choice in get_args(wrong.kind))
    raise LocalError(Code.BAD_CONFIG, f"{where}: {key} is {_shown(wrong.value)}. {allowed}.")


@dataclass(frozen=True, slots=True)
class _Wrong:
    keys: tuple[str | int, ...]
    value: object
    kind: Any
    sentence: str


def _find_wrong(value: object, kind: Any, keys: tuple[str | int, ...]) -> _Wrong | None:
    """The innermost part that does not fit. The decoder's own errors name no key of a table."""
    try:
        msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        sentence = str(error).partition(" - at ")[0]
    else:
        return None
    for key, part, part_kind in _parts(value, kind):
        if (wrong := _find_wrong(part, part_kind, (*keys, key))) is not None:
            return wrong
    return _Wrong(keys, value, kind, sentence)


def _parts(value: object, kind: Any) -> Iterator[tuple[str | int, object, Any]]:
    if get_origin(kind) in (Annotated, UnionType):  # Of a union we write the kind, then None.
        kind = get_args(kind)[0]
    if isinstance(value, list) and get_origin(kind) is tuple:
        for number, item in enumerate(value):
            yield number, item, get_args(kind)[0]
    elif isinstance(value, dict) and get_origin(kind) is dict:
        key_kind, item_kind = get_args(kind)
        for key, item in value.items():
            yield key, key, key_kind
            yield key, item, item_kind
    elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, Struct):
        for field in msgspec.structs.fields(kind):
            if field.name in value:
                yield field.name, value[field.name], field.type


def _nearest(key: str, kind: Any) -> str:
    names = [field.name for field in msgspec.structs.fields(kind)]
    near = difflib.get_close_matches(key, names, n=1)
    return f" Did you mean {near[0]}?" if near else f" It may have: {', '.join(names)}."


def _shown(value: object) -> str:
    text = repr(value)
    short = len(text) <= SHOWN_CHARACTERS_MAX
    return text if short else text[:SHOWN_CHARACTERS_MAX] + "..."
