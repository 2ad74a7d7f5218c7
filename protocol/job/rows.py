"""What binds an answer's hidden rows to a signature: the Merkle tree over those of one chunk.

Row t is what the model's head saw when it drew token t: the vector after the final norm, in
bfloat16, little endian. A chunk is signed with the root over the rows of its tokens; any of them
can be opened later, and nobody can then have had another. Here a row is only bytes.
"""

from collections.abc import Sequence
from hashlib import blake2b


def leaf(t: int, row: bytes) -> bytes:
    """BLAKE2b-256 of the row of the token at place t of the whole answer, with t as the salt."""
    return blake2b(row, digest_size=32, person=b"ayni-row-1", salt=t.to_bytes(8, "little")).digest()


def parent(left: bytes, right: bytes) -> bytes:
    """BLAKE2b-256 of two nodes of the tree."""
    return blake2b(left + right, digest_size=32, person=b"ayni-node-1").digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over one or more leaves, or b"" over none. The odd one at the end of a level goes
    up as it is."""
    level = list(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0] if level else b""


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """What it takes, beside its leaf, to show that `leaves[index]` is under the root: from the
    bottom up, the other node of each pair. There is none where it is the odd one."""
    assert 0 <= index < len(leaves)
    level, others = list(leaves), []
    while len(level) > 1:
        if index ^ 1 < len(level):
            others.append(level[index ^ 1])
        level, index = _above(level), index // 2
    return others


def is_under(root_: bytes, leaf_: bytes, index: int, count: int, others: Sequence[bytes]) -> bool:
    """Whether `leaf_` is the leaf of this index, of `count` leaves, under the root; `others` is
    what `path` gave. False for anything else, whatever it is: it may come from a peer."""
    if not 0 <= index < count:
        return False
    node, left = leaf_, list(others)
    while count > 1:
        if index ^ 1 < count:
            if not left:
                return False
            other = left.pop(0)
            node = parent(other, node) if index & 1 else parent(node, other)
        index, count = index // 2, (count + 1) // 2
    return not left and node == root_


def _above(level: Sequence[bytes]) -> list[bytes]:
    pairs = [parent(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
    return [*pairs, level[-1]] if len(level) % 2 else pairs
