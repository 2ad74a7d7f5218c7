"""`ayni ledger verify FILE`: an export verified with the genesis alone, without any node."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from node.api.ledger_shown import Showing
from node.api.ledger_views import Verification
from node.cli.ledger_cores import audit_with, cores_usable
from node.cli.network_file import read_network
from protocol.errors import Code, LocalError, RemoteError
from protocol.ledger.audit import Depth
from protocol.ledger.charter import charter

SMALL_BYTES_MAX: Final = 2 << 20  # Half a second's work, sooner done than a process is started.
PIECE_BYTES: Final = 1 << 18  # Read at once; a file of any size takes no more memory than this.


def verified_file(file: Path, genesis: Path, depth: Depth, cores: int = 0) -> Verification:
    """What an audit of an export finds, with so many processors, or with all where that is 0.
    Raises LocalError NOT_FOUND or BAD_REQUEST where the
    network's file is not there or is none, UNAVAILABLE where the export cannot be read."""
    try:
        founded = read_network(genesis).genesis
        rules = charter(founded)
    except RemoteError as error:
        raise LocalError(Code.BAD_REQUEST, f"{genesis}: {error.sentence}") from None
    try:
        if not cores:
            cores = 1 if file.stat().st_size <= SMALL_BYTES_MAX else cores_usable()
        report = audit_with(founded, partial(_pieces, file), depth, cores)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"{file} cannot be read: {error.strerror}.") from None
    return Showing(rules, lambda node: "").verification(report)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            yield piece
