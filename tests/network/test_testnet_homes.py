"""One home at a time: what `up` refuses and why, an encrypted key, what a worker may know."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from node.config import Config, NetworkSettings, ShareSettings, WorkerSettings, write
from node.worker.pipe import ENVIRONMENT_ALLOWED
from tests.network.testnet import (
    MODEL,
    SAID_SECONDS_MAX,
    Node,
    Testnet,
    environment,
    lives,
    models_file,
    tiny_weights,
    until,
)

PASSPHRASE = "a llama crosses the Andes"
LOOPBACK = NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",))


@pytest.fixture
def home(tmp_path: Path) -> Node:
    """A home with nothing in it."""
    return Node(tmp_path / "home", environment(tmp_path / "models"))


@contextmanager
def running(node: Node, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon of this home, until it is told to stop."""
    process = node.start(**variables)
    with process:
        try:
            until("it answers", lambda: node.answers() or process.poll() is not None)
            assert process.poll() is None, (node.folder / "up.log").read_text()
            yield process
            process.terminate()
            assert process.wait(SAID_SECONDS_MAX) == 0
        finally:
            process.kill()


def test_a_home_without_key_or_network_is_told_what_to_do(home: Node) -> None:
    assert home.ayni("up").status == 1
    assert home.ayni("init", "--no-passphrase", "--name", "llama").status == 0
    refused = home.ayni("up")
    assert refused.status == 1
    assert refused.err.startswith("NO_NETWORK: ")
    for way in ("ayni network create", "ayni network join", "ayni testnet up"):
        assert way in refused.err
    idle = home.ayni("status")
    assert (idle.status, idle.err.startswith("UNAVAILABLE: ")) == (1, True)
    assert "ayni up" in idle.err


@pytest.mark.parametrize(
    "words",
    [("ask", "--max-tokens", "0", "Why?"), ("aks", "Why?"), ("ask", "--sed", "1", "Why?")],
)
def test_misuse_ends_with_status_two(home: Node, words: tuple[str, ...]) -> None:
    misused = home.ayni(*words)
    assert (misused.status, misused.out) == (2, "")
    assert "Error: " in misused.err


def test_help_ends_with_status_nought(home: Node) -> None:
    helped = home.ayni("ask", "--help")
    assert helped.status == 0
    assert "Example: ayni ask" in helped.out


def test_two_daemons_never_share_a_home(testnet: Testnet) -> None:
    quinoa = testnet.quinoa
    second = quinoa.ayni("up")
    assert second.status == 1
    assert second.err.startswith("IN_USE: ")
    assert f"process {quinoa.pid}:" in second.err
    assert quinoa.answers()


def test_an_encrypted_key_opens_with_its_passphrase_only_and_no_worker_learns_it(
    home: Node,
) -> None:
    secrets = {"AYNI_PASSPHRASE": PASSPHRASE, "TOKEN_OF_SOMETHING_ELSE": "llama wool"}
    home.folder.mkdir()
    write(
        home.paths.config_file,
        Config(
            network=LOOPBACK,
            share=ShareSettings(models=(MODEL,)),
            worker=WorkerSettings(idle_priority=False, threads=1),
        ),
    )
    weights = tiny_weights(home.folder / "tiny.gguf")
    home.paths.models_file.write_text(models_file(weights))
    file = str(home.folder / "field.ayni")
    assert home.ayni("init", **secrets).status == 0
    assert b"ENCRYPTED" in home.paths.key_file.read_bytes()
    assert home.ayni("network", "create", "field", "-o", file).status == 0
    assert home.ayni("network", "join", file).status == 0

    unasked = home.ayni("up")
    assert unasked.status == 1
    assert "BAD_KEY: " in unasked.err
    assert "set AYNI_PASSPHRASE" in unasked.err
    wrong = home.ayni("up", AYNI_PASSPHRASE="a vicuna")
    assert wrong.status == 1
    assert "the passphrase is wrong" in wrong.err

    with running(home, **secrets):
        until("its worker is ready", lambda: home.worker["state"] == "ready")
        worker = psutil.Process(home.worker["pid"])
        names, raw = environment_of(worker)
        opened = [os.readlink(path) for path in Path(f"/proc/{worker.pid}/fd").iterdir()]
    assert not lives(worker)
    assert names <= set(ENVIRONMENT_ALLOWED)
    assert PASSPHRASE.encode() not in raw
    assert b"llama wool" not in raw
    # Packed weights stay open while they are mapped. The rest: stdin, stdout and stderr, and the
    # pipe's two ends.
    others = [name for name in opened if Path(name).parent.name != "packed"]
    assert len(opened) - len(others) <= 1
    assert len(others) <= 5
    assert PASSPHRASE.encode() not in (home.folder / "up.log").read_bytes()


def environment_of(process: psutil.Process) -> tuple[set[str], bytes]:
    """Names, and all of it raw. A worker that gave up being looked into shows it to root only."""
    try:
        raw = Path(f"/proc/{process.pid}/environ").read_bytes()
    except PermissionError:
        pytest.skip("only root may look into a worker here, which is as it should be")
    return {line.partition(b"=")[0].decode() for line in raw.split(b"\0") if line}, raw
