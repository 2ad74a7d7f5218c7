"""OpenAI's shapes of embeddings, with a part of our own."""

import base64
import struct
from typing import Literal

from msgspec import Struct

from node.api.backend import Embeddings
from protocol.ids import node_text
from protocol.units import credits_text

Encoding = Literal["float", "base64"]


class EmbeddingItem(Struct, frozen=True, kw_only=True):
    """One vector: its numbers, or the base64 of their bytes (float32, little endian)."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingOrder(Struct, frozen=True, kw_only=True):
    """What one provider did, and what it cost."""

    provider: str
    provider_name: str
    mode: str
    texts: int
    input_tokens: int
    cost_microcredits: int


class EmbeddingsPart(Struct, frozen=True, kw_only=True):
    """What OpenAI's answer has no place for. `model` is the digest: a name may be that of several,
    and vectors of two models mean nothing beside each other."""

    model: str
    orders: tuple[EmbeddingOrder, ...]
    cost_microcredits: int
    cost_credits: str


class EmbeddingsAnswer(Struct, frozen=True, kw_only=True):
    """OpenAI's list of embeddings, and our part."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
    ayni: EmbeddingsPart


def embeddings_answer(found: Embeddings, encoding: Encoding) -> EmbeddingsAnswer:
    """OpenAI's shape of vectors."""
    tokens = sum(order.input_tokens for order in found.orders)
    cost = sum(order.cost_microcredits for order in found.orders)
    return EmbeddingsAnswer(
        data=[
            EmbeddingItem(index=number, embedding=_written(vector, encoding))
            for number, vector in enumerate(found.vectors)
        ],
        model=found.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        ayni=EmbeddingsPart(
            model=found.model_id.hex(),
            orders=tuple(
                EmbeddingOrder(
                    provider=node_text(order.provider),
                    provider_name=order.provider_name,
                    mode=order.mode,
                    texts=order.texts,
                    input_tokens=order.input_tokens,
                    cost_microcredits=order.cost_microcredits,
                )
                for order in found.orders
            ),
            cost_microcredits=cost,
            cost_credits=credits_text(cost),
        ),
    )


def _written(vector: bytes, encoding: Encoding) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector).decode("ascii")
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))
