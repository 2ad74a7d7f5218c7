"""`init`, `network` and the refusals of `up`: all that is told before a node runs."""

import json
import os
import stat

import pytest
from msgspec import structs

from node.cli.network_file import read_network
from protocol.ids import NodeId, node_text
from protocol.ledger.genesis import network_id

FRIEND = node_text(NodeId(b"f" * 32))


def made(command, *more):
    file = command.home / "field.ayni"
    command.home.mkdir(parents=True, exist_ok=True)
    done = command("network", "create", "field", "-o", str(file), *more)
    assert done.exit_code == 0, done.output
    return file


def test_init_makes_what_up_needs_once(command):
    told = json.loads(command("init", "--no-passphrase", "--name", "quinoa", "--json").stdout)
    assert told["node"].startswith("12D3KooW")
    assert (told["new_config"], told["new_key"]) == (True, True)
    assert 'name = "quinoa"' in (command.home / "config.toml").read_text()
    key = (command.home / "data" / "node.key").read_bytes()
    again = json.loads(command("init", "--no-passphrase", "--json").stdout)
    assert (again["node"], again["new_key"]) == (None, False)
    assert (command.home / "data" / "node.key").read_bytes() == key
    assert stat.S_IMODE(os.stat(command.home / "data" / "node.key").st_mode) == 0o600
    assert command("init", "--name", "other").exit_code == 2


def test_init_without_a_terminal_says_what_to_set_and_leaves_nothing(command):
    done = command("init", "--name", "quinoa")
    assert done.exit_code == 1
    for way in ("AYNI_PASSPHRASE", "AYNI_PASSPHRASE_FILE", "--no-passphrase"):
        assert way in done.stderr
    assert not (command.home / "config.toml").exists()
    command.environment["AYNI_PASSPHRASE"] = "long enough"
    assert command("init", "--name", "quinoa").exit_code == 0
    assert b"ENCRYPTED" in (command.home / "data" / "node.key").read_bytes()


def test_up_in_no_network_names_the_three_ways(command):
    command("init", "--no-passphrase")
    done = command("up")
    assert done.exit_code == 1
    for way in ("ayni network create", "ayni network join FILE", "ayni testnet up"):
        assert way in done.stderr


def test_up_without_a_key_names_init(command):
    command("network", "join", str(made(command)))
    done = command("up")
    assert (done.exit_code, "ayni init" in done.stderr) == (1, True)


def test_a_network_is_created_joined_and_shown(command):
    file = made(command, "--allocate", f"{FRIEND}=12.5", "--witness", FRIEND)
    joined = json.loads(command("network", "join", str(file), "--json").stdout)
    shown = json.loads(command("network", "show", "--json").stdout)
    assert joined == shown
    assert shown["supply_microcredits"] == 12_500_000
    assert (shown["accounts"], shown["witnesses"]) == (1, [FRIEND])
    assert shown["id"] == network_id(read_network(file).genesis).hex()
    assert command("network", "join", str(file)).exit_code == 0


def test_what_the_allocations_leave_of_the_supply_goes_to_this_node(command):
    node = json.loads(command("init", "--no-passphrase", "--json").stdout)["node"]
    file = made(command, "--supply", "100", "--allocate", f"{FRIEND}=40")
    genesis = read_network(file).genesis
    amounts = {node_text(one.account): one.amount for one in genesis.allocations}
    assert amounts == {node: 60_000_000, FRIEND: 40_000_000}


def test_without_allocations_the_creator_gets_it_all_and_is_told(command):
    node = json.loads(command("init", "--no-passphrase", "--json").stdout)["node"]
    file = command.home / "field.ayni"
    done = command("network", "create", "field", "--supply", "100", "-o", str(file))
    assert f"All 100 credits begin with this node, {node}." in done.stderr
    assert f"No --witness was given, so this node, {node}, is the only one." in done.stderr
    assert "none may fail" in done.stderr
    genesis = read_network(file).genesis
    assert [node_text(one.account) for one in genesis.allocations] == [node]
    assert [node_text(one) for one in genesis.witnesses] == [node]


def test_who_gives_all_credits_away_still_witnesses(command):
    file = command.home / "field.ayni"
    arguments = ("network", "create", "field", "--allocate", f"{FRIEND}=5", "-o", str(file))
    refused = command(*arguments)
    assert (refused.exit_code, "ayni init" in refused.stderr) == (1, True)
    node = json.loads(command("init", "--no-passphrase", "--json").stdout)["node"]
    assert command(*arguments).exit_code == 0
    assert [node_text(one) for one in read_network(file).genesis.witnesses] == [node]


@pytest.mark.parametrize(
    ("count", "quorum", "may_fail", "warning"),
    [(1, 1, "none", "With 1 witness none may fail"), (3, 3, "none", "With 3 witnesses none"),
     (4, 3, "1", "more than 1 of these 4"), (7, 5, "2", "more than 2 of these 7")],
)  # fmt: skip
def test_witnesses_their_quorum_and_what_an_owner_may_have(
    command, count, quorum, may_fail, warning
):
    witnesses = [node_text(NodeId(bytes([65 + number]) * 32)) for number in range(count)]
    options = [word for witness in witnesses for word in ("--witness", witness)]
    file = command.home / "field.ayni"
    command.home.mkdir(parents=True)
    arguments = ("network", "create", "field", "--allocate", f"{FRIEND}=5", *options)
    done = command(*arguments, "-o", str(file))
    assert (done.exit_code, warning in done.stderr) == (0, True)
    shown = command("network", "show", str(file)).stdout
    assert f"{quorum} of {count} certify a payment; {may_fail} may fail" in shown
    assert all(witness in shown for witness in witnesses)
    as_json = json.loads(command("network", "show", str(file), "--json").stdout)
    assert (as_json["quorum"], len(as_json["witnesses"])) == (quorum, count)


def test_an_entry_fee_is_in_the_genesis_and_shown(command):
    free = made(command, "--allocate", f"{FRIEND}=5", "--witness", FRIEND)
    assert read_network(free).genesis.entry_fee == 0
    assert "entry fee" not in command("network", "show", str(free)).stdout
    free.unlink()
    dear = made(
        *(command, "--allocate", f"{FRIEND}=5", "--witness", FRIEND, "--entry-fee", "0.0001")
    )
    assert read_network(dear).genesis.entry_fee == 100
    assert "entry fee: 0.0001 credits" in command("network", "show", str(dear)).stdout
    shown = json.loads(command("network", "show", str(dear), "--json").stdout)
    assert shown["entry_fee_microcredits"] == 100


def test_a_network_without_credits_needs_no_witness(command):
    file = made(command)
    done = command("network", "show", str(file))
    assert "none: no payment can be certified" in done.stdout
    shown = json.loads(command("network", "show", str(file), "--json").stdout)
    assert (shown["quorum"], shown["witnesses"]) == (0, [])


def test_two_networks_of_one_name_are_two(command):
    first, second = made(command), command.home / "second.ayni"
    assert command("network", "create", "field", "-o", str(second)).exit_code == 0
    assert command("network", "join", str(first)).exit_code == 0
    refused = command("network", "join", str(second))
    assert (refused.exit_code, refused.stderr.startswith("IN_USE")) == (1, True)
    assert command("network", "join", "--replace", str(second)).exit_code == 0
    shown = json.loads(command("network", "show", "--json").stdout)
    assert shown["id"] == network_id(read_network(second).genesis).hex()


def test_misuse_of_network(command):
    file = made(command)
    assert command("network", "create", "x", "--allocate", "me=5").exit_code == 2
    assert command("network", "create", "x", "--allocate", FRIEND).exit_code == 2
    twice = ["--allocate", f"{FRIEND}=1"] * 2
    assert command("network", "create", "x", *twice).exit_code == 2
    over = ["--supply", "1", "--allocate", f"{FRIEND}=2"]
    assert command("network", "create", "x", *over).exit_code == 2
    assert command("network", "create", "x", "--bootstrap", "10.0.0.1").exit_code == 2
    assert command("network", "join", str(command.home / "none")).exit_code == 2
    assert command("network", "create", "field", "-o", str(file)).exit_code == 1
    assert command("network", "show").exit_code == 1


def test_a_file_that_is_no_network_is_refused(command):
    file = made(command)
    text = file.read_text()
    for wrong in (b"", b"\xff\xfe", b"hello", text[:-9].encode(), b"x" * (2 << 20)):
        file.write_bytes(wrong)
        done = command("network", "join", str(file))
        assert (done.exit_code, done.stderr.startswith("BAD_REQUEST")) == (1, True)
    assert not (command.home / "network.ayni").exists()


async def test_an_invitation_holds_the_addresses_of_the_running_node(command, backend):
    file = made(command)
    command("network", "join", str(file))
    loopback = "/ip4/127.0.0.1/tcp/4001/p2p/" + backend.node.node
    outside = backend.node.addresses[0]
    backend.node = structs.replace(backend.node, addresses=(loopback, outside))
    invitation = command.home / "invitation.ayni"
    async with command.served(backend):
        done = await command.called("network", "invite", "-o", str(invitation))
    assert done.exit_code == 0
    made_file = read_network(invitation)
    assert made_file.bootstrap == (outside,)
    assert made_file.genesis == read_network(file).genesis


def test_testnet_that_is_not_there(command):
    assert command("testnet", "status").stdout.startswith("There is no testnet here")
    assert json.loads(command("testnet", "status", "--json").stdout) == []
    assert command("testnet", "up", "--nodes", "0").exit_code == 2


def test_an_unknown_model_is_not_fetched(command):
    done = command("models", "--fetch", "smollm")
    assert (done.exit_code, done.stderr.startswith("NOT_FOUND")) == (1, True)
