"""The shape of an encoder of texts, read from the JSON files beside its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from node.worker.pipe import File
from node.worker.weight_file import bad_model, whole
from protocol.errors import Code, LocalError
from protocol.job.vectors import NUMBER_BYTES
from protocol.limits import VECTOR_BYTES_MAX

MODEL: Final = "config.json"
SENTENCES: Final = "sentence_bert_config.json"
POOLING: Final = "pooling.json"
_JSON_BYTES_MAX: Final = 1 << 20

Count = Annotated[int, Meta(ge=1, le=1 << 20)]
T = TypeVar("T", bound=Struct)


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes of a BERT encoder and what becomes of its rows."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    tokens_max: int
    """Of one text, with those that the model puts at both of its ends."""
    pooling: Literal["mean", "first"]

    @property
    def parameters(self) -> int:
        """How many numbers the weights have."""
        rows = self.vocabulary + self.positions + self.token_types
        square = 4 * self.width * (self.width + 1)
        inner = 2 * self.width * self.inner + self.inner + self.width
        return rows * self.width + self.layers * (square + inner + 4 * self.width)


class _Bert(Struct, frozen=True):
    """Hugging Face's `config.json`, as far as it says what is computed."""

    model_type: str
    hidden_size: Annotated[int, Meta(ge=1, le=VECTOR_BYTES_MAX // NUMBER_BYTES)]
    num_hidden_layers: Annotated[int, Meta(ge=1, le=128)]
    num_attention_heads: Annotated[int, Meta(ge=1, le=256)]
    intermediate_size: Annotated[int, Meta(ge=1, le=1 << 16)]
    vocab_size: Count
    max_position_embeddings: Annotated[int, Meta(ge=3, le=1 << 16)]
    type_vocab_size: Annotated[int, Meta(ge=1, le=16)] = 2
    layer_norm_eps: Annotated[float, Meta(gt=0, le=1e-2)] = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"


class _Sentences(Struct, frozen=True):
    """sentence-transformers' `sentence_bert_config.json`."""

    max_seq_length: Annotated[int, Meta(ge=3, le=1 << 16)] | None = None


class _Pooling(Struct, frozen=True):
    """sentence-transformers' `1_Pooling/config.json`."""

    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = True
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False


def encoder_shape(files: Sequence[File]) -> EncoderShape:
    """What the files of role "config" say: `config.json`, and where they are there the two of
    sentence-transformers. Without those a text may be as long as the model has positions, and its
    rows are averaged.

    Raises LocalError BAD_MODEL for what this engine does not compute or no file says, NOT_FOUND.
    """
    paths = {file.name: Path(file.path) for file in files if file.role == "config"}
    if MODEL not in paths:
        raise LocalError(
            Code.BAD_MODEL, f"This encoder has no file {MODEL} of role config: get it again."
        )
    bert = _read(paths[MODEL], _Bert)
    _check(bert, paths[MODEL])
    sentences = _optional(paths, SENTENCES, _Sentences)
    tokens_max = bert.max_position_embeddings
    if sentences is not None and sentences.max_seq_length is not None:
        tokens_max = min(tokens_max, sentences.max_seq_length)
    return EncoderShape(
        layers=bert.num_hidden_layers,
        width=bert.hidden_size,
        heads=bert.num_attention_heads,
        inner=bert.intermediate_size,
        vocabulary=bert.vocab_size,
        positions=bert.max_position_embeddings,
        token_types=bert.type_vocab_size,
        epsilon=bert.layer_norm_eps,
        tokens_max=tokens_max,
        pooling=_pooling(paths),
    )


def _check(bert: _Bert, path: Path) -> None:
    for what, said, known in (
        ("is a model of the type", bert.model_type, "bert"),
        ("has the activation", bert.hidden_act, "gelu"),
        ("has positions of the type", bert.position_embedding_type, "absolute"),
    ):
        if said != known:
            raise bad_model(path, f"it {what} {said[:40]!r}; known is {known!r}")
    if bert.hidden_size % bert.num_attention_heads:
        raise bad_model(path, f"{bert.hidden_size} is no multiple of its number of heads")


def _pooling(paths: Mapping[str, Path]) -> Literal["mean", "first"]:
    said = _optional(paths, POOLING, _Pooling)
    if said is None:
        return "mean"
    modes = [said.pooling_mode_mean_tokens, said.pooling_mode_cls_token]
    modes += [said.pooling_mode_max_tokens, said.pooling_mode_mean_sqrt_len_tokens]
    if sum(modes) != 1 or not any(modes[:2]):
        raise bad_model(paths[POOLING], "known is pooling by the mean or by the first token alone")
    return "mean" if modes[0] else "first"


def _optional(paths: Mapping[str, Path], name: str, kind: type[T]) -> T | None:
    return _read(paths[name], kind) if name in paths else None


def _read(path: Path, kind: type[T]) -> T:
    data = whole(path, _JSON_BYTES_MAX)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_model(path, f"it does not say what it must ({error})"[:200]) from None
