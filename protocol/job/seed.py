"""The order's seed: neither side can search for a good one (job.md section 3)."""

from hashlib import blake2b
from typing import Final

from protocol.identity import digest

DRAWN: Final = "drawn"
USER: Final = "user"
_USER_PERSON = b"ayni-seed-user-1"


def seed_commitment(r: bytes) -> bytes:
    """H in the request: BLAKE2b-256 of the requester's share, which only the order reveals."""
    return digest(r)


def share_of_user_seed(user_seed: int) -> bytes:
    """The r of an order whose seed the user chose: u64le, then zeros."""
    return user_seed.to_bytes(8, "little") + bytes(24)


def order_seed(source: str, r: bytes, p: bytes, terms: bytes) -> bytes:
    """32 bytes that settle every token's noise; `source` is "drawn" or "user"."""
    if source == USER:
        return blake2b(r[:8], digest_size=32, person=_USER_PERSON).digest()
    assert source == DRAWN
    return digest(r, p, terms)
