"""What a person should know of the witnesses of a network: how many may fail, who may own them."""

from collections.abc import Iterable, Mapping

from node.cli.words import count_words
from protocol.ledger.charter import quorum
from protocol.ledger.genesis import Genesis


def seats_words(witnesses: int) -> str:
    """How many must agree, and how many may fail."""
    if not witnesses:
        return "none: no payment can be certified"
    faulty_max, seals = quorum(witnesses)
    return f"{seals} of {witnesses} certify a payment; {faulty_max or 'none'} may fail"


def seats_warnings(genesis: Genesis) -> list[str]:
    """What is wrong, or may become so, with the witnesses of a genesis; it can never be changed."""
    count = len(genesis.witnesses)
    if not count:
        lacking = "No witness is named, so no credit can ever change hands."
        return [lacking] if genesis.supply else []
    faulty_max, _ = quorum(count)
    if not faulty_max:
        others = "it is" if count == 1 else "any of them is"
        return [
            f"With {count_words(count, 'witness', 'witnesses')} none may fail: while {others} down "
            "no payment is certified, and one whose key is lost ends all payments. With 4 "
            "witnesses 1 may fail, with 7 it is 2."
        ]
    return [
        f"Nobody may own more than {faulty_max} of these {count} witnesses: who does can stop all "
        "payments and, at worst, spend credits twice. Choose machines that are always on, with "
        "different owners, power and providers."
    ]


def crowded(addresses: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Of witnesses and their addresses, those that share a host, by host: likely of one owner."""
    by_host: dict[str, set[str]] = {}
    for node, known in addresses.items():
        for address in known:
            parts = address.split("/")
            if len(parts) > 2:
                by_host.setdefault(parts[2], set()).add(node)
    return {host: nodes for host, nodes in by_host.items() if len(nodes) > 1}
