"""What a provider has produced of one order: deltas and chunks of it, and what it costs."""

from collections.abc import Sequence

from protocol.ids import MessageId
from protocol.job.commitment import (
    RUNNING_START,
    running_hash,
    running_hash_vectors,
    terms_digest,
)
from protocol.job.rows import root
from protocol.job.terms import Chunk, Delta, Finish, Quote, Receipt, Request
from protocol.pricing import cost, cost_of_part


class Produced:
    """Counts what the model gave; the provider's counterpart of `protocol.job.answer`."""

    def __init__(
        self, request: Request, request_id: MessageId, quote: Quote, quote_id: MessageId
    ) -> None:
        self._request = request
        self._quote = quote
        self._terms = terms_digest(request_id, quote_id)
        self._order_id = MessageId(b"")
        self._open_ids: list[int] = []  # Of the chunk that is not closed yet.
        self._open_text: list[str] = []
        self._open_leaves: list[bytes] = []
        self._vectors = 0  # Of an embed: those that are signed.
        self._texts = 0
        self.running = RUNNING_START
        self.open_since: int | None = None
        """When the first token of the chunk that is not closed came."""
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_signed = 0
        """Of the last chunk: what the order has cost by our signature."""

    @property
    def terms(self) -> bytes:
        """What both have agreed on."""
        return self._terms

    @property
    def cost(self) -> int:
        """Of all that was produced so far, signed or not; of vectors, their share of the whole."""
        quote = self._quote
        whole = cost(self.input_tokens, self.output_tokens, quote.price_in, quote.price_out)
        return cost_of_part(whole, self._vectors, self._texts) if self._texts else whole

    @property
    def place(self) -> int:
        """Of the next token, or vector, that comes."""
        return self._vectors if self._texts else self._request.first_t + self.output_tokens

    @property
    def vectors_left(self) -> int:
        """Texts of an embed that have no vector yet."""
        return self._texts - self._vectors

    def begin(self, order_id: MessageId, texts: int) -> None:
        """The order has come; `texts` are those of an embed."""
        self._order_id, self._texts = order_id, texts

    def room(self, tokens: int) -> bool:
        """Whether so many more fit into the chunk that is open."""
        return len(self._open_ids) + tokens <= self._quote.chunk_tokens

    def add(self, delta: Delta, leaves: Sequence[bytes], now: int) -> None:
        """The next tokens, for which there must be room, as they go out; `leaves` are those of
        their hidden rows (protocol.job.rows), where there are rows."""
        assert self.room(len(delta.ids))
        if self.open_since is None:
            self.open_since = now
        self.output_tokens += len(delta.ids)
        self._open_ids += delta.ids
        self._open_text.append(delta.text)
        self._open_leaves += leaves

    def close(self, finish: Finish) -> Chunk:
        """The chunk of all tokens since the one before."""
        ids, text = self._open_ids, "".join(self._open_text)
        first_t = self._request.first_t + self.output_tokens - len(ids)
        self.running = running_hash(self.running, first_t, ids, text)
        # A root is over all rows of its chunk or over none.
        leaves = self._open_leaves if len(self._open_leaves) == len(ids) else []
        chunk = self._chunk(first_t, ids, (), finish, root(leaves))
        self._open_ids, self._open_text, self._open_leaves, self.open_since = [], [], [], None
        return chunk

    def give(self, vectors: Sequence[bytes], finish: Finish) -> Chunk:
        """The chunk of the next vectors, of which there must be some left."""
        assert len(vectors) <= self.vectors_left
        first_t = self._vectors
        self.running = running_hash_vectors(self.running, first_t, vectors)
        self._vectors += len(vectors)
        return self._chunk(first_t, (), vectors, finish, b"")

    def receipt(self, ms_first: int, ms_total: int) -> Receipt:
        """The bill, when the last chunk is signed."""
        return Receipt(
            order=self._order_id,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost=self.cost,
            running=self.running,
            millijoules=0,
            energy_source="none",
            ms_first=ms_first,
            ms_total=ms_total,
        )

    def _chunk(
        self,
        first_t: int,
        ids: Sequence[int],
        vectors: Sequence[bytes],
        finish: Finish,
        root_: bytes,
    ) -> Chunk:
        self.cost_signed = self.cost
        return Chunk(
            order=self._order_id,
            terms=self._terms,
            first_t=first_t,
            ids=tuple(ids),
            vectors=tuple(vectors),
            root=root_,
            running=self.running,
            cost=self.cost,
            finish=finish,
        )
