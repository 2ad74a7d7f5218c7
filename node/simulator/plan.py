"""What a simulated world is made of: how many nodes, who is dishonest, which faults."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from node.simulator.determinism import chance, key_seed
from node.simulator.pace import pace_for
from protocol.identity import Identity, digest
from protocol.ledger.genesis import Genesis, genesis_made

FAULTS: Final = {
    "latency": "each message takes its own time, so that they overtake each other",
    "loss": "streams break in the middle of an exchange; gossip is lost",
    "duplicates": "gossip comes twice and late; what was lost is asked again",
    "partitions": "the network falls into parts that do not hear each other",
    "crashes": "processes die; what was not committed is lost",
    "clocks": "clocks differ, and jump",
    "backups": "machines come back with an old copy of their disk",
    "disks": "disks are full for a while",
    "witnesses": "as many witnesses are dishonest as the network can bear",
    "peers": "some accounts spend twice, show old vouchers, replay, and send garbage",
}
"""The faults that can be asked for, and what each does."""

START: Final = 1_000_000_000  # What each account begins with: 1,000 credits.
HOSTILE_SHARE: Final = 10  # One in so many of the nodes that are no witnesses.


@dataclass(frozen=True, slots=True)
class Options:
    """All that a run depends on."""

    nodes: int = 50
    witnesses: int = 7
    hours: float = 24.0
    seed: int = 7
    faults: frozenset[str] = frozenset(FAULTS)
    deeds_per_hour: float = 2.0
    """Of each node: jobs, payments and the like."""
    faults_per_hour: float = 4.0
    """Of the whole world."""
    only: frozenset[int] | None = None
    """The numbers of the events that happen; all of them where it is None."""

    @property
    def seconds(self) -> float:
        """How long the world lives before its faults heal."""
        return self.hours * 3600

    @property
    def seed_bytes(self) -> bytes:
        """From which all chance comes. Which events happen is no part of it."""
        return digest(self.seed.to_bytes(16, signed=True))

    def command(self, only: Sequence[int] | None = None) -> str:
        """What to type to see this run again; `only` in the place of its own."""
        faults = "all" if self.faults == frozenset(FAULTS) else ",".join(sorted(self.faults))
        words = [
            "ayni simulate",
            f"--nodes {self.nodes} --witnesses {self.witnesses} --hours {self.hours:g}",
            f"--seed {self.seed} --faults {faults or 'none'}",
            f"--deeds {self.deeds_per_hour:g} --fault-rate {self.faults_per_hour:g}",
        ]
        kept = sorted(self.only) if only is None and self.only is not None else only
        if kept is not None:
            words.append(f"--only {','.join(map(str, kept)) or 'none'}")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who is who. Nodes go by their number; the first ones are the witnesses."""

    identities: Sequence[Identity]
    genesis: Genesis
    liars: frozenset[int]
    """Dishonest witnesses."""
    hostile: frozenset[int]
    """Dishonest accounts."""

    @property
    def honest(self) -> Sequence[int]:
        """The numbers of all others."""
        return [
            number
            for number in range(len(self.identities))
            if number not in self.liars and number not in self.hostile
        ]


def cast_of(options: Options) -> Cast:
    """The nodes of a world, and its genesis."""
    seed = options.seed_bytes
    identities = [Identity(key_seed(seed, number)) for number in range(options.nodes)]
    witnesses = range(min(options.witnesses, options.nodes))
    faulty_max = (len(witnesses) - 1) // 3
    others = [number for number in range(options.nodes) if number not in witnesses]
    pick = chance(seed, "cast")
    liars = frozenset(
        pick.sample(list(witnesses), faulty_max if "witnesses" in options.faults else 0)
    )
    hostile_count = -(-len(others) // HOSTILE_SHARE) if "peers" in options.faults else 0
    hostile = frozenset(pick.sample(others, hostile_count))
    pace = pace_for(options.hours)
    genesis = genesis_made(
        "simulated",
        seed[:16],
        {identity.node: START for identity in identities},
        {identities[number].node for number in witnesses},
        grace_ms=pace.grace_ms,
        window_ms=pace.window_ms,
    )
    return Cast(identities, genesis, liars, hostile)
