"""The market's choice beyond the ranking itself: who is preferred, and what counts as taken."""

import pytest
from msgspec.structs import replace

from node.market.choice import Market
from protocol.capacity import Advert, ModelOffer
from protocol.identity import digest
from protocol.ids import JobId, ModelId, NodeId
from protocol.matching import Wish

MODEL = ModelId(digest(b"model"))
CHEAP, DEAR = NodeId(b"c" * 32), NodeId(b"d" * 32)
OFFER = ModelOffer(MODEL, "m", "cpu-f32/gguf", 2048, 100, 100, 400_000, 20_000, 1, 1)


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
