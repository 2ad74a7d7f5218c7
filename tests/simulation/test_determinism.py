"""One seed is one run: in this process, in another one, whatever the hashes of its sets."""

import os
import subprocess
import sys

import trio

from node.simulator import determinism
from node.simulator.plan import Options
from node.simulator.simulate import simulate

OPTIONS = Options(nodes=6, witnesses=4, hours=0.03, seed=11, deeds_per_hour=40, faults_per_hour=100)
ELSEWHERE = """
from tests.simulation.test_determinism import OPTIONS
from node.simulator.simulate import simulate
print(simulate(OPTIONS).digest)
"""


def test_a_seed_is_a_trace() -> None:
    here = simulate(OPTIONS)
    assert here.is_good, here.broken
    assert here.counts["event crash"]
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    other = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.split()[-1] == here.digest


def test_another_seed_is_another_trace() -> None:
    one, other = (
        simulate(Options(nodes=4, witnesses=4, hours=0.05, seed=seed, faults=frozenset()))
        for seed in (1, 2)
    )
    assert one.digest != other.digest


def test_the_scheduler_obeys_the_seed() -> None:
    """The private names of trio that are set must still be those that it reads."""

    def order(seed: bytes) -> list[int]:
        ran: list[int] = []

        async def run_one(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                ran.append(number)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(run_one, number)

        determinism.run(main, seed)
        return ran

    assert order(b"one") == order(b"one")
    assert order(b"one") != order(b"two")
