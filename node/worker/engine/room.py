"""How much of a model's cache fits into memory, decided before anything is loaded."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.worker.engine.blocks import blocks_for
from protocol.errors import Code, LocalError

SPARE_BYTES: Final = 256 << 20  # What a model without a bound leaves of the memory that is free.
CONTEXT_TOKENS_LEAST: Final = 2048  # A context is cut to fit, but not below this.
_MEMORY: Final = Path("/proc/meminfo")
_GROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes, in bytes."""

    fixed: int  # Weights, and what a step needs besides.
    block: int  # Keys and values of BLOCK_TOKENS tokens, in all layers.
    context_token: int  # Tables, for each token of the context.


@dataclass(frozen=True, slots=True)
class Asked:
    """What the owner wants."""

    name: str
    slots: int
    context_tokens_max: int  # 0: what the model was made for, or what fits.
    memory_bytes_max: int  # 0: what the machine has to give now.


@dataclass(frozen=True, slots=True)
class Room:
    """What was found."""

    blocks: int
    context_tokens: int
    note: str  # For people; "" where they get what they asked for.


def room(need: Need, asked: Asked, made_for_tokens: int) -> Room:
    """Blocks for all slots at full length, or as many as memory has, but for one full sequence at
    the least. A context that the owner did not set is cut where it would not fit.

    Raises LocalError UNAVAILABLE, saying what is needed and what there is.
    """
    have = asked.memory_bytes_max or max(0, free_bytes() - SPARE_BYTES)
    whole = min(asked.context_tokens_max or made_for_tokens, made_for_tokens)
    least = whole if asked.context_tokens_max else min(whole, CONTEXT_TOKENS_LEAST)
    context = whole
    while _needed(need, context) > have:
        if context <= least:
            raise _too_large(asked, _needed(need, least), have)
        context = max(least, context // 2)
    left = have - need.fixed - need.context_token * context
    blocks = min(asked.slots * blocks_for(context), left // need.block)
    note = ""
    if context < whole:
        note = f"Memory suffices for {context} tokens of context of the {whole} it was made for."
    return Room(blocks, context, note)


def _needed(need: Need, context_tokens: int) -> int:
    return (
        need.fixed + need.context_token * context_tokens + need.block * blocks_for(context_tokens)
    )


def _too_large(asked: Asked, needed: int, have: int) -> LocalError:
    return LocalError(
        Code.UNAVAILABLE,
        f"{asked.name} needs {_mebibytes(needed)} of memory and there are {_mebibytes(have)}: "
        "share a smaller model, set a shorter context, or allow it more memory.",
    )


def _mebibytes(count: int) -> str:
    return f"{-(-count // (1 << 20))} MiB"


def free_bytes() -> int:
    """Memory that a new program could have now without pushing others out, within what a control
    group allows this process."""
    free = _system_free_bytes()
    limit, used = _number(_GROUP / "memory.max"), _number(_GROUP / "memory.current")
    return free if limit is None else max(0, min(free, limit - (used or 0)))


def _system_free_bytes() -> int:
    try:
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform == "win32":
        return 4 << 30  # Not asked yet; memory_bytes_max says it better.
    try:
        # Half of all, where nobody tells how much of it is free.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (OSError, ValueError):
        return 4 << 30


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None  # "max", or no such file.
