"""The ledger as people see it: lines, sums, exports and verifications of this node's own store."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from node.ledger.base import AccountLine, LedgerLine, Terms
from node.storage.ledger import LedgerStore
from node.storage.ledger_chains import Chains
from node.storage.ledger_export import exported
from node.storage.ledger_own import NO_REFERENCE, OwnChains
from protocol.envelope import Signed
from protocol.errors import Code, LocalError
from protocol.ids import MessageId, NodeId
from protocol.ledger.audit import Depth, Report, audit
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.entry import (
    REST,
    Entry,
    Open,
    Pay,
    TopUp,
    change,
    entry_read,
    sources_of,
)
from protocol.ledger.proof import Breach, Contradiction
from protocol.limits import FRAME_BYTES_MAX, PROOFS_PAGE_MAX
from protocol.units import Microcredits

QUEUE_SHOWN_MAX: Final = 1000


class Views:
    """Queries for people; each is of one moment."""

    def __init__(self, store: LedgerStore, charter: Charter, node: NodeId) -> None:
        self._store, self._charter, self._node = store, charter, node

    async def history(self, limit: int) -> Sequence[LedgerLine]:
        """Own entries, the newest first: what waits in the queue, what is signed, what is final."""

        def work(chains: OwnChains) -> list[LedgerLine]:
            lines = self._waiting_lines(chains)[:limit]
            last = chains.account(self._node).seq
            first = max(1, last - (limit - len(lines)) + 1)
            final = [
                self._line(chains, certified.entry, certified)
                for certified in chains.chain(self._node, first, limit - len(lines))
            ]
            return [*lines, *reversed(final)]

        return await self._store.read(work)

    async def chain(self, account: NodeId, first_seq: int, limit: int) -> Sequence[Certified]:
        """Certified entries of one account in order."""
        return await self._store.read(lambda it: list(it.chain(account, first_seq, limit)))

    async def accounts(self) -> Sequence[AccountLine]:
        """All accounts of which this node knows more than nothing, in the order of their keys."""

        def work(chains: Chains) -> list[AccountLine]:
            known = {
                account: AccountLine(account, 0, Microcredits(amount))
                for account, amount in self._charter.allocations.items()
            }
            after: bytes = b""
            while page := chains.accounts(after, 1000):
                for one in page:
                    balance = Microcredits(one.balance)
                    known[one.account] = AccountLine(one.account, one.seq, balance)
                after = page[-1].account
            return [known[account] for account in sorted(known)]

        return await self._store.read(work)

    async def proofs(self) -> Sequence[Contradiction | Breach]:
        """All proofs that are kept, in the order in which they became known."""

        def work(chains: Chains) -> list[Contradiction | Breach]:
            found: list[Contradiction | Breach] = []
            while page := chains.proofs(len(found), PROOFS_PAGE_MAX):
                found += page
            return found

        return await self._store.read(work)

    async def terms(self) -> Terms:
        """M2's sum."""
        totals = await self._store.read(lambda chains: chains.totals())
        return Terms(
            supply=self._charter.supply,
            balances=totals.balances,
            pays_unclaimed=totals.pays_unclaimed,
            channel_funds=totals.channel_funds,
            fees=totals.fees,
            accounts=totals.accounts,
            entries=totals.entries,
            sources_missing=totals.sources_missing,
        )

    async def verify(self, depth: Depth) -> Report:
        """Verify all chains that are here from their bytes, as anyone would an export of them."""
        return await self._store.read(lambda it: audit(self._charter, partial(exported, it), depth))

    async def export(self, path: Path) -> int:
        """Write all chains that are here to a file. How many bytes.

        Raises LocalError BAD_REQUEST where a file cannot be written there.
        """

        def work(chains: Chains) -> int:
            try:
                with path.open("wb") as file:
                    return sum(file.write(piece) for piece in _pieces(exported(chains)))
            except OSError as error:
                raise LocalError(
                    Code.BAD_REQUEST, f"{path} cannot be written: {error.strerror}."
                ) from None

        return await self._store.read(work)

    def _waiting_lines(self, chains: OwnChains) -> list[LedgerLine]:
        balance = Microcredits(chains.account(self._node).balance)
        queued = [
            LedgerLine(0, b"", one.kind, one.amount, one.payee, one.reference, balance, 0, "queued")
            for one in chains.queued(QUEUE_SHOWN_MAX)
        ]
        pending = chains.pending()
        signed = [] if pending is None else [self._line(chains, pending, None)]
        return [*reversed(queued), *signed]

    def _line(self, chains: Chains, signed: Signed, certified: Certified | None) -> LedgerLine:
        opened = entry_read(signed, self._charter.network)
        entry, body = opened.value, opened.value.body
        return LedgerLine(
            seq=entry.seq,
            id=opened.id,
            kind=kind_of(entry),
            amount=Microcredits(abs(change(entry) + entry.fee)),
            other=self._other(chains, entry),
            reference=body.reference if isinstance(body, Pay) else NO_REFERENCE,
            balance=Microcredits(entry.balance),
            seals=0 if certified is None else len(certified.certificate.seals),
            state="pending" if certified is None else "certified",
        )

    def _other(self, chains: Chains, entry: Entry) -> NodeId | None:
        """Whom an entry pays or funds; of a claim, the one other party where there is only one."""
        match entry.body:
            case Pay(to):
                return to
            case Open(payee):
                return payee
            case TopUp(channel):
                return self._payee(chains, channel)
        others: set[NodeId | None] = set()
        for source in sources_of(entry):
            shown = chains.certified_by_id(source.id)
            if source.kind == REST:
                others.add(self._payee(chains, source.id))
            else:
                others.add(None if shown is None else shown.entry.signer)
        return others.pop() if len(others) == 1 else None

    def _payee(self, chains: Chains, channel: MessageId) -> NodeId | None:
        shown = chains.certified_by_id(channel)
        if shown is None:
            return None
        body = entry_read(shown.entry, self._charter.network).value.body
        return body.payee if isinstance(body, Open) else None


def kind_of(entry: Entry) -> str:
    """The name of an entry's kind, as it is signed."""
    return str(entry.body.__struct_config__.tag)


def _pieces(frames: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about a MiB, since a write for each frame costs more than it."""
    piece = bytearray()
    for frame in frames:
        piece += frame
        if len(piece) >= FRAME_BYTES_MAX:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
