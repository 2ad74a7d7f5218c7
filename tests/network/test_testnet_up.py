"""`ayni testnet up` where some of its nodes run: it starts the others and leaves those alone."""

import os
import signal
from pathlib import Path

import psutil

from protocol.ledger.genesis import network_file_parsed
from tests.network.testnet import Testnet, lives, until


def test_up_starts_only_those_that_are_down(tmp_path: Path) -> None:
    testnet = Testnet(tmp_path)
    try:
        testnet.prepare(2)
        testnet.up()
        quinoa, maize = testnet.quinoa, testnet.maize
        until("they know each other", lambda: "maize" in quinoa.peers())
        kept, killed = quinoa.pid, psutil.Process(maize.pid)
        os.kill(killed.pid, signal.SIGKILL)
        until("maize is dead", lambda: not lives(killed))
        done = testnet.testnet("up", "--detach")
        assert done.status == 0, done
        testnet.remember()
        assert (quinoa.pid, quinoa.answers(), maize.answers()) == (kept, True, True)
        assert maize.pid != killed.pid
        assert "maize is up." in done.err
        assert "quinoa is up." not in done.err
        # It has the address of one that runs now, whatever it knew before.
        address = quinoa.get("status")["addresses"][0]
        told = network_file_parsed(maize.paths.network_file.read_text())
        assert told.bootstrap == (address,)
        until("they know each other again", lambda: quinoa.peers()["maize"]["connected"])
        again = testnet.testnet("up", "--detach")
        assert (again.status, again.err.startswith("IN_USE: ")) == (1, True)
        assert "ayni testnet down" in again.err
    finally:
        testnet.down()
    assert not quinoa.api
    assert not maize.api
