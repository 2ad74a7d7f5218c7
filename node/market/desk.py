"""The provider's desk: whether a request is taken now, and for how much."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from node.channels.base import PayTerms
from node.market.tally import NodeTally, Tally
from node.sharing import Sharing
from protocol.capacity import ModelOffer
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, ModelId, NodeId
from protocol.job.checks import payment_for
from protocol.job.kinds import model_kind
from protocol.job.terms import Quote, Request
from protocol.limits import (
    CHUNK_MS_MAX,
    CHUNK_TOKENS_MAX,
    JOBS_PER_REQUESTER_MAX,
    QUOTE_VALID_MS,
    QUOTES_OPEN_MAX,
)
from protocol.pricing import output_tokens_affordable

RETRY_BUSY_MS = 5_000
RETRY_PAUSED_MS = 60_000


class Desk:
    """Gives quotes. What is for sale is asked anew each time: a worker may have gone down."""

    def __init__(
        self,
        sharing: Sharing,
        for_sale: Callable[[], Sequence[ModelOffer]],
        disk_trouble: Callable[[], str] = str,
    ) -> None:
        """`disk_trouble` says why nothing can be written now; "" while it can."""
        self._sharing, self._disk_trouble = sharing, disk_trouble
        self._for_sale = for_sale
        self._served = NodeTally()
        self.tally = Tally()
        """Quotes that may still be ordered, and jobs that run."""

    @contextmanager
    def attended(self, requester: NodeId) -> Iterator[None]:
        """One request of this requester is being dealt with, from the quote to the receipt.

        Raises LocalError QUOTA where it has too many, BUSY where all together are too many.
        """
        if self._served.counts.get(requester, 0) >= JOBS_PER_REQUESTER_MAX:
            raise LocalError(
                Code.QUOTA,
                f"You have {JOBS_PER_REQUESTER_MAX} jobs here, as many as one node may.",
                RETRY_BUSY_MS,
            )
        if self.tally.count >= QUOTES_OPEN_MAX:
            raise LocalError(Code.BUSY, "Too many requests are open here.", RETRY_BUSY_MS)
        with self._served.counted(requester), self.tally.counted():
            yield

    def quote(self, request: Request, request_id: MessageId, p: bytes, terms: PayTerms) -> Quote:
        """The quote for a request that has passed the protocol's checks; `p` is our share of
        the seed, 32 random bytes, and `terms` are how this requester pays.

        Raises LocalError PAUSED, DRAINING, MODEL_NOT_SERVED, MODE_NOT_SERVED, KIND_NOT_SERVED,
        CONTEXT_EXCEEDED, COST_EXCEEDED or BUSY.
        """
        self._check_open()
        model = self._find(request.model)
        if request.modes and model.mode not in request.modes:
            raise LocalError(
                Code.MODE_NOT_SERVED,
                f"{model.name} runs here as {model.mode}; asked for was "
                f"{' or '.join(request.modes)}.",
            )
        if model.kind != model_kind(request.kind):
            raise LocalError(
                Code.KIND_NOT_SERVED,
                f"{model.name} is a model to {model.kind} with; asked for was a job of kind "
                f"{request.kind!r}.",
            )
        # The least tokens that a prompt of so many bytes can be is not known, so only a prompt
        # whose answer alone cannot fit is refused before it is read.
        if request.output_tokens_max >= model.context_tokens:
            raise LocalError(
                Code.CONTEXT_EXCEEDED,
                f"{request.output_tokens_max} output tokens were asked for; {model.name} holds "
                f"{model.context_tokens} with the prompt here.",
            )
        affordable = output_tokens_affordable(request.cost_max, 1, model.price_in, model.price_out)
        if affordable < min(1, request.output_tokens_max):
            raise LocalError(
                Code.COST_EXCEEDED,
                f"A cap of {request.cost_max} microcredits buys no token at {model.price_in}/"
                f"{model.price_out} microcredits for a million tokens in/out.",
            )
        if model.slots_free < 1:
            raise LocalError(
                Code.BUSY,
                f"The slots for {model.name} here, {model.slots}, are all taken.",
                RETRY_BUSY_MS,
            )
        return Quote(
            request=request_id,
            mode=model.mode,
            price_in=model.price_in,
            price_out=model.price_out,
            p=p,
            window_chunks=terms.window_chunks,
            chunk_tokens=CHUNK_TOKENS_MAX,
            chunk_ms=CHUNK_MS_MAX,
            valid_ms=QUOTE_VALID_MS,
            queue_ms=0,
            payment=payment_for(
                model.price_in, model.price_out, is_prompt_first=terms.is_prompt_first
            ),
        )

    def _check_open(self) -> None:
        word = self._sharing.word
        if word == "draining":
            raise LocalError(Code.DRAINING, self._sharing.sentence)
        if word != "on":
            raise LocalError(Code.PAUSED, self._sharing.sentence, RETRY_PAUSED_MS)
        if self._disk_trouble():
            # A voucher counts when it is on disk. Where and why is for the owner alone.
            raise LocalError(
                Code.UNAVAILABLE,
                "This node cannot write to its disk now, so it takes no jobs; try another.",
                RETRY_PAUSED_MS,
            )

    def _find(self, wanted: ModelId) -> ModelOffer:
        models = self._for_sale()
        for model in models:
            if model.model == wanted:
                return model
        names = ", ".join(model.name for model in models) or "none at the moment"
        raise LocalError(
            Code.MODEL_NOT_SERVED,
            f"Model {wanted.hex()[:16]} is not served here; served: {names}.",
        )
