"""What a requester holds of one order, and whether each word of the provider agrees with it."""

from protocol.errors import Code, RemoteError
from protocol.ids import MessageId
from protocol.job.commitment import RUNNING_START, running_hash, terms_digest
from protocol.job.terms import Chunk, Delta, Finish, Quote, Receipt, Request, Started
from protocol.limits import TEMPLATE_TOKENS_MAX, TOKEN_TEXT_BYTES_MAX
from protocol.pricing import cost


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
        self.cost = 0  # Of the last chunk: what its signature makes owed.
        self.finish: Finish = "none"

    def start(self, started: Started) -> None:
        tokens_max = self._request.prompt_bytes + TEMPLATE_TOKENS_MAX
        if started.prompt_tokens > tokens_max:
            raise RemoteError(
                Code.CONTRADICTION,
                f"{started.prompt_tokens} input tokens were claimed for a prompt of "
                f"{self._request.prompt_bytes} bytes; at most {tokens_max} can be.",
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
        self._open_ids += delta.ids
        self._open_text += delta.text
        self._text_bytes = text_bytes

    def cover(self, chunk: Chunk) -> None:
        tokens = self.output_tokens + len(chunk.ids)
        running = running_hash(self._running, self._t, chunk.ids, self._open_text)
        wrong = [
            name
            for name, said, held in (
                ("terms", chunk.terms, self._terms),
                ("first token", chunk.first_t, self._t),
                ("tokens", list(chunk.ids), self._open_ids),
                ("running hash", chunk.running, running),
                ("cost", chunk.cost, self._cost_of(tokens)),
            )
            if said != held
        ]
        if wrong:
            raise RemoteError(
                Code.CONTRADICTION,
                f"The chunk at token {self._t} contradicts what came before: {', '.join(wrong)}.",
            )
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
    def _t(self) -> int:
        return self._request.first_t + self.output_tokens

    def _cost_of(self, output_tokens: int) -> int:
        quote = self._quote
        return cost(self.input_tokens, output_tokens, quote.price_in, quote.price_out)
