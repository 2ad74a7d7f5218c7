"""What the API asks of a node, answered by the running parts."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version as installed_version
from typing import Literal

from node.api import views
from node.api.backend import Backend, ChatEvent, ChatJob, Embeddings, EmbedJob
from node.api.ledger_shown import Showing
from node.api.network_shown import network_shown
from node.app import showing
from node.app.chat import chat
from node.app.embed import embed
from node.app.ledger_backend import OwnLedgerBackend
from node.app.parts import Parts
from node.jobs.confinement import lacking
from node.models.catalogue import Model
from protocol.errors import Code, LocalError
from protocol.ids import NodeId, node_text

WorkerWord = Literal["none", "starting", "ready", "restarting"]


class NodeBackend(Backend):
    """One running node."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started_at_ms = parts.wall_ms()
        self._ledger = OwnLedgerBackend(
            parts.ledger,
            parts.channels,
            Showing(parts.charter, self._name),
            parts.identity.node,
            parts.data_folder,
        )
        self._network = network_shown(parts.file)
        self.url = ""
        """Of the API; set once it listens."""

    @property
    def ledger(self) -> OwnLedgerBackend:
        return self._ledger

    def status(self) -> views.Status:
        parts = self._parts
        return views.Status(
            node=node_text(parts.identity.node),
            name=parts.config.node.name,
            version=installed_version("ayni"),
            network=self._network,
            started_at_ms=self._started_at_ms,
            uptime_ms=max(0, parts.wall_ms() - self._started_at_ms),
            addresses=tuple(parts.network.addresses),
            sharing=self._sharing(),
            worker=self._worker(),
            offers=tuple(showing.offer(one) for one in parts.shared.offers()),
            peers=len(parts.network.peers),
            jobs_running=parts.desk.tally.count + parts.requester.tally.count,
            api_url=self.url,
            troubles=tuple(parts.recovery.troubles()),
        )

    def peers(self) -> Sequence[views.Peer]:
        discovery = self._parts.discovery
        listings = discovery.listings()
        heard = {listing.node for listing in listings}
        silent = [node for node in self._parts.network.peers if node not in heard]
        shown = [showing.peer(listing, discovery.name_of(listing.node)) for listing in listings]
        shown += [showing.peer_without_advert(node) for node in silent]
        return sorted(shown, key=lambda peer: (peer.name or "~", peer.node))

    async def jobs(self, limit: int) -> Sequence[views.Job]:
        records = await self._parts.history.recent(limit)
        return [
            showing.job(record, self._parts.discovery.name_of(record.peer)) for record in records
        ]

    async def models(self) -> views.Models:
        parts = self._parts
        adverts = parts.discovery.adverts().values()
        return views.Models(
            served=tuple(showing.offer(one) for one in parts.shared.offers()),
            known=showing.known_models(one for advert in adverts for one in advert.models),
            catalogue=tuple([await self._listed(model) for model in parts.catalogue.models]),
        )

    async def _listed(self, model: Model) -> views.ListedModel:
        model_id = model.model_id
        return views.ListedModel(
            name=model.name,
            model="" if model_id is None else model_id.hex(),
            licence=model.licence,
            context_tokens=model.context_tokens,
            size_bytes=model.size_bytes,
            cached=await self._parts.cache.find(model) is not None,
        )

    async def doctor(self) -> Sequence[views.Check]:
        has_peers = bool(self._parts.discovery.listings())
        checks = [
            self._parts.recovery.clock_check(has_peers=has_peers),
            self._check_peers(),
            self._check_worker(),
            *self._parts.recovery.checks(),
        ]
        faults = self._parts.shared.backend_faults
        return [*checks, _check_of_backends(faults)] if faults else checks

    async def pause(self) -> views.Sharing:
        _kept(self._parts.sharing.pause)
        return self._sharing()

    async def resume(self) -> views.Sharing:
        _kept(self._parts.sharing.resume)
        return self._sharing()

    def shutdown(self) -> None:
        self._parts.stop()

    def chat(self, job: ChatJob) -> AbstractAsyncContextManager[AsyncIterator[ChatEvent]]:
        return chat(self._parts, job)

    async def embed(self, job: EmbedJob) -> Embeddings:
        return await embed(self._parts, job)

    def _name(self, node: NodeId) -> str:
        own = node == self._parts.identity.node
        return self._parts.config.node.name if own else self._parts.discovery.name_of(node)

    def _sharing(self) -> views.Sharing:
        sharing = self._parts.sharing
        return views.Sharing(state=sharing.word, why=sharing.sentence)

    def _worker(self) -> views.Worker:
        shared = self._parts.shared
        if shared.pool is None:
            wanted = self._parts.sharing.enabled and bool(self._parts.config.share.models)
            return views.Worker(state="starting" if wanted else "none", error=shared.fetching)
        state = shared.pool.state
        if shared.served:
            word: WorkerWord = "ready"
        else:
            word = "restarting" if state.restarts else "starting"
        return views.Worker(
            state=word,
            pid=state.pid or None,
            memory_bytes=state.resident_bytes,
            restarts=state.restarts,
            device=state.device,
            engines=tuple(
                views.Engine(model=facts.name, engine=facts.engine, note=facts.note)
                for facts in state.models
            ),
            unconfined=self._unconfined(state.device, state.confined),
            error=state.last_error,
        )

    def _unconfined(self, device: str, confined: Sequence[str]) -> tuple[str, ...]:
        settings = self._parts.config.worker
        # Until it has said on what it computes it has not said what holds either.
        known = lacking(confined, settings.device, settings.idle_priority) if device else []
        return tuple(known)

    def _check_peers(self) -> views.Check:
        count = len(self._parts.network.peers)
        if count:
            peers = "1 peer is" if count == 1 else f"{count} peers are"
            return views.Check(name="peers", state="ok", sentence=f"{peers} connected.")
        return views.Check(
            name="peers",
            state="warn",
            sentence="No peer is connected.",
            remedy="Look whether the network file's bootstrap addresses are up and reachable.",
        )

    def _check_worker(self) -> views.Check:
        worker = self._worker()
        if worker.state in ("ready", "none"):
            word = "runs" if worker.state == "ready" else "is not needed: nothing is shared"
            return views.Check(name="worker", state="ok", sentence=f"The worker {word}.")
        return views.Check(
            name="worker",
            state="warn",
            sentence=f"The worker is {worker.state}. {worker.error}".strip(),
            remedy="Wait a minute; if it stays so, look into the log.",
        )


def _check_of_backends(faults: Sequence[str]) -> views.Check:
    return views.Check(
        name="backends",
        state="warn",
        sentence=" ".join(faults),
        remedy="Start that server, or mend [[share.backends]] in the settings.",
    )


def _kept(change: Callable[[], None]) -> None:
    try:
        change()
    except OSError as error:
        raise LocalError(
            Code.UNAVAILABLE, f"The owner's word cannot be kept on disk: {error.strerror}."
        ) from None
