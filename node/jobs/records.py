"""From a job to a line of the history and to a bill, for both sides."""

from dataclasses import replace

from node.jobs.around import Surroundings
from node.storage.bills import Bill
from node.storage.jobs import JobRecord, JobState, Role
from protocol.envelope import seal
from protocol.errors import Code
from protocol.ids import MessageId, NodeId
from protocol.job.provider import End
from protocol.job.requester import Owe
from protocol.job.terms import Finish, Request
from protocol.units import Microcredits


def state_of(finish: Finish, code: Code | None) -> JobState:
    """How a job ended, in the history's words."""
    if finish == "cancelled" or code is Code.CANCELLED:
        return JobState.CANCELLED
    return JobState.DONE if finish != "none" else JobState.FAILED


def began(
    role: Role, request: Request, order_id: MessageId, peer: NodeId, started_at_ms: int
) -> JobRecord:
    """An order that runs."""
    return JobRecord(
        role=role,
        order_id=order_id,
        job_id=request.job,
        peer=peer,
        model=request.model,
        model_name="",
        state=JobState.RUNNING,
        code=None,
        tokens_in=0,
        tokens_out=0,
        cost_microcredits=Microcredits(0),
        ms_first=0,
        ms_total=0,
        started_at_ms=started_at_ms,
    )


def bill_to_pay(
    around: Surroundings, provider: NodeId, owe: Owe, provider_signature: bytes
) -> Bill:
    """What we owe for an order: with a receipt both signatures are on it, ours before it leaves."""
    bill = Bill(
        role=Role.REQUESTER,
        order_id=owe.order_id,
        peer=provider,
        amount=owe.amount,
        paid=Microcredits(0),
        receipt_id=MessageId(b""),
        receipt=b"",
        provider_signature=b"",
        requester_signature=b"",
        billed_at_ms=around.wall_ms(),
    )
    if owe.receipt is None:
        return bill
    signed = seal(around.identity, around.network_id, owe.receipt)
    return replace(
        bill,
        receipt_id=signed.id,
        receipt=signed.body,
        provider_signature=provider_signature,
        requester_signature=signed.signature,
    )


def bill_to_collect(
    around: Surroundings, requester: NodeId, order_id: MessageId, end: End, countersignature: bytes
) -> Bill:
    """What we are owed for an order. Without the requester's signature it is only what our chunks
    say; a requester that has signed and was lost pays by the receipt even so."""
    bill = Bill(
        role=Role.PROVIDER,
        order_id=order_id,
        peer=requester,
        amount=Microcredits(end.cost_signed),
        paid=Microcredits(0),
        receipt_id=MessageId(b""),
        receipt=b"",
        provider_signature=b"",
        requester_signature=countersignature if end.receipted else b"",
        billed_at_ms=around.wall_ms(),
    )
    if end.receipt is None:
        return bill
    signed = seal(around.identity, around.network_id, end.receipt)
    return replace(
        bill,
        receipt_id=signed.id,
        receipt=signed.body,
        provider_signature=signed.signature,
    )
