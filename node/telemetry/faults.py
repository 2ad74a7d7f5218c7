"""Tell an exception by its type and place: its message could hold what somebody asked."""

import traceback
from pathlib import Path

from protocol.errors import AyniError

LEAVES_MAX = 4  # Of a group of exceptions; the first ones tell the story.
_ROOT = Path(__file__).parent.parent.parent


def describe(error: BaseException) -> str:
    """`ValueError at node/jobs/pool.py:120 in run`, one for each of a group's first members.

    Our own errors show their code too. No message and no value is shown.
    """
    leaves = _leaves(error)
    told = [_describe_one(leaf) for leaf in leaves[:LEAVES_MAX]]
    if len(leaves) > LEAVES_MAX:
        told.append(f"{len(leaves) - LEAVES_MAX} more")
    return "; ".join(told)


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for member in error.exceptions for leaf in _leaves(member)]


def _describe_one(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, AyniError):
        name += f" {error.code}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return name
    # The innermost frame of our own says more than the depths of a library.
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_ROOT / "node")]
    frame = (ours or list(frames))[-1]
    path = Path(frame.filename)
    place = path.relative_to(_ROOT).as_posix() if path.is_relative_to(_ROOT) else path.name
    return f"{name} at {place}:{frame.lineno} in {frame.name}"
