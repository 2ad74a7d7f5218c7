"""Weights of a decoder, whatever kind of file they are in."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from torch import Tensor

from node.worker.gguf import read_gguf
from node.worker.gguf_weights import GgufWeights
from node.worker.pipe import File
from node.worker.quantised import Blocks
from node.worker.safetensors_weights import SafetensorsWeights
from node.worker.shape import Shape
from protocol.errors import Code, LocalError


class Weights(Protocol):
    """Open files of weights, of which one tensor at a time is read. The names are GGUF's in every
    format: `token_embd.weight`, `blk.0.attn_q.weight`, `output_norm.weight`.

    Rows of queries and keys come in the order in which a head's two halves are rotated against
    each other; norm weights are those that are multiplied by.
    """

    @property
    def shape(self) -> Shape: ...

    @property
    def path(self) -> Path:
        """Of the file to name to people."""

    @property
    def container(self) -> str:
        """ "gguf" or "safetensors": the second half of a torch mode's name."""

    def __contains__(self, name: str) -> bool: ...

    def format(self, name: str) -> str:
        """How a tensor is stored: a name in BLOCK_FORMATS, without reading it. Raises LocalError
        BAD_MODEL where there is no such tensor."""

    def blocks(self, name: str, rows: int, columns: int) -> Blocks:
        """A matrix as it is stored. Raises LocalError BAD_MODEL: no such tensor, another shape,
        or a file that has become shorter since its header was read."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """float32, of one dimension or more. Raises LocalError as `blocks` does."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_weights(files: Sequence[File]) -> Weights:
    """The weights of a model, whose headers were read and whose shape is known. The caller enters
    them as a context before it reads tensors.

    Raises LocalError: BAD_MODEL for what is no model that this engine can run, NOT_FOUND.
    """
    named = [file for file in files if file.role == "weights"]
    if not named:
        raise LocalError(Code.BAD_MODEL, "This model has no file of weights: get it again.")
    suffixes = {Path(file.name).suffix.lower() for file in named}
    if suffixes == {".gguf"} and len(named) == 1:
        return GgufWeights(read_gguf(Path(named[0].path)))
    if suffixes <= {".safetensors", ".json"} and ".safetensors" in suffixes:
        return SafetensorsWeights(files)
    raise LocalError(
        Code.BAD_MODEL,
        f"Weights named {named[0].name[:60]} are of no kind that is read here, which are one .gguf "
        "or .safetensors with a config.json. Others (.bin, .pt, .pth) may hold programs that run "
        "when they are read: get the model as safetensors or GGUF.",
    )
