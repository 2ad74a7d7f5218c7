"""A wallet, chains and proofs as views, the chains with real signatures behind them."""

from msgspec.structs import replace

from node.api.channel_views import ChannelLine
from node.api.ledger_shown import Showing
from node.api.ledger_views import Chain, Debt, HistoryLine, Locked, Party, Waiting, Wallet
from node.api.scripted_ledger import ScriptedLedger
from protocol.ids import NodeId, node_text
from protocol.ledger.audit import Depth, audit
from protocol.ledger.export import Shown, export_header, framed
from protocol.ledger.proof import contradiction_made
from tests.protocol.ledger.chains import (
    ANNA,
    BRUNO,
    CHARTER,
    CLARA,
    WITNESSES,
    claim,
    entry_after,
    pay,
    sealed,
    signed_entry,
    start,
)
from tests.protocol.ledger.chains import (
    Chain as Signed,
)

NAMES = {
    ANNA.node: "anna",
    BRUNO.node: "bruno",
    **{one.node: name for one, name in zip(WITNESSES, ("maize", "oca", "potato"), strict=False)},
}
REFERENCE = bytes(range(32))
SHOWING = Showing(CHARTER, lambda node: NAMES.get(node, ""))


def party(node: NodeId) -> Party:
    return Party(node_text(node), NAMES.get(node, ""))


def town() -> dict[str, Signed]:
    """Anna (100) pays Bruno (40) 30 and 4; Bruno claims the 30 and pays Clara 65, who claims."""
    anna, bruno, clara = Signed(ANNA), Signed(BRUNO), Signed(CLARA)
    first = anna.add(pay(BRUNO, 30, REFERENCE))
    anna.add(pay(BRUNO, 4), (0, 2, 3))
    bruno.add(claim(first), (1, 2, 3))
    second = bruno.add(pay(CLARA, 65), (0, 1, 2, 3))
    clara.add(claim(second))
    return {"anna": anna, "bruno": bruno, "clara": clara}


def in_order(chains):
    """The certified entries of chains as an export has them."""
    ordered = sorted(chains, key=lambda chain: chain.identity.node)
    return [certified for chain in ordered for certified in chain.certified]


def exported(entries, shown=()) -> bytes:
    header = export_header(CHARTER, shown=len(shown), entries=len(entries))
    return header + b"".join(map(framed, [*map(Shown, shown), *entries]))


TOWN = town()
EXPORT = exported(in_order(TOWN.values()))
CONTRADICTION = contradiction_made(
    *(signed_entry(ANNA, entry_after(start(ANNA), pay(to, 7))) for to in (BRUNO, CLARA)), CHARTER
)
RIVALS = tuple(
    sealed(signed_entry(ANNA, entry_after(start(ANNA), pay(to, 9)))) for to in (BRUNO, CLARA)
)


def chain_view(name: str) -> Chain:
    chain = TOWN[name]
    entries = tuple(SHOWING.certified(one) for one in reversed(chain.certified))
    return Chain(
        account=party(chain.identity.node),
        seq=chain.state.seq,
        balance_microcredits=chain.state.balance,
        allocated_microcredits=CHARTER.allocations.get(chain.identity.node, 0),
        witnesses=4,
        quorum=3,
        entries=entries,
    )


BACK_MS = 1_700_000_000_000
WAITING = Waiting(
    seq=3,
    kind="pay",
    amount_microcredits=2_000_000,
    to=party(BRUNO.node),
    reference="",
    seals=1,
    quorum=3,
    silent=(party(WITNESSES[0].node), party(WITNESSES[1].node)),
)
WALLET = Wallet(
    account=party(ANNA.node),
    ready=True,
    seq=2,
    balance_microcredits=10_000_000,
    pending_microcredits=2_000_000,
    reserved_microcredits=500_000,
    spendable_microcredits=7_500_000,
    claimable_microcredits=1_250_000,
    witnesses=4,
    quorum=3,
    earned_microcredits=40_000,
    lost_microcredits=7,
    locked=(
        Locked(
            channel="3f" * 32, party=party(BRUNO.node), amount_microcredits=60_000, back_ms=BACK_MS
        ),
    ),
    owed_to_us=(Debt(party=party(CLARA.node), amount_microcredits=26),),
    waiting=(WAITING,),
)
CHANNELS = (
    ChannelLine(
        channel="3f" * 32,
        role="payer",
        party=party(BRUNO.node),
        funding_microcredits=100_000,
        moved_microcredits=40_000,
        lost_microcredits=0,
        expiry_ms=BACK_MS - 900_000,
        state="open",
        settled_microcredits=None,
        step="ask its payee to settle it if it stays idle",
        step_ms=BACK_MS - 3_600_000,
        waits_for=0,
        quorum=3,
        back_ms=BACK_MS,
    ),
    ChannelLine(
        channel="3e" * 32,
        role="payee",
        party=party(CLARA.node),
        funding_microcredits=100_000,
        moved_microcredits=40_000,
        lost_microcredits=7,
        expiry_ms=BACK_MS,
        state="settling",
        settled_microcredits=None,
        step="get the witnesses to settle it",
        step_ms=None,
        waits_for=2,
        quorum=3,
        back_ms=None,
    ),
)
HISTORY = tuple(
    HistoryLine(
        seq=seq,
        entry=f"{seq:064x}",
        kind="claim" if seq == 1 else "pay",
        change_microcredits=3_000_000 if seq == 1 else -seq,
        party=None if seq == 1 else party(BRUNO.node),
        reference="" if seq == 1 else REFERENCE.hex(),
        balance_microcredits=10_000_000 - seq,
        seals=1 if seq == 3 else 3,
        witnesses=4,
        state="pending" if seq == 3 else "certified",
    )
    for seq in (3, 2, 1)
)


def verification(data: bytes = EXPORT, depth: Depth = Depth.FULL):
    return SHOWING.verification(audit(CHARTER, lambda: [data], depth))


def scripted_ledger() -> ScriptedLedger:
    """Each test has its own: its numbers move."""
    assert CONTRADICTION is not None
    return ScriptedLedger(
        purse=replace(WALLET),
        lines=HISTORY,
        channel_lines=CHANNELS,
        chains=(chain_view("anna"), chain_view("bruno"), chain_view("clara")),
        proven=(SHOWING.proof(CONTRADICTION),),
        verified=verification(),
        file=(EXPORT[:100], EXPORT[100:]),
    )
