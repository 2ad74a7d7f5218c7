"""From the ledger's signed values to what the API shows; the command line uses it offline too."""

from collections.abc import Callable
from dataclasses import dataclass

from node.api.ledger_views import (
    ACCOUNTS_SHOWN_MAX,
    Balance,
    ClaimedSource,
    Fault,
    Party,
    ShownEntry,
    ShownProof,
    Verification,
)
from protocol.envelope import Signed
from protocol.ids import NodeId, node_text
from protocol.ledger.audit import Report
from protocol.ledger.certificate import Certified
from protocol.ledger.charter import Charter
from protocol.ledger.entry import (
    Body,
    Entry,
    Open,
    Pay,
    TopUp,
    change,
    entry_read,
    sources_of,
)
from protocol.ledger.proof import Breach, Contradiction
from protocol.units import credits_text


@dataclass(frozen=True, slots=True)
class Showing:
    """What the values of one network are shown with; `name_of` is "" for a node without one."""

    charter: Charter
    name_of: Callable[[NodeId], str]

    def party(self, node: NodeId) -> Party:
        return Party(node_text(node), self.name_of(node))

    def certified(self, certified: Certified) -> ShownEntry:
        """Raises RemoteError as `entry_read` for what is no entry of this network."""
        witnesses = self.charter.witnesses
        seals = (seal.witness for seal in certified.certificate.seals)
        named = tuple(self.party(witnesses[one]) for one in seals if one < len(witnesses))
        return self.signed(certified.entry, named)

    def signed(self, signed: Signed, seals: tuple[Party, ...] = ()) -> ShownEntry:
        """Raises RemoteError as `certified`."""
        entry = entry_read(signed, self.charter.network).value
        body = entry.body
        return ShownEntry(
            seq=entry.seq,
            entry=signed.id.hex(),
            prev=entry.prev.hex(),
            kind=kind_of(entry),
            change_microcredits=change(entry),
            to=self._payee(body),
            reference=reference_text(_reference(entry)),
            sources=tuple(
                ClaimedSource(entry=source.id.hex(), amount_microcredits=source.amount)
                for source in sources_of(entry)
            ),
            fee_microcredits=entry.fee,
            balance_microcredits=entry.balance,
            seals=seals,
        )

    def _payee(self, body: Body) -> Party | None:
        match body:
            case Pay(to) | Open(to):
                return self.party(to)
            case _:
                return None

    def proof(self, proof: Contradiction | Breach) -> ShownProof:
        """Raises RemoteError as `certified`."""
        if isinstance(proof, Contradiction):
            entries = (self.signed(proof.first), self.signed(proof.second))
            return ShownProof(
                kind="contradiction",
                account=self.party(proof.first.signer),
                sentence=f"It signed two entries for seq {entries[0].seq}. A node that came back "
                "from an old backup can do so honestly; at most one of the two can be certified.",
                entries=entries,
            )
        what = "what no honest quorum certifies"
        if proof.settlements:
            values = " and ".join(credits_text(one.value) for one in proof.settlements)
            what = f"two settlements of one channel, which give its payee {values} credits"
        return ShownProof(
            kind="breach",
            account=self.party(proof.certified[0].entry.signer),
            sentence=f"Witnesses certified {what}: more than {self.charter.faulty_max} of "
            f"{len(self.charter.witnesses)} were dishonest. This ledger has halted.",
            entries=tuple(self.certified(certified) for certified in proof.certified),
        )

    def verification(self, report: Report) -> Verification:
        balances = sorted(report.balances.items())
        return Verification(
            network=self.charter.network.hex(),
            depth=report.depth.value,
            ok=report.ok,
            complete=report.complete,
            accounts=len(balances),
            entries=report.entries,
            signatures=report.signatures,
            supply_microcredits=report.supply,
            balances_microcredits=sum(report.balances.values()),
            pays_unclaimed_microcredits=report.pays_unclaimed,
            channels_microcredits=report.channels,
            fees_microcredits=report.fees,
            total_microcredits=report.total,
            balances=tuple(
                Balance(account=self.party(account), amount_microcredits=amount)
                for account, amount in balances[:ACCOUNTS_SHOWN_MAX]
            ),
            faults_count=report.faults_count,
            faults=tuple(
                Fault(
                    account=None if fault.account is None else self.party(fault.account),
                    seq=fault.seq,
                    code=fault.code.value,
                    sentence=fault.sentence,
                )
                for fault in report.faults
            ),
        )


def kind_of(entry: Entry) -> str:
    """What an entry does, by the name that it has on the wire."""
    return str(type(entry.body).__struct_config__.tag)


def reference_text(reference: bytes) -> str:
    """In hex; "" where it is all zeros, which stands for none."""
    return reference.hex() if any(reference) else ""


def _reference(entry: Entry) -> bytes:
    match entry.body:
        case Pay(_, _, reference):
            return reference
        case TopUp(channel):
            return channel
        case _:
            return b""
