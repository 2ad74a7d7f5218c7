"""What the owner is told when the ledger does not go on by itself."""

from dataclasses import dataclass

from node.ledger.twin import Sighting


@dataclass(frozen=True, slots=True)
class Troubles:
    """Why this node signs nothing, or not all; of several the worst is told."""

    is_halted: bool
    has_rival: bool
    is_restored: bool
    has_forgotten: bool
    answered: int  # Of the witnesses, since they were asked.
    witnesses: int
    twin: Sighting | None = None

    @property
    def sentence(self) -> str:
        """For the owner; "" where all is well."""
        if self.is_halted:
            return (
                "This ledger has halted: more witnesses were dishonest than it can bear. Nothing "
                "is signed or accepted; `ayni ledger proofs` shows the proof."
            )
        if self.has_rival:
            return (
                "Another daemon signs with this node's key, so nothing new is signed here. Stop "
                "the other one, then say `ayni ledger resume --override`."
            )
        if self.is_restored:
            return (
                "This node's ledger is older than what its witnesses have seen, as after a backup "
                "was restored, or when another daemon uses the same key. It signs nothing until "
                f"all have answered; {self.answered} of {self.witnesses} have. "
                "`ayni ledger resume --override` goes on without them: should one of them know of "
                "an entry that the others do not, this account can lock itself for ever."
            )
        if self.twin is not None:
            return (
                f"Another daemon runs with this node's key: {self.twin.witnesses} witnesses heard "
                f"from it, last {round(self.twin.seconds_ago)} seconds ago. Stop one of the two. "
                "When both sign, this account can lock itself for ever."
            )
        if self.has_forgotten:
            return (
                "This witness has found a vote of its own that it does not remember, as after an "
                "old copy of its data was restored. It casts no votes until you say `ayni ledger "
                "resume`."
            )
        if not self.witnesses:
            return "This network has no witnesses, so no payment in it can become final."
        return ""
