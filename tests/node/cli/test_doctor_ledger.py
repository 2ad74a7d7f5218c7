"""What the doctor says of witnesses and of the ledger."""

import json

import pytest
from msgspec.structs import replace

from node.cli.doctor_ledger import crowded_check, ledger_check, witnesses_check
from protocol.ids import node_text
from protocol.ledger.genesis import NetworkFile, genesis_made, network_file_text
from tests.node.api.wallet_samples import WALLET
from tests.protocol.ledger.chains import ANNA, WITNESSES, genesis_of

IDS = [node_text(one.node) for one in WITNESSES]
IDLE = replace(WALLET, waiting=())


@pytest.mark.parametrize(
    ("witnesses", "state", "words"),
    [(0, "warn", "no credit can ever change hands"), (1, "warn", "while it is down"),
     (3, "warn", "while any of them is down"), (4, "ok", "Nobody may own more than 1 of these 4"),
     (7, "ok", "more than 2 of these 7")],
)  # fmt: skip
def test_too_few_witnesses_are_warned_of(witnesses, state, words):
    check = witnesses_check(genesis_of(witnesses))
    assert (check.state, words in check.sentence) == (state, True)
    assert bool(check.remedy) == (state == "warn")


def test_no_credits_need_no_witness():
    assert witnesses_check(genesis_made("bare", bytes(16), {}, set())).state == "ok"


@pytest.mark.parametrize(
    ("changed", "state", "words"),
    [
        ({}, "ok", "In order."),
        ({"ready": False}, "warn", "Fewer than 3 of 4 witnesses have answered"),
        ({"ready": False, "witnesses": 0}, "ok", "In order."),
        ({"waiting": WALLET.waiting}, "warn", "waiting for 2 of 3 witnesses; maize and oca have"),
        ({"trouble": "lapsed", "sentence": "Votes are lost."}, "warn", "lapsed: Votes are lost."),
        ({"trouble": "doubled", "sentence": "Two of us."}, "warn", "doubled: Two of us."),
        ({"trouble": "unwitnessed", "sentence": "No witnesses."}, "ok", "No witnesses."),
        ({"trouble": "halted", "sentence": "A breach."}, "fail", "halted: A breach."),
    ],
)
def test_the_ledgers_state(changed, state, words):
    check = ledger_check(replace(IDLE, **changed))
    assert (check.state, words in check.sentence) == (state, True)


def town(backend, hosts):
    """The node and peers as four witnesses, on these hosts."""
    addresses = [(f"/ip4/{host}/tcp/4001/p2p/{IDS[place]}",) for place, host in enumerate(hosts)]
    network = replace(backend.node.network, witnesses=tuple(IDS[:4]), quorum=3)
    node = replace(backend.node, node=IDS[0], network=network, addresses=addresses[0])
    peer = backend.known_peers[0]
    peers = tuple(
        replace(peer, node=IDS[place], name=f"peer-{place}", addresses=addresses[place])
        for place in range(1, len(hosts))
    )
    return node, peers


@pytest.mark.parametrize(
    ("hosts", "warned"),
    [
        (["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], False),
        (["10.0.0.1"], False),
        (["10.0.0.1", "10.0.0.1", "10.0.0.3"], True),
        (["127.0.0.1"] * 4, True),
    ],
)
def test_more_witnesses_at_one_address_than_may_fail(backend, hosts, warned):
    checks = list(crowded_check(*town(backend, hosts)))
    assert [check.state for check in checks] == ["warn"] * warned
    if warned:
        assert "quinoa" in checks[0].sentence
        assert "peer-1" in checks[0].sentence


def test_nodes_that_are_no_witnesses_may_share_an_address(backend):
    node, peers = town(backend, ["10.0.0.1"] * 4)
    apart = replace(node, network=replace(node.network, witnesses=tuple(IDS[3:])))
    assert list(crowded_check(apart, peers)) == []


async def test_the_doctor_tells_all_of_it(command, backend):
    command("init", "--no-passphrase")
    genesis = genesis_made("ayllu", bytes(16), {ANNA.node: 1}, {WITNESSES[0].node})
    file = command.home / "f.ayni"
    file.write_text(network_file_text(NetworkFile(genesis, ())))
    command("network", "join", str(file))
    backend.node, backend.known_peers = town(backend, ["10.0.0.1"] * 4)
    backend.ledger.purse = WALLET
    async with command.served(backend):
        done = await command.called("doctor", "--json")
    states = {check["name"]: check["state"] for check in json.loads(done.stdout)}
    assert done.exit_code == 0
    names = ("witnesses", "ledger", "witnesses at one place")
    assert [states[name] for name in names] == ["warn"] * 3
