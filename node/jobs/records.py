"""From a job to a line of the history and to a bill, for both sides."""

from dataclasses import replace

from node.jobs.around import Surroundings
from node.jobs.attempt import Attempt
from node.storage.bills import Bill, BillStore
from node.storage.jobs import JobRecord, JobState, Role
from node.telemetry.logs import Log
from protocol.envelope import seal
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, NodeId
from protocol.job.provider_actions import End
from protocol.job.requester_actions import Finished
from protocol.job.terms import Finish, Receipt, Request
from protocol.units import Microcredits

_log = Log("jobs.records")


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


def bill_paid(
    around: Surroundings, attempt: Attempt, finished: Finished, receipt: Receipt | None
) -> Bill:
    """What an order of ours has cost, and what of that we have signed vouchers for; with a receipt
    both signatures are on it."""
    return _with_receipt(
        around,
        receipt,
        Bill(
            role=Role.REQUESTER,
            order_id=attempt.id,
            peer=attempt.node,
            amount=Microcredits(finished.cost),
            paid=Microcredits(attempt.paid),
            receipt_id=MessageId(b""),
            receipt=b"",
            provider_signature=attempt.receipt_signature,
            requester_signature=b"",
            billed_at_ms=around.wall_ms(),
        ),
    )


def bill_earned(
    around: Surroundings, requester: NodeId, order_id: MessageId, end: End, countersignature: bytes
) -> Bill:
    """What an order has cost that we served, and what of that came in vouchers. Without the
    requester's signature on the receipt it is only what our chunks say."""
    return _with_receipt(
        around,
        end.receipt,
        Bill(
            role=Role.PROVIDER,
            order_id=order_id,
            peer=requester,
            amount=Microcredits(end.cost),
            paid=Microcredits(end.cost - end.lost),
            receipt_id=MessageId(b""),
            receipt=b"",
            provider_signature=b"",
            requester_signature=countersignature if end.receipted else b"",
            billed_at_ms=around.wall_ms(),
        ),
    )


def _with_receipt(around: Surroundings, receipt: Receipt | None, bill: Bill) -> Bill:
    """The bill with a receipt and our own signature under it. Without one it has no signatures."""
    if receipt is None:
        return replace(bill, provider_signature=b"", requester_signature=b"")
    signed = seal(around.identity, around.network_id, receipt)
    bill = replace(bill, receipt_id=signed.id, receipt=signed.body)
    if bill.role is Role.PROVIDER:
        return replace(bill, provider_signature=signed.signature)
    return replace(bill, requester_signature=signed.signature)


async def put_record(around: Surroundings, record: JobRecord) -> None:
    """Keep a line of the history: a note for people, too. A job that broke off here would leave
    its chunks open in the window of its channel."""
    try:
        await around.recorder.put(record)
    except LocalError as error:
        _log.warning("record.unwritten", code=error.code)


async def put_bill(bills: BillStore, bill: Bill) -> None:
    """Keep a bill: a note for people. The money is in the vouchers, so a disk that fails here
    ends no job."""
    try:
        await bills.put(bill)
    except LocalError as error:
        _log.warning("bill.unwritten", code=error.code)
