"""The key of a place's noise: the one part of sampling that both samplers share."""

from hashlib import blake2b


def noise_key(seed: bytes, t: int) -> int:
    """64 bits, from the 32 bytes of an order's seed and a token's place in the answer."""
    key = blake2b(t.to_bytes(8, "little"), digest_size=8, key=seed, person=b"ayni-gumbel-1")
    return int.from_bytes(key.digest(), "little")
