"""The certificates that come with a claim, checked before its entry is."""

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.ids import MessageId
from protocol.ledger.account import Shown
from protocol.ledger.agreement import settlement_checked
from protocol.ledger.certificate import Certified, certified_checked
from protocol.ledger.charter import Charter
from protocol.ledger.entry import EARNED, REST, Entry, sources_of
from protocol.ledger.statement import Settlement


@dataclass(frozen=True, slots=True)
class Proofs:
    """Certificates as they came, not yet checked."""

    entries: Iterable[Certified] = ()
    settlements: Iterable[Settlement] = ()


def sources_proven(entry: Entry, proofs: Proofs, charter: Charter) -> Shown:
    """The sources of a claim whose certificates hold, from those shown; others are passed over.

    Raises what `certified_checked` and `settlement_checked` raise for one that does not hold.
    """
    wanted = {source.id for source in sources_of(entry)}
    settled = {source.id for source in sources_of(entry) if source.kind in (EARNED, REST)}
    entries: dict[MessageId, Entry] = {}
    settlements: dict[MessageId, Settlement] = {}
    for proof in proofs.entries:
        if (source := proof.entry.id) in wanted and source not in entries:
            entries[source] = certified_checked(proof, charter).value
    for settlement in proofs.settlements:
        if (channel := settlement.channel) in settled and channel not in settlements:
            settlement_checked(settlement, charter)
            settlements[channel] = settlement
    return Shown(entries, settlements)
