"""What a requester holds of one order, and whether each word of the provider agrees with it."""

from collections.abc import Sequence

from protocol.errors import Code, RemoteError
from protocol.ids import MessageId
from protocol.job.commitment import (
    RUNNING_START,
    running_hash,
    running_hash_vectors,
    terms_digest,
)
from protocol.job.kinds import EMBED, input_tokens_most
from protocol.job.terms import Chunk, Delta, Finish, Quote, Receipt, Request, Started
from protocol.job.unverifiable import TOKEN_UNNAMED, input_tokens_counted, is_unverifiable
from protocol.job.vectors import check_vectors
from protocol.limits import DIGEST_BYTES, TOKEN_TEXT_BYTES_MAX
from protocol.pricing import cost, cost_of_part


class Answer:
    """Counts tokens and money of one order by what was received, never by what was claimed.

    Every method raises RemoteError CONTRADICTION or COST_EXCEEDED for a message that does not
    agree, and then changes nothing.
    """

    def __init__(
        self, request: Request, request_id: MessageId, quote: Quote, quote_id: MessageId
    ) -> None:
        self._request = request
        self._quote = quote
        self._terms = terms_digest(request_id, quote_id)
        self._running = RUNNING_START
        self._open_ids: list[int] = []  # Of deltas that no chunk has covered yet.
        self._open_text = ""
        self._text_bytes = 0
        self.input_tokens = 0
        self.output_tokens = 0  # Covered by chunks.
        self.cost = 0  # Of the last chunk: what its signature says the order has cost so far.
        self.finish: Finish = "none"

    def start(self, started: Started) -> None:
        prompt_bytes = self._request.prompt_bytes
        tokens_max = input_tokens_most(self._request.kind, prompt_bytes)
        if is_unverifiable(self._quote.mode):
            tokens_max = input_tokens_counted(prompt_bytes)
        if started.prompt_tokens > tokens_max:
            raise RemoteError(
                Code.CONTRADICTION,
                f"{started.prompt_tokens} input tokens were claimed for a prompt of "
                f"{prompt_bytes} bytes; at most {tokens_max} can be.",
            )
        quote = self._quote
        cost_least = cost(started.prompt_tokens, 0, quote.price_in, quote.price_out)
        if cost_least > self.cost_max:
            raise RemoteError(
                Code.COST_EXCEEDED,
                f"The {started.prompt_tokens} input tokens alone cost {cost_least} microcredits; "
                f"the order allows {self.cost_max}.",
            )
        self.input_tokens = started.prompt_tokens

    def add(self, delta: Delta) -> None:
        tokens = self.output_tokens + len(self._open_ids) + len(delta.ids)
        if len(self._open_ids) + len(delta.ids) > self._quote.chunk_tokens:
            raise RemoteError(
                Code.CONTRADICTION,
                f"More than {self._quote.chunk_tokens} tokens came without a signed chunk.",
            )
        if tokens > self._request.output_tokens_max or self._cost_of(tokens) > self.cost_max:
            raise RemoteError(
                Code.COST_EXCEEDED,
                f"Token {tokens} came; the order allows {self._request.output_tokens_max} tokens "
                f"and {self.cost_max} microcredits.",
            )
        text_bytes = self._text_bytes + len(delta.text.encode())
        if text_bytes > TOKEN_TEXT_BYTES_MAX * (tokens + 1):
            raise RemoteError(
                Code.CONTRADICTION, f"{text_bytes} bytes of text came for {tokens} tokens."
            )
        if is_unverifiable(self._quote.mode):
            _check_unnamed(delta.ids, tokens, text_bytes)
        self._check_logprobs(delta)
        self._open_ids += delta.ids
        self._open_text += delta.text
        self._text_bytes = text_bytes

    def _check_logprobs(self, delta: Delta) -> None:
        """A provider that tells none is an honest one too: some engines know none."""
        most = self._request.sampling.logprobs
        told = [[one.token for one in place] for place in delta.logprobs]
        if told and not (
            len(told) == len(delta.ids)
            and all(
                place[:1] == [token] and len(place) <= most
                for place, token in zip(told, delta.ids, strict=True)
            )
        ):
            raise RemoteError(
                Code.CONTRADICTION,
                f"Probabilities came for other tokens than those told, or more than the {most} "
                "that were asked for.",
            )

    def cover(self, chunk: Chunk) -> None:
        tokens = self.output_tokens + len(chunk.ids)
        running = running_hash(self._running, self.place, chunk.ids, self._open_text)
        _agree(
            chunk.first_t,
            ("terms", chunk.terms, self._terms),
            ("place", chunk.first_t, self.place),
            ("tokens", list(chunk.ids), self._open_ids),
            ("vectors", chunk.vectors, ()),
            ("running hash", chunk.running, running),
            ("cost", chunk.cost, self._cost_of(tokens)),
        )
        if len(chunk.root) not in ((0, DIGEST_BYTES) if chunk.ids else (0,)):
            raise RemoteError(Code.CONTRADICTION, "A chunk's root is over no rows, or is no root.")
        self._running, self.output_tokens, self.cost = running, tokens, chunk.cost
        self._open_ids, self._open_text, self.finish = [], "", chunk.finish

    def settle(self, receipt: Receipt) -> None:
        mine = (self.input_tokens, self.output_tokens, self.cost, self._running)
        bill = (receipt.input_tokens, receipt.output_tokens, receipt.cost, receipt.running)
        if bill != mine:
            raise RemoteError(
                Code.RECEIPT_DISPUTED,
                f"The receipt says {bill[0]} + {bill[1]} tokens for {bill[2]} microcredits; "
                f"received were {mine[0]} + {mine[1]} for {mine[2]}.",
            )

    @property
    def cost_max(self) -> int:
        return self._request.cost_max

    @property
    def place(self) -> int:
        """Of the first token, or vector, that no chunk has covered: the first not yet paid."""
        return self._request.first_t + self.output_tokens

    def _cost_of(self, output_tokens: int) -> int:
        quote = self._quote
        return cost(self.input_tokens, output_tokens, quote.price_in, quote.price_out)


class VectorAnswer(Answer):
    """The answer to an `embed`: vectors, which chunks alone carry, and no tokens."""

    def __init__(
        self,
        request: Request,
        request_id: MessageId,
        quote: Quote,
        quote_id: MessageId,
        texts: int,
    ) -> None:
        super().__init__(request, request_id, quote, quote_id)
        self._texts = texts
        self._vectors = 0
        self._vector_bytes = 0

    def add(self, delta: Delta) -> None:
        if delta.ids or delta.text or delta.logprobs:
            raise RemoteError(Code.CONTRADICTION, "Tokens came as an answer to an embed.")

    def cover(self, chunk: Chunk) -> None:
        vectors = self._vectors + len(chunk.vectors)
        if vectors > self._texts or (chunk.finish == "stop" and vectors < self._texts):
            raise RemoteError(
                Code.CONTRADICTION,
                f"{vectors} vectors came as the whole answer to {self._texts} texts.",
            )
        _agree(
            chunk.first_t,
            ("terms", chunk.terms, self._terms),
            ("place", chunk.first_t, self._vectors),
            ("tokens", chunk.ids, ()),
            ("root", chunk.root, b""),
            (
                "running hash",
                chunk.running,
                running_hash_vectors(self._running, self._vectors, chunk.vectors),
            ),
            ("cost", chunk.cost, cost_of_part(self._cost_of(0), vectors, self._texts)),
        )
        check_vectors(chunk.vectors, self._vector_bytes)
        if chunk.vectors:
            self._vector_bytes = len(chunk.vectors[0])
        self._running, self._vectors = chunk.running, vectors
        self.cost, self.finish = chunk.cost, chunk.finish

    @property
    def place(self) -> int:
        return self._vectors


def answer_to(
    request: Request, request_id: MessageId, quote: Quote, quote_id: MessageId, texts: int
) -> Answer:
    """What is to be held of an order: `texts` is how many an embed asks for, else 0."""
    if request.kind == EMBED:
        return VectorAnswer(request, request_id, quote, quote_id, texts)
    return Answer(request, request_id, quote, quote_id)


def _agree(first_t: int, *facts: tuple[str, object, object]) -> None:
    """Each a name, what a chunk says, and what is held. Raises RemoteError CONTRADICTION."""
    wrong = [name for name, said, held in facts if said != held]
    if wrong:
        raise RemoteError(
            Code.CONTRADICTION,
            f"The chunk at place {first_t} contradicts what came before: {', '.join(wrong)}.",
        )


def _check_unnamed(ids: Sequence[int], tokens: int, text_bytes: int) -> None:
    """Tokens of an unverifiable mode: none has a name, and there is text for each."""
    if any(token != TOKEN_UNNAMED for token in ids):
        raise RemoteError(
            Code.CONTRADICTION, "Token ids came in a mode in which nobody can check them."
        )
    if tokens > text_bytes:
        raise RemoteError(
            Code.CONTRADICTION, f"{tokens} tokens were counted for {text_bytes} bytes of text."
        )
