"""Testnets of real processes: one that all share, and for tests that kill one of three nodes and
one of four witnesses."""

from collections.abc import Iterator

import pytest

from tests.network.mortals import Mortals, open_mortals
from tests.network.testnet import Testnet, open_testnet


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    with open_testnet(tmp_path_factory.mktemp("testnet"), 4) as testnet:
        yield testnet


@pytest.fixture
def testnet(_shared: Testnet) -> Testnet:
    """The testnet of this run, with both providers free. A test leaves it as it was."""
    _shared.settle()
    return _shared


@pytest.fixture(scope="session")
def _fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    with open_testnet(tmp_path_factory.mktemp("fragile"), 3) as testnet:
        yield testnet


@pytest.fixture
def fragile(_fragile: Testnet) -> Testnet:
    """A testnet whose processes a test may kill; it is made whole again for the next one."""
    for node in _fragile.nodes.values():
        if not node.answers():
            _fragile.restart(node)
    _fragile.settle()
    return _fragile


@pytest.fixture(scope="session")
def _mortals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    with open_mortals(tmp_path_factory.mktemp("mortals")) as mortals:
        yield mortals


@pytest.fixture
def mortals(_mortals: Mortals) -> Mortals:
    """Four witnesses that a test may kill at a step of its choice; made whole for the next one."""
    _mortals.whole()
    return _mortals
