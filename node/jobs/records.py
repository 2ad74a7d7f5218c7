"""From a job to a line of the history, for both sides."""

from node.storage.jobs import JobRecord, JobState, Role
from protocol.errors import Code
from protocol.ids import MessageId, NodeId
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
