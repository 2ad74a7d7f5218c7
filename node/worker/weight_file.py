"""A file whose parts are read one at a time, each whole or not at all."""

from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from protocol.errors import Code, LocalError


def bad_model(path: Path, what: str) -> LocalError:
    """The file cannot be used, and why."""
    return LocalError(
        Code.BAD_MODEL, f"{path.name} cannot be used: {what}. Get the file again, or another model."
    )


def open_file(path: Path) -> BinaryIO:
    """Raises LocalError NOT_FOUND when it cannot be opened."""
    try:
        return path.open("rb")
    except OSError as error:
        raise LocalError(
            Code.NOT_FOUND, f"The weights at {path} cannot be read: {error.strerror}."
        ) from None


def whole(path: Path, bytes_max: int) -> bytes:
    """All of a small file. Raises LocalError: NOT_FOUND when it cannot be opened, BAD_MODEL when
    it is larger than that."""
    with open_file(path) as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise bad_model(path, f"it has more than {bytes_max} bytes")
    return data


def part(file: BinaryIO, path: Path, offset: int, size_bytes: int) -> Tensor:
    """uint8, [size_bytes], which nobody else holds. It is copied and not mapped: a file that
    somebody cuts while it is read is then refused, where a mapped one would end the process.

    Raises LocalError BAD_MODEL for a file that has become shorter since its header was read.
    """
    raw = bytearray(size_bytes)
    file.seek(offset)
    if file.readinto(raw) != size_bytes:  # type: ignore[attr-defined]
        raise bad_model(path, "it ends in the middle of a tensor")
    return torch.frombuffer(raw, dtype=torch.uint8)
