"""One deliberate mistake for each rule: a Build whose honest nodes make it. The simulator must
find each, which shows that its checkers can fail."""

import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from node.simulator.parts import Build
from node.storage.channels import VoucherStore
from protocol.errors import Code, RemoteError
from protocol.ledger.account import Account
from protocol.ledger.witness import Witness


def passing(*codes: Code):
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

    return Build(witness=Careless)


class Forgetful(Witness):
    """Votes for a rival, too."""

    def _decided(self, signed, proofs, chains, now_ms):
        class NoVotes:
            def __getattr__(self, name):
                return getattr(chains, name)

            def voted(self, account, seq):
                return None

        return super()._decided(signed, proofs, NoVotes(), now_ms)


def without_votes(image: bytes) -> bytes:
    """A disk that never got a witness's votes."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(image)
    connection.execute("DELETE FROM ledger_votes")
    connection.commit()
    return connection.serialize()


class Hasty(VoucherStore):
    """Says that a voucher is on disk long before it is."""

    async def put(self, counted):
        async def late():
            await trio.sleep(30)
            await super(Hasty, self).put(counted)

        trio.lowlevel.spawn_system_task(late)
        await trio.lowlevel.checkpoint()


class Through:
    """Does all that another does, but for what a subclass says."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


class Trusting(Through):
    """A payee that looks at no window."""

    def earn(self, requester, channel, window_chunks):
        return self._earn(requester, channel, window_chunks)

    @asynccontextmanager
    async def _earn(self, requester, channel, window_chunks):
        async with self._inner.earn(requester, channel, window_chunks) as earning:
            earning.window.chunks_max = 1000
            yield earning


class Twice(Through):
    """A payer that pays for each chunk twice."""

    def spend(self, payee, cost_worst):
        return self._spend(payee, cost_worst)

    @asynccontextmanager
    async def _spend(self, payee, cost_worst):
        async with self._inner.spend(payee, 3 * cost_worst) as spending:
            yield TwiceSpending(spending)


class TwiceSpending(Through):
    def voucher(self, order, first_t, cost):
        return self._inner.voucher(order, first_t, 2 * cost)


MISTAKES = {
    "M1: a wrong balance accepted": passing(Code.BALANCE_WRONG),
    "M2: no balance check": passing(Code.OVERDRAWN, Code.BALANCE_WRONG),
    "M2: a claim twice": passing(Code.ALREADY_CLAIMED),
    "M2: a claim without proof": passing(Code.NEED),
    "M3: no link check": passing(Code.LINK_BROKEN),
    "M3: certificates of q - 1": Build(rules=lambda it: replace(it, quorum=it.quorum - 1)),
    "M3: two votes for a place": Build(witness=Forgetful),
    "M4: votes lost in a crash": Build(disk_image=without_votes),
    "M4: a voucher counted before it is on disk": Build(vouchers=Hasty),
    "M5: the window ignored": Build(payee=Trusting),
    "M6: a chunk charged twice": Build(payer=Twice),
}
