"""The blocks of the cache: who holds them, and which are kept because their tokens may come again.

A block that is full is known by the hash of all tokens up to its end, chained over the blocks
before it (vLLM's prefix cache). Whoever begins with the same tokens reads it and copies nothing.
A shared cache tells, by its speed, what others have asked; so every chain begins with the name
of a requester, and only prefixes that the owner calls public are shared by all.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from node.worker.engine.model import BLOCK_TOKENS


def blocks_for(tokens: int) -> int:
    """How many blocks hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class PrefixHashes:
    """Names of full blocks, for one model."""

    def __init__(self, public: Iterable[Sequence[int]] = ()) -> None:
        """`public` are the beginnings, as token ids, that all requesters may share."""
        self._public = {
            tuple(prefix[:end])
            for prefix in public
            for end in range(BLOCK_TOKENS, len(prefix) + 1, BLOCK_TOKENS)
        }

    def first(self, requester: bytes) -> bytes:
        """What the hash of a requester's first block goes on from. 32 bytes."""
        return blake2b(requester, digest_size=32, person=b"ayni-cache-own").digest()

    def next(self, before: bytes, ids: Sequence[int]) -> bytes:
        """The name of a block with these ids, after the block of the name `before`."""
        raw = b"".join(token.to_bytes(4, "little") for token in ids)
        return blake2b(before + raw, digest_size=32).digest()

    def public(self, ids: Sequence[int]) -> list[bytes]:
        """The names of the blocks at the beginning of `ids` that everybody may know."""
        names: list[bytes] = []
        before = blake2b(digest_size=32, person=b"ayni-cache-all").digest()
        for end in range(BLOCK_TOKENS, len(ids) + 1, BLOCK_TOKENS):
            if tuple(ids[:end]) not in self._public:
                break
            before = self.next(before, ids[end - BLOCK_TOKENS : end])
            names.append(before)
        return names


class Chain:
    """The names of one sequence's full blocks, made as its tokens become known."""

    def __init__(self, hashes: PrefixHashes, requester: bytes, ids: Sequence[int]) -> None:
        """`ids` are those of the prompt; more may be in the chain later."""
        self._hashes = hashes
        self._own = hashes.first(requester)
        self.names = hashes.public(ids)
        self._public = len(self.names)

    def extend(self, ids: Sequence[int], tokens: int) -> None:
        """Name the blocks that the first `tokens` of `ids` fill."""
        while (len(self.names) + 1) * BLOCK_TOKENS <= tokens:
            start = len(self.names) * BLOCK_TOKENS
            # After the public blocks the chain begins anew with the requester's name: who has the
            # same public prefix shares nothing behind it.
            first = len(self.names) == self._public
            before = self._own + b"".join(self.names[-1:]) if first else self.names[-1]
            self.names.append(self._hashes.next(before, ids[start : start + BLOCK_TOKENS]))


class BlockPool:
    """A fixed number of blocks. Each is free, held by one or more sequences, or only kept: full,
    named and held by nobody, until another needs its place. The longest unused goes first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(reversed(range(count)))
        self._holders = [0] * count
        self._by_name: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """How many can be taken now."""
        return len(self._free) + len(self._kept)

    @property
    def kept(self) -> int:
        """Of the available ones, those whose tokens may come again."""
        return len(self._kept)

    def holders(self, block: int) -> int:
        return self._holders[block]

    def take(self, count: int) -> list[int]:
        """Blocks to write to; there must be so many available."""
        assert 0 <= count <= self.available
        taken = []
        for _ in range(count):
            if not self._free:
                self._forget(next(iter(self._kept)))
            block = self._free.pop()
            assert self._holders[block] == 0
            self._holders[block] = 1
            taken.append(block)
        return taken

    def known(self, names: Sequence[bytes]) -> int:
        """How many of `names`, from the first on, are here."""
        for count, name in enumerate(names):
            if name not in self._by_name:
                return count
        return len(names)

    def share(self, name: bytes) -> int | None:
        """Hold the block of this name too, only to read it; None if it is not here."""
        block = self._by_name.get(name)
        if block is None:
            return None
        self._holders[block] += 1
        self._kept.pop(block, None)
        return block

    def name(self, block: int, name: bytes) -> None:
        """A block that is held is full, and its tokens are those of `name`. If there is another
        with the same tokens, that one goes on being found."""
        assert self._holders[block] > 0
        if name not in self._by_name and block not in self._names:
            self._by_name[name] = block
            self._names[block] = name

    def release(self, blocks: Sequence[int]) -> None:
        """A sequence's blocks, in its order, are held once less. Of those that are then kept the
        last is forgotten first: without it, those before it are still a prefix."""
        for block in reversed(blocks):
            assert self._holders[block] > 0
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._names:
                self._kept[block] = None
            else:
                self._free.append(block)

    def clear(self) -> None:
        """Forget all that is kept: what the blocks hold is about to be another's."""
        for block in list(self._kept):
            self._forget(block)

    def _forget(self, block: int) -> None:
        del self._kept[block]
        del self._by_name[self._names.pop(block)]
        self._free.append(block)
