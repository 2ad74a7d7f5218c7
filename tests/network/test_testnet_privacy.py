"""Prompts and answers are the user's: after jobs that went well and jobs that failed, no file of
any home and no answer of the API but the one to the asker holds a word of them (H3)."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.network.testnet import MODEL, Node, Testnet, until
from tests.tiny_model import CONTROL

MARKER = "vicunha-7f3a91-chasqui"
PROMPT = f"Nobody else may read {MARKER} but you."
VIEWS = ("status", "peers", "jobs", "models", "network", "doctor")


def fragments(text: str) -> list[str]:
    """Short pieces of an answer that do not occur by chance: between control characters, of
    different letters, and not those that stand in the vocabulary."""
    told = "".join(c if c.isprintable() else "\n" for c in text)
    runs = re.split("|".join(["\n", *map(re.escape, CONTROL)]), told)
    pieces = {run[at : at + 8] for run in runs for at in range(0, len(run) - 7, 4)}
    return sorted(piece for piece in pieces if len(set(piece)) >= 6)


def traces(words: list[str]) -> list[bytes]:
    """How words would look in a file: as they are, in JSON, and in hex."""
    return [
        form
        for word in words
        for form in (
            word.encode(),
            json.dumps(word)[1:-1].encode(),
            word.encode().hex().encode(),
        )
    ]


def files(testnet: Testnet) -> Iterator[tuple[Path, bytes]]:
    """All files of all homes: settings, logs, databases with their journals, whatever else."""
    for path in testnet.folder.rglob("*"):
        if path.is_file() and path.suffix != ".gguf":  # Weights of 0.8 MB hold many a short word.
            yield path, path.read_bytes()


def wrong_requests(quinoa: Node) -> None:
    """Requests that are refused at each stage: no JSON, a wrong field, too long for the model."""
    good = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
    long = [{"role": "user", "content": PROMPT + " " + "x" * 12_000}]
    with quinoa.http() as http:
        refused = [
            http.post("/v1/chat/completions", content=json.dumps(good)[:-1]),
            http.post("/v1/chat/completions", json={**good, MARKER: 1}),
            http.post("/v1/chat/completions", json={**good, "stop": [MARKER] * 99}),
            http.post("/v1/chat/completions", json={**good, "messages": [{"role": MARKER}]}),
            http.post("/v1/chat/completions", json={**good, "messages": long}),
            http.get(f"/v1/{MARKER}"),
        ]
    assert [answer.status_code for answer in refused] == [400, 400, 400, 400, 400, 404]


def test_no_word_of_a_prompt_or_an_answer_is_left_anywhere(fragile: Testnet) -> None:
    quinoa, maize = fragile.quinoa, fragile.maize
    wish = ("--temperature", "1.2", "--seed", "11", "--provider", "maize", "--max-tokens")
    said = quinoa.asked(PROMPT, *wish, "500")["text"]
    wrong_requests(quinoa)
    with quinoa.asking(PROMPT, *wish, "8000") as asking:
        asking.wait_for_words()
        os.kill(maize.worker["pid"], signal.SIGKILL)
        done = asking.end()
    assert (done.status, "WORKER_FAILED" in done.err) == (1, True)
    until("the worker is back", lambda: maize.worker["state"] == "ready")

    told = [node.get(view) for node in fragile.nodes.values() for view in VIEWS]
    shown = json.dumps(told, ensure_ascii=False).encode()
    words = [MARKER, *fragments(said)]
    assert len(words) > 5, "the answer has too few words to look for"
    found = [
        str(path.relative_to(fragile.folder))
        for path, data in files(fragile)
        if any(trace in data for trace in traces(words))
    ]
    assert found == []
    assert not any(trace in shown for trace in traces(words))
    # The same search finds what is there: the log tells of the job, and the database of its end.
    by_name = {path.relative_to(fragile.folder).as_posix(): data for path, data in files(fragile)}
    database = by_name["maize/data/ayni.db"] + by_name.get("maize/data/ayni.db-wal", b"")
    assert b"WORKER_FAILED" in database
    assert b"worker.restarts" in by_name["maize/data/ayni.log"]
