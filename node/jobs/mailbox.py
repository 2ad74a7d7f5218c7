"""Words on their way to whoever asked: never lost, never blocking, merged when they pile up."""

from collections import deque

import trio

from protocol.job.requester_actions import Accepted, Deliver, DeliverVectors, Failure, Finished

QUEUE_MAX = 64  # Beyond it neighbouring words become one; the answer itself bounds all.

Told = Accepted | Deliver | DeliverVectors | Failure | Finished
"""What the one who asked is told: Failure where one provider was tried in vain and another is
asked, Finished last."""


class Mailbox:
    """One writer that must not wait, one reader that may be slow."""

    def __init__(self) -> None:
        self._queue: deque[Told] = deque()
        self._changed = trio.Event()
        self._closed = False

    def put(self, told: Told) -> None:
        last = self._queue[-1] if self._queue else None
        if (
            len(self._queue) >= QUEUE_MAX
            and isinstance(last, Deliver)
            and isinstance(told, Deliver)
        ):
            told = Deliver(
                (*last.ids, *told.ids), last.text + told.text, (*last.logprobs, *told.logprobs)
            )
            self._queue[-1] = told
        else:
            self._queue.append(told)
        self._changed.set()

    def close(self) -> None:
        """Nothing more comes; what is queued can still be read."""
        self._closed = True
        self._changed.set()

    def __aiter__(self) -> "Mailbox":
        return self

    async def __anext__(self) -> Told:
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._changed = trio.Event()
            await self._changed.wait()
        return self._queue.popleft()
