"""Our own advert as a value: within its bounds whatever the owner's machine is like."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from node.discovery.own import OwnState, Stamp, advertised, own_advert
from protocol import codec
from protocol.capacity import Advert, Device, ModelOffer
from protocol.ids import ModelId
from protocol.limits import ADVERT_BYTES_MAX, PRICE_MAX
from tests.node.discovery.neighbourhood import DEVICE, WALL_MS, offer

STAMP = Stamp(7, WALL_MS, 60_000)
STATE = OwnState("maize", "ayni/0.1.0", (DEVICE,), (offer(),), "on", region="Cusco")
PUBLIC = "/ip4/203.0.113.9/tcp/4001/p2p/x"
GLOBAL = "/ip4/9.9.9.9/tcp/4001/p2p/x"
SITE = "/ip4/192.168.1.7/tcp/4001/p2p/x"
LINK = "/ip6/fe80::1/tcp/4001/p2p/x"
LOOPBACK = "/ip4/127.0.0.1/tcp/4001/p2p/x"
NAME = "/dns4/maize.example.org/tcp/4001/p2p/x"
MEMORY = "/memory/abc/p2p/x"


def test_it_says_what_the_owner_has() -> None:
    value, left_out = own_advert(STATE, [SITE], STAMP)
    assert left_out == 0
    assert (value.sequence, value.issued_at, value.life_ms) == (7, WALL_MS, 60_000)
    assert (value.name, value.region, value.sharing) == ("maize", "Cusco", "on")
    assert (value.devices, value.models, value.addresses) == ((DEVICE,), (offer(),), (SITE,))
    assert value.reachability == "unknown"


def test_addresses_that_lead_nowhere_are_said_only_where_there_is_no_better_one() -> None:
    assert advertised([LOOPBACK, LINK, SITE, GLOBAL]) == [GLOBAL, SITE]
    assert advertised([LOOPBACK, NAME, SITE]) == [NAME, SITE]
    assert advertised([LOOPBACK, LINK]) == [LINK]
    assert advertised([LOOPBACK]) == [LOOPBACK]
    assert advertised([MEMORY]) == [MEMORY]
    assert advertised([]) == []
    assert advertised(["/ip4/" + "9" * 300]) == []


def test_what_is_too_long_loses_devices_then_addresses_then_offers_from_the_end() -> None:
    long = [f"/dns4/{'x' * 200}-{n}/tcp/4001/p2p/x" for n in range(8)]
    offers = [replace_name(offer(n), "m" * 64) for n in range(16)]
    many = tuple(Device("cuda", f"{n} " + "d" * 94, 1 << 40, 1 << 14) for n in range(8))
    value, left_out = own_advert(replace(STATE, devices=many, offers=offers), long, STAMP)
    assert len(codec.encode(value)) <= ADVERT_BYTES_MAX
    assert value.devices == many[:1]
    assert value.addresses == tuple(long[: len(value.addresses)])
    assert len(value.models) == 16
    assert left_out == 7 + (8 - len(value.addresses)) > 7
    short, _ = own_advert(replace(STATE, devices=many, offers=offers[:1]), long[:1], STAMP)
    assert len(short.devices) == 8


def replace_name(value: ModelOffer, name: str) -> ModelOffer:
    return ModelOffer(
        *(value.model, name, "generate", "native-1/" + "w" * 55, 1 << 31, 10**12, 10**12),
        *(1 << 53, 1 << 53, 1024, 1024),
    )


texts = st.text(max_size=120)
numbers = st.integers(0, 1 << 40)
prices = st.integers(0, PRICE_MAX)
wide_devices = st.builds(Device, st.text(max_size=16), st.text(max_size=96), numbers, st.just(8))
wide_offers = st.builds(
    ModelOffer,
    st.binary(min_size=32, max_size=32).map(ModelId),
    st.text(max_size=64),
    st.text(max_size=16),
    st.text(max_size=64),
    *(numbers.map(lambda n: n % (1 << 31)), prices, prices, numbers, numbers),
    *(st.just(2), st.just(1)),
)
states = st.builds(
    OwnState,
    *(texts, texts, st.lists(wide_devices, max_size=12), st.lists(wide_offers, max_size=20)),
    st.just("on"),
    texts,
)


@settings(max_examples=40)
@given(states, st.lists(st.text(max_size=300), max_size=12))
def test_any_state_makes_an_advert_that_others_take(state: OwnState, addresses: list[str]) -> None:
    value, left_out = own_advert(state, addresses, STAMP)
    data = codec.encode(value)
    assert len(data) <= ADVERT_BYTES_MAX
    assert codec.decode(data, Advert, ADVERT_BYTES_MAX) == value
    assert left_out >= 0
