"""The API of a real daemon: OpenAI's own client, a raw event stream, and who is turned away."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import urandom
from typing import Any

import openai
import pytest
import trio

from node.network.base import NetworkError
from node.network.libp2p import open_network
from protocol.identity import Seed
from protocol.limits import FAILED_CHECKS_MAX, FRAME_BYTES_MAX
from protocol.messages import JOB_PROTOCOL
from tests.network.testnet import MODEL, PROVIDERS, Node, Testnet

MESSAGES: Any = [{"role": "user", "content": "Tell me of the sky."}]


@contextmanager
def client(node: Node, key: str | None = None) -> Iterator[openai.OpenAI]:
    with (
        openai.DefaultHttpxClient(trust_env=False) as http,
        openai.OpenAI(
            base_url=node.api["url"] + "/v1",
            api_key=key or node.key,
            max_retries=0,
            http_client=http,
        ) as opened,
    ):
        yield opened


def test_the_openai_client_gets_an_answer_whole(testnet: Testnet) -> None:
    with client(testnet.quinoa) as quinoa:
        assert [model.id for model in quinoa.models.list()] == [MODEL]
        answer = quinoa.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=24, seed=7, temperature=0.8
        )
        again = quinoa.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_completion_tokens=24, seed=7, temperature=0.8
        )
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.usage.prompt_tokens > 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert again.choices[0].message.content == choice.message.content


def test_the_openai_client_gets_the_same_answer_streamed(testnet: Testnet) -> None:
    wish: dict[str, Any] = {"max_tokens": 24, "seed": 7, "temperature": 0.8}
    with client(testnet.quinoa) as quinoa:
        whole = quinoa.chat.completions.create(model=MODEL, messages=MESSAGES, **wish)
        with quinoa.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            **wish,
        ) as stream:
            chunks = list(stream)
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 5
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == "length"
    assert not any(reasons[:-1])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_a_stop_string_ends_an_answer_and_is_not_told(testnet: Testnet) -> None:
    wish: dict[str, Any] = {"max_tokens": 64, "seed": 7, "temperature": 0.8}
    with client(testnet.quinoa) as quinoa:
        whole = quinoa.chat.completions.create(model=MODEL, messages=MESSAGES, **wish)
        text = whole.choices[0].message.content or ""
        stop = next(letter for letter in text[10:] if letter != "\ufffd")
        cut = quinoa.chat.completions.create(model=MODEL, messages=MESSAGES, stop=stop, **wish)
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == text.partition(stop)[0]


def test_the_stream_as_any_program_reads_it(testnet: Testnet) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": 8}
    with (
        testnet.quinoa.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        raw = b"".join(response.iter_raw())
    *events, end = raw.split(b"\n\n")
    assert end == b""
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    assert events[-1] == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_who_has_no_key_or_asks_for_what_is_not_there_is_told(testnet: Testnet) -> None:
    quinoa = testnet.quinoa
    with client(quinoa, "wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with client(quinoa) as known:
        create = known.chat.completions.create
        with pytest.raises(openai.NotFoundError) as unknown:
            create(model="gpt-9", messages=MESSAGES)
        assert unknown.value.code == "MODEL_NOT_SERVED"
        assert f"served: {MODEL}" in unknown.value.message
        with pytest.raises(openai.BadRequestError) as unsupported:
            create(model=MODEL, messages=MESSAGES, n=2)
        assert unsupported.value.param == "n"
        with pytest.raises(openai.BadRequestError) as too_long:
            create(model=MODEL, messages=[{"role": "user", "content": "x" * 12_000}])
        assert too_long.value.code == "CONTEXT_EXCEEDED"
        capped = {"ayni": {"cost_max_microcredits": 1}}
        with pytest.raises(openai.APIStatusError) as too_dear:
            create(model=MODEL, messages=MESSAGES, extra_body=capped)
        assert too_dear.value.status_code == 402
        assert too_dear.value.code == "COST_EXCEEDED"
        assert "cap of 1 microcredits" in too_dear.value.message
    assert quinoa.asked("Still there?", "--max-tokens", "4")["output_tokens"] == 4
    refused = [job for job in quinoa.get("jobs") if job["code"] == "CONTEXT_EXCEEDED"]
    assert {job["peer_name"] for job in refused} == set(PROVIDERS)  # Each was asked in vain.
    assert {job["state"] for job in refused} == {"failed"}
    assert quinoa.running() == []


BAD_BYTES = (
    b"\xff" * 100,
    (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x" * 1000,
    b"\x00\x00\x00\x02\xc1\xc1",
    b"\x00\x00\x00\x06\x91\xa4ping",
    urandom(3000),
)


async def test_garbage_for_jobs_costs_a_stranger_its_connection_and_nobody_else_anything(
    testnet: Testnet,
) -> None:
    maize = testnet.maize
    [address, *_] = await trio.to_thread.run_sync(lambda: maize.get("status")["addresses"])
    daemon, worker = maize.pid, maize.worker["pid"]
    async with open_network(Seed(urandom(32)), []) as stranger:
        node = await stranger.connect(address)
        for number in range(FAILED_CHECKS_MAX + 1):
            stream = await stranger.open(node, JOB_PROTOCOL)
            with suppress(NetworkError):
                await stream.send_all(BAD_BYTES[number % len(BAD_BYTES)])
                await stream.close()
            with pytest.raises(NetworkError):
                assert await stream.receive_some(1), "it hung up in order"
        for _ in range(600):
            if not stranger.peers:
                break
            await trio.sleep(0.05)
        assert not stranger.peers, "it was not cut off"
    answer = await trio.to_thread.run_sync(
        lambda: testnet.quinoa.asked("Still there?", "--provider", "maize", "--max-tokens", "4")
    )
    assert answer["provider_name"] == "maize"
    assert (maize.pid, maize.worker["pid"]) == (daemon, worker)
