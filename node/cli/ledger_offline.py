"""`ayni ledger verify FILE`: an export verified with the genesis alone, without any node."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from node.api.ledger_shown import Showing
from node.api.ledger_views import Verification
from node.cli.network_file import read_network
from protocol.errors import Code, LocalError, RemoteError
from protocol.ledger.audit import Depth, audit
from protocol.ledger.charter import charter

PIECE_BYTES: Final = 1 << 18  # Read at once; a file of any size takes no more memory than this.


def verified_file(file: Path, genesis: Path, depth: Depth) -> Verification:
    """What an audit of an export finds. Raises LocalError NOT_FOUND or BAD_REQUEST where the
    network's file is not there or is none, UNAVAILABLE where the export cannot be read."""
    try:
        rules = charter(read_network(genesis).genesis)
    except RemoteError as error:
        raise LocalError(Code.BAD_REQUEST, f"{genesis}: {error.sentence}") from None
    try:
        report = audit(rules, partial(_pieces, file), depth)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"{file} cannot be read: {error.strerror}.") from None
    return Showing(rules, lambda node: "").verification(report)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            yield piece
