"""The market's choice beyond the ranking itself: who is preferred, and what counts as taken."""

from dataclasses import replace as replace_wish

import pytest
from msgspec.structs import replace

from node.market.choice import Market, modes_of
from protocol.capacity import Advert, ModelOffer
from protocol.errors import Code, LocalError
from protocol.identity import digest
from protocol.ids import JobId, ModelId, NodeId
from protocol.limits import MODES_MAX
from protocol.matching import Wish

MODEL = ModelId(digest(b"model"))
CHEAP, DEAR = NodeId(b"c" * 32), NodeId(b"d" * 32)
OFFER = ModelOffer(MODEL, "m", "generate", "cpu-f32/gguf", 2048, 100, 100, 400_000, 20_000, 1, 1)


def advert(price: int) -> Advert:
    offer = replace(OFFER, price_in=price, price_out=price)
    return Advert(1, 1, 1, 20_000, "node", "test", (), (), (offer,), "on", "unknown", "")


WISH = Wish(JobId(bytes(16)), [MODEL], (), 10, 10, 1_000_000, None)
ADVERTS = {CHEAP: advert(1_000_000), DEAR: advert(900_000_000)}


def chosen(market: Market) -> list[NodeId]:
    return [one.node for one in market.candidates(WISH)]


def test_the_better_offer_is_first() -> None:
    assert chosen(Market(lambda: ADVERTS, lambda node: False)) == [CHEAP, DEAR]


def test_who_has_contradicted_itself_comes_after_all_others_but_is_not_shut_out() -> None:
    assert chosen(Market(lambda: ADVERTS, lambda node: node == CHEAP)) == [DEAR, CHEAP]
    alone = {CHEAP: ADVERTS[CHEAP]}
    assert chosen(Market(lambda: alone, lambda node: True)) == [CHEAP]


def test_an_order_of_ours_takes_the_slot_until_it_is_over() -> None:
    market = Market(lambda: ADVERTS, lambda node: False)
    with market.ordering(CHEAP):
        assert chosen(market) == [DEAR, CHEAP]
        with market.ordering(CHEAP):
            assert chosen(market) == [DEAR, CHEAP]
    assert chosen(market) == [CHEAP, DEAR]
    with pytest.raises(KeyError), market.ordering(CHEAP):
        raise KeyError
    assert chosen(market) == [CHEAP, DEAR]


def served_as(mode: str) -> Advert:
    return replace(ADVERTS[CHEAP], models=(replace(OFFER, mode=mode),))


def test_modes_that_can_be_checked_are_named_for_whoever_wants_only_them() -> None:
    adverts = {CHEAP: served_as("unverifiable/openai"), DEAR: served_as("native-1/gguf")}
    market = Market(lambda: adverts, lambda node: False)
    assert market.modes_checkable() == ("native-1/gguf",)
    wish = replace_wish(WISH, modes=market.modes_checkable())
    assert [one.node for one in market.candidates(wish)] == [DEAR]
    del adverts[DEAR]
    with pytest.raises(LocalError, match="can be checked") as caught:
        market.modes_checkable()
    assert caught.value.code == Code.NO_PROVIDER
    with pytest.raises(LocalError, match="where its output cannot be checked") as caught:
        market.candidates(wish)
    assert caught.value.code == Code.NO_PROVIDER


def test_no_more_modes_are_named_than_a_request_may_and_the_best_go_first() -> None:
    """Whoever invents modes must not push out those of others."""
    modes = [f"a-{n}/gguf" for n in range(MODES_MAX + 3)]
    invented = replace(
        ADVERTS[DEAR], models=tuple(replace(ADVERTS[DEAR].models[0], mode=mode) for mode in modes)
    )
    adverts = {CHEAP: served_as("native-1/gguf"), DEAR: invented}
    market = Market(lambda: adverts, lambda node: False)
    ranked = market.candidates(replace_wish(WISH, modes=market.modes_checkable()))
    assert ranked[0].node == CHEAP
    named = modes_of(ranked)
    assert len(named) <= MODES_MAX
    assert named[0] == "native-1/gguf"
