"""One job of the scheduler: its tokens, and how far the model has read them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from node.worker.engine.blocks import BlockPool, Chain, blocks_for
from node.worker.engine.model import BLOCK_TOKENS, Draw, Piece
from node.worker.engine.speculation import Guesser
from protocol.job.sampling import Sampling


class Text(Protocol):
    """Turns the tokens of an answer into text (node.worker.text_stream)."""

    @property
    def stopped(self) -> bool: ...

    def push(self, token: int) -> str: ...

    def finish(self) -> str: ...

    def spelled(self, token: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to generate."""

    number: int
    requester: bytes  # Empty for the owner.
    prompt: Sequence[int]
    prefix: Sequence[int]  # Tokens of the answer that were given before; they are read, not drawn.
    text: Text
    sampling: Sampling
    seed: bytes
    first_t: int
    output_tokens_max: int


@dataclass(slots=True)
class JobState:
    """A job that waits or runs. What the model has read of it is in its blocks; a job that waits
    has none, and keeps the tokens that it had."""

    job: Job
    arrival: int
    chain: Chain
    ids: list[int]  # All tokens of prompt and answer that are known.
    answer: list[int]  # The prefix and what was drawn.
    drawn: int = 0
    position: int = 0  # How many of `ids` the model has read.
    blocks: list[int] = field(default_factory=list)
    guesser: Guesser | None = None

    @property
    def unread(self) -> int:
        """At least 1: the last token of all is read to draw the next."""
        return len(self.ids) - self.position

    @property
    def answers(self) -> bool:
        """Whether each step gives it a token, and not a part of what it has to read first."""
        return self.drawn > 0 and self.unread == 1

    @property
    def output_left(self) -> int:
        return self.job.output_tokens_max - self.drawn

    def hold(self, pool: BlockPool, spare: int) -> bool:
        """Take the blocks for all known tokens, those that others have read before included, so
        that `spare` more are left; False, and nothing is taken, where there are too few."""
        assert not self.blocks
        # The last token is read in any case: what follows it is drawn from that.
        whole = (len(self.ids) - 1) // BLOCK_TOKENS
        self.chain.extend(self.ids, whole * BLOCK_TOKENS)
        for name in self.chain.names[:whole]:
            block = pool.share(name)
            if block is None:
                break
            self.blocks.append(block)
        missing = blocks_for(len(self.ids)) - len(self.blocks)
        if missing + spare > pool.available:
            self.drop(pool)
            return False
        self.position = len(self.blocks) * BLOCK_TOKENS
        self.blocks += pool.take(missing)
        return True

    def skip_known(self, pool: BlockPool) -> None:
        """Read nothing that another has read since this one came."""
        whole = (len(self.ids) - 1) // BLOCK_TOKENS
        for index in range(self.position // BLOCK_TOKENS, whole):
            block = pool.share(self.chain.names[index])
            if block is None:
                return
            pool.release([self.blocks[index]])  # However much of it this one had read itself.
            self.blocks[index] = block
            self.position = (index + 1) * BLOCK_TOKENS

    def grow(self, pool: BlockPool, tokens: int) -> bool:
        """Have blocks for so many tokens; False, and nothing is taken, where there are none."""
        missing = max(0, blocks_for(tokens) - len(self.blocks))
        if missing > pool.available:
            return False
        self.blocks += pool.take(missing)
        return True

    def drop(self, pool: BlockPool) -> None:
        """Give the blocks back; the tokens will be read again."""
        pool.release(self.blocks)
        self.blocks = []
        self.position = 0

    def has_read(self, pool: BlockPool, tokens: int) -> None:
        """The model has read so many more; blocks that are full now can be found by others."""
        before = self.position // BLOCK_TOKENS
        self.position += tokens
        self.chain.extend(self.ids, self.position)
        for index in range(before, self.position // BLOCK_TOKENS):
            pool.name(self.blocks[index], self.chain.names[index])

    def piece(self, count: int, guesses: Sequence[int] = ()) -> Piece:
        """The next `count` tokens, and then guesses of those that follow the last."""
        ids = self.ids[self.position : self.position + count]
        draws: list[Draw] = []
        if count == self.unread:
            draws = [self._draw(guesses[:right]) for right in range(len(guesses) + 1)]
        return Piece(self.blocks, self.position, [*ids, *guesses], draws)

    def _draw(self, guesses: Sequence[int]) -> Draw:
        job = self.job
        # An answer is long: it is copied only where something is to be added.
        answer = [*self.answer, *guesses] if guesses else self.answer
        place = job.first_t + self.drawn + len(guesses)
        return Draw(job.sampling, job.seed, place, job.prompt, answer)
