"""Which kind of engine runs a model: one that writes, or one that embeds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.worker.engine.device import Device
from node.worker.engine.engine import Engine, ServedModel
from node.worker.engine.opening import open_model
from node.worker.engine.rows import RowStore
from node.worker.pipe import Load

if TYPE_CHECKING:
    from node.worker.tokenizer import ModelTokenizer


@dataclass(frozen=True, slots=True)
class Machine:
    """What models may run on."""

    device: Device
    engine: str  # "auto", "native" or "torch".
    threads: int  # The most that may run at once.


def open_served(load: Load, machine: Machine, rows: RowStore) -> ServedModel:
    """Read a model. Raises LocalError: NOT_FOUND, BAD_MODEL, or UNAVAILABLE (memory, or an engine
    that was asked for by name and cannot run it)."""
    # Imported here: it needs the tokenizers, and whoever only writes may have none.
    from node.worker.engine.embedding import EmbeddingEngine, is_encoder

    if is_encoder(load.files):
        return EmbeddingEngine(load, machine.device)
    tokenizer = _tokenizer(load)
    opened = open_model(load, machine.device, machine.engine, machine.threads)
    tokenizer.check_fits(opened.model.vocabulary)
    return Engine(load, opened, tokenizer, rows)


def _tokenizer(load: Load) -> "ModelTokenizer":
    from node.worker.tokenizer import open_tokenizer

    return open_tokenizer(load.files, load.chat_template)
