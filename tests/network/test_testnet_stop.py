"""How nodes end when they are told to: running answers first, then all processes."""

import signal
import subprocess
from pathlib import Path

import psutil

from tests.network.testnet import ROOT, SAID_SECONDS_MAX, Testnet, lives, until

PROMPT = "Tell me of the sky."


def test_a_provider_told_to_stop_ends_its_answer_and_takes_no_more(fragile: Testnet) -> None:
    quinoa, potato = fragile.quinoa, fragile.potato
    daemon = psutil.Process(potato.pid)
    worker = psutil.Process(potato.worker["pid"])
    with quinoa.asking(PROMPT, "--provider", "potato", "--max-tokens", "800") as asking:
        asking.wait_for_words()
        daemon.terminate()
        until("it drains", lambda: potato.get("status")["sharing"]["state"] == "draining")
        body = {"messages": [{"role": "user", "content": PROMPT}], "ayni": {"provider": "potato"}}
        with quinoa.http() as client:
            refused = client.post("/v1/chat/completions", json=body)
        assert asking.runs
        done = asking.end()
    assert done.status == 0, done
    assert "800 tokens" in done.err
    assert refused.status_code == 503
    # By the provider itself, or here once its advert tells of it.
    assert refused.json()["error"]["code"] in ("DRAINING", "NO_PROVIDER")
    until("potato is gone", lambda: not lives(daemon) and not lives(worker))
    assert not potato.api  # It took it back, as one does that ends in order.


def test_ctrl_c_ends_a_testnet_in_the_foreground_with_all_its_processes(tmp_path: Path) -> None:
    testnet = Testnet(tmp_path)
    testnet.prepare(2)
    try:
        with subprocess.Popen(
            testnet.command("up"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=testnet.variables,
            cwd=ROOT,
        ) as process:
            try:
                until("a worker", lambda: testnet.maize.answers() and testnet.maize.worker["pid"])
                pids = [testnet.quinoa.pid, testnet.maize.pid, testnet.maize.worker["pid"]]
                processes = [psutil.Process(pid) for pid in pids]
                testnet.remember()
                process.send_signal(signal.SIGINT)
                assert process.wait(SAID_SECONDS_MAX) == 0
            finally:
                process.kill()
        assert [one.pid for one in processes if lives(one)] == []
        # Each ended in order; one that has to be killed leaves its file.
        assert not testnet.quinoa.api
        assert not testnet.maize.api
    finally:
        testnet.down()
