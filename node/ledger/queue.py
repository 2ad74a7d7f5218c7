"""What is to leave our balance: each thing written down before anybody is told that it will."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from node.ledger.base import Waiting
from node.ledger.client import Client
from node.ledger.keeper import Keeper
from node.ledger.purse import Purse
from node.ledger.registry import Registry
from node.storage.ledger import Records
from node.storage.ledger_own import NO_REFERENCE, Figures
from protocol.envelope import Signed
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, NodeId, short
from protocol.ledger.entry import Claim, Open, Pay, TopUp, entry_read, sources_of
from protocol.limits import TOPUPS_SHOWN_MAX
from protocol.units import Microcredits, credits_text


class Queue:
    """Pays, opens and top-ups on their way to the journal; `wake` tells it of a new one."""

    def __init__(
        self,
        keeper: Keeper,
        client: Client,
        purse: Purse,
        registry: Registry,
        wake: Callable[[], None],
    ) -> None:
        self._keeper, self._client, self._purse = keeper, client, purse
        self._registry, self._wake = registry, wake
        self._charter, self._node = keeper.charter, keeper.node

    async def pay(self, to: NodeId, amount: int, reference: bytes) -> None:
        """As `Ledger.pay`."""
        charter = self._charter
        if to == self._node or not charter.pay_min <= amount <= charter.supply:
            raise LocalError(
                Code.BAD_REQUEST,
                f"A payment goes to another node and is of {credits_text(charter.pay_min)} credits "
                f"or more, of {credits_text(charter.supply)} that there are; asked for was one of "
                f"{credits_text(amount)}.",
            )
        held = self._held(amount) if reference == NO_REFERENCE else nullcontext()
        with held:
            await self._put("pay.queued", lambda records: records.owe(to, amount, reference))

    async def open_channel(self, payee: NodeId, deposit: int, expiry_ms: int) -> None:
        """As `Ledger.open_channel`."""
        if payee == self._node or not 0 < deposit <= self._charter.supply or expiry_ms < 0:
            raise LocalError(
                Code.BAD_REQUEST,
                "A channel goes to another node and has a deposit of at most "
                f"{credits_text(self._charter.supply)} credits; asked for was one to "
                f"{short(payee)} with {credits_text(deposit)}.",
            )
        with self._held(deposit):
            await self._put(
                "open.queued", lambda records: records.owe_open(payee, deposit, expiry_ms)
            )

    async def top_up(self, channel: MessageId, amount: int) -> None:
        """As `Ledger.top_up`."""
        facts = self._registry.find(channel)
        if facts.payer != self._node:
            raise LocalError(Code.NOT_FOUND, f"{short(channel)} is another's channel to this node.")
        if not 0 < amount <= self._charter.supply:
            raise LocalError(
                Code.BAD_REQUEST, f"A top-up of {credits_text(amount)} credits cannot be made."
            )
        if facts.settled is not None or facts.topups >= TOPUPS_SHOWN_MAX:
            raise LocalError(
                Code.CHANNEL_CLOSED,
                f"Channel {short(channel)} is settled, or has {TOPUPS_SHOWN_MAX} top-ups, beyond "
                "which no payee counts any; open another.",
            )
        with self._held(amount):
            await self._put(
                "topup.queued", lambda records: records.owe_topup(channel, facts.payee, amount)
            )

    def waiting(self) -> Sequence[Waiting]:
        """As `Ledger.waiting`: the entry on its way, then what is not signed yet, with seq 0."""
        quorum = self._charter.quorum
        queued = [
            Waiting(0, one.kind, one.amount, one.payee, one.reference, 0, quorum, ())
            for one in self._purse.figures.queue
        ]
        signed = self._purse.figures.signed
        return queued if signed is None else [self._on_its_way(signed), *queued]

    def _held(self, amount: int) -> AbstractContextManager[None]:
        """What is not owed yet must be there now. Raises LocalError OVERDRAWN."""
        return self._purse.reserve(amount + self._charter.entry_fee)

    async def _put(self, step: str, change: Callable[[Records], object]) -> None:
        def work(records: Records) -> Figures:
            change(records)
            return records.figures(self._node)

        self._purse.renew(await self._keeper.store.write(work))
        await self._keeper.steps(step)
        self._wake()

    def _on_its_way(self, signed: Signed) -> Waiting:
        at_hand = self._client.round
        seals = {} if at_hand is None or at_hand.entry.id != signed.id else at_hand.seals
        entry = entry_read(signed, self._charter.network).value
        kind, amount, to, reference = "claim", 0, None, NO_REFERENCE
        match entry.body:
            case Pay():
                kind, amount = "pay", entry.body.amount
                to, reference = entry.body.to, entry.body.reference
            case Open(payee, deposit):
                kind, amount, to = "open", deposit, payee
            case TopUp():
                kind, amount = "topup", entry.body.amount
            case Claim():
                amount = sum(source.amount for source in sources_of(entry))
        return Waiting(
            seq=entry.seq,
            kind=kind,
            amount=Microcredits(amount),
            to=to,
            reference=reference,
            seals=len(seals),
            quorum=self._charter.quorum,
            silent=tuple(
                witness
                for number, witness in enumerate(self._charter.witnesses)
                if number not in seals
            ),
        )
