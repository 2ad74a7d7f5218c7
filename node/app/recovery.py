"""What a node does about a lost or ailing disk and a wrong clock, and how it tells its owner."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from node.api.views import Check
from node.channels import policy
from node.channels.book import Book
from node.channels.own import Around
from node.channels.service import Channels
from node.discovery.sound_clock import SoundClock
from node.ledger.base import ChannelFacts
from node.ledger.service import NodeLedger
from node.ledger.signal import Signal
from node.storage.channels import VoucherStore
from node.storage.damage import SetAside
from node.storage.database import Database
from node.storage.marks import Marks
from node.storage.salvage import vouchers_salvaged
from node.storage.voucher_copy import VoucherCopy
from node.telemetry.logs import Log
from protocol.errors import LocalError
from protocol.ids import MessageId, NetworkId
from protocol.units import credits_text

RETRY_SECONDS: Final = 5.0
_RESTORED_AT: Final = "restored_at_ms"  # A counter: when this ledger was last found to be old.
_SALVAGED: Final = "salvaged "  # And one for each database that was set aside.

_log = Log("recovery")


async def bring_vouchers_back(
    database: Database, store: VoucherStore, copy: VoucherCopy | None, network: NetworkId
) -> None:
    """Give the store what it lacks of the second copy, and of databases that were set aside.

    Raises LocalError UNAVAILABLE where the disk fails.
    """
    marks = Marks(database)
    for kept in database.set_aside:
        name = _SALVAGED + kept.folder.name
        if await marks.value(name):
            continue
        file = kept.folder / "ayni.db"
        found = await trio.to_thread.run_sync(vouchers_salvaged, file, network)
        over = await store.over(one.channel for one in found)
        for one in found:
            if one.channel not in over:
                await store.put(one)
        await marks.put(name, 1)
        _log.warning("vouchers.salvaged", folder=kept.folder.name, channels=len(found))
    if copy is not None:
        await copy.replay(store)


class OldChannels:
    """Channels that paid this node before it lost its disk or went back to an old copy of it.

    It may have signed their settlement and forgotten it, and a voucher for a channel that is
    settled is worth nothing. So it takes no work on those that honest payers can have opened
    before, and asks the witnesses how each that it hears of was settled, if it was. All of them
    are settled in their time by what vouchers are left.
    """

    def __init__(
        self, database: Database, ledger: NodeLedger, channels: Channels, around: Around
    ) -> None:
        self._marks, self._ledger, self._payee = Marks(database), ledger, channels.payee
        self._around = around
        self._since_ms = 0
        self._is_kept = True
        self._to_look_up: dict[MessageId, ChannelFacts] = {}
        self._seen: set[MessageId] = set()
        self._wake = Signal()

    async def load(self) -> None:
        """Take up what is on disk. Raises LocalError UNAVAILABLE where the disk fails."""
        self._since_ms = await self._marks.value(_RESTORED_AT)
        self._ledger.journal.when_restored = self._restored
        if self._ledger.journal.restored:
            self._restored()
        self._tell_payee()
        self._ledger.watch_channels(self._heard)

    async def run(self) -> None:
        """Keep on disk since when, and look channels up, until cancelled."""
        while True:
            coming = self._wake.coming()
            try:
                await self._catch_up()
                await coming.wait()
            except LocalError:
                await trio.sleep(RETRY_SECONDS)

    async def _catch_up(self) -> None:
        if not self._is_kept:
            since_ms = self._since_ms
            await self._marks.put(_RESTORED_AT, since_ms)
            self._is_kept = since_ms == self._since_ms
        while self._to_look_up:
            _, facts = self._to_look_up.popitem()
            await self._ledger.settler.look_up(facts)

    def _restored(self) -> None:
        """This node's ledger knows less than was signed with its key."""
        self._since_ms, self._is_kept = self._around.wall_ms(), False
        self._tell_payee()
        for facts in self._ledger.channels():
            self._heard(facts)
        self._wake.set()

    def _tell_payee(self) -> None:
        if self._since_ms:
            life_ms = policy.life_ms(self._around.limits, self._around.charter)
            self._payee.old_until_ms = self._since_ms + life_ms

    def _heard(self, facts: ChannelFacts) -> None:
        is_ours = facts.payee == self._around.identity.node
        if self._since_ms and is_ours and facts.id not in self._seen:
            self._seen.add(facts.id)
            self._to_look_up[facts.id] = facts
            self._wake.set()


@dataclass(frozen=True, slots=True)
class Recovery:
    """Tells how disk, clock and key are."""

    database: Database
    clock: SoundClock
    ledger: NodeLedger
    channels: Channels
    copy: VoucherCopy | None
    home: Path

    def checks(self) -> Sequence[Check]:
        """For `ayni doctor`: what is not well, and what there is to say of copies."""
        found = [
            self._disk(),
            *map(self._set_aside, self.database.set_aside[-1:]),
            self._lost(),
            self._second_copy(),
        ]
        return [check for check in found if check is not None]

    @property
    def cannot_write(self) -> str:
        """Why this node takes no work now; "" while it can."""
        return "" if not self.database.trouble else f"Cannot write: {self.database.trouble}"

    def troubles(self) -> Iterator[str]:
        """For `ayni status`: what keeps this node from its work."""
        if self.cannot_write:
            yield self.cannot_write
        if not self.clock.is_trusted:
            yield self.clock_check(has_peers=True).sentence
        if self.database.set_aside and self.ledger.journal.restored:
            yield "A damaged database was set aside; what was on it comes back from the witnesses."
        if self.ledger.trouble:
            yield self.ledger.trouble

    def clock_check(self, *, has_peers: bool) -> Check:
        """What is known of this machine's clock."""
        word, ahead_ms = self.clock.state
        if word == "wrong":
            ahead = "ahead of" if ahead_ms > 0 else "behind"
            return Check(
                name="clock",
                state="fail",
                sentence=f"The clock of this machine is {_span(abs(ahead_ms))} {ahead} the "
                "witnesses'. Channels go by theirs meanwhile, so nothing is lost.",
                remedy="Set it, or turn on automatic time in the system's settings. No restart is "
                "needed.",
            )
        if word == "jumped":
            return Check(
                name="clock",
                state="warn",
                sentence="The clock of this machine has jumped, and no witness has been heard "
                "since. Until one is, the later time counts for channels.",
                remedy="Nothing, where the machine slept or the clock was set right.",
            )
        said = "agrees with the witnesses'" if word == "agrees" else "agrees with the peers'"
        if word == "alone" and not has_peers:
            said = "has no peer's clock to be compared with yet"
        return Check(name="clock", state="ok", sentence=f"The clock {said}.")

    def _disk(self) -> Check | None:
        if not self.database.trouble:
            return None
        return Check(
            name="database",
            state="fail",
            sentence=f"{self.cannot_write} No job is taken and nothing is signed meanwhile; what "
            "is on disk is not lost.",
            remedy="Make room on the disk, or have it checked. The node goes on by itself then.",
        )

    def _set_aside(self, kept: SetAside) -> Check:
        count = len(self.database.set_aside)
        more = f" It was the {count}th; look after this disk." if count > 1 else ""
        return Check(
            name="database set aside",
            state="warn",
            sentence=f"A damaged database was put into {kept.folder} and a new one begun; "
            f"account and channels come back from the witnesses.{more}",
            remedy="Have the disk checked. When `ayni wallet` shows all that you expect, that "
            "folder can be deleted.",
        )

    def _lost(self) -> Check | None:
        """What may have been earned and is known to nobody any more, named as what it is."""
        old = [book for book in self.channels.payee.books if self._is_old(book)]
        unknown = sum(book.facts.funding - book.held for book in old)
        if not unknown:
            return None
        count = "1 channel" if len(old) == 1 else f"{len(old)} channels"
        return Check(
            name="earnings of before",
            state="warn",
            sentence=f"What vouchers said that were on the lost disk alone is lost: up to "
            f"{credits_text(unknown)} credits in {count}. Payers need not keep vouchers, so none "
            "can be asked for them.",
            remedy="If another copy of the vouchers exists, name it as `voucher_copy` under "
            "[channels] and restart before these channels are settled.",
        )

    def _is_old(self, book: Book) -> bool:
        is_old = book.facts.expiry_ms <= self.channels.payee.old_until_ms
        return is_old and book.facts.settled is None

    def _second_copy(self) -> Check | None:
        name = "second copy of vouchers"
        setting = "Set `voucher_copy` under [channels] to a file on another disk."
        if self.copy is None:
            held = sum(book.held for book in self.channels.payee.books)
            if not held:
                return None
            return Check(
                name=name,
                state="warn",
                sentence=f"{credits_text(held)} credits are earned and not settled, and the only "
                "proof is on this disk.",
                remedy=setting,
            )
        if self.copy.trouble:
            return Check(
                name=name,
                state="warn",
                sentence=f"It is behind: {self.copy.trouble} Vouchers count all the same.",
                remedy="Mend that; it is written whole then, without a restart.",
            )
        try:
            is_same = self.copy.is_on_disk_of(self.home)
        except OSError as error:
            sentence = f"{self.copy.path} cannot be looked at: {error.strerror}."
            return Check(name=name, state="warn", sentence=sentence, remedy=setting)
        if is_same:
            return Check(
                name=name,
                state="warn",
                sentence=f"{self.copy.path} is on the same disk as this node's home, and would be "
                "lost with it.",
                remedy=setting,
            )
        return Check(name=name, state="ok", sentence=f"{self.copy.path} has all of them.")


def _span(ms: int) -> str:
    minutes = ms // 60_000
    if minutes < 120:
        return f"{minutes} minutes"
    hours = minutes // 60
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"
