"""A provider that hands its jobs to a server of the OpenAI API: three real processes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from node.config import BackendSettings, Config, ExternalModel, ShareSettings, read_file, write
from protocol.pricing import cost
from tests.network.testnet import ROOT, Testnet, until
from tests.node.jobs.openai_fake import NAME, WORDS

SERVED = "llama3.2-3b-instruct"
PROMPT = "What grows in the Andes?"


@contextmanager
def fake_server() -> Iterator[str]:
    """Its URL; the process is gone at the end."""
    command = [sys.executable, "-m", "tests.node.jobs.openai_fake"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def testnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testnet]:
    testnet = Testnet(tmp_path_factory.mktemp("backend"))
    with fake_server() as url:
        try:
            testnet.prepare(2)
            backend = BackendSettings(
                kind="openai",
                url=url,
                models=(ExternalModel(name=NAME, serve_as=SERVED, context_tokens=4096),),
                slots=2,
            )
            file = testnet.maize.paths.config_file
            share = ShareSettings(models=(), backends=(backend,))
            write(file, replace(read_file(file, Config), share=share))
            testnet.up()
            testnet.settle()
            yield testnet
        finally:
            testnet.down()


def test_a_question_is_answered_by_the_server_behind_a_node(testnet: Testnet) -> None:
    doctor = {check["name"]: check["state"] for check in testnet.maize.read("doctor")}
    assert doctor["models"] == "ok"
    assert "backends" not in doctor
    until("the advert", lambda: testnet.quinoa.free_slots() == {"maize": 2})
    [offer] = testnet.quinoa.peers()["maize"]["offers"]
    assert (offer["name"], offer["mode"]) == (SERVED, "unverifiable/openai")
    answer = testnet.quinoa.asked(PROMPT, "--model", SERVED)
    assert answer["text"] == "".join(WORDS)
    assert answer["mode"] == "unverifiable/openai"
    assert answer["output_tokens"] == len(WORDS)
    assert 0 < answer["input_tokens"] < len(PROMPT)
    price = (offer["price_in_microcredits"], offer["price_out_microcredits"])
    assert answer["cost_microcredits"] == cost(answer["input_tokens"], len(WORDS), *price)
    assert testnet.maize.worker["state"] == "none"


def test_people_are_told_that_it_cannot_be_checked(testnet: Testnet) -> None:
    assert "cannot be checked" in testnet.quinoa.ayni("models").out


def test_whoever_wants_checkable_output_is_not_served_by_it(testnet: Testnet) -> None:
    refused = testnet.quinoa.ayni("ask", "--checkable-only", PROMPT)
    assert refused.status == 1
    assert "NO_PROVIDER" in refused.err
    assert "whose output can be checked" in refused.err


def test_nothing_of_it_is_on_the_disk_of_the_provider(testnet: Testnet) -> None:
    testnet.quinoa.asked(PROMPT)
    found = [path for path in testnet.maize.folder.rglob("*") if _holds(path, PROMPT)]
    assert found == []


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and text.encode() in path.read_bytes()
