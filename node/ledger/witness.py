"""What this node answers on the ledger's streams: its votes as a witness, chains as any node."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, assert_never

from node.ledger.checkpoint_desk import CheckpointDesk
from node.ledger.keeper import Keeper, News
from node.ledger.settle_desk import SettleDesk
from node.storage.ledger import Records
from node.storage.ledger_chains import Chains, Stamp
from node.telemetry.logs import Log
from protocol.errors import Code, RemoteError
from protocol.identity import Identity
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.certificate import Certified, vote_signed
from protocol.ledger.checkpoint import AskCheckpoint, AskHoldings
from protocol.ledger.entry import EARNED, REST, sources_of
from protocol.ledger.proof import Breach, Contradiction
from protocol.ledger.settlement import Clock
from protocol.ledger.statement import Settlement
from protocol.ledger.sync import (
    Accepted,
    Accounts,
    Announce,
    Answer,
    Ask,
    AskAccounts,
    AskEntries,
    AskHeads,
    AskOwn,
    AskProofs,
    AskRange,
    AskReport,
    AskSettlement,
    AskVoucher,
    CheckpointAsk,
    Lock,
    OwnState,
    Propose,
    Refusal,
    Submit,
    TellSettlement,
    Voted,
    WantSettlement,
    entries_page,
    proofs_page,
    refusal,
)
from protocol.ledger.witness import (
    Cast,
    Decision,
    Halted,
    Missing,
    Stopped,
    VotesLost,
    halted_error,
)
from protocol.limits import ACCOUNTS_PAGE_MAX, PROOFS_PAGE_MAX

INSTANCES_MAX: Final = 4096  # Accounts of which we remember who asked last: half a MiB.

Decide = Callable[[Chains], Decision]
"""The machine's word on one request."""

_log = Log("ledger")


class Desk:
    """Answers one question at a time of each stream; many streams share a wait for the disk."""

    def __init__(
        self,
        identity: Identity,
        keeper: Keeper,
        now_ms: Callable[[], int],
        clock: Callable[[], Clock],
    ) -> None:
        self._identity, self._keeper, self._now_ms = identity, keeper, now_ms
        self.settling = SettleDesk(identity, keeper, clock)
        self.checkpoints: CheckpointDesk | None = None
        self._store, self._charter = keeper.store, keeper.charter
        self._instances: OrderedDict[NodeId, dict[bytes, int]] = OrderedDict()
        self.votes_cast = 0

    async def answer(self, peer: NodeId, ask: Ask) -> Answer:
        """The answer to a peer, or to this node itself. What does not hold is a Refusal.

        Raises LocalError UNAVAILABLE when the disk fails.
        """
        match ask:
            case Submit():
                return await self._submit(peer, ask)
            case Announce(certified):
                return await self._announce(certified)
            case AskAccounts(after):
                accounts = await self._store.read(lambda it: it.accounts(after, ACCOUNTS_PAGE_MAX))
                return Accounts(tuple(account.account for account in accounts))
            case AskHeads(wanted):
                return entries_page(await self._found([_head(one) for one in wanted]))
            case AskEntries(ids):
                return entries_page(await self._found([_by_id(one) for one in ids]))
            case AskRange(account, first_seq, limit):
                return await self._store.read(
                    lambda it: entries_page(it.chain(account, first_seq, limit))
                )
            case AskOwn():
                return await self._own_state(peer, ask)
            case AskProofs(skip):
                proofs = await self._store.read(lambda it: it.proofs(skip, PROOFS_PAGE_MAX))
                return proofs_page(proofs)
            case (
                AskReport()
                | Propose()
                | Lock()
                | AskSettlement()
                | TellSettlement()
                | AskVoucher()
                | WantSettlement()
            ):
                return await self.settling.answer(peer, ask)
            case AskCheckpoint() | AskHoldings():
                return await self._checkpoint(ask)
        assert_never(ask)

    async def _checkpoint(self, ask: CheckpointAsk) -> Answer:
        try:
            if self.checkpoints is None:
                raise RemoteError(Code.NOT_FOUND, "This node keeps no checkpoints.")
            return await self.checkpoints.answer(ask)
        except RemoteError as error:
            return refusal(error)

    async def _found(
        self, wanted: Sequence[Callable[[Chains], Certified | None]]
    ) -> Sequence[Certified]:
        def work(chains: Chains) -> Sequence[Certified]:
            found = (find(chains) for find in wanted)
            return [certified for certified in found if certified is not None]

        return await self._store.read(work)

    async def _submit(self, peer: NodeId, ask: Submit) -> Answer:
        if peer == ask.entry.signer:
            self._other_ms_ago(peer, ask.instance)
        # The time is read here: in a thread of the database there is no clock of trio's.
        decide = partial(self._decided, ask, self._now_ms())
        if ask.proofs or ask.settlements:
            decision = await self._proven(decide)
        else:
            decision = await self._store.write(partial(_voted, decide))
        if decision.contradiction is not None:
            await self._keep(decision.contradiction)
        answer = decision.answer
        if isinstance(answer, Refusal):
            return answer
        if answer.fresh:
            self.votes_cast += 1
            await self._keeper.steps("vote.stored")
            if ask.settlements:
                await self._keeper.take_claimed(_claimed(answer, ask.settlements), ask.proofs)
        return Voted(vote_signed(self._identity, answer.opened.id, self._charter.network))

    async def _proven(self, decide: Decide) -> Decision:
        """Decide in a reader's thread, since a claim may bring a thousand signatures; then store
        the vote, if all that it was decided on still stands."""
        while True:
            decision, stamp = await self._store.read(partial(_stamped, decide))
            answer = decision.answer
            if isinstance(answer, Refusal) or not answer.fresh:
                return decision
            if await self._store.write(partial(_voted_if, answer, stamp)):
                return decision
            # Another stream was faster; it may have asked for a rival.

    def _decided(self, ask: Submit, now_ms: int, chains: Chains) -> Decision:
        # Readers and the writer may meet in the quota. Its steps are each whole, so the worst of it
        # is one vote more than an account should have had.
        return self._keeper.witness.on_request(
            ask.entry, ask.proofs, chains, now_ms, settlements=ask.settlements
        )

    async def _keep(self, contradiction: Contradiction) -> None:
        may_keep = await self._store.read(
            lambda chains: not chains.proofs_of(contradiction.first.signer)
        )
        if may_keep and await self._store.write(lambda it: it.keep_proof(contradiction)):
            self._keeper.tell(News(proofs=[contradiction]))

    async def _announce(self, certified: Certified) -> Answer:
        try:
            outcome = await self._keeper.take(certified)
        except RemoteError as error:
            return await self._refused(error)
        if isinstance(outcome, Halted):
            return await self._refused(halted_error())
        if isinstance(outcome, Missing):
            sentence = f"The certified entries from {outcome.seq} on must come first."
            return Refusal(Code.MISSING, sentence, missing_seq=outcome.seq)
        return Accepted()

    async def _refused(self, error: RemoteError) -> Refusal:
        answer = refusal(error)
        if error.code is Code.HALTED:
            stopped = await self._store.read(lambda chains: chains.stopped())
            if isinstance(stopped, Breach):
                return Refusal(answer.code, answer.sentence, shown=stopped)
        return answer

    async def _own_state(self, peer: NodeId, ask: AskOwn) -> Answer:
        other_ms_ago = self._other_ms_ago(peer, ask.instance) if peer == ask.account else None

        def work(chains: Chains) -> tuple[OwnState, Stopped | None]:
            account = chains.account(ask.account)
            state = OwnState(
                chains.head(ask.account), chains.voted(ask.account, account.seq + 1), other_ms_ago
            )
            return state, chains.stopped()

        state, stopped = await self._store.read(work)
        if isinstance(stopped, Breach):
            return await self._refused(halted_error())
        # What only we have voted for has reached nobody, so to ourselves this is answer enough.
        # Others count on what we remember.
        if stopped is not None and peer != self._identity.node:
            sentence = "This witness has lost votes of its own, so it cannot say what it voted for."
            shown = None if isinstance(stopped, VotesLost) else stopped
            return Refusal(Code.FORGOT, sentence, shown=shown)
        return state

    def _other_ms_ago(self, account: NodeId, instance: bytes) -> int | None:
        """Note who asks, and tell how long ago another daemon with this key did."""
        now_ms = self._now_ms()
        seen = self._instances.setdefault(account, {})
        self._instances.move_to_end(account)
        if len(self._instances) > INSTANCES_MAX:
            self._instances.popitem(last=False)
        others = [at_ms for other, at_ms in seen.items() if other != instance]
        last_ms = max(others, default=None)
        newest = {other: at_ms for other, at_ms in seen.items() if at_ms == last_ms}
        self._instances[account] = {**newest, instance: now_ms}
        if last_ms is None:
            return None
        _log.debug("ledger.another_instance", account=short(account))
        return max(0, now_ms - last_ms)


def _claimed(cast: Cast, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
    """Those that the claim takes from, one for each channel. Others may have come with it: nobody
    has checked them, and they are not worth the writer's time."""
    wanted = {one.id for one in sources_of(cast.opened.value) if one.kind in (EARNED, REST)}
    first = {one.channel: one for one in reversed(settlements)}
    return [first[channel] for channel in sorted(wanted & first.keys())]


def _voted(decide: Decide, records: Records) -> Decision:
    """Decide, and keep the vote in the same change."""
    decision = decide(records)
    if isinstance(decision.answer, Cast) and decision.answer.fresh:
        records.vote(decision.answer.entry, decision.answer.opened.value)
    return decision


def _stamped(decide: Decide, chains: Chains) -> tuple[Decision, Stamp | None]:
    """Decide, and note what a vote stands on."""
    decision = decide(chains)
    if not isinstance(decision.answer, Cast):
        return decision, None
    entry = decision.answer.opened.value
    return decision, chains.stamp(entry.account, entry.seq)


def _voted_if(cast: Cast, stamp: Stamp | None, records: Records) -> bool:
    """Keep a vote, if all that it was decided on still stands."""
    entry = cast.opened.value
    if records.stamp(entry.account, entry.seq) != stamp:
        return False
    records.vote(cast.entry, entry)
    return True


def _head(account: NodeId) -> Callable[[Chains], Certified | None]:
    return lambda chains: chains.head(account)


def _by_id(entry: MessageId) -> Callable[[Chains], Certified | None]:
    return lambda chains: chains.certified_by_id(entry)
