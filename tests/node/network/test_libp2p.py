"""What only the real network has: processes that die, ports, keys of other kinds."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from node.network import address
from node.network.base import NetworkError
from node.network.libp2p import open_network
from protocol.errors import Code, LocalError
from protocol.identity import Identity, Seed
from protocol.ids import NodeId, node_text

ROOT = Path(__file__).parents[3]
LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]

STAYER = """
import sys, trio
from node.network.libp2p import open_network

async def main():
    async with open_network(bytes.fromhex(sys.argv[1]), ["/ip4/127.0.0.1/tcp/0"]) as network:
        print(network.addresses[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


class Gone:
    """A watcher that waits for a peer to go."""

    def __init__(self) -> None:
        self.peers: list[NodeId] = []
        self.happened = trio.Event()

    def connected(self, peer: NodeId) -> None: ...

    def disconnected(self, peer: NodeId) -> None:
        self.peers.append(peer)
        self.happened.set()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not come true in ten seconds")


async def test_a_process_that_is_killed_is_noticed() -> None:
    seed, gone = os.urandom(32), Gone()
    async with open_network(Seed(b"a" * 32), LOOPBACK) as network, trio.open_nursery() as nursery:
        network.watch(gone)
        command = [sys.executable, "-c", STAYER, seed.hex()]
        run = partial(trio.run_process, command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        with trio.fail_after(30):
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
            peer = await network.connect(line.decode().strip())
            assert peer == Identity(Seed(seed)).node
            process.kill()
            await gone.happened.wait()
        assert gone.peers == [peer]
        assert not network.peers


async def test_the_node_is_the_key_that_signs() -> None:
    seed = Seed(os.urandom(32))
    async with open_network(seed, LOOPBACK) as network:
        assert network.node == Identity(seed).node
        assert network.addresses[0].endswith(f"/p2p/{node_text(network.node)}")


async def test_a_port_that_is_taken_is_said() -> None:
    async with open_network(Seed(b"a" * 32), LOOPBACK) as network:
        [bound] = network.listening
        with pytest.raises(LocalError) as caught:
            async with open_network(Seed(b"b" * 32), [str(bound)]):
                pass
        assert caught.value.code is Code.IN_USE
        with pytest.raises(LocalError) as caught:
            async with open_network(Seed(b"b" * 32), ["/ip4/198.51.100.7/tcp/0"]):
                pass
        assert caught.value.code is Code.IN_USE


async def test_a_wildcard_is_never_an_address() -> None:
    async with open_network(Seed(b"a" * 32), ["/ip4/0.0.0.0/tcp/0"]) as network:
        assert network.listening[0].is_wildcard
        assert network.addresses
        assert not any(address.parsed(text).is_wildcard for text in network.addresses)


async def test_a_node_that_only_dials_has_no_address() -> None:
    async with open_network(Seed(b"a" * 32), []) as dialler:
        assert not dialler.addresses
        async with open_network(Seed(b"b" * 32), LOOPBACK) as network:
            assert await dialler.connect(network.addresses[0]) == network.node


async def test_somebody_else_at_an_address_is_told_apart() -> None:
    async with (
        open_network(Seed(b"a" * 32), []) as network,
        open_network(Seed(b"b" * 32), LOOPBACK) as other,
    ):
        start, _, _ = other.addresses[0].rpartition("/")
        wrong = f"{start}/{node_text(NodeId(Identity(Seed(b'c' * 32)).node))}"
        with pytest.raises(NetworkError, match="does not answer as"):
            await network.connect(wrong)
        assert not network.peers
        # And the right one is dialled at once after that.
        assert await network.connect(other.addresses[0]) == other.node


async def test_a_key_of_another_kind_is_no_node() -> None:
    async with open_network(Seed(b"a" * 32), LOOPBACK) as network:
        from libp2p import new_host
        from libp2p.crypto.secp256k1 import create_new_key_pair
        from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
        from libp2p.peer.peerinfo import info_from_p2p_addr
        from libp2p.security.noise.transport import PROTOCOL_ID, Transport
        from multiaddr import Multiaddr

        keys = create_new_key_pair()
        noise = Transport(keys, noise_privkey=create_x25519_key_pair().private_key)
        stranger = new_host(key_pair=keys, sec_opt={PROTOCOL_ID: noise})
        async with stranger.run(listen_addrs=[]):
            await stranger.connect(info_from_p2p_addr(Multiaddr(network.addresses[0])))
            await until(lambda: not stranger.get_connected_peers())
            await stranger.close()
        assert not network.peers


async def test_a_cut_peer_is_refused_by_our_own_dialling_too() -> None:
    async with (
        open_network(Seed(b"a" * 32), LOOPBACK) as network,
        open_network(Seed(b"b" * 32), LOOPBACK) as other,
    ):
        quotas = network._quotas
        while not quotas.failed(other.node, trio.current_time()):
            pass
        with pytest.raises(NetworkError, match="refused"):
            await network.connect(other.addresses[0])


def test_importing_the_network_imports_no_libp2p() -> None:
    script = "import sys, node.network.libp2p; sys.exit('libp2p' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
