"""One chain verified entry by entry, from the genesis or from a checkpoint on."""

from protocol.envelope import Opened
from protocol.errors import Code, RemoteError
from protocol.ids import MessageId, NodeId
from protocol.ledger.account import Account, follow, opening
from protocol.ledger.certificate import Certified, certificate_checked, certificate_names
from protocol.ledger.charter import Charter
from protocol.ledger.checking import Known
from protocol.ledger.checkpoint import Holdings
from protocol.ledger.entry import (
    Entry,
    Open,
    SourceKey,
    TopUp,
    entry_opened,
    entry_read,
    sources_of,
)


class ChainAudit:
    """Verifies one chain, entry by entry from seq 1; also for chains that come over the network.

    What an entry claims is checked elsewhere: `add` returns the entry, its sources are in it.
    """

    def __init__(self, account: NodeId, charter: Charter, *, all_sealed: bool = True) -> None:
        """`all_sealed`: every certificate is checked, not only the last and those of sources."""
        self._charter = charter
        self._all_sealed = all_sealed
        self._claimed: dict[SourceKey, int] = {}
        self._funding: dict[MessageId, int] = {}
        self._unsealed: Certified | None = None
        self.state = opening(charter, account)
        self.signatures = 0
        self.first_seq = 1

    def resume(self, account: Account, holdings: Holdings) -> None:
        """Go on from a checkpoint that was checked, in the place of the genesis."""
        self.state, self.first_seq = account, account.seq + 1
        self._claimed, self._funding = dict(holdings.claimed), dict(holdings.funded)

    def add(
        self, certified: Certified, *, is_source: bool = False, known: Known = Known.NOTHING
    ) -> Opened[Entry]:
        """Verify the next entry; `is_source`: its certificate counts, for a claim takes it.
        `known` of its signatures are not checked again.

        Raises RemoteError: what `follow`, `entry_opened` and `certified_checked` raise.
        """
        opened = self._opened(certified, is_source or self._all_sealed, known)
        entry = opened.value
        if entry.account != self.state.account:
            raise RemoteError(Code.UNEXPECTED, "The entry is of another account's chain.")
        self.state = self._followed(opened)
        for source in sources_of(entry):
            self._claimed[source.key] = entry.seq
        if isinstance(entry.body, Open):
            self._funding[opened.id] = entry.body.deposit
        elif isinstance(entry.body, TopUp):
            self._funding[entry.body.channel] += entry.body.amount
        return opened

    def claimed_at(self, source: SourceKey) -> int | None:
        """See `account.Past`."""
        return self._claimed.get(source)

    def funding(self, channel: MessageId) -> int | None:
        """See `account.Past`."""
        return self._funding.get(channel)

    def end(self) -> None:
        """After the last entry: its certificate. Raises RemoteError BAD_CERTIFICATE."""
        if self._unsealed is not None:
            certificate_checked(self._unsealed.certificate, self._charter)
            self.signatures += len(self._unsealed.certificate.seals)
            self._unsealed = None

    def _followed(self, opened: Opened[Entry]) -> Account:
        return follow(self.state, self, opened, self._charter)

    def _opened(self, certified: Certified, sealed: bool, known: Known) -> Opened[Entry]:
        if known is Known.NOTHING:
            opened = entry_opened(certified.entry, self._charter.network)
        else:
            opened = entry_read(certified.entry, self._charter.network)
        certificate_names(certified, opened.id)
        if sealed and known is not Known.ALL:
            certificate_checked(certified.certificate, self._charter)
        is_sealed = sealed or known is Known.ALL
        self.signatures += 1 + (len(certified.certificate.seals) if is_sealed else 0)
        self._unsealed = None if is_sealed else certified
        return opened
