"""What `ayni doctor` says of witnesses and of this node's ledger."""

from collections.abc import Iterator

from node.api.ledger_views import Wallet
from node.api.views import Check, Peer, Status
from node.cli.ledger_words import waiting_words
from node.cli.seats import crowded, seats_warnings, seats_words
from node.cli.words import listed_words, node_words
from protocol.ledger.charter import quorum
from protocol.ledger.genesis import Genesis


def witnesses_check(genesis: Genesis) -> Check:
    """How many witnesses may fail; a network without credits needs none."""
    count = len(genesis.witnesses)
    if not count and not genesis.supply:
        return Check(name="witnesses", state="ok", sentence="None is needed: there are no credits.")
    said, warnings = f"{seats_words(count)}.", seats_warnings(genesis)
    if quorum(count)[0]:
        return Check(name="witnesses", state="ok", sentence=" ".join([said, *warnings]))
    return Check(
        name="witnesses",
        state="warn",
        sentence=" ".join([said, *warnings]),
        remedy="Fit for a trial. A genesis never changes: for more, found another network with "
        "`ayni network create NAME --witness NODE ...`.",
    )


def crowded_check(status: Status, peers: tuple[Peer, ...]) -> Iterator[Check]:
    """Nothing where no two witnesses too many are seen to live at one address."""
    witnesses = set(status.network.witnesses)
    names = {peer.node: peer.name for peer in peers} | {status.node: status.name}
    addresses = {peer.node: peer.addresses for peer in peers} | {status.node: status.addresses}
    known = {node: addresses[node] for node in witnesses & addresses.keys()}
    bearable = max(1, quorum(len(witnesses))[0])
    for host, nodes in sorted(crowded(known).items()):
        if len(nodes) > bearable:
            said = listed_words(sorted(node_words(names[node], node) for node in nodes))
            yield Check(
                name="witnesses at one place",
                state="warn",
                sentence=f"{said} are at one address, {host}. If they have one owner, that owner "
                f"can stop all payments and, at worst, spend credits twice; only {bearable} of "
                f"the {len(witnesses)} witnesses may fail.",
                remedy="Fit for a trial. Real money needs witnesses of different owners.",
            )
            return


def ledger_check(wallet: Wallet) -> Check:
    """Whether this node's ledger goes on, and what waits."""
    if wallet.trouble == "unwitnessed":  # Another check warns of it where there are credits.
        return Check(name="ledger", state="ok", sentence=wallet.sentence)
    if wallet.trouble:
        return Check(
            name="ledger",
            state="fail" if wallet.trouble == "halted" else "warn",
            sentence=f"{wallet.trouble}: {wallet.sentence}",
            remedy=wallet.remedy,
        )
    if wallet.waiting:
        oldest = wallet.waiting[0]
        return Check(
            name="ledger",
            state="warn",
            sentence=f"{len(wallet.waiting)} on their way, the first a {waiting_words(oldest)}.",
            remedy="Nothing is lost: it goes on by itself when enough witnesses answer.",
        )
    if not wallet.ready and wallet.witnesses:
        return Check(
            name="ledger",
            state="warn",
            sentence=f"Fewer than {wallet.quorum} of {wallet.witnesses} witnesses have answered "
            "since the start, so nothing new is signed yet.",
            remedy="It goes on by itself when they answer.",
        )
    return Check(name="ledger", state="ok", sentence="In order.")
