"""What binds words to signatures: the prompt's salted commitment and the answer's running hash."""

from collections.abc import Sequence
from hashlib import blake2b

from protocol import codec
from protocol.identity import digest
from protocol.ids import MessageId
from protocol.job.terms import Prompt

RUNNING_START = bytes(32)


def prompt_size(prompt: Prompt) -> int:
    """Bytes of the prompt's canonical form: what a request may say of it."""
    return len(codec.encode(prompt))


def prompt_commitment(salt: bytes, prompt: Prompt) -> bytes:
    """BLAKE2b-256 under a random key of 32 bytes: a request shows nothing of the prompt."""
    return blake2b(codec.encode(prompt), key=salt, digest_size=32).digest()


def stop_digest(salt: bytes, stop: Sequence[str]) -> bytes:
    """Salted like the prompt, since a stop string can be guessed."""
    return blake2b(
        codec.encode(tuple(stop)), key=salt, digest_size=32, person=b"ayni-stop-1"
    ).digest()


def ids_bytes(ids: Sequence[int]) -> bytes:
    """Each token id as four little-endian bytes."""
    return b"".join(token.to_bytes(4, "little") for token in ids)


def prompt_ids_digest(ids: Sequence[int]) -> bytes:
    """What `started` says of the prompt's token ids."""
    return digest(ids_bytes(ids))


def running_hash(previous: bytes, first_t: int, ids: Sequence[int], text: str) -> bytes:
    """BLAKE2b-256(previous, first_t as u64le, count as u32le, ids as u32le each, UTF-8 text)."""
    head = first_t.to_bytes(8, "little") + len(ids).to_bytes(4, "little")
    return digest(previous, head, ids_bytes(ids), text.encode())


def running_hash_vectors(previous: bytes, first_t: int, vectors: Sequence[bytes]) -> bytes:
    """BLAKE2b-256(previous, place of the first as u64le, count as u32le, the vectors' bytes)."""
    head = first_t.to_bytes(8, "little") + len(vectors).to_bytes(4, "little")
    return digest(previous, head, *vectors)


def terms_digest(request: MessageId, quote: MessageId) -> bytes:
    """BLAKE2b-256(request id, quote id): what both have agreed on."""
    return digest(request, quote)
