"""Random histories with f dishonest witnesses keep what was promised; each mistake is found."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from protocol.errors import Code, RemoteError
from protocol.ledger.account import Account
from protocol.ledger.audit import Depth, audit
from protocol.ledger.export import export_header, framed
from protocol.ledger.witness import Applied, Witness
from tests.protocol.ledger.world import Violation, World

ORDER_NUMBERS = 5
# Bytes, which Hypothesis draws fast; few short histories, in which little can happen.
HISTORIES = st.binary(min_size=ORDER_NUMBERS * 30, max_size=ORDER_NUMBERS * 80).map(
    lambda data: [data[at : at + ORDER_NUMBERS] for at in range(0, len(data) - 4, ORDER_NUMBERS)]
)


def lived(world: World, history) -> World:
    for order in history:
        world.do(order)
    world.check()
    return world


@pytest.mark.parametrize("witnesses", [4, 7])
@given(history=HISTORIES)
def test_whatever_happens_the_promises_hold(witnesses, history):
    world = lived(World(witnesses), history)
    healed(world)


def healed(world: World) -> None:
    """Every certified entry reaches everyone: all hold the same, and it verifies from bytes."""
    for home in world.homes:
        for one in sorted(world.certified, key=lambda entry: world.entries[entry].seq):
            outcome = home.witness.on_certificate(world.certified[one], home.store)
            if isinstance(outcome, Applied):
                home.store.apply(outcome)
        assert {certified.entry.id for certified in home.store.entries.values()} == set(
            world.certified
        )
        assert home.store.accounts == world.homes[0].store.accounts
        assert all(account.balance >= 0 for account in home.store.accounts.values())
    entries = sorted(
        world.certified.values(),
        key=lambda one: (one.entry.signer, world.entries[one.entry.id].seq),
    )
    data = export_header(world.rules, shown=0, entries=len(entries)) + b"".join(
        map(framed, entries)
    )
    for depth in Depth:
        report = audit(world.rules, lambda: [data], depth)
        assert report.faults == ()
        assert report.total == report.supply


def test_histories_get_somewhere():
    """The property would hold of a world in which nothing is ever certified, too."""

    def rich(history) -> bool:
        world = World()
        for order in history:
            world.do(order)
        kinds = [type(world.entries[one].body).__name__ for one in world.certified]
        return kinds.count("Pay") >= 2 and "Claim" in kinds

    find(HISTORIES, rich, settings=SEARCH)


SEARCH = settings(
    max_examples=100,  # The ordinary number.
    phases=[Phase.generate],
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def passing(*codes: Code) -> Callable[..., Witness]:
    """A witness that overlooks some refusals, when it votes and when it follows."""

    class Careless(Witness):
        def _followed(self, account, opened, chains):
            try:
                return super()._followed(account, opened, chains)
            except RemoteError as error:
                if error.code not in codes:
                    raise
                entry = opened.value
                return Account(account.account, entry.seq, opened.id, entry.balance)

        def _checked(self, account, opened, proofs, chains):
            try:
                super()._checked(account, opened, proofs, chains)
            except RemoteError as error:
                if error.code not in codes:
                    raise

    return lambda rules, identity: Careless(rules, identity.node)


class Forgetful(Witness):
    """Votes for a rival, too."""

    def _decided(self, signed, proofs, chains, now_ms):
        class NoVotes:
            def __getattr__(self, name):
                return getattr(chains, name)

            def voted(self, account, seq):
                return None

        return super()._decided(signed, proofs, NoVotes(), now_ms)


MISTAKES = {
    "certificates of q - 1": {"rules": lambda rules: replace(rules, quorum=rules.quorum - 1)},
    "no balance check": {"make": passing(Code.OVERDRAWN, Code.BALANCE_WRONG)},
    "a wrong balance accepted": {"make": passing(Code.BALANCE_WRONG)},
    "no link check": {"make": passing(Code.LINK_BROKEN)},
    "claim twice": {"make": passing(Code.ALREADY_CLAIMED)},
    "claim without proof": {"make": passing(Code.NEED)},
    "claim of another amount": {"make": passing(Code.AMOUNT_WRONG)},
    "claim of another's pay": {"make": passing(Code.NOT_PAYEE)},
    "two votes for a place": {"make": lambda rules, one: Forgetful(rules, one.node)},
    "votes lost in a crash": {"stored_first": False},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found(mistake):
    def goes_wrong(history) -> bool:
        try:
            lived(World(**MISTAKES[mistake]), history)
        except Violation:
            return True
        return False

    find(HISTORIES, goes_wrong, settings=SEARCH)


def test_the_search_fails_where_there_is_nothing_to_find():
    def goes_wrong(history) -> bool:
        try:
            lived(World(), history)
        except Violation:
            return True
        return False

    with pytest.raises(NoSuchExample):
        find(HISTORIES, goes_wrong, settings=SEARCH)
