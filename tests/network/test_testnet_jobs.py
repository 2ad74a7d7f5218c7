"""Jobs over four real daemons: asked by the command line, answered by real workers."""

import sqlite3
from contextlib import closing
from typing import Any

from node.discovery.hardware import devices
from protocol.pricing import cost
from tests.network.testnet import MODEL, PROVIDERS, Node, Testnet, until

PROMPT = "Tell me of the sky."


def orders(node: Node) -> dict[str, bytes]:
    """Job id -> order id, as the node has them on disk."""
    with closing(sqlite3.connect(f"file:{node.paths.database_file}?mode=ro", uri=True)) as database:
        return {
            job.hex(): order for job, order in database.execute("SELECT job_id, order_id FROM jobs")
        }


def record(node: Node, job: str) -> dict[str, Any]:
    """The node's record of a job, once it is no longer running."""

    def found() -> dict[str, Any] | None:
        records = [one for one in node.read("jobs") if one["job"] == job]
        return records[0] if records and records[0]["state"] != "running" else None

    return until(f"{node.name} has closed the job", found) or {}


def test_quinoa_sees_three_peers_and_what_they_offer(testnet: Testnet) -> None:
    # After a job an advert may still say that the slot is taken.
    until("free slots", lambda: testnet.quinoa.free_slots() == {"maize": 1, "potato": 1})
    peers = {peer["name"]: peer for peer in testnet.quinoa.read("peers")}
    assert set(peers) == {"maize", "potato", "oca"}
    [processor, *_] = devices()
    for peer in peers.values():
        assert peer["connected"]
        assert peer["hardware"]["cores"] == processor.cores
        assert peer["hardware"]["memory_bytes"] == processor.memory_bytes
        assert peer["addresses"][0].startswith("/ip4/127.0.0.1/tcp/")
        assert peer["advert_age_ms"] < 20_000
    assert (peers["oca"]["sharing"], peers["oca"]["offers"]) == ("off", [])
    prices = {}
    for name in PROVIDERS:
        [offer] = peers[name]["offers"]
        assert (offer["name"], offer["slots"], offer["slots_free"]) == (MODEL, 1, 1)
        assert offer["mode"].endswith("/gguf")
        assert offer["context_tokens"] == 8192
        assert offer["prefill_millitokens_per_second"] > 0
        assert offer["decode_millitokens_per_second"] > 0
        prices[name] = (offer["price_in_microcredits"], offer["price_out_microcredits"])
    assert prices == {"maize": (400_000, 1_600_000), "potato": (500_000, 2_000_000)}


def test_people_read_the_same(testnet: Testnet) -> None:
    shown = testnet.quinoa.ayni("peers").out
    assert all(name in shown for name in ("maize", "potato", "oca", MODEL, "shares nothing"))
    assert "0.4 / 1.6" in shown


def test_an_answer_streams_and_both_sides_agree_on_it(testnet: Testnet) -> None:
    with testnet.quinoa.asking(PROMPT, "--provider", "potato", "--max-tokens", "300") as asking:
        asking.wait_for_words()
        assert asking.runs  # What came is the beginning of an answer, not all of it.
        [running] = testnet.quinoa.running()
        done = asking.end()
    assert done.status == 0, done
    assert all(word in done.err for word in ("potato", "300 tokens", "tokens/s", "credits"))
    ours, theirs = record(testnet.quinoa, running["job"]), record(testnet.potato, running["job"])
    assert (ours["role"], theirs["role"]) == ("requester", "provider")
    assert (ours["peer_name"], theirs["peer_name"]) == ("potato", "quinoa")
    for name in ("model", "state", "code", "input_tokens", "output_tokens", "cost_microcredits"):
        assert ours[name] == theirs[name], name
    assert (ours["state"], ours["output_tokens"]) == ("done", 300)
    assert ours["cost_microcredits"] == cost(ours["input_tokens"], 300, 500_000, 2_000_000)
    order = orders(testnet.quinoa)[running["job"]]
    assert order == orders(testnet.potato)[running["job"]]
    assert len(order) == 32


def test_a_seed_gives_the_same_answer_wherever_it_runs(testnet: Testnet) -> None:
    wish = ("--temperature", "0.8", "--max-tokens", "48", "--seed")
    answers = [
        testnet.quinoa.asked(PROMPT, "--provider", provider, *wish, "7")
        for provider in (*PROVIDERS, "maize")
    ]
    assert [answer["provider_name"] for answer in answers] == ["maize", "potato", "maize"]
    assert len({answer["mode"] for answer in answers}) == 1
    assert len({answer["text"] for answer in answers}) == 1
    assert {answer["output_tokens"] for answer in answers} == {48}
    other = testnet.quinoa.asked(PROMPT, "--provider", "maize", *wish, "8")
    assert other["text"] != answers[0]["text"]


def test_a_cancelled_job_is_billed_for_what_was_said(testnet: Testnet) -> None:
    with testnet.quinoa.asking(PROMPT, "--provider", "maize", "--max-tokens", "8000") as asking:
        asking.wait_for_words()
        [running] = testnet.quinoa.running()
        done = asking.interrupt()
    assert done.status == 1
    assert "CANCELLED" in done.err
    ours, theirs = record(testnet.quinoa, running["job"]), record(testnet.maize, running["job"])
    assert ours["state"] == theirs["state"] == "cancelled"
    assert 0 < ours["output_tokens"] < 8000
    assert ours["output_tokens"] == theirs["output_tokens"]
    assert ours["cost_microcredits"] == theirs["cost_microcredits"] > 0


def test_two_at_once_go_to_two_providers_and_a_third_is_told_to_wait(testnet: Testnet) -> None:
    quinoa, wish = testnet.quinoa, ("--max-tokens", "8000")
    with quinoa.asking(PROMPT, *wish) as first, quinoa.asking(PROMPT, *wish) as second:
        first.wait_for_words()
        second.wait_for_words()
        assert {job["peer_name"] for job in quinoa.running()} == set(PROVIDERS)
        third = quinoa.ayni("ask", PROMPT)
        assert third.status == 1
        assert "BUSY: maize and potato are busy with other jobs; try again in" in third.err
        with quinoa.http() as client:
            body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
            refused = client.post("/v1/chat/completions", json=body)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "BUSY"
        assert first.runs
        assert second.runs
        first.interrupt()
        second.interrupt()


def test_a_paused_provider_takes_nothing_until_it_resumes(testnet: Testnet) -> None:
    quinoa = testnet.quinoa
    try:
        for name in PROVIDERS:
            assert testnet.nodes[name].ayni("pause").status == 0
            assert testnet.nodes[name].read("status")["sharing"]["state"] == "paused"
        for words in ((), ("--provider", "maize")):
            refused = quinoa.ayni("ask", *words, PROMPT)
            assert refused.status == 1
            # By the provider itself, or here once its advert tells of it.
            told = refused.err.splitlines()[-1]
            assert told.startswith(("PAUSED: ", "NO_PROVIDER: ")), refused
            assert "paused sharing" in told or "maize takes no such job now" in told
    finally:
        for name in PROVIDERS:
            assert testnet.nodes[name].ayni("resume").status == 0
    testnet.settle()
    answer = quinoa.asked(PROMPT, "--provider", "maize", "--max-tokens", "4")
    assert answer["provider_name"] == "maize"
