"""What `ayni doctor` and `ayni status` say of disks, copies, clocks and losses."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from node.api.views import Check
from node.app.recovery import Recovery
from node.discovery.clock import Clock, steady_ms
from node.discovery.sound_clock import SoundClock
from node.market.desk import Desk
from node.sharing import Sharing
from node.simulator.determinism import run
from node.storage.database import PROBE_SECONDS
from node.storage.voucher_copy import VoucherCopy
from protocol.errors import Code, LocalError
from protocol.ids import NodeId
from tests.protocol.samples import DEAL
from tests.recovery.mortal_life import DEPOSIT, TOP_UP, Life, settled_down
from tests.recovery.mortal_world import Home, World, open_world, until
from tests.recovery.test_rebuilt import blank

DAY_MS = 86_400_000


def in_world(part: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with open_world() as world:
            await settled_down(world)
            await part(world)

    run(main, b"said")


async def worked(world: World) -> Life:
    life = Life(world, 1)
    for deed in (life.pay, life.open, life.top_up, life.show, life.work):
        await deed()
    await settled_down(world)
    return life


def recovery_of(home: Home, folder: Path) -> Recovery:
    clock = SoundClock(Clock(home.wall_ms, steady_ms), home.world.charter.witnesses, home.node)
    return Recovery(home.database, clock, home.ledger, home.channels, home.copy, folder)


def named(recovery: Recovery) -> dict[str, Check]:
    return {check.name: check for check in recovery.checks()}


def test_of_a_node_that_earns_nothing_nothing_is_said(tmp_path: Path) -> None:
    async def part(world: World) -> None:
        recovery = recovery_of(world.payee, tmp_path)
        assert recovery.checks() == []
        assert list(recovery.troubles()) == []

    in_world(part)


def test_whoever_earns_is_told_to_keep_a_second_copy(tmp_path: Path) -> None:
    async def part(world: World) -> None:
        life = await worked(world)
        check = named(recovery_of(world.payee, tmp_path))["second copy of vouchers"]
        assert check.state == "warn"
        assert "0.00008 credits are earned" in check.sentence, (check, life.counted)
        assert "voucher_copy" in check.remedy
        assert recovery_of(world.payer, tmp_path).checks() == []

    in_world(part)


def test_a_copy_on_the_same_disk_or_behind_is_no_second_copy(tmp_path: Path) -> None:
    async def part(world: World) -> None:
        folder = tmp_path / "other"
        world.payee.copy = VoucherCopy(folder / "copy", world.charter.network, inline=True)
        await world.payee.comes_back()
        await worked(world)
        name = "second copy of vouchers"
        behind = named(recovery_of(world.payee, tmp_path))[name]
        assert behind.state == "warn"
        assert "It is behind" in behind.sentence
        folder.mkdir()
        await world.payee.copy(())
        same = named(recovery_of(world.payee, tmp_path))[name]
        assert "on the same disk" in same.sentence
        nowhere = named(recovery_of(world.payee, tmp_path / "gone"))[name]
        assert nowhere.state == "warn"

    in_world(part)


def test_what_is_lost_with_a_disk_is_named_with_its_sum(tmp_path: Path) -> None:
    async def part(world: World) -> None:
        life = await worked(world)
        await world.payee.comes_back(blank())
        await until(lambda: world.payee.ledger.ready, "all witnesses have answered")
        await until(lambda: bool(world.payee.ledger.channels()), "the channel comes back")
        check = named(recovery_of(world.payee, tmp_path))["earnings of before"]
        assert check.state == "warn"
        assert "up to 0.0015 credits in 1 channel" in check.sentence
        assert (DEPOSIT + TOP_UP, life.counted) == (1500, 80)
        await life.settle()
        await settled_down(world)
        assert named(recovery_of(world.payee, tmp_path)) == {}

    in_world(part)


def pragma(words: str) -> Callable[[sqlite3.Connection], None]:
    return lambda connection: connection.execute(f"PRAGMA {words}").close()


def test_a_disk_that_takes_nothing_stops_work_and_no_more(tmp_path: Path) -> None:
    async def part(world: World) -> None:
        life = await worked(world)
        payee, recovery = world.payee, recovery_of(world.payee, tmp_path)
        terms = payee.channels.payee.terms(world.payer.node)
        desk = Desk(
            Sharing(enabled=True, pause_file=tmp_path / "paused"),
            lambda: [],
            lambda: payee.database.trouble,
        )
        with pytest.raises(LocalError) as refused:
            desk.quote(DEAL.request, DEAL.request_id, bytes(32), terms)
        assert refused.value.code is Code.MODEL_NOT_SERVED
        await payee.database.write(pragma("query_only = 1"))
        before = life.counted
        await life.work()
        assert life.counted == before, "what is not on disk does not count"
        assert payee.channels.payee.books[0].held == before
        assert "Cannot write" in recovery.cannot_write
        assert list(recovery.troubles()) == [recovery.cannot_write]
        assert named(recovery)["database"].state == "fail"
        with pytest.raises(LocalError, match="takes no jobs") as refused:
            desk.quote(DEAL.request, DEAL.request_id, bytes(32), terms)
        assert refused.value.code is Code.UNAVAILABLE
        assert refused.value.retry_ms
        assert str(tmp_path) not in refused.value.sentence
        await payee.database.read(pragma("query_only = 0"))
        await trio.sleep(2 * PROBE_SECONDS)
        assert recovery.cannot_write == ""
        await life.work()
        assert life.counted > before
        await life.settle()
        await life.over()

    in_world(part)


def test_the_clock_is_told_with_how_wrong_it_is(tmp_path: Path) -> None:
    async def part(world: World) -> None:
        payee, recovery = world.payee, recovery_of(world.payee, tmp_path)

        def hear() -> None:
            for witness in world.witnesses:
                recovery.clock.heard(NodeId(witness.node), world.wall_ms())

        alone = recovery.clock_check(has_peers=False)
        assert (alone.state, "no peer's clock" in alone.sentence) == ("ok", True)
        assert "agrees" in recovery.clock_check(has_peers=True).sentence
        hear()
        assert recovery.clock_check(has_peers=True).state == "ok"
        payee.skew_ms = DAY_MS
        assert recovery.clock_check(has_peers=True).state == "warn"
        await trio.sleep(60)
        hear()
        wrong = recovery.clock_check(has_peers=True)
        assert wrong.state == "fail"
        assert "24 hours ahead of" in wrong.sentence
        assert list(recovery.troubles()) == [wrong.sentence]
        payee.skew_ms = -3 * DAY_MS
        await trio.sleep(60)
        hear()
        assert "3 days behind" in recovery.clock_check(has_peers=True).sentence
        payee.skew_ms = 0
        await trio.sleep(60)
        hear()
        assert recovery.clock_check(has_peers=True).state == "ok"

    in_world(part)
