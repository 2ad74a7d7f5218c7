"""Structured logs: an event's name and typed fields, to the terminal and a bounded file.

Nothing here takes free text: an event is a fixed name, a field is short, and a library's record
is told by where it was written, since its message could hold what somebody asked (H3).
"""

import json
import linecache
import logging
import logging.handlers
import os
import re
import sys
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog

from node.telemetry.faults import describe
from protocol.errors import Code, LocalError

FILE_BYTES_MAX = 8 << 20
FILES_KEPT = 2  # Besides the current one: 24 MiB of logs at most.
FIELD_CHARACTERS_MAX = 300
EVENT = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")

Level = Literal["debug", "info", "warning", "error"]
Style = Literal["plain", "json"]
Field = str | int | float | bool | None
"""A name, a code, an address, a count or a measure: never words of a prompt or an answer."""

_OURS = "ayni"


class Log:
    """Writes the events of one part of the node."""

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"{_OURS}.{part}")
        assert EVENT.fullmatch(part), part

    def debug(self, event: str, **fields: Field) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Field) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Field) -> None:
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Field]) -> None:
        assert EVENT.fullmatch(event), "an event is a fixed name, such as job.began"
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"ayni_fields": fields})


def setup(
    level: Level, style: Style | None = None, file: Path | None = None, stream: TextIO | None = None
) -> None:
    """Send all logs of this process to `stream` (stderr when None) in `style`, and as JSON lines
    to `file`, which rotates at 8 MiB. `style` None is coloured text on a terminal, plain
    `key=value` lines elsewhere. Libraries are heard from WARNING up. May be called again.

    Raises LocalError UNAVAILABLE when the file cannot be opened.
    """
    stream = sys.stderr if stream is None else stream
    shown = logging.StreamHandler(stream)
    shown.setFormatter(_formatter(style, colours=style is None and stream.isatty()))
    handlers: list[logging.Handler] = [shown]
    if file is not None:
        kept = _open_file(file)
        kept.setFormatter(_formatter("json", colours=False))
        handlers.append(kept)
    root, ours = logging.getLogger(), logging.getLogger(_OURS)
    for logger in (root, ours):
        for old in logger.handlers[:]:
            logger.removeHandler(old)
            old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(level.upper())
    # A handler that fails prints the record to stderr, message and all.
    logging.raiseExceptions = False


def _open_file(file: Path) -> logging.Handler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _PrivateRotatingFile(
            file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, encoding="utf-8"
        )
    except OSError as error:
        raise LocalError(
            Code.UNAVAILABLE, f"The log {file} cannot be written: {error.strerror}."
        ) from None


class _PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """Only the owner reads the log: it says when and with whom they work."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return TextIOWrapper(FileIO(descriptor, "a"), encoding=self.encoding, write_through=True)


class _Formatter(logging.Formatter):
    """Our own records with their fields; a library's record without its words."""

    def __init__(self, renderer: structlog.typing.Processor) -> None:
        super().__init__()
        self._renderer = renderer
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {"level": record.levelname.lower()}
        fields = getattr(record, "ayni_fields", None)
        if isinstance(fields, dict):
            event |= {"part": record.name.partition(".")[2], "event": record.msg}
            event |= {name: _bounded(value) for name, value in fields.items()}
        else:
            event |= {"part": "library", "event": "library.spoke", "logger": record.name}
            event["place"] = f"{Path(record.pathname).name}:{record.lineno}"
            event["line"] = linecache.getline(record.pathname, record.lineno).strip()[:120]
            if record.exc_info and record.exc_info[1] is not None:
                event["error"] = describe(record.exc_info[1])
        return str(self._renderer(None, "", self._stamp(None, "", event)))


def _formatter(style: Style | None, *, colours: bool) -> _Formatter:
    if style == "json":
        return _Formatter(structlog.processors.JSONRenderer(json.dumps))
    if colours:
        return _Formatter(structlog.dev.ConsoleRenderer(colors=True))
    first = ["timestamp", "level", "part", "event"]
    return _Formatter(structlog.processors.LogfmtRenderer(key_order=first, bool_as_flag=False))


def _bounded(value: Field) -> Field:
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    return text if len(text) <= FIELD_CHARACTERS_MAX else text[:FIELD_CHARACTERS_MAX] + "..."
