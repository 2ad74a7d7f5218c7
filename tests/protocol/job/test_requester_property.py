"""RequesterJob alone: any events of any provider at any time end it once, within its caps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.errors import Code
from protocol.ids import NodeId
from protocol.job.checks import cost_worst
from protocol.job.commitment import RUNNING_START, running_hash
from protocol.job.requester import RequesterJob
from protocol.job.requester_actions import (
    Action,
    Ask,
    Candidate,
    Countersign,
    Deliver,
    Drop,
    Finished,
    Pay,
    SendOrder,
    SendRefuse,
)
from protocol.job.requester_events import (
    Came,
    CancelAsked,
    Event,
    Funded,
    NotOrdered,
    OrderSent,
    ProviderLost,
    QuoteCame,
    RequestSent,
    TimePassed,
)
from protocol.job.terms import Chunk, Delta, Receipt, Started
from protocol.limits import ATTEMPTS_MAX
from protocol.pricing import cost
from tests.protocol.samples import DEAL, MODEL, REFUSE, Agreement, agreement

CANDIDATES = [
    Candidate(NodeId(bytes([number]) * 32), MODEL, DEAL.quote.price_in, DEAL.quote.price_out)
    for number in range(1, 6)
]
STARTED = Started(DEAL.order_id, 7, bytes(32))


class Scene:
    """The world around one requester: keeps the shell's promises, and counts on its own."""

    def __init__(self, job: RequesterJob, deal: Agreement) -> None:
        self.job = job
        self.deal = deal
        self.attempt = 0
        self.asked = False
        self.ordering = False
        self.funding = False
        self.ids: list[int] = []  # Delivered in this attempt.
        self.text = ""
        self.open_ids: list[int] = []
        self.open_text = ""
        self.covered = 0
        self.running = RUNNING_START
        self.last: Chunk | None = None
        self.paid = 0
        self.ahead = 0  # With all orders that were placed.
        self.ends: list[Finished] = []

    def note(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.ends, "an action after the end"
            match action:
                case Ask(attempt, _, spent):
                    assert attempt == self.attempt + 1 <= ATTEMPTS_MAX
                    assert spent == self.ahead, "what a lost order paid counts against the cap"
                    self.funding = True
                    assert not self.ids, "an attempt after the answer began"
                    self.attempt, self.asked, self.ordering = attempt, True, False
                case SendOrder(_, _, is_paid, ahead):
                    assert is_paid
                    self.ordering = True
                    self.ahead += ahead
                case Deliver(ids, text):
                    self.ids += ids
                    self.text += text
                    self.open_ids += ids
                    self.open_text += text
                case Pay(_, order_id, first_t, price):
                    assert order_id == self.deal.order_id
                    assert first_t == self.covered + len(self.open_ids)
                    assert self.paid <= price <= self.deal.request.cost_max, "M6"
                    self.paid = price
                case Countersign(_, bill):
                    assert bill.cost == self.paid
                    assert (bill.output_tokens, bill.cost) == (self.covered, self.cost())
                    assert bill.running == self.running
                case Finished():
                    self.ends.append(action)

    def cost(self) -> int:
        quote = self.deal.quote
        return cost(7, self.covered, quote.price_in, quote.price_out)

    def event(self, choice: str, ids: tuple[int, ...], text: str) -> Event | None:
        """The event of this name, or None where the shell would never feed it now."""
        deal, attempt = self.deal, max(1, self.attempt)
        match choice:
            case "funded" if self.funding:
                self.funding = False
                return Funded(attempt)
            case "unfunded" if self.funding:
                self.funding = False
                return NotOrdered(attempt, Code.OVERDRAWN, "")
            case "sent" if self.asked and not self.funding:
                self.asked = False
                return RequestSent(attempt, deal.request, deal.request_id)
            case "ordered" if self.ordering:
                self.ordering = False
                return OrderSent(attempt, deal.order_id)
            case "sent" | "ordered" | "funded" | "unfunded":
                return None
            case "quote":
                return QuoteCame(attempt, deal.quote, deal.quote_id)
            case "started":
                return Came(attempt, replace(STARTED, order=deal.order_id))
            case "delta":
                return Came(attempt, Delta(deal.order_id, ids, text))
            case "chunk" | "last" | "dear chunk":
                return Came(attempt, self._chunk(choice))
            case "receipt":
                return Came(attempt, self._receipt())
            case "refuse":
                return Came(attempt, REFUSE)
            case "unpaid":
                return Came(attempt, replace(REFUSE, code=Code.UNPAID))
            case "lost":
                return ProviderLost(attempt, Code.LOST, "")
            case "late":
                return Came(attempt - 1, Delta(deal.order_id, ids, text))
            case "cancel":
                return CancelAsked()
        assert choice == "time"
        return TimePassed()

    def _chunk(self, choice: str) -> Chunk:
        running = running_hash(self.running, self.covered, self.open_ids, self.open_text)
        tokens = self.covered + len(self.open_ids)
        price = cost(7, tokens, self.deal.quote.price_in, self.deal.quote.price_out)
        return Chunk(
            self.deal.order_id,
            self.deal.terms,
            self.covered,
            tuple(self.open_ids),
            (),
            b"",
            running,
            price + (choice == "dear chunk"),
            "stop" if choice == "last" else "none",
        )

    def took(self, event: Event, complained: bool) -> None:
        """Keep the books of a chunk that was taken."""
        if isinstance(event, Came) and isinstance(event.message, Chunk) and not complained:
            self.last = event.message
            self.running = event.message.running
            self.covered += len(event.message.ids)
            self.open_ids, self.open_text = [], ""

    def _receipt(self) -> Receipt:
        bill = (7, self.covered, self.cost(), self.running)
        return Receipt(self.deal.order_id, *bill, 0, "none", 0, 0)


STRAIGHT = ["funded", "sent", "quote", "ordered", "started"]
choices = st.sampled_from(
    [
        *STRAIGHT,
        *("delta", "delta", "chunk", "chunk", "last", "receipt", "receipt", "dear chunk"),
        *("refuse", "unpaid", "unfunded", "lost", "late", "cancel", "time", "time"),
    ]
)
steps = st.tuples(
    choices,
    st.lists(st.integers(0, 9), max_size=6).map(tuple),
    st.text(max_size=4),
    st.sampled_from([0, 0, 1, 300, 5_000, 10_000, 31_000]),
)
deals = st.builds(
    agreement,
    output_tokens_max=st.integers(1, 30),
    time_ms_max=st.sampled_from([0, 1, 20_000, 60_000]),
    cost_max=st.integers(0, 200),
    chunk_tokens=st.integers(1, 16),
    is_prompt_first=st.booleans(),
)


@pytest.mark.parametrize("opening", [[], STRAIGHT], ids=["from the start", "once it runs"])
@given(deals, st.integers(1, 5), st.lists(steps, max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_events_at_any_time_end_it_once(opening, deal, candidates, script):
    job = RequesterJob(CANDIDATES[:candidates], deal.request.time_ms_max, 0)
    scene, now = Scene(job, deal), 0
    scene.note(job.begin(now))
    for choice, ids, text, gap in [*[(name, (), "", 0) for name in opening], *script]:
        if job.over:
            break
        now += gap
        event = scene.event(choice, ids, text)
        if event is None:
            continue
        early = isinstance(event, TimePassed) and job.wake_at is not None and now < job.wake_at
        actions = job.handle(event, now)
        assert not (early and actions)
        scene.note(actions)
        scene.took(event, any(isinstance(action, SendRefuse | Drop) for action in actions))
        assert (job.wake_at is None) == job.over == bool(scene.ends)
    for _ in range(3 * ATTEMPTS_MAX + 3):  # With nothing but time it ends.
        if job.over:
            break
        assert job.wake_at is not None
        now = max(now, job.wake_at)
        scene.note(job.handle(TimePassed(), now))
    assert job.over
    (end,) = scene.ends
    assert end.cost <= cost_worst(deal.request, deal.quote) <= deal.request.cost_max
    assert scene.paid == end.cost == (scene.cost() if scene.last else 0)
    assert end.output_tokens <= len(scene.ids) <= deal.request.output_tokens_max
    assert end.reason != "none" or end.failures
    if end.receipt is not None:
        assert end.output_tokens == len(scene.ids)
