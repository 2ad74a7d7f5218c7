"""The genesis of a testnet: the same credits for each node, and every node a witness."""

import pytest

from node.testnet.plan import genesis_of, prepare
from protocol.errors import Code, LocalError
from protocol.ledger.charter import charter

CREDITS = 1_000_000_000  # 1,000 credits in microcredits.


@pytest.mark.parametrize(
    ("nodes", "count", "quorum", "faulty_max"), [(None, 4, 3, 1), (1, 1, 1, 0), (7, 7, 5, 2)]
)
def test_each_node_has_credits_and_witnesses(tmp_path, nodes, count, quorum, faulty_max):
    homes = prepare(tmp_path, nodes)
    rules = charter(genesis_of(tmp_path))
    own = {home.node for home in homes}
    assert len(own) == count
    assert dict(rules.allocations) == dict.fromkeys(own, CREDITS)
    assert rules.supply == count * CREDITS
    assert set(rules.witnesses) == own
    assert (rules.quorum, rules.faulty_max) == (quorum, faulty_max)


def test_a_testnet_that_is_there_stays_as_it_is(tmp_path):
    homes, genesis = prepare(tmp_path, None), genesis_of(tmp_path)
    assert prepare(tmp_path, None) == homes
    assert genesis_of(tmp_path) == genesis
    assert [home.name for home in homes] == ["quinoa", "maize", "potato", "oca"]
    with pytest.raises(LocalError) as refused:
        prepare(tmp_path, 3)
    assert refused.value.code is Code.BAD_REQUEST
