"""The genesis and the network file: made by the rules, and no damage goes unseen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol import codec
from protocol.errors import Code, LocalError, RemoteError
from protocol.identity import digest
from protocol.ledger.genesis import (
    Allocation,
    NetworkFile,
    genesis_checked,
    genesis_made,
    network_file_parsed,
    network_file_text,
    network_id,
)
from protocol.limits import MICROCREDITS_MAX
from tests.protocol.samples import GENESIS, NETWORK_FILE, PROVIDER, REQUESTER

nodes = st.binary(min_size=32, max_size=32)
names = st.from_regex(r"[a-z0-9á-ú]{1,20}", fullmatch=True)
geneses = st.builds(
    genesis_made,
    names,
    st.binary(min_size=16, max_size=16),
    st.dictionaries(nodes, st.integers(1, 10**15), max_size=5),
    st.sets(nodes, max_size=4),
)
bootstraps = st.lists(st.text(max_size=40), max_size=4).map(tuple)
files = st.builds(NetworkFile, geneses, bootstraps)


def refused(text: str) -> LocalError:
    with pytest.raises(LocalError) as caught:
        network_file_parsed(text)
    assert caught.value.code is Code.BAD_REQUEST
    return caught.value


@given(files)
def test_a_network_file_comes_back_as_it_was(file):
    text = network_file_text(file)
    assert network_file_parsed(text) == file
    assert network_file_parsed(text.replace("\n", "\r\n")) == file
    assert all(len(line) <= 100 for line in text.splitlines())


@given(files, st.data())
def test_a_changed_character_is_refused_or_changes_nothing(file, data):
    text = network_file_text(file)
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from("Aa9+/=# \n-é\x00") | st.characters(codec="utf-8"))
    changed = text[:place] + character + text[place + 1 :]
    try:
        assert network_file_parsed(changed) == file
    except LocalError:
        refused(changed)


@given(files, st.data())
def test_a_file_that_was_cut_is_refused(file, data):
    text = network_file_text(file).rstrip("\n")
    refused(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.text(max_size=80))
def test_any_text_is_a_network_or_a_local_error(text):
    refused(text)
    refused("ayni-network 1\n" + text)


def test_the_error_of_another_file_says_what_to_ask_for():
    assert "ayni network create" in refused("hello").sentence


def test_a_genesis_supplies_what_it_allocates():
    genesis = genesis_made("ayllu", bytes(16), {PROVIDER.node: 2, REQUESTER.node: 3}, set())
    assert genesis.supply == 5
    assert [each.account for each in genesis.allocations] == sorted([PROVIDER.node, REQUESTER.node])
    assert genesis_checked(genesis) is genesis
    assert genesis_made("ayllu", bytes(16), {}, set()).supply == 0


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "x\x00", "\ud800", "x" * 65])
def test_a_name_that_cannot_be_printed_is_refused(name):
    with pytest.raises(LocalError) as caught:
        genesis_made(name, bytes(16), {}, set())
    assert caught.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    "allocations",
    [
        {PROVIDER.node: 0},
        {PROVIDER.node: -1},
        {PROVIDER.node: MICROCREDITS_MAX + 1},
        {PROVIDER.node: 1 << 70},
        {PROVIDER.node: MICROCREDITS_MAX, REQUESTER.node: 1},
        {PROVIDER.node: MICROCREDITS_MAX, REQUESTER.node: MICROCREDITS_MAX, bytes(32): 3},
        {b"short": 1},
    ],
    ids=str,
)
def test_allocations_that_cannot_be_are_refused(allocations):
    with pytest.raises(LocalError) as caught:
        genesis_made("ayllu", bytes(16), allocations, set())
    assert caught.value.code is Code.BAD_REQUEST


FIRST, SECOND = sorted([PROVIDER.node, REQUESTER.node])


@pytest.mark.parametrize(
    "changes",
    [
        {"supply": GENESIS.supply + 1},
        {"allocations": GENESIS.allocations[::-1]},
        {"allocations": (Allocation(FIRST, 1), Allocation(FIRST, 1)), "supply": 2},
        {"witnesses": (SECOND, FIRST)},
        {"witnesses": (FIRST, FIRST)},
        {"name": "two\nlines"},
    ],
    ids=str,
)
def test_a_genesis_that_breaks_its_rules_is_refused(changes):
    broken = replace(GENESIS, **changes)
    with pytest.raises(RemoteError) as caught:
        genesis_checked(broken)
    assert caught.value.code is Code.BAD_MESSAGE
    refused(network_file_text(replace(NETWORK_FILE, genesis=broken)))


@given(geneses, st.binary(min_size=16, max_size=16))
def test_networks_that_differ_in_anything_have_other_ids(genesis, nonce):
    assert network_id(genesis) == digest(codec.encode(genesis))
    if nonce != genesis.nonce:
        assert network_id(replace(genesis, nonce=nonce)) != network_id(genesis)
