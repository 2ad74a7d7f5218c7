"""A backend that plays a script: an honest stand-in for a node, for tests and demonstrations."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from node.api.backend import ChatEvent, ChatJob, Embeddings, EmbedJob
from node.api.scripted_ledger import ScriptedLedger
from node.api.views import Check, Job, Models, Peer, Sharing, Status
from protocol.errors import AyniError, Code, LocalError


@dataclass(frozen=True, slots=True)
class Wait:
    """So many seconds pass on trio's clock."""

    seconds: float


Step = ChatEvent | AyniError | Wait
Script = Callable[[ChatJob], Sequence[Step]]
"""What happens when this job is asked for; an error ends the job with it."""


EmbedScript = Callable[[EmbedJob], Embeddings | AyniError]
NO_EMBEDDINGS = LocalError(Code.NO_PROVIDER, "The script has no model for embeddings.")


@dataclass
class ScriptedBackend:
    """Answers each chat by its script and remembers what it was asked. `done` is set when
    shutdown was called, `chat_begun` and `chat_left` with the first chat; `running` counts chats
    whose context is still open."""

    script: Script
    node: Status
    known_peers: Sequence[Peer] = ()
    history: Sequence[Job] = ()
    known_models: Models = field(default_factory=Models)
    checks: Sequence[Check] = ()
    ledger: ScriptedLedger = field(default_factory=ScriptedLedger)
    embed_script: EmbedScript = lambda job: NO_EMBEDDINGS
    asked: list[ChatJob] = field(default_factory=list)
    asked_embeddings: list[EmbedJob] = field(default_factory=list)
    running: int = 0
    cancelled: int = 0
    done: trio.Event = field(default_factory=trio.Event)
    chat_begun: trio.Event = field(default_factory=trio.Event)
    chat_left: trio.Event = field(default_factory=trio.Event)

    def status(self) -> Status:
        return self.node

    def peers(self) -> Sequence[Peer]:
        return self.known_peers

    async def jobs(self, limit: int) -> Sequence[Job]:
        await trio.lowlevel.checkpoint()
        return self.history[:limit]

    async def models(self) -> Models:
        await trio.lowlevel.checkpoint()
        return self.known_models

    async def doctor(self) -> Sequence[Check]:
        await trio.lowlevel.checkpoint()
        return self.checks

    async def pause(self) -> Sharing:
        return await self._shared(Sharing(state="paused", why="Paused by its owner."))

    async def resume(self) -> Sharing:
        return await self._shared(Sharing(state="on"))

    async def _shared(self, sharing: Sharing) -> Sharing:
        await trio.lowlevel.checkpoint()
        if self.node.sharing.state == "off":
            raise LocalError(Code.UNAVAILABLE, "This node shares nothing.")
        self.node = _with_sharing(self.node, sharing)
        return sharing

    def shutdown(self) -> None:
        self.node = _with_sharing(self.node, Sharing(state="draining", why="Told to stop."))
        self.done.set()

    @asynccontextmanager
    async def chat(self, job: ChatJob) -> AsyncIterator[AsyncIterator[ChatEvent]]:
        if self.done.is_set():
            raise LocalError(Code.DRAINING, "This node is stopping and takes no new jobs.")
        self.asked.append(job)
        self.running += 1
        self.chat_begun.set()
        events = self._played(job)
        try:
            yield events
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            with trio.CancelScope(shield=True):
                await events.aclose()
            self.running -= 1
            self.chat_left.set()

    async def embed(self, job: EmbedJob) -> Embeddings:
        self.asked_embeddings.append(job)
        await trio.lowlevel.checkpoint()
        found = self.embed_script(job)
        if isinstance(found, AyniError):
            raise found
        return found

    async def _played(self, job: ChatJob) -> AsyncGenerator[ChatEvent, None]:
        for step in self.script(job):
            match step:
                case Wait(seconds):
                    await trio.sleep(seconds)
                case AyniError():
                    raise step
                case _:
                    await trio.lowlevel.checkpoint()
                    yield step


def _with_sharing(status: Status, sharing: Sharing) -> Status:
    return replace(status, sharing=sharing)
