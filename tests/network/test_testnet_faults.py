"""What happens when processes of a testnet are killed."""

import os
import signal

import psutil

from tests.network.testnet import Testnet, lives, until

PROMPT = "Tell me of the sky."
LONG = ("--max-tokens", "8000")


def test_a_provider_killed_in_mid_answer_is_told_dropped_and_comes_back(fragile: Testnet) -> None:
    quinoa, maize = fragile.quinoa, fragile.maize
    worker = psutil.Process(maize.worker["pid"])
    # All three are witnesses and none of them may be away, so this needs a channel from before.
    quinoa.asked(PROMPT, "--provider", "potato", "--max-tokens", "8")
    with quinoa.asking(PROMPT, "--provider", "maize", *LONG) as asking:
        asking.wait_for_words()
        os.kill(maize.pid, signal.SIGKILL)
        done = asking.end()
    assert done.status == 1
    assert "LOST: maize: " in done.err
    assert "another node" in done.err  # What to do now.
    until("maize's worker is gone", lambda: not lives(worker))
    assert quinoa.asked(PROMPT, "--max-tokens", "8")["provider_name"] == "potato"
    until("maize is no peer any more", lambda: set(quinoa.peers()) == {"potato"})
    gone = quinoa.ayni("ask", "--provider", "maize", PROMPT)
    assert gone.status == 1
    fragile.restart(maize)
    until("maize offers again", lambda: "maize" in quinoa.sharing())
    [interrupted] = [job for job in maize.read("jobs") if job["state"] != "done"]
    assert (interrupted["state"], interrupted["code"]) == ("failed", "LOST")
    answer = quinoa.asked(PROMPT, "--provider", "maize", "--max-tokens", "8")
    assert (answer["provider_name"], answer["output_tokens"]) == ("maize", 8)


def test_a_killed_worker_costs_its_job_and_nothing_else(fragile: Testnet) -> None:
    quinoa, maize = fragile.quinoa, fragile.maize
    daemon, before = maize.pid, maize.worker
    with quinoa.asking(PROMPT, "--provider", "maize", *LONG) as asking:
        asking.wait_for_words()
        os.kill(before["pid"], signal.SIGKILL)
        done = asking.end()
    assert done.status == 1
    assert "WORKER_FAILED: maize: " in done.err
    until("the worker is back", lambda: maize.worker["state"] == "ready")
    after = maize.worker
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"] + 1
    assert "signal 9" in after["error"]
    assert maize.pid == daemon
    until("maize offers again", lambda: "maize" in quinoa.sharing())
    answer = quinoa.asked(PROMPT, "--provider", "maize", "--max-tokens", "8")
    assert answer["provider_name"] == "maize"
    failed = [job for job in maize.read("jobs") if job["code"] == "WORKER_FAILED"]
    assert [job["state"] for job in failed] == ["failed"]
