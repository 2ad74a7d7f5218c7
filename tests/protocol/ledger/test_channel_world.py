"""Random histories with channels keep what was promised; each careless witness is found."""

import pytest
from hypothesis import find, given, settings

from protocol.errors import Code
from protocol.ledger.entry import Claim
from tests.protocol.ledger.channel_world import ChannelWorld
from tests.protocol.ledger.test_world import HISTORIES, SEARCH, lived, passing
from tests.protocol.ledger.world import Violation


@pytest.mark.parametrize("witnesses", [4, 7])
@settings(max_examples=40)
@given(history=HISTORIES)
def test_whatever_happens_the_promises_hold(witnesses, history):
    lived(ChannelWorld(witnesses), history)


def kinds_taken(world: ChannelWorld) -> set[str]:
    bodies = [world.entries[one].body for one in world.certified]
    return {source.kind for body in bodies if isinstance(body, Claim) for source in body.sources}


@pytest.mark.parametrize("kind", ["earned", "rest"])
def test_histories_get_somewhere(kind):
    find(
        HISTORIES,
        lambda history: kind in kinds_taken(lived(ChannelWorld(), history)),
        settings=SEARCH,
    )


# A top-up after the rest needs a longer story than these: `test_channel_rules` tells it.
MISTAKES = {
    "a share without its settlement": Code.NEED,
    "another share than the settled one": Code.AMOUNT_WRONG,
    "a top-up or rest of another's channel": Code.NO_CHANNEL,
    "a share twice": Code.ALREADY_CLAIMED,
    "another's earnings": Code.NOT_PAYEE,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found(mistake):
    def goes_wrong(history) -> bool:
        try:
            lived(ChannelWorld(make=passing(MISTAKES[mistake])), history)
        except Violation:
            return True
        return False

    find(HISTORIES, goes_wrong, settings=SEARCH)
