"""Hears the nodes' own logs: a part that fails, or a ledger that stops, is a fault of ours here."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_FAULTS: Final = re.compile(r"part\.failed|a (handler|judge|listener).* failed|ledger\.stopped")
_HARMLESS: Final = re.compile(r"LocalError (UNAVAILABLE|at)|ExceptionGroup\[(LocalError(, )?)+\]")
"""What a part may fail with: a full disk, or a process that has crashed."""


class Alarm(logging.Handler):
    """Calls `fail` for each fault that a part of a node logs."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._fail = fail

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        fields = getattr(record, "ayni_fields", {})
        event, told = record.getMessage(), str(fields.get("error", ""))
        if _FAULTS.match(event) and not _HARMLESS.search(f"{event} {told}"):
            self._fail(f"a part of a node failed: {event} {fields.get('name', '')} {told}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear all logs of this process meanwhile; they go nowhere else."""
        logger = logging.getLogger("ayni")
        went_on, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = went_on
