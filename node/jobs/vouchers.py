"""The vouchers of one order that we serve, on their way to the disk; the stream waits for none."""

from collections.abc import Awaitable, Callable

import trio

from node.channels.base import Earning
from node.telemetry.logs import Log
from protocol import codec
from protocol.envelope import Signed
from protocol.errors import LocalError, RemoteError
from protocol.job.provider_events import Event, Paid, VoucherCounted, VoucherFailed
from protocol.ledger.voucher import VOUCHER_BYTES_MAX, Voucher

Tell = Callable[[Event], Awaitable[None]]

_log = Log("jobs.vouchers")


class Vouchers:
    """Counts what comes and tells the job of it. Of vouchers that come while one is being written
    only the last is kept: each says all that those before it said. That of the prompt is counted
    whatever follows, since the job has begun for it."""

    def __init__(self, earning: Earning, tell: Tell, prompt: Signed | None) -> None:
        self._earning = earning
        self._tell = tell
        self._prompt = prompt
        self._next: Signed | None = None
        self._came = trio.Event()
        self._idle = trio.Event()
        if prompt is None:
            self._idle.set()
        else:
            self._came.set()
        self.fault: RemoteError | None = None
        """What the requester did wrong with one of them."""

    def put(self, voucher: Signed) -> None:
        """Count this one next. It does not wait."""
        self._next = voucher
        if self._idle.is_set():
            self._idle = trio.Event()
        self._came.set()

    async def wait_idle(self) -> None:
        """Return when each voucher that was put is counted or has failed, and was told of."""
        while self._next is not None or not self._idle.is_set():
            await self._idle.wait()

    async def run(self) -> None:
        """Count until one fails, or until cancelled."""
        while True:
            await self._came.wait()
            self._came = trio.Event()
            while (voucher := self._taken()) is not None:
                event = await self._counted(voucher)
                await self._tell(event)
                if isinstance(event, VoucherFailed):
                    self._next = None
                    self._idle.set()
                    return
            self._idle.set()

    def _taken(self) -> Signed | None:
        voucher = self._prompt or self._next
        if self._prompt is None:
            self._next = None
        self._prompt = None
        return voucher

    async def _counted(self, voucher: Signed) -> Event:
        try:
            await self._earning.count(voucher)
        except RemoteError as error:
            self.fault = error
            return VoucherFailed(error.code, error.sentence)
        except LocalError as error:
            _log.warning("voucher.uncounted", code=error.code)
            return VoucherFailed(error.code, error.sentence)
        return VoucherCounted(codec.decode(voucher.body, Voucher, VOUCHER_BYTES_MAX).note)

    async def watch(self) -> None:
        """Tell the job of each voucher of the channel, also of other orders, until cancelled."""
        while True:
            await self._earning.changed()
            await self._tell(Paid())
