"""Which sequence does what in the next step: slots join and leave between steps. No torch here.

A step gives every answering sequence one token, and reads a bounded part of the prompts that
wait, those of the requester that has had least first; so a long prompt delays the others a little
at each step and never stops them. When the cache is full, the least entitled sequence gives its
blocks away and reads its tokens again later: what it has said stays said.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from node.worker.engine.blocks import BlockPool, Chain, PrefixHashes, blocks_for
from node.worker.engine.fairness import OWNER, Turns
from node.worker.engine.model import STEP_ROWS_MAX, Alternative, Drawn, Model, Piece, Token
from node.worker.engine.rows import RowStore
from node.worker.engine.sequence import Job, JobState
from node.worker.engine.speculation import USUAL, Guesser, Speculation
from node.worker.pipe import Ended, Failed, Progress
from protocol.errors import Code, LocalError
from protocol.job.logprob import Logprob
from protocol.job.rows import leaf
from protocol.limits import LOGPROB_TEXT_BYTES_MAX

Event = Progress | Ended | Failed


@dataclass(frozen=True, slots=True)
class Pace:
    """How many tokens of prompts a step reads, at most."""

    alone: int = 128  # When nobody waits for a next word; a step is also the time to cancel.
    beside: int = 32  # Beside answers, which wait for it.

    def __post_init__(self) -> None:
        assert 1 <= self.beside <= STEP_ROWS_MAX
        assert 1 <= self.alone <= STEP_ROWS_MAX


STEP_ALONE_MS: Final = 250
STEP_BESIDE_MS: Final = 60  # Sixteen words a second while others' prompts are read: as one reads.
_PACE_TOKENS_MIN: Final = 16


def pace_for(prefill_millitokens_per_second: int) -> Pace:
    """Steps that take about as long as they may, for a measured speed."""

    def tokens(milliseconds: int) -> int:
        fitting = prefill_millitokens_per_second * milliseconds // 1_000_000
        return max(_PACE_TOKENS_MIN, min(STEP_ROWS_MAX, fitting))

    return Pace(tokens(STEP_ALONE_MS), tokens(STEP_BESIDE_MS))


@dataclass(frozen=True, slots=True)
class Settings:
    """What is fixed for one model."""

    slots: int  # Sequences that run at once.
    context_tokens: int
    ends: frozenset[int]  # Tokens that end an answer.
    public_prefixes: Sequence[Sequence[int]] = ()  # Beginnings, as token ids, that all may share.
    speculation: Speculation = USUAL


class Scheduler:
    """The sequences of one model. Not for several threads."""

    def __init__(self, model: Model, settings: Settings, rows: RowStore) -> None:
        # One sequence alone always fits, so that somebody always gets on.
        assert blocks_for(settings.context_tokens) <= model.blocks
        self._model = model
        self._settings = settings
        self._rows = rows
        self._pool = BlockPool(model.blocks)
        self._hashes = PrefixHashes(settings.public_prefixes)
        self._turns = Turns()
        self._running: dict[int, JobState] = {}
        self._waiting: dict[int, JobState] = {}
        self._arrivals = 0
        self.pace = Pace()

    @property
    def idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def blocks_held(self) -> int:
        """By sequences; 0 when there are none."""
        return self._pool.count - self._pool.available

    def add(self, job: Job) -> list[Event]:
        """Take a job; it joins at a next step. A prefix that ends the answer already ends it now.

        Raises LocalError: BUSY, there are as many as there are slots (the owner's jobs and all
        others are counted apart); CONTEXT_EXCEEDED, the prompt with its prefix leaves no place
        for a token; BAD_REQUEST, there is no prompt at all.
        """
        assert job.number not in self._running
        assert job.number not in self._waiting
        self._check(job)
        for token in job.prefix:
            if token not in self._settings.ends:
                job.text.push(token)  # Its text was given before.
            if token in self._settings.ends or job.text.stopped:
                return [Ended(job.number, "stop")]
        self._arrivals += 1
        self._turns.came(job.requester)
        self._waiting[job.number] = JobState(
            job,
            self._arrivals,
            Chain(self._hashes, job.requester, job.prompt),
            ids=[*job.prompt, *job.prefix],
            answer=list(job.prefix),
        )
        return []

    def _check(self, job: Job) -> None:
        tokens = len(job.prompt) + len(job.prefix)
        is_owner = job.requester == OWNER
        inside = sum((state.job.requester == OWNER) == is_owner for state in self._all())
        if inside >= self._settings.slots:
            raise LocalError(Code.BUSY, "All slots of this model are taken: try again soon.")
        if not tokens:
            raise LocalError(Code.BAD_REQUEST, "The prompt is empty: send some text.")
        if tokens >= self._settings.context_tokens:
            raise LocalError(
                Code.CONTEXT_EXCEEDED,
                f"The prompt has {tokens} tokens; this model takes "
                f"{self._settings.context_tokens} with the answer. Shorten the prompt.",
            )

    def cancel(self, number: int) -> list[Event]:
        """End a job before its next token; nothing if it is over."""
        if number not in self._running and number not in self._waiting:
            return []
        self._leave(number)
        return [Ended(number, "cancelled")]

    def forget_prefixes(self) -> None:
        """Whatever is in the cache is about to be lost; nothing may run."""
        assert self.idle
        self._pool.clear()

    def step(self) -> list[Event]:
        """Run the model once, if there is anything to do. Each answering job gets at least one
        token; each event is to be sent on at once."""
        self._admit()
        chosen = self._answers() | self._prompts()
        if not chosen:
            return []
        drawn = self._model.step(list(chosen.values()))
        events: list[Event] = []
        for (number, piece), tokens in zip(chosen.items(), drawn, strict=True):
            events += self._took(self._running[number], piece, tokens)
        return events

    # Who runs.

    def _all(self) -> Iterable[JobState]:
        return (*self._running.values(), *self._waiting.values())

    def _key(self, state: JobState) -> tuple[bool, int, int]:
        """The smaller, the more entitled."""
        return *self._turns.rank(state.job.requester), state.arrival

    def _admit(self) -> None:
        """Let waiting jobs run, in their order: who is first waits for room, and nobody slips by
        for ever. Only the owner's jobs push others out."""
        for state in sorted(self._waiting.values(), key=self._key):
            while not self._start(state):
                others = [one for one in self._running.values() if one.job.requester != OWNER]
                if state.job.requester != OWNER or not others:
                    return
                self._preempt(max(others, key=self._key))

    def _start(self, state: JobState) -> bool:
        if len(self._running) >= self._settings.slots:
            return False
        # Each of the others needs a block more before long: without it, one would soon be pushed
        # out again.
        if not state.hold(self._pool, spare=len(self._running)):
            return False
        del self._waiting[state.job.number]
        self._running[state.job.number] = state
        return True

    def _preempt(self, state: JobState) -> None:
        state.drop(self._pool)
        del self._running[state.job.number]
        self._waiting[state.job.number] = state

    def _leave(self, number: int) -> None:
        state = self._running.pop(number, None) or self._waiting.pop(number)
        state.drop(self._pool)
        self._turns.went(state.job.requester)

    # What they do.

    def _answers(self) -> dict[int, Piece]:
        """A token for each that answers. Those that find no block give way, from the end."""
        chosen: dict[int, Piece] = {}
        for state in sorted(self._running.values(), key=self._key):
            number = state.job.number
            if number not in self._running or not state.answers:
                continue
            guesses = self._guesses(state)
            if not state.grow(self._pool, len(state.ids) + len(guesses)):
                guesses = ()
            while number in self._running and not state.grow(self._pool, len(state.ids)):
                # It may be this one. Those before it in this order are never pushed out.
                self._preempt(max(self._running.values(), key=self._key))
            if number in self._running:
                chosen[number] = state.piece(1, guesses)
        return chosen

    def _guesses(self, state: JobState) -> Sequence[int]:
        settings = self._settings.speculation
        if not (self._model.is_exact and settings.guesses_max):
            return ()
        if state.guesser is None:
            state.guesser = Guesser(settings, state.ids)
        if len(self._running) > settings.sequences_max:
            return ()
        room = self._settings.context_tokens - len(state.ids)
        return state.guesser.guesses(min(room, state.output_left) - 1)

    def _prompts(self) -> dict[int, Piece]:
        """A bounded part of what has to be read before there is an answer."""
        answering = [state for state in self._running.values() if state.answers]
        budget = self.pace.beside if answering else self.pace.alone
        # With guesses an answer takes a few rows; there are so few answers then that all fit.
        budget = min(budget, STEP_ROWS_MAX - len(answering) - self._guesses_most)
        chosen: dict[int, Piece] = {}
        for state in sorted(self._running.values(), key=self._key):
            if state.answers or not budget:
                continue
            state.skip_known(self._pool)
            count = min(budget, state.unread)
            budget -= count
            chosen[state.job.number] = state.piece(count)
        return chosen

    @property
    def _guesses_most(self) -> int:
        settings = self._settings.speculation
        return settings.guesses_max * settings.sequences_max

    # What came of it.

    def _took(self, state: JobState, piece: Piece, drawn: Sequence[Drawn]) -> list[Event]:
        """Account for a piece: tokens go out at once, even when their text must wait."""
        assert len(drawn) == len(piece.draws)
        guesses = piece.ids[len(piece.ids) - max(0, len(drawn) - 1) :] if drawn else ()
        read = len(piece.ids) - len(guesses)
        state.has_read(self._pool, read)
        tokens: list[Token] = []
        end: Event | None = None
        said = ""
        for right, token in enumerate(drawn):
            if isinstance(token, LocalError):
                end = Failed(state.job.number, token.code, token.sentence)
                break
            text, reason = self._told(state, token)
            tokens.append(token)
            said += text
            if reason:
                end = Ended(state.job.number, reason)
            if reason or right == len(guesses) or token.id != guesses[right]:
                break
            state.has_read(self._pool, 1)  # The guess was right, and it was read with the rest.
        right = len(tokens) - 1 if guesses else 0
        if state.guesser is not None:
            state.guesser.learn(len(guesses), max(0, right))
        self._turns.served(state.job.requester, read + max(0, right))
        events: list[Event] = [self._progress(state, tokens, said)] if tokens else []
        if end is not None:
            self._leave(state.job.number)
            events.append(end)
        return events

    def _told(self, state: JobState, token: Token) -> tuple[str, str]:
        """One more token: its text that can be shown, and why it is the last, or ""."""
        job, ends = state.job, self._settings.ends
        state.drawn += 1
        state.answer.append(token.id)
        state.ids.append(token.id)
        if state.guesser is not None:
            state.guesser.add(token.id)
        said = "" if token.id in ends else job.text.push(token.id)
        if token.id in ends or job.text.stopped:
            reason = "stop"
        elif not state.output_left or len(state.ids) >= self._settings.context_tokens:
            # In a full context this token's place is the last, with none for the next.
            reason = "length"
        else:
            return said, ""
        return said if job.text.stopped else said + job.text.finish(), reason

    def _progress(self, state: JobState, tokens: Sequence[Token], said: str) -> Progress:
        first = state.job.first_t + state.drawn - len(tokens)
        leaves = []
        for place, token in enumerate(tokens, first):
            if token.row:
                self._rows.keep(state.job.number, place, token.row)
                leaves.append(leaf(place, token.row))
        alternatives = []
        if any(token.alternatives for token in tokens):
            alternatives = [[self._logprob(state, each) for each in t.alternatives] for t in tokens]
        ids = [token.id for token in tokens]
        return Progress(state.job.number, ids, said, leaves, alternatives)

    def _logprob(self, state: JobState, alternative: Alternative) -> Logprob:
        spelled = state.job.text.spelled(alternative.token)[:LOGPROB_TEXT_BYTES_MAX]
        return Logprob(alternative.token, spelled, alternative.micrologprob)
