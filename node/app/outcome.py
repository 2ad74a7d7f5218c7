"""How a job came to nothing, in words that name the nodes that were tried."""

from collections.abc import Callable

from protocol.errors import AyniError, Code, LocalError, RemoteError
from protocol.ids import NodeId
from protocol.job.requester_actions import Failure, Finished


class Outcome:
    """`name_of` gives a node's name, or nothing."""

    def __init__(self, name_of: Callable[[NodeId], str]) -> None:
        self._name_of = name_of

    def name(self, node: NodeId) -> str:
        """A node as people know it."""
        return self._name_of(node) or node.hex()[:8]

    def reason(self, failure: Failure) -> str:
        """Who, and why not."""
        who = "ayni" if failure.candidate is None else self.name(failure.candidate.node)
        return f"{who}: {failure.sentence}"

    def error(self, end: Finished, begun: bool) -> AyniError:
        """What to raise for a job that failed; `begun` says that a provider had started it."""
        if end.reason == "cancelled":
            return LocalError(Code.TIMEOUT, "The time for this job was over before its end.")
        last = end.failures[-1]
        if last.code is Code.OVERDRAWN:
            return LocalError(last.code, last.sentence)  # Ours to mend, whoever was tried before.
        if begun:
            return RemoteError(
                last.code,
                f"{self.reason(last)} The answer broke off; what was signed of it, "
                f"{end.output_tokens} of its tokens, costs {end.cost} microcredits. Ask again to "
                "have another node answer.",
            )
        busy = [failure for failure in end.failures if failure.code is Code.BUSY]
        if len(busy) == len(end.failures):
            retry_ms = max(1_000, *(failure.retry_ms for failure in busy))
            nodes = {failure.candidate.node for failure in busy if failure.candidate is not None}
            names = " and ".join(sorted(map(self.name, nodes))) or "ayni"
            verb = "is" if len(busy) == 1 else "are"
            return RemoteError(
                Code.BUSY,
                f"{names} {verb} busy with other jobs; try again in {retry_ms / 1000:.0f} s.",
                retry_ms,
            )
        tried = " ".join(self.reason(failure) for failure in end.failures)
        return RemoteError(last.code, f"Nobody took the job. {tried}", last.retry_ms)
