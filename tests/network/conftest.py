"""Testnets of real processes: one that all share, one for tests that kill."""

from collections.abc import Iterator

import pytest

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
