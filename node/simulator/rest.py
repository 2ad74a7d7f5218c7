"""How a simulated world comes to rest once its faults have healed, and what must hold then."""

from typing import Final

import trio

from node.simulator.book import Broken
from node.simulator.determinism import EPOCH_MS
from node.simulator.machine import Machine
from node.simulator.weather import Climate
from node.simulator.world import World
from protocol.errors import LocalError
from protocol.identity import digest

CALM: Final = Climate(delay_seconds_max=0.2)
SETTLE_SECONDS: Final = 180.0
"""For restarts, retries after failures, and the last entries."""
CLAIM_SECONDS: Final = 150.0
MIND_SECONDS: Final = 20.0
WINDOWS: Final = 4  # Each party has its turn, and one to spare.


async def heal(world: World) -> None:
    """No fault any more: everybody is up, clocks agree, dishonest nodes are silent."""
    world.trace.note("heal")
    world.weather.climate, world.usual = CALM, CALM
    world.weather.split({})
    world.network.look()
    for liar in world.liars:
        liar.is_silent = True
    world.rogues.is_silent = True
    for machine in world.machines:
        if machine is not None:
            machine.is_healed, machine.is_down, machine.disk.is_full = True, False, False
            machine.skew_ms, machine.jumps_ms = 0, []
    world.nursery.start_soon(_mind, world)
    await _pass(world, SETTLE_SECONDS)


async def _mind(world: World) -> None:
    """Owners of restored nodes let them sign again, once all witnesses but dishonest ones have
    said what they know: a dishonest one may never answer."""
    witnesses = world.charter.witnesses
    honest = sum(machine.node in witnesses for machine in world.honest)
    while True:
        for machine in world.honest:
            ledger = machine.parts.ledger if machine.parts is not None else None
            if ledger is not None and ledger.journal.restored and ledger.answered >= honest:
                world.trace.note("override", machine.node)
                await ledger.override()
        await trio.sleep(MIND_SECONDS)


async def rest(world: World) -> None:
    """Let all turns of all channels of before pass, and everything be claimed; then check what a
    world at rest must be like. What does not hold is told to `world.fail`."""
    pace = world.pace
    await heal(world)
    begun_at = trio.current_time()
    turns_ms = pace.limits.life_ms + pace.grace_ms + (WINDOWS + 1) * pace.window_ms
    await _pass(world, turns_ms / 1000 + SETTLE_SECONDS)
    await _try_all(world)
    for machine in world.honest:
        if machine.parts is not None:
            machine.parts.ledger.claim_now()
    await _pass(world, CLAIM_SECONDS)
    if world.stopped.is_set():
        return
    await world.check()
    try:
        _at_rest(world, over_ms=EPOCH_MS + round(begun_at * 1000))
    except Broken as broken:
        world.fail(f"at rest: {broken}")


async def _pass(world: World, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await world.stopped.wait()


async def _try_all(world: World) -> None:
    """Every honest account pays once more: whoever cannot is not live."""
    honest = world.honest
    for machine, other in zip(honest, [*honest[1:], honest[0]], strict=True):
        if machine.parts is None:
            world.fail(f"{_name(machine)} is not up at rest")
            return
        try:
            reference = digest(b"at rest", machine.node)
            await machine.parts.ledger.pay(other.node, 1, reference)
        except LocalError as error:
            world.fail(f"{_name(machine)} cannot pay at rest: {error}")
    await _pass(world, CLAIM_SECONDS)


def _at_rest(world: World, over_ms: int) -> None:
    """Raises Broken."""
    for machine in world.honest:
        _is_live(machine)
        _has_its_due(machine, over_ms)
        balance = machine.parts.ledger.standing().balance if machine.parts else 0
        if balance != world.book.balance(machine.node):
            raise Broken(f"M2: {_name(machine)} has another balance than its chain")
    missing = world.book.sums().missing
    if missing:
        raise Broken(f"M2: {missing} was claimed from what no honest node holds")
    if world.book.unsettled_claims():
        raise Broken("M3: a claim of a channel whose settlement no honest node holds")
    witnesses = [one for one in world.honest if one.node in world.charter.witnesses]
    for account in [one.node for one in world.cast.identities]:
        heads = {world.survey.head(one.node, account) for one in witnesses}
        if len(heads) > 1:
            raise Broken(f"witnesses have other heads of {account.hex()[:8]}: {sorted(heads)}")


def _is_live(machine: Machine) -> None:
    assert machine.parts is not None
    ledger = machine.parts.ledger
    if not ledger.ready:
        raise Broken(f"{_name(machine)} may not sign: {ledger.trouble}")
    waiting = ledger.waiting()
    if waiting:
        raise Broken(f"{_name(machine)} still waits for {waiting[0]}")


def _has_its_due(machine: Machine, over_ms: int) -> None:
    assert machine.parts is not None
    ledger = machine.parts.ledger
    for facts in ledger.channels():
        side = "payer" if facts.payer == machine.node else "payee"
        if facts.expiry_ms > over_ms:
            continue
        if facts.settled is None:
            raise Broken(f"{_name(machine)}, {side}, has a channel that is not settled: {facts}")
        if not facts.is_claimed:
            raise Broken(f"{_name(machine)}, {side}, has not claimed its share: {facts}")


def _name(machine: Machine) -> str:
    return f"node {machine.node.hex()[:8]}"
