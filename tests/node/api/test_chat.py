"""Chat completions over a real socket: OpenAI's shapes, errors, streams and cancellation."""

import json

import httpx
import openai
import pytest
import trio

from node.api.backend import Notice, Text
from node.api.scripted import Wait
from protocol.errors import Code, LocalError, RemoteError
from protocol.ids import NodeId, node_text
from protocol.job.logprob import Logprob

LOST = RemoteError(Code.LOST, "maize was lost in mid-answer.")


def events(response: httpx.Response) -> list[dict]:
    """The JSON of each server-sent event; [DONE] is {}."""
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    return [{} if b == "data: [DONE]" else json.loads(b.removeprefix("data: ")) for b in blocks]


async def test_a_whole_answer_has_openais_shape_and_our_part(scene):
    response = await scene.chat()
    answer = response.json()
    assert response.status_code == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The sky is blü.", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    part = answer["ayni"]
    assert (part["provider_name"], part["mode"]) == ("maize", "cpu-f32/gguf")
    assert (part["cost_microcredits"], part["cost_credits"]) == (10, "0.00001")
    assert (part["ms_first"], part["ms_total"]) == (120, 480)


async def test_a_stream_opens_with_the_role_and_ends_with_usage_and_done(scene):
    response = await scene.chat(stream=True, stream_options={"include_usage": True})
    opening, first, second, last, usage, done = events(response)
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert opening["ayni"]["provider_name"] == "maize"
    assert [c["choices"][0]["delta"] for c in (first, second)] == [
        {"content": "The sky"},
        {"content": " is blü."},
    ]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert last["ayni"]["cost_microcredits"] == 10
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 10
    assert done == {}
    assert {c["id"] for c in (opening, first, second, last, usage)} == {opening["id"]}
    assert all(c["usage"] is None for c in (opening, first, second, last))


async def test_without_include_usage_no_chunk_has_usage(scene):
    chunks = events(await scene.chat(stream=True))
    assert all("usage" not in chunk for chunk in chunks)
    assert len(chunks) == 5


async def asked_raw(scene, stream):
    """The request on a plain socket, so that a test leaves just as a killed client does."""
    body = json.dumps({"messages": [{"role": "user", "content": "Why?"}], "stream": stream})
    socket = await trio.open_tcp_stream("127.0.0.1", int(scene.url.rpartition(":")[2]))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: {scene.client.headers['authorization']}\r\n\r\n"
    )
    await socket.send_all((head + body).encode())
    return socket


async def test_text_goes_out_at_once_and_a_client_that_leaves_cancels_the_job(scene):
    scene.steps[2:2] = [Wait(3600)]
    seen = b""
    with trio.fail_after(5):
        async with await asked_raw(scene, stream=True) as socket:
            while b"The sky" not in seen:
                seen += await socket.receive_some()
            assert scene.backend.running == 1
        await scene.backend.chat_left.wait()
    assert b"200" in seen.split(b"\r\n")[0]
    assert (scene.backend.cancelled, scene.backend.running) == (1, 0)


async def test_a_client_that_leaves_cancels_a_whole_answer_too(scene):
    scene.steps[:0] = [Wait(3600)]
    with trio.fail_after(5):
        async with await asked_raw(scene, stream=False):
            await scene.backend.chat_begun.wait()
        await scene.backend.chat_left.wait()
    assert scene.backend.cancelled == 1


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (RemoteError(Code.BUSY, "All slots are taken.", retry_ms=2500), 429, "3"),
        (RemoteError(Code.BUSY, "All slots are taken."), 429, "1"),
        (LocalError(Code.NO_PROVIDER, "Nobody serves it."), 503, None),
        (LocalError(Code.MODEL_NOT_SERVED, "Nobody serves big."), 404, None),
        (RemoteError(Code.BAD_SIGNATURE, "It does not hold."), 502, None),
        (LOST, 502, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_before_the_answer_is_an_http_status(scene, error, status, retry, stream):
    scene.steps[:] = [error]
    response = await scene.chat(stream=stream)
    assert response.status_code == status
    assert response.json()["error"]["code"] == error.code
    assert response.json()["error"]["message"] == error.sentence
    assert response.headers.get("retry-after") == retry


async def test_a_stream_that_fails_in_the_middle_says_so_and_ends_without_done(scene):
    scene.steps[2:] = [LOST]
    *_, last = events(await scene.chat(stream=True))
    assert last["error"]["code"] == "LOST"
    assert last["error"]["type"] == "server_error"


async def test_notices_wait_for_the_answer_unless_they_are_asked_for(scene):
    scene.steps[:0] = [Notice("LOST", "maize was lost; asking potato.")]
    scene.steps[2:] = [LOST]
    told = events(await scene.chat(stream=True, ayni={"notices": True}))
    assert told[0]["ayni"] == {
        "notice": {"code": "LOST", "sentence": "maize was lost; asking potato."}
    }
    held = events(await scene.chat(stream=True))
    assert "notice" not in held[0]["ayni"]
    assert held[1]["ayni"]["notice"]["code"] == "LOST"
    scene.steps[1:] = [LOST]
    assert (await scene.chat(stream=True)).status_code == 502


async def test_a_provider_is_chosen_by_name_or_id(scene):
    maize = node_text(NodeId(b"m" * 32))
    for text in ("maize", maize, maize[-6:]):
        assert (await scene.chat(ayni={"provider": text})).status_code == 200
        assert scene.backend.asked[-1].provider == NodeId(b"m" * 32)
    for text in ("rye", "12D3KooW"):
        refused = await scene.chat(ayni={"provider": text})
        assert refused.status_code == 404
        assert refused.json()["error"]["param"] == "ayni.provider"


async def test_a_fault_of_our_own_is_a_500_and_its_words_reach_no_log(scene, caplog):
    def broken(job):
        raise ValueError("SECRET-MARKER " + job.messages[0][1])

    scene.backend.script = broken
    for stream in (False, True):
        response = await scene.chat(stream=stream)
        assert response.status_code == 500
        assert "SECRET" not in response.text
    assert (await scene.chat()).status_code == 500
    scene.backend.script = scene.played
    assert (await scene.chat()).status_code == 200
    assert "answer.failed" in caplog.text
    assert "SECRET" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


async def test_openais_own_client(scene):
    scene.steps[1:1] = [Text("", 0)]

    def ask():
        client = openai.OpenAI(
            base_url=f"{scene.url}/v1", api_key="the-key-of-a-test-that-is-long-enough"
        )
        with client:
            whole = client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
                temperature=0.7,
                seed=5,
                stop=["\n\n"],
                max_completion_tokens=9,
            )
            stream = client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "Why?"}],
                stream=True,
                stream_options={"include_usage": True},
            )
            return whole, list(stream), [model.id for model in client.models.list()]

    whole, chunks, models = await trio.to_thread.run_sync(ask)
    assert whole.choices[0].message.content == "The sky is blü."
    assert whole.usage.total_tokens == 10
    assert whole.ayni["provider_name"] == "maize"
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == "The sky is blü."
    assert chunks[-1].usage.completion_tokens == 3
    assert models == ["bigger", "tiny"]
    job = scene.backend.asked[0]
    assert (job.seed, job.stop, job.output_tokens_max) == (5, ("\n\n",), 9)
    assert job.sampling.temperature_millionths == 700_000
    assert scene.backend.asked[1].sampling.temperature_millionths == 1_000_000


def likely(text: str, micrologprob: int) -> Logprob:
    return Logprob(5, text.encode(), micrologprob)


LIKELY = (
    Text("The sky", 1, ((likely("The sky", -105_361), likely("The sky", -105_361)),)),
    # Half a character has no text of its own yet; its bytes say what it is.
    Text("", 1, ((Logprob(9, b" \xe2\x98", -2_302_585), likely(" is", -356_675)),)),
)


async def test_probabilities_have_openais_shape_whole_and_streamed(scene):
    scene.steps[1:3] = LIKELY
    asked = {"logprobs": True, "top_logprobs": 1}
    whole = (await scene.chat(**asked)).json()["choices"][0]["logprobs"]
    assert scene.backend.asked[-1].sampling.logprobs == 2
    sky = {"token": "The sky", "logprob": -0.105361, "bytes": list(b"The sky")}
    half = {"token": " \ufffd", "logprob": -2.302585, "bytes": [32, 0xE2, 0x98]}
    instead = {"token": " is", "logprob": -0.356675, "bytes": list(b" is")}
    assert whole == {
        "content": [sky | {"top_logprobs": [sky]}, half | {"top_logprobs": [instead]}],
        "refusal": None,
    }
    chunks = events(await scene.chat(stream=True, **asked))
    told = [choice["logprobs"] for chunk in chunks for choice in chunk.get("choices", ())]
    assert [one for part in told if part for one in part["content"]] == whole["content"]


async def test_openais_own_client_asks_for_all_that_it_can(scene):
    scene.steps[1:3] = LIKELY

    def ask(**fields):
        client = openai.OpenAI(
            base_url=f"{scene.url}/v1", api_key="the-key-of-a-test-that-is-long-enough"
        )
        with client:
            answer = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Why?"}], **fields
            )
            return list(answer) if "stream" in fields else answer

    wishes = {
        "logprobs": True,
        "top_logprobs": 1,
        "logit_bias": {"7": -100, "5": 2},
        "extra_body": {"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1},
    }
    whole = await trio.to_thread.run_sync(lambda: ask(**wishes))
    content = whole.choices[0].logprobs.content
    assert [one.token for one in content] == ["The sky", " \ufffd"]
    assert bytes(content[1].bytes) == b" \xe2\x98"
    assert content[1].top_logprobs[0].logprob == -0.356675
    sampling = scene.backend.asked[-1].sampling
    assert sampling.bias == ((5, 2_000_000), (7, -100_000_000))
    assert (sampling.top_k, sampling.min_p_millionths, sampling.logprobs) == (40, 50_000, 2)
    chunks = await trio.to_thread.run_sync(lambda: ask(stream=True, **wishes))
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices]
    assert [one.token for part in told if part for one in part.content] == ["The sky", " \ufffd"]


async def test_openais_own_client_raises_our_errors(scene):
    def ask(**fields):
        client = openai.OpenAI(
            base_url=f"{scene.url}/v1",
            api_key="the-key-of-a-test-that-is-long-enough",
            max_retries=0,
        )
        with client:
            return list(
                client.chat.completions.create(
                    model="tiny",
                    messages=[{"role": "user", "content": "Why?"}],
                    stream=True,
                    **fields,
                )
            )

    begun = scene.steps[:2]
    with pytest.raises(openai.BadRequestError) as refused:
        await trio.to_thread.run_sync(lambda: ask(n=2))
    assert refused.value.param == "n"
    scene.steps[:] = [RemoteError(Code.BUSY, "All slots are taken.")]
    with pytest.raises(openai.RateLimitError):
        await trio.to_thread.run_sync(ask)
    scene.steps[:] = [*begun, LOST]
    with pytest.raises(openai.APIError, match="maize was lost"):
        await trio.to_thread.run_sync(ask)
