"""Files of models that lie: real-looking ones, changed in their structure by counted chance."""

import json
import random
import struct
from collections.abc import Iterator
from typing import Any, Final

NUMBERS: Final = (
    0, 1, 2, 3, 7, 8, 31, 33, 255, 256, 65_535, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
    1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
FLOATS: Final = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"))
KEYS: Final = (
    "llama.block_count", "llama.context_length", "llama.embedding_length",
    "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv",
    "llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon", "general.architecture",
    "general.alignment", "llama.attention.key_length", "llama.rope.dimension_count",
    "llama.vocab_size", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id", "tokenizer.chat_template", "llama.rope.scaling.type",
)  # fmt: skip
VALUES: Final = (
    None, True, 0, 1, 3, 1 << 20, (1 << 32) - 1, "", "llama", "x" * 300, *FLOATS, ["a"],
    ["a", "a"], [0, 1], [-1] * 300,
)  # fmt: skip


def lying_keys() -> Iterator[dict[str, object]]:
    """Every key of the header with every value, but those of the file itself."""
    for key in KEYS:
        for value in VALUES:
            yield {key: value}


def mutated(data: bytes, chance: random.Random, header_bytes: int) -> bytes:
    """A few changes in the header: numbers of 4 or 8 bytes, bits, parts that are cut out, doubled
    or moved, and an end that comes early."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(min(header_bytes, len(changed)))
        match chance.randrange(6):
            case 0:
                struct.pack_into("<Q", changed, min(at, len(changed) - 8), chance.choice(NUMBERS))
            case 1:
                number = chance.choice(NUMBERS) & 0xFFFF_FFFF
                struct.pack_into("<I", changed, min(at, len(changed) - 4), number)
            case 2:
                changed[at] ^= 1 << chance.randrange(8)
            case 3:
                del changed[at : at + chance.choice((1, 4, 8, 64))]
            case 4:
                changed[at:at] = changed[at : at + chance.choice((4, 8, 64))]
            case 5 if chance.randrange(4) == 0:
                del changed[at:]
    return bytes(changed) or b"\0"


def tiny_header_bytes(data: bytes) -> int:
    """Where the tensors of a tiny model begin: not far behind the last of their names."""
    return data.rindex(b"output_norm.weight") + 64


def mutated_json(whole: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One value of an object, at any depth, replaced by one of another kind or size."""
    changed = json.loads(json.dumps(whole))
    place: Any = changed
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = chance.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and chance.randrange(4):
            place = inner
            continue
        odd = (None, True, -1, 0, 1 << 40, 10**30, 1e300, "", "x" * 300, [], {}, [[1]], {"a": 1})
        place[key] = chance.choice(odd)
        return changed  # type: ignore[no-any-return]
