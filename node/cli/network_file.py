"""NAME.ayni files as the verbs read, show and write them."""

import os
from pathlib import Path

from node.config import FILE_BYTES_MAX
from protocol.errors import Code, LocalError
from protocol.ledger.genesis import (
    NetworkFile,
    network_file_parsed,
    network_file_text,
)


def read_network(path: Path) -> NetworkFile:
    """Raises LocalError: NOT_FOUND where there is no such file, BAD_REQUEST where it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        text = data.decode("ascii")
    except OSError as error:
        raise LocalError(Code.NOT_FOUND, f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise LocalError(Code.BAD_REQUEST, f"{path} is no network file.") from None
    if len(data) > FILE_BYTES_MAX:
        raise LocalError(Code.BAD_REQUEST, f"{path} is too large for a network file.")
    return network_file_parsed(text)


def write_network(path: Path, file: NetworkFile, *, new: bool) -> None:
    """The whole file or none of it. Raises LocalError IN_USE for one that must be new and is not,
    UNAVAILABLE where it cannot be written."""
    if new and path.exists():
        raise LocalError(Code.IN_USE, f"{path} is there already: name another with -o.")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(network_file_text(file), encoding="ascii", newline="\n")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LocalError(
            Code.UNAVAILABLE, f"{path} cannot be written: {error.strerror}. Name another place."
        ) from None
