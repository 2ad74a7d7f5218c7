"""What `up` shows and how it heeds signals, without a node."""

import signal

import pytest
import trio
from msgspec import structs

from node.api.views import Sharing
from node.cli.session import Verb
from node.cli.up import _heed, start_facts
from node.config import Config, ShareSettings, find_paths
from protocol.errors import Code, LocalError


def facts(backend, tmp_path, share):
    return dict(start_facts(backend.node, Config(share=share), find_paths(tmp_path)))


def test_the_screen_tells_what_is_shared_at_what_price(backend, tmp_path):
    share = ShareSettings(models=("tiny",), price_in=500_000, price_out=2_000_000)
    told = facts(backend, tmp_path, share)
    assert told["sharing"] == "tiny at 0.5 / 2 credits a million tokens in / out"
    assert told["device"] == "cpu"
    assert told["node"] == backend.node.node
    assert str(tmp_path) in told["API"]
    assert "ayni ask" in told["next"]
    assert facts(backend, tmp_path, ShareSettings(enabled=False))["sharing"].startswith("nothing")


def test_a_pause_that_outlived_the_process_is_told(backend, tmp_path):
    backend.node = structs.replace(backend.node, sharing=Sharing(state="paused", why="By you."))
    told = facts(backend, tmp_path, ShareSettings(models=("tiny",)))
    assert told["sharing"].endswith("paused: By you.")


async def test_the_first_signal_drains_and_the_second_ends(autojump_clock):
    signals, heard = trio.open_memory_channel[int](2)
    stop = trio.Event()
    with trio.CancelScope() as run:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heed, heard, stop, run)
            signals.send_nowait(signal.SIGTERM)
            await stop.wait()
            await trio.sleep(100)
            assert not run.cancel_called
            signals.send_nowait(signal.SIGINT)
            await trio.sleep_forever()
    assert run.cancelled_caught


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_that_comes_out_of_nurseries_is_told_like_any(as_json, capsys):
    def broken():
        inner = ExceptionGroup("", [LocalError(Code.IN_USE, "The port is taken.")])
        raise ExceptionGroup("", [inner])

    verb = Verb("broken", callback=broken, example="-")
    with pytest.raises(SystemExit) as ended:
        verb(["--json"] if as_json else [])
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert "The port is taken." in (told.out if as_json else told.err)


def test_a_bug_beside_it_is_not_hidden():
    def broken():
        raise ExceptionGroup("", [LocalError(Code.IN_USE, "Taken."), ValueError("a bug")])

    with pytest.raises(ExceptionGroup):
        Verb("broken", callback=broken, example="-")([])
