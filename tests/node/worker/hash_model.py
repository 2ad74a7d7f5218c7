"""A model without numbers: what it draws is a hash of all tokens that it finds in its blocks.

A wrong block, a stale one, a block that two sequences write to, or a token read twice or never
changes what comes out: so it shows what the cache really held, as a real model would.
"""

from collections.abc import Sequence
from hashlib import blake2b

from node.worker.engine.model import (
    BLOCK_TOKENS,
    STEP_ROWS_MAX,
    Alternative,
    Draw,
    Drawn,
    Piece,
    Token,
)
from protocol.errors import Code, LocalError

END, BROKEN = 0, 1  # A token that ends an answer, and one after which nothing can be computed.
VOCABULARY = 40
UNWRITTEN = -1


class HashModel:
    """Implements node.worker.engine.model.Model, and checks all that a model may rely on."""

    def __init__(self, blocks: int, vocabulary: int = VOCABULARY, is_exact: bool = True) -> None:
        self.blocks = blocks
        self.is_exact = is_exact
        self._vocabulary = vocabulary
        self._cache = [[UNWRITTEN] * BLOCK_TOKENS for _ in range(blocks)]
        self.context_tokens = blocks * BLOCK_TOKENS  # A test may say that it is less.
        self.steps: list[Sequence[Piece]] = []

    def step(self, pieces: Sequence[Piece]) -> Sequence[Sequence[Drawn]]:
        assert 0 < sum(len(piece.ids) for piece in pieces) <= STEP_ROWS_MAX
        self._check_apart(pieces)
        self.steps.append(pieces)
        for piece in pieces:
            for place, token in enumerate(piece.ids, piece.position):
                self._cache[piece.blocks[place // BLOCK_TOKENS]][place % BLOCK_TOKENS] = token
        return [self._drawn(piece) for piece in pieces]

    def _check_apart(self, pieces: Sequence[Piece]) -> None:
        """No block is written to that another sequence of this step has."""
        for piece in pieces:
            assert piece.ids
            assert piece.position + len(piece.ids) <= self.context_tokens
            assert len(piece.blocks) * BLOCK_TOKENS >= piece.position + len(piece.ids)
            assert len(set(piece.blocks)) == len(piece.blocks)
            written = set(piece.blocks[piece.position // BLOCK_TOKENS :])
            for other in pieces:
                assert other is piece or not written & set(other.blocks)

    def _drawn(self, piece: Piece) -> Sequence[Drawn]:
        tokens: list[Drawn] = []
        end = piece.position + len(piece.ids) - len(piece.draws)
        for draw in piece.draws:
            end += 1
            places = [(at // BLOCK_TOKENS, at % BLOCK_TOKENS) for at in range(end)]
            read = [self._cache[piece.blocks[block]][at] for block, at in places]
            assert UNWRITTEN not in read
            assert read == [*draw.prompt, *draw.answer]
            broken = bool(tokens) and isinstance(tokens[-1], LocalError)
            if broken or BROKEN in read:
                tokens.append(LocalError(Code.WORKER_FAILED, "broken"))
            else:
                tokens.append(self.token(read, draw))
        return tokens

    def token(self, read: Sequence[int], draw: Draw) -> Token:
        """What follows these tokens."""
        raw = b"".join(token.to_bytes(4, "little") for token in read) + draw.t.to_bytes(4, "little")
        row = blake2b(raw, key=draw.seed, digest_size=16).digest()
        # Mostly the same few words again and again, so that guesses come true; now and then
        # another, and sometimes the end. The row is never the same twice.
        id_ = 2 + len(read) % 7 % (self._vocabulary - 2)
        if row[4] < 40:
            id_ = 2 + row[5] % (self._vocabulary - 2)
        if row[4] < 2:
            id_ = END
        alternatives = [Alternative(id_, -1)] * draw.sampling.logprobs
        return Token(id_, row, alternatives)
