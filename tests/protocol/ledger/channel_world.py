"""The world of `world.py` in which accounts open channels too, and anyone settles them at will.

Payer, payee and the dishonest witnesses are the adversary's; the turns' clocks are as it likes.
The check adds up by itself, and calls no rule of protocol.ledger.
"""

from protocol.envelope import seal
from protocol.identity import Identity
from protocol.ledger.account import Account
from protocol.ledger.agreement import (
    commit_of,
    highest_lock,
    prepare_of,
    prepared_made,
    settlement_made,
)
from protocol.ledger.certificate import Certified, Seal, statement_signed
from protocol.ledger.channel import Channel, channel_checked
from protocol.ledger.entry import Body, Claim, Entry, Open, Pay, Source, TopUp
from protocol.ledger.settlement import Clock, Decision, owner_is_payee, turn_begins_ms
from protocol.ledger.statement import Proposal, Report, ReportShown, TurnAsk
from protocol.ledger.sync import AskReport, Lock, Propose
from protocol.ledger.turns import Turns, turn_answer
from protocol.ledger.voucher import Voucher, voucher_signed
from protocol.ledger.witness import Final, Halted
from tests.protocol.ledger.chains import NOTHING
from tests.protocol.ledger.world import CLIENTS, Home, Known, Violation, World

EXPIRY_MS = 1_000_000
IDENTITIES = {identity.node: identity for identity in CLIENTS}


class ChannelWorld(World):
    """Orders beyond those of the world: settle a channel, tell how one was settled."""

    def do(self, order) -> None:
        what, one, two, three, four = order
        if what % 3:
            super().do(order)
        elif four % 4:
            self.settle(one, two, three, 1 + four % 3)
        else:
            self.tell_settled(one, two)

    def _body(self, identity: Identity, before: Account, what: int) -> Body:
        opens = [
            known
            for known in self.signed
            if isinstance(known.entry.body, Open)
            and (known.entry.account == identity.node or known.entry.body.payee == identity.node)
        ]
        ended = [one for one in opens if self._has_rest_taken(one.signed.id)]
        if ended and what % 4 == 3:  # It is over, and somebody pays into it.
            return TopUp(ended[-1].signed.id, 1)
        if (not opens and what % 5 < 3) or what % 15 == 0:
            others = [one for one in CLIENTS if one is not identity]
            return Open(others[what // 5 % 2].node, max(1, before.balance // 4), EXPIRY_MS)
        if what % 5 == 1:
            return TopUp(opens[-1 - what // 5 % len(opens)].signed.id, 1 + what // 50)
        if what % 5 == 2:
            settled = {one.channel for one in self.settlements}
            likely = [one for one in opens if one.signed.id in settled] if what % 4 else opens
            return self._share(identity, (likely or opens)[what // 5 % len(likely or opens)], what)
        return super()._body(identity, before, what)

    def _has_rest_taken(self, channel: bytes) -> bool:
        bodies = [self.entries[one].body for one in self.certified]
        return any(
            source.kind == "rest" and source.id == channel
            for body in bodies
            if isinstance(body, Claim)
            for source in body.sources
        )

    def _share(self, identity: Identity, opened: Known, what: int) -> Body:
        """What this side may claim of a channel; at times too much, too early or the other's."""
        channel = opened.signed.id
        values = [one.value for one in self.settlements if one.channel == channel]
        value = values[0] if values else what % 7
        is_payer = self.entries[channel].account == identity.node
        kind = "rest" if is_payer != (what % 32 == 17) else "earned"
        amount = self.funding(channel) - value if kind == "rest" else value
        return Claim((Source(kind, channel, max(1, amount + (what % 16 == 15))),))

    def funding(self, channel: bytes) -> int:
        """The deposit and the certified top-ups of a channel."""
        body = self.entries[channel].body
        assert isinstance(body, Open)
        added = [self.entries[one.entry.id].body for one in self.topups(channel)]
        return body.deposit + sum(one.amount for one in added if isinstance(one, TopUp))

    def topups(self, channel: bytes) -> list[Certified]:
        payer = self.entries[channel].account
        return [
            certified
            for one, certified in self.certified.items()
            if isinstance(body := self.entries[one].body, TopUp)
            and body.channel == channel
            and self.entries[one].account == payer
        ]

    # Settling: one turn, as far as it gets with those whom it reaches.

    def settle(self, which: int, wanted: int, reached: int, turn: int) -> None:
        opened = [
            certified
            for one, certified in self.certified.items()
            if isinstance(self.entries[one].body, Open)
        ]
        if not opened:
            return
        shown = opened[-1 - which % len(opened)]
        channel = channel_checked(shown, self.rules)
        clock = Clock(turn_begins_ms(EXPIRY_MS, turn, self.rules) if turn > 1 else 0)
        funding = self.funding(channel.id)
        value = (0, funding, 1, funding // 2, funding // 2, funding + 1)[wanted % 6]
        homes = [home for at, home in enumerate(self.homes) if (reached >> at) & 1 or wanted % 3]
        reports = self._reports(shown, channel, turn, homes, clock)
        if turn > 1:
            if len(reports) < self.rules.quorum:
                return
            locked = highest_lock(reports, channel.id, turn, self.rules)
            value = locked.value if locked is not None and wanted % 8 else value
        proposal = Proposal(channel.id, turn, value)
        voucher = Voucher(channel.id, max(1, value), NOTHING, b"")
        ask = Propose(
            seal(self._owner(channel, turn), self.rules.network, proposal),
            shown,
            tuple(self.topups(channel.id)),
            voucher_signed(IDENTITIES[channel.payer], voucher, self.rules.network),
            reports,
        )
        prepared = prepared_made(
            proposal, self._seals(ask, homes, clock, prepare_of(proposal)), self.rules
        )
        if prepared is None:
            return
        late = homes if wanted % 2 else homes[:-1]
        seals = self._seals(Lock(prepared, shown), late, clock, commit_of(prepared))
        settlement = settlement_made(prepared, seals, self.rules)
        if settlement is not None:
            self.settlements.append(settlement)

    def _owner(self, channel: Channel, turn: int) -> Identity:
        return IDENTITIES[channel.payee if owner_is_payee(turn) else channel.payer]

    def _reports(self, shown, channel, turn, homes, clock) -> tuple[ReportShown, ...]:
        if turn == 1:
            return ()
        asked = seal(self._owner(channel, turn), self.rules.network, TurnAsk(channel.id, turn))
        bare = Report(0, channel.id, turn, None)
        lies = [
            ReportShown(statement_signed(liar, bare, self.rules.network), None)
            for liar in self.liars
        ]
        answers = [self._answer(home, AskReport(asked, shown), clock) for home in homes]
        return tuple([answer.shown for answer in answers if answer is not None] + lies)

    def _seals(self, ask, homes, clock, statement) -> list[Seal]:
        answers = [(home.identity, self._answer(home, ask, clock)) for home in homes]
        votes = [(identity, answer.vote) for identity, answer in answers if answer is not None]
        votes += [
            (liar, statement_signed(liar, statement, self.rules.network)) for liar in self.liars
        ]
        numbers = {identity.node: self.rules.number(identity.node) for identity, _ in votes}
        return [Seal(numbers[identity.node], vote.signature) for identity, vote in votes]

    def _answer(self, home: Home, ask, clock: Clock):
        decision = Turns(self.rules, home.identity.node).answer(ask, home.store, clock)
        if not isinstance(decision, Decision):
            return None
        home.store.seats[ask.open.entry.id] = decision.seat
        return turn_answer(decision, home.identity, self.rules)

    def tell_settled(self, which: int, home: int) -> None:
        """A settlement reaches a witness."""
        if not self.settlements:
            return
        settlement = self.settlements[-1 - which % len(self.settlements)]
        to = self.homes[home % len(self.homes)]
        shown = self.certified[settlement.channel]
        outcome = to.witness.on_settlement(settlement, shown, to.store)
        if isinstance(outcome, Final):
            to.store.settlements[settlement.channel] = outcome.settlement
        elif isinstance(outcome, Halted):
            raise Violation("an honest witness meets two settlements")

    # What must hold.

    def check(self) -> None:
        settled: dict[bytes, int] = {}
        for settlement in self.settlements:
            value = settled.setdefault(settlement.channel, settlement.value)
            if value != settlement.value:
                raise Violation("a channel was settled at two values")
            if value > self.funding(settlement.channel):
                raise Violation("a channel was settled above its funding")
        balances, taken, fundings = dict(self.true_rules.allocations), set(), {}
        for one, entry in sorted(self.entries.items(), key=lambda pair: pair[1].seq):
            if one not in self.certified:
                continue
            balance = balances.get(entry.account, 0) + self._moved(one, entry, fundings)
            if isinstance(entry.body, Claim):
                for source in entry.body.sources:
                    if (source.kind, source.id) in taken:
                        raise Violation("a source is taken twice")
                    taken.add((source.kind, source.id))
                    self._taken(entry, source, settled, fundings)
                    balance += source.amount
            if balance < 0 or balance != entry.balance:
                raise Violation("a certified balance is wrong or negative")
            balances[entry.account] = balance
        self._sum(balances, taken, settled)

    def _moved(self, one: bytes, entry: Entry, fundings: dict[bytes, int | None]) -> int:
        """What an entry that is no claim moves out of its account."""
        body = entry.body
        if isinstance(body, Pay):
            return -body.amount
        if isinstance(body, Open):
            fundings[one] = body.deposit
            return -body.deposit
        if isinstance(body, TopUp):
            if fundings.get(body.channel) is None:
                raise Violation("a top-up of no channel, or of one whose rest is taken")
            if self.entries[body.channel].account != entry.account:
                raise Violation("a top-up of another's channel")
            fundings[body.channel] += body.amount
            return -body.amount
        return 0

    def _taken(self, entry: Entry, source: Source, settled, fundings) -> None:
        origin = self.entries.get(source.id)
        if origin is None or source.id not in self.certified:
            raise Violation("a certified claim takes what is not certified")
        body = origin.body
        if source.kind == "pay":
            is_right = body == Pay(entry.account, source.amount, NOTHING)
        elif source.kind == "earned":
            is_right = isinstance(body, Open) and body.payee == entry.account
            is_right = is_right and settled.get(source.id) == source.amount
        else:
            funding = fundings.get(source.id)
            is_right = origin.account == entry.account and funding is not None
            is_right = is_right and funding - source.amount == settled.get(source.id)
            fundings[source.id] = None
        if not is_right:
            raise Violation(f"a certified claim takes as {source.kind} what is not there")

    def _sum(self, balances, taken, settled) -> None:
        left = sum(balances.values())
        for one in self.certified:
            body = self.entries[one].body
            if isinstance(body, Pay) and ("pay", one) not in taken:
                left += body.amount
            elif isinstance(body, Open):
                funding, value = self.funding(one), settled.get(one, 0)
                left += funding
                left -= value if ("earned", one) in taken else 0
                left -= funding - value if ("rest", one) in taken else 0
        if left != self.true_rules.supply:
            raise Violation("money was made or lost")
