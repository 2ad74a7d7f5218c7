"""The sole signer of this account's entries: one after another, each on disk before it leaves.

The order is: check, sign, store, send, store the certificate, spread it. A crash between any two
leaves a signed entry on disk, and the next start sends the same bytes again. Before its first new
signature it asks the witnesses whether they know more than this journal (facts of the ledger, 2.2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

import trio

from node.ledger.client import Client, Superseded
from node.ledger.keeper import Keeper, News
from node.ledger.plan import planned, proofs_of
from node.ledger.purse import Purse
from node.ledger.signal import Signal
from node.ledger.sources import Sources
from node.ledger.sync import Sync
from node.storage.ledger import Records
from node.storage.ledger_own import OwnChains
from node.telemetry.logs import Log
from protocol.envelope import Signed, seal
from protocol.errors import Code, RemoteError
from protocol.identity import Identity
from protocol.ledger.entry import Claim, entry_opened, entry_read
from protocol.ledger.head import Adopt, GoOn, Resubmit, Step, Stop, View, Wait, next_step
from protocol.ledger.head import Journal as Knowledge
from protocol.ledger.proof import Breach, contradiction_made
from protocol.ledger.witness import ChainPast

ADOPT_RETRY_SECONDS: Final = 2.0

_log = Log("ledger")


@dataclass(frozen=True, slots=True)
class Settings:
    """When incomes are claimed, and how long a start waits for the witnesses beyond a quorum."""

    claim_sources: int = 16
    claim_seconds: float = 60
    agree_seconds: float = 10


class Journal:
    """Signs, while `run` runs and nothing forbids it."""

    def __init__(
        self,
        identity: Identity,
        keeper: Keeper,
        client: Client,
        sync: Sync,
        purse: Purse,
        *,
        settings: Settings,
    ) -> None:
        self._identity, self._keeper, self._client, self._sync = identity, keeper, client, sync
        self._store, self._charter = keeper.store, keeper.charter
        self._purse, self._settings = purse, settings
        self._sources = Sources(self._store, self._charter, client)
        self._wake = Signal()
        self._restart = Signal()
        self._override = False
        self._claim_at = float("inf")
        self._found: tuple[Signed | Breach, ...] = ()
        self._found_some = Signal()
        self.agreed = False
        self.restored = False
        self.rival = False
        self.halted = False
        self.certified_changed = Signal()
        self.when_agreed: Callable[[], None] = lambda: None
        """Called when new entries may be signed that might not before."""
        self.when_restored: Callable[[], None] = lambda: None
        """Called when this journal turns out to be older than its chain."""

    @property
    def may_sign(self) -> bool:
        """Whether new entries may be signed now."""
        return self.agreed and not (self.restored or self.rival or self.halted)

    def wake(self) -> None:
        """There may be something to pay or to claim."""
        self._wake.set()

    def claim_now(self) -> None:
        """Claim what there is without waiting for more."""
        self._claim_at = float("-inf")
        self._wake.set()

    def found(self, what: Signed | Breach) -> None:
        """A witness has shown a rival of our pending entry, or a breach. It must not wait."""
        self._found = (*self._found[-7:], what)
        self._found_some.set()

    def heard(self, *, is_restored: bool) -> None:
        """Our account has changed. Where it has an entry that this journal did not sign, what the
        witnesses know is asked anew before anything else is signed."""
        if is_restored and not self.restored:
            self.restored = True
            _log.error("ledger.restored")
            self.when_restored()
            if self.agreed:
                self._restart.set()
        self._wake.set()

    async def load(self) -> None:
        """Read why this journal may not sign, if it may not."""
        self.restored, self.rival, self.halted = await self._store.read(
            lambda it: (
                it.state("restored") is not None,
                it.state("rival") is not None,
                it.state("breach") is not None,
            )
        )

    async def override(self) -> None:
        """The owner knows the risk: go on in spite of what forbids it, a breach excepted."""

        def work(records: Records) -> None:
            if (rival := records.state("rival")) is not None:
                records.set_state("accepted", rival)
            records.clear_state("restored", "rival")

        await self._store.write(work)
        self._override = True
        await self.load()
        self._restart.set()

    async def resumed(self) -> None:
        """The owner has read the proof of a breach."""
        await self.load()
        self._wake.set()
        self.when_agreed()

    async def run(self) -> None:
        """Send what is pending, agree with the witnesses, then pay and claim; until cancelled."""
        await self.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heed)
            while True:
                again = self._restart.coming()
                async with trio.open_nursery() as living:
                    living.start_soon(self._live)
                    await again.wait()
                    living.cancel_scope.cancel()

    async def _live(self) -> None:
        self.agreed = False
        if not self._override:
            pending = await self._store.read(lambda chains: chains.pending())
            if pending is not None:
                await self._settle(pending)
        await self._agree()
        self._override = False
        self.agreed = True
        self.when_agreed()
        while True:
            coming = self._wake.coming()
            signed = await self._sign_next() if self.may_sign else None
            if signed is not None:
                await self._settle(signed)
                continue
            with trio.move_on_at(self._claim_at if self.may_sign else float("inf")):
                await coming.wait()

    # One entry's way.

    async def _sign_next(self) -> Signed | None:
        """The next entry, signed and on disk; None where there is nothing to do."""
        figures = self._purse.figures
        if not figures.unclaimed:
            self._claim_at = float("inf")
        elif self._claim_at == float("inf"):
            self._claim_at = trio.current_time() + self._settings.claim_seconds
        is_due = (
            figures.unclaimed >= self._settings.claim_sources
            or trio.current_time() >= self._claim_at
        )
        node = self._identity.node
        plan = await self._store.read(partial(planned, node=node, is_claim_due=is_due))
        if plan is None:
            if is_due:
                self._claim_at = float("inf")
            return None
        signed = seal(self._identity, self._charter.network, plan.entry)

        def work(records: Records) -> News | None:
            moved = records.account(node) != plan.before
            if moved or records.pending() is not None or records.state("breach") is not None:
                return None
            records.sign(signed, plan.entry, plan.payment)
            return News(records.figures(node))

        news = await self._store.write(work)
        if news is None:
            return await self._store.read(lambda chains: chains.pending())
        self._keeper.tell(news)
        if isinstance(plan.entry.body, Claim):
            self._claim_at = float("inf")
        await self._keeper.steps("entry.signed")
        return signed

    async def _settle(self, signed: Signed) -> None:
        """Send a signed entry until it is certified, and take its certificate."""
        entry = entry_opened(signed, self._charter.network).value
        proofs = await self._store.read(partial(proofs_of, entry=entry))
        rival: Signed | None = None
        async with trio.open_nursery() as nursery:
            if isinstance(entry.body, Claim):
                nursery.start_soon(self._sources.complete, entry)
            try:
                certified = await self._client.certify(signed, entry.seq, proofs)
            except Superseded as superseded:
                certified = superseded.certified
                rival = certified.entry
            nursery.cancel_scope.cancel()
        if rival is not None:
            await self._note_rival(rival)
        try:
            await self._keeper.take(certified)
        except RemoteError as error:
            if error.code is not Code.HALTED:
                raise
            await self._until_resumed()
            return
        await self._keeper.steps("entry.certified")
        self._client.spread(entry.seq)
        self.certified_changed.set()

    async def _until_resumed(self) -> None:
        while True:
            coming = self._wake.coming()
            await self.load()
            if not self.halted:
                return
            await coming.wait()

    # Before the first new signature.

    async def _agree(self) -> None:
        """Whether the witnesses know more of this account than its journal, and if so, what."""
        self._client.ask_own()
        quorum_at: float | None = None
        while True:
            coming = self._client.views_changed.coming()
            views = dict(self._client.views)
            step = await self._store.read(partial(self._step, views))
            match step:
                case Wait():
                    if step.restored and not self.restored:
                        await self._store.write(lambda it: it.set_state("restored", b""))
                        self.heard(is_restored=True)
                    await coming.wait()
                case Adopt():
                    await self._adopt(step)
                case Resubmit(entry):
                    await self._resubmit(entry)
                    self._client.ask_own()
                case Stop(_, other):
                    await self._note_rival(other)
                    await trio.sleep_forever()  # Until the owner's word starts us anew.
                case GoOn():
                    quorum_at = trio.current_time() if quorum_at is None else quorum_at
                    until = quorum_at + self._settings.agree_seconds
                    if len(views) >= len(self._charter.witnesses) or trio.current_time() >= until:
                        break
                    with trio.move_on_at(until):
                        await coming.wait()
                case _:
                    assert_never(step)
        self._client.stop_asking()
        if self.restored:
            await self._store.write(lambda records: records.clear_state("restored"))
            self.restored = False

    def _step(self, views: dict[int, View], chains: OwnChains) -> Step:
        node = self._identity.node
        knowledge = Knowledge(
            chains.account(node),
            ChainPast(chains, node),
            chains.pending(),
            chains.state("restored") is not None,
        )
        return next_step(knowledge, views, self._charter, override=self._override)

    async def _adopt(self, step: Adopt) -> None:
        """Fetch our own certified entries, which this store does not have."""
        seq = entry_read(step.head.entry, self._charter.network).value.seq
        await self._sync.pull_from_any(self._identity.node, self._charter.witnesses, seq - 1)
        try:
            await self._keeper.take(step.head)
        except RemoteError as error:
            if error.code is not Code.HALTED:
                raise
            await self._until_resumed()
        account = await self._store.read(lambda chains: chains.account(self._identity.node))
        if account.seq < seq:
            await trio.sleep(ADOPT_RETRY_SECONDS)

    async def _resubmit(self, signed: Signed) -> None:
        """Send again what we once signed, though this journal may have forgotten it."""
        opened = entry_opened(signed, self._charter.network)

        def work(records: Records) -> News:
            pending = records.pending()
            if pending is None or pending.id != opened.id:
                records.adopt(signed, opened)
            return News(records.figures(self._identity.node))

        self._keeper.tell(await self._store.write(work))
        await self._settle(signed)

    # What goes wrong.

    async def _note_rival(self, rival: Signed) -> None:
        """Our signature stands under what this journal did not sign: another daemon has our key."""

        def work(records: Records) -> News:
            if records.state("accepted") == rival.id:
                return News()
            records.set_state("rival", rival.id)
            pending = records.pending()
            proof = None
            if pending is not None and pending.id != rival.id:
                proof = contradiction_made(pending, rival, self._charter)
            is_new = proof is not None and records.keep_proof(proof)
            return News(proofs=[proof] if proof is not None and is_new else [])

        self._keeper.tell(await self._store.write(work))
        was_rival = self.rival
        await self.load()
        if self.rival and not was_rival:
            _log.error("ledger.another_signer")

    async def _heed(self) -> None:
        """Act on what witnesses have shown."""
        while True:
            coming = self._found_some.coming()
            found, self._found = self._found, ()
            for what in found:
                if isinstance(what, Signed):
                    await self._note_rival(what)
                    continue
                try:
                    await self._keeper.keep_proof(what)
                except RemoteError:
                    _log.warning("ledger.false_proof")
                await self.load()
            if not self._found:
                await coming.wait()
