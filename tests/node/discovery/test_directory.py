"""The directory: bounded, nothing over is shown, nothing comes back, order does not matter."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from node.discovery.directory import OVER_KEPT_MS, Directory
from protocol import codec
from protocol.ids import NodeId
from protocol.limits import ADVERT_BYTES_MAX, ADVERTS_EXCHANGED_MAX, FRAME_BYTES_MAX
from tests.node.discovery.neighbourhood import DEVICE, advert, identity, offer, opened


class Hand:
    """A clock that only we move."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def hear(directory: Directory, node: int, sequence: int, age_ms: int = 0, **more: object) -> bool:
    return directory.heard(*opened(node, advert(sequence, **more)), age_ms)  # type: ignore[arg-type]


def sequences(directory: Directory) -> dict[NodeId, int]:
    return {node: value.sequence for node, value in directory.adverts().items()}


def test_the_highest_sequence_counts() -> None:
    directory, node = Directory(Hand()), identity(1).node
    assert hear(directory, 1, 7)
    assert not hear(directory, 1, 6)
    assert not hear(directory, 1, 7)
    assert not hear(directory, 1, 7, name="another one of the same number")
    assert sequences(directory) == {node: 7}
    assert hear(directory, 1, 8)
    assert sequences(directory) == {node: 8}


def test_an_advert_is_over_a_life_after_it_was_let_go() -> None:
    hand = Hand()
    directory = Directory(hand)
    hear(directory, 1, 1, age_ms=30_000, life_ms=100_000)
    hand.now_ms += 69_999
    assert len(directory) == 1
    hand.now_ms += 1
    assert len(directory) == 0
    assert directory.listings(()) == []
    assert directory.page().adverts == ()


def test_what_is_over_does_not_come_back_but_a_newer_one_does() -> None:
    hand = Hand()
    directory = Directory(hand)
    hear(directory, 1, 5, life_ms=10_000)
    hand.now_ms += 10_000
    assert not hear(directory, 1, 5, life_ms=10_000)
    assert not hear(directory, 1, 4, life_ms=120_000)
    hand.now_ms += OVER_KEPT_MS - 1
    assert not hear(directory, 1, 5)
    assert hear(directory, 1, 6)


def test_the_memory_of_what_is_over_ends_when_no_clock_check_would_pass_it() -> None:
    hand = Hand()
    directory = Directory(hand)
    hear(directory, 1, 5, life_ms=10_000)
    hand.now_ms += 10_000
    assert len(directory) == 0
    assert directory.sequence_of(identity(1).node) == 5
    hand.now_ms += OVER_KEPT_MS
    assert len(directory) == 0
    assert directory.sequence_of(identity(1).node) is None


def test_a_younger_copy_mends_an_age_that_was_a_lie_and_no_copy_keeps_alive() -> None:
    hand = Hand()
    directory = Directory(hand)
    hear(directory, 1, 1, age_ms=99_000, life_ms=100_000)
    hear(directory, 1, 1, age_ms=0, life_ms=100_000)
    hand.now_ms += 99_999
    assert len(directory) == 1
    hear(directory, 1, 1, age_ms=0, life_ms=100_000)
    hand.now_ms += 1
    assert len(directory) == 0


def test_a_copy_with_another_signature_is_no_repeat() -> None:
    directory = Directory(Hand())
    _, signed = opened(1, advert(1))
    hear(directory, 1, 1)
    assert directory.repeated(signed, 0)
    forged = type(signed)(signed.signer, signed.body, bytes(64))
    assert not directory.repeated(forged, 0)


def test_a_lost_node_is_shown_but_not_offered_until_it_speaks_or_is_found() -> None:
    directory, node = Directory(Hand()), identity(1).node
    directory.lost(node)  # Not known: nothing to remember.
    hear(directory, 1, 1)
    assert node in directory.adverts()
    directory.lost(node)
    assert node not in directory.adverts()
    (listing,) = directory.listings({node})
    assert listing.unreachable
    assert listing.connected
    directory.found(node)
    assert node in directory.adverts()
    directory.lost(node)
    hear(directory, 1, 2)
    assert node in directory.adverts()


def test_the_one_that_expires_first_makes_room() -> None:
    directory = Directory(Hand(), entries_max=2)
    assert hear(directory, 1, 1, life_ms=50_000)
    assert hear(directory, 2, 1, life_ms=90_000)
    assert hear(directory, 3, 1, life_ms=70_000)
    assert set(directory.nodes()) == {identity(2).node, identity(3).node}
    assert not hear(directory, 4, 1, life_ms=60_000)
    assert set(directory.nodes()) == {identity(2).node, identity(3).node}


def test_a_page_has_our_own_first_then_those_that_live_longest_with_their_ages() -> None:
    hand = Hand()
    directory = Directory(hand)
    _, own = opened(9, advert(1))
    hear(directory, 1, 1, life_ms=50_000)
    hear(directory, 2, 1, age_ms=5_000, life_ms=90_000)
    hand.now_ms += 1_000
    page = directory.page(first=[(77, own)])
    told = [(age, signed.signer) for age, signed in page.adverts]
    nodes = [identity(number).node for number in (9, 2, 1)]
    assert told == [(77, nodes[0]), (6_000, nodes[1]), (1_000, nodes[2])]
    assert len(directory.page(limit=2, first=[(77, own)]).adverts) == 2


def test_a_page_of_the_longest_adverts_fits_one_frame() -> None:
    directory = Directory(Hand())
    for number in range(1, 300):
        value = replace(advert(1), addresses=("/ip4/" + "9" * 251,) * 8)
        value = replace(value, devices=(replace(DEVICE, name="d" * 96),) * 8, region="r" * 96)
        value = replace(value, models=(offer(),) * 12)
        assert 4_000 < len(codec.encode(value)) <= ADVERT_BYTES_MAX
        directory.heard(*opened(number, value), 0)
    page = directory.page()
    assert 240 < len(page.adverts) < ADVERTS_EXCHANGED_MAX
    assert FRAME_BYTES_MAX - 20_000 < len(codec.encode(page)) <= FRAME_BYTES_MAX


def test_names_are_one_printable_line() -> None:
    directory = Directory(Hand())
    hear(directory, 1, 1, name="\x1b[31mred\nrow\u202e")
    assert directory.name_of(identity(1).node) == "[31mred row"
    assert directory.name_of(identity(2).node) == ""


# One advert for each (node, sequence), so that "the same adverts" is well defined.
kinds = st.tuples(st.integers(1, 5), st.integers(1, 4))
ages = st.sampled_from([0, 4_000, 15_000])


def life_of(node: int, sequence: int) -> int:
    return 10_000 + 3_000 * ((node * 7 + sequence * 5) % 6)


@given(st.dictionaries(kinds, ages, max_size=14), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(heard: dict, chance) -> None:  # type: ignore[no-untyped-def]
    def told(order: list) -> list:
        directory = Directory(Hand())
        for (node, sequence), age_ms in order:
            hear(directory, node, sequence, age_ms, life_ms=life_of(node, sequence))
        return [(one.node, one.advert.sequence, one.age_ms) for one in directory.listings(())]

    order = list(heard.items())
    before = told(order)
    chance.shuffle(order)
    assert told(order) == before


@given(st.permutations(range(1, 9)), st.integers(1, 8))
def test_the_order_does_not_matter_to_who_stays_either(order: list[int], room: int) -> None:
    directory = Directory(Hand(), entries_max=room)
    for node in order:
        hear(directory, node, 1, life_ms=10_000 * node)
    stay = range(9 - room, 9)
    assert set(directory.nodes()) == {identity(node).node for node in stay}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), kinds, ages),
        st.tuples(st.just("wait"), st.integers(0, OVER_KEPT_MS // 45)),
        st.tuples(st.sampled_from(["lost", "found"]), st.integers(1, 5)),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(steps, st.integers(1, 5))
def test_bounded_never_over_and_never_back(script: list, room: int) -> None:
    hand = Hand()
    directory = Directory(hand, entries_max=room, over_max=5)
    highest: dict = {}
    first_heard: dict = {}
    numbers = {identity(node).node: node for node in range(1, 6)}
    for step in script:
        match step:
            case ("hear", (node, sequence), age_ms):
                if hear(directory, node, sequence, age_ms, life_ms=life_of(node, sequence)):
                    assert (node, sequence) not in first_heard
                    first_heard[node, sequence] = hand.now_ms
            case ("wait", duration):
                hand.now_ms += duration
            case (word, node):
                getattr(directory, word)(identity(node).node)
        listings = directory.listings(())
        assert len(listings) == len(directory) <= room
        for listing in listings:
            key = (numbers[listing.node], listing.advert.sequence)
            assert 0 <= listing.age_ms < life_of(*key)
            # Not a moment past a whole life since it was heard first.
            assert hand.now_ms < first_heard[key] + life_of(*key)
            # What was shown once is the least that is ever shown.
            assert listing.advert.sequence >= highest.get(key[0], 0)
            highest[key[0]] = listing.advert.sequence


def test_its_memory_is_bounded_whoever_comes_and_goes() -> None:
    hand = Hand()
    directory = Directory(hand, entries_max=8, over_max=8)
    for number in range(1, 400):
        hear(directory, number, 1, life_ms=10_000)
        hear(directory, 1, 1 + number, life_ms=60_000)
        hand.now_ms += 500
    assert len(directory) <= 8
    sizes = [len(value) for value in vars(directory).values() if hasattr(value, "__len__")]
    assert sizes
    assert max(sizes) <= 2 * 8 + 64
