"""One event again and again: whoever waits is woken at each change."""

import trio


class Signal:
    """Wake all who wait now. A change that nobody waits for is forgotten: so take the `coming`
    event first, then look, then wait for it."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Wake all."""
        event, self._event = self._event, trio.Event()
        event.set()

    def coming(self) -> trio.Event:
        """The event of the next `set`."""
        return self._event

    async def wait(self) -> None:
        """Until the next `set`."""
        await self._event.wait()

    async def wait_at_most(self, seconds: float) -> None:
        """Until the next `set`, or for so long."""
        with trio.move_on_after(seconds):
            await self._event.wait()
