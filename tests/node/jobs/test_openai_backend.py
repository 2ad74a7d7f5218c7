"""Jobs handed to a server of the OpenAI API: over real HTTP, sane or not."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from node.jobs.inference import Begun, Ended, Event, Task, Tokens
from node.jobs.openai_backend import MODE, OpenAiBackend, Patience
from node.jobs.openai_server import ServerSettings, WantedModel
from node.jobs.openai_stream import LINE_BYTES_MAX
from node.models.catalogue import external_model_id
from node.supervise import BackOff, background
from protocol.errors import Code, LocalError
from protocol.job.commitment import prompt_ids_digest
from protocol.job.sampling import Sampling
from tests.node.jobs.openai_fake import (
    DONE,
    NAME,
    WORDS,
    FakeServer,
    Reply,
    event,
    finish,
    open_fake,
    plain,
    said,
    usage,
)

MODEL = external_model_id("llama")
SECONDS_MAX = 30
PATIENCE = Patience(begin=5, silence=20, look=0.05, back_off=BackOff(0.01, 0.02, 60))


def task(question: str = "Why?", **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "model": MODEL,
        "messages": (("system", "Be brief."), ("user", question)),
        "text": "",
        "stop": (),
        "sampling": Sampling(),
        "seed": bytes(range(32)),
        "first_t": 0,
        "prefix_ids": (),
        "output_tokens_max": 100,
    }
    return Task(**{**fields, **changes})


class Watched:
    """A backend, and something to wait for."""

    def __init__(self, server: FakeServer, patience: Patience = PATIENCE, **settings: Any) -> None:
        self._news = trio.Event()
        models = {MODEL: WantedModel(NAME, "llama", 4096)}
        self.backend = OpenAiBackend(
            ServerSettings(server.url, models, **settings), self._changed, patience
        )

    def _changed(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(self, test: Callable[[OpenAiBackend], object]) -> None:
        with trio.fail_after(SECONDS_MAX):
            while not test(self.backend):
                await self._news.wait()


@asynccontextmanager
async def opened(
    answer: Callable[[str, dict[str, Any]], Reply], patience: Patience = PATIENCE, **settings: Any
) -> AsyncIterator[tuple[FakeServer, OpenAiBackend]]:
    """A server that answers a first question well, and a backend that offers its model."""
    async with open_fake(FakeServer()) as server:
        watched = Watched(server, patience, **settings)
        async with background(watched.backend.run):
            await watched.until(lambda backend: backend.served)
            server.calls.clear()
            server.answer = answer
            yield server, watched.backend


async def told(
    backend: OpenAiBackend, asked: Task, hear: Callable[[Event], object] = lambda event: None
) -> list[Event]:
    """All events of a task; `hear` is told of each as it comes."""
    heard: list[Event] = []
    with trio.fail_after(SECONDS_MAX):
        async with backend.generate(asked) as events:
            async for one in events:
                heard.append(one)
                hear(one)
    return heard


async def failure(backend: OpenAiBackend, asked: Task) -> LocalError:
    with pytest.raises(LocalError) as caught:
        await told(backend, asked)
    return caught.value


def text_of(events: list[Event]) -> str:
    return "".join(one.text for one in events if isinstance(one, Tokens))


async def test_a_chat_is_streamed_and_each_piece_counts_one() -> None:
    async with opened(lambda path, body: plain(*WORDS)) as (server, backend):
        begun, *tokens, end = await told(backend, task(stop=("\n\n",)))
        # The prompt's canonical form has 33 bytes.
        assert begun == Begun(9, prompt_ids_digest(()))
        assert tokens == [Tokens((0,), word) for word in WORDS]
        assert end == Ended("stop")
        [(path, body)] = server.calls
        assert path == "chat/completions"
        assert body == {
            "model": NAME,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 100,
            "seed": 0x03020100,
            "temperature": 0.0,
            "stop": ["\n\n"],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why?"},
            ],
        }
        assert backend.slots_free(MODEL) == 4


async def test_a_completion_goes_to_its_own_call() -> None:
    async with opened(lambda path, body: plain("a", "b", chat=False)) as (server, backend):
        events = await told(backend, task(messages=(), text="Once upon"))
        assert text_of(events) == "ab"
        assert server.calls[0][0] == "completions"
        assert server.calls[0][1]["prompt"] == "Once upon"


async def test_what_is_offered() -> None:
    async with opened(lambda path, body: plain()) as (_, backend):
        (served,) = backend.served
        assert (served.model, served.name, served.mode) == (MODEL, "llama", MODE)
        assert served.mode == "unverifiable/openai"
        assert (served.context_tokens, served.slots) == (4096, 4)
        # From the server's own count of its first answer.
        assert served.prefill_millitokens_per_second > 0
        assert served.decode_millitokens_per_second > 0
        assert backend.fault == ""


async def test_all_wishes_that_can_be_said_are_said() -> None:
    sampling = Sampling(
        temperature_millionths=700_000,
        top_p_millionths=900_000,
        min_p_millionths=50_000,
        top_k=40,
        frequency_penalty_millionths=-250_000,
        presence_penalty_millionths=1_500_000,
    )
    takes = ("top_k", "min_p")
    async with opened(lambda path, body: plain("x"), takes=takes) as (server, backend):
        await told(backend, task(sampling=sampling))
        body = server.calls[0][1]
        assert (body["temperature"], body["top_p"]) == (0.7, 0.9)
        assert (body["top_k"], body["min_p"]) == (40, 0.05)
        assert (body["frequency_penalty"], body["presence_penalty"]) == (-0.25, 1.5)


@pytest.mark.parametrize(
    ("sampling", "word"),
    [
        (Sampling(top_k=3), "top_k"),
        (Sampling(min_p_millionths=1), "min_p"),
        (Sampling(repetition_penalty_millionths=1_100_000), "repetition_penalty"),
        (Sampling(bias=((7, 1_000_000),)), "bias"),
        (Sampling(logprobs=1), "logprobs"),
    ],
)
async def test_a_wish_that_cannot_be_said_is_refused_by_name(sampling: Sampling, word: str) -> None:
    async with opened(lambda path, body: plain("x")) as (server, backend):
        refused = await failure(backend, task(sampling=sampling))
        assert refused.code == Code.BAD_REQUEST
        assert f"'{word}'" in refused.sentence
        assert server.calls == []
        assert backend.slots_free(MODEL) == 4


async def test_leaving_closes_the_connection() -> None:
    endless = Reply([said("word"), 1000.0])
    async with opened(lambda path, body: endless) as (server, backend):
        with trio.fail_after(SECONDS_MAX):
            async with backend.generate(task()) as events:
                async for one in events:
                    if isinstance(one, Tokens):
                        break
                assert backend.slots_free(MODEL) == 3
            await server.wait_hung_up()
        assert server.hung_up == 1
        assert backend.slots_free(MODEL) == 4
        server.answer = lambda path, body: plain("again")
        assert text_of(await told(backend, task())) == "again"


async def test_slots_are_bounded() -> None:
    async with opened(lambda path, body: Reply([1000.0]), slots=1) as (_, backend):
        async with backend.generate(task()):
            assert backend.slots_free(MODEL) == 0
            assert (await failure(backend, task())).code == Code.BUSY
        assert backend.slots_free(MODEL) == 1


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([said("a"), None], "cut the connection"),
        ([said("a")], "without saying so"),
        ([said("a"), b"data: {not json\n\n"], "none of the OpenAI API"),
        ([said("a"), event([1, 2])], "none of the OpenAI API"),
        ([said("a"), event({"choices": [{"delta": {"content": 7}}]})], "none of the OpenAI API"),
        ([said("a"), event(b"[" * 100_000)], "none of the OpenAI API"),
        ([said("a"), b"data: \xff\xfe\n\n"], "none of the OpenAI API"),
        ([said("a"), b"x" * (LINE_BYTES_MAX + 1)], "a line of more than"),
        ([said("a"), (b"data: " + b"x" * 4000 + b"\n") * 80], "an event of more than"),
        ([said("a"), event({"error": {"message": "secret prompt"}})], "reported an error"),
        ([said("a"), b'error: {"code": 500}\n\n'], "reported an error"),
    ],
)
async def test_a_server_that_breaks_off_or_raves_fails_the_job(parts: list, words: str) -> None:
    async with opened(lambda path, body: Reply(parts)) as (_, backend):
        heard: list[Event] = []
        with pytest.raises(LocalError) as caught:
            await told(backend, task(), heard.append)
        assert caught.value.code == Code.WORKER_FAILED
        assert words in caught.value.sentence
        assert "secret" not in caught.value.sentence
        assert isinstance(heard[0], Begun)
        assert text_of(heard) == "a"
        assert backend.slots_free(MODEL) in (0, 4)  # It may be doubted already.


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.BAD_REQUEST),
        (404, Code.MODEL_NOT_SERVED),
        (401, Code.WORKER_FAILED),
        (429, Code.BUSY),
        (503, Code.BUSY),
        (500, Code.WORKER_FAILED),
        (302, Code.WORKER_FAILED),
    ],
)
async def test_a_refusal_becomes_a_code_and_quotes_nothing(status: int, code: Code) -> None:
    reply = Reply([b'{"error": "secret prompt"}'], status)
    async with opened(lambda path, body: reply) as (_, backend):
        refused = await failure(backend, task("secret prompt"))
        assert refused.code == code
        assert "secret" not in refused.sentence


async def test_the_length_is_kept_by_a_server_that_does_not() -> None:
    async with opened(lambda path, body: plain(*WORDS)) as (server, backend):
        *_, last, end = await told(backend, task(output_tokens_max=3))
        assert (last, end) == (Tokens((0,), WORDS[2]), Ended("length"))
        assert server.calls[0][1]["max_tokens"] == 3
        server.answer = lambda path, body: Reply([said("one"), finish("length"), DONE])
        assert (await told(backend, task()))[-1] == Ended("length")


async def test_a_long_piece_is_cut_into_tokens_between_characters() -> None:
    text = "ä" * 1500
    reply = Reply([said(text), finish(), DONE])
    async with opened(lambda path, body: reply) as (_, backend):
        _, *tokens, _ = await told(backend, task())
        assert [len(one.text) for one in tokens if isinstance(one, Tokens)] == [512, 512, 476]
        assert text_of(tokens) == text


async def test_pieces_of_bytes_and_comments_change_nothing() -> None:
    answer = (
        b": ping\r\n\r\n" + said("grün").replace(b"\n", b"\r\n") + finish() + usage(1, 1) + DONE
    )
    reply = Reply([bytes([byte]) for byte in answer])
    async with opened(lambda path, body: reply) as (_, backend):
        assert text_of(await told(backend, task())) == "grün"


async def test_a_job_has_begun_before_a_slow_server_says_anything() -> None:
    slow = Reply([said("late"), finish(), DONE], head_seconds=0.3)
    patience = Patience(begin=0.01, silence=20, look=0.05, back_off=PATIENCE.back_off)
    async with opened(lambda path, body: slow, patience) as (_, backend):
        begun, *rest = await told(backend, task())
        assert isinstance(begun, Begun)
        assert text_of(rest) == "late"


async def test_a_silent_server_is_given_up() -> None:
    patience = Patience(begin=5, silence=0.2, look=0.05, back_off=PATIENCE.back_off)
    async with opened(lambda path, body: Reply([said("a"), 1000.0]), patience) as (_, backend):
        refused = await failure(backend, task())
        assert refused.code == Code.WORKER_FAILED
        assert "said nothing" in refused.sentence


async def test_a_server_that_dies_is_not_offered_and_comes_back_by_itself() -> None:
    server = FakeServer()
    async with trio.open_nursery() as nursery:
        async with open_fake(server):
            watched = Watched(server)
            nursery.start_soon(watched.backend.run)
            await watched.until(lambda backend: backend.served)
            server.answer = lambda path, body: Reply([said("a"), 1000.0])
            with pytest.raises(LocalError) as caught:
                await told(
                    watched.backend,
                    task(),
                    lambda one: isinstance(one, Tokens) and server.stop(),
                )
        assert caught.value.code == Code.WORKER_FAILED
        await watched.until(lambda backend: not backend.served)
        assert "does not answer" in watched.backend.fault
        assert watched.backend.slots_free(MODEL) == 0
        assert (await failure(watched.backend, task())).code == Code.MODEL_NOT_SERVED
        server.answer = lambda path, body: plain(*WORDS)
        async with open_fake(server, server.port):
            await watched.until(lambda backend: backend.served)
            assert text_of(await told(watched.backend, task())) == "".join(WORDS)
            nursery.cancel_scope.cancel()
    assert watched.backend.served == []


async def test_a_model_that_fails_has_to_prove_itself_anew() -> None:
    async with opened(lambda path, body: Reply([b"{}"], 500)) as (server, _):
        watched = Watched(server)
        async with background(watched.backend.run):
            await watched.until(lambda one: one.fault)
            assert watched.backend.served == []
            assert "gave no first answer" in watched.backend.fault
            server.answer = lambda path, body: plain(*WORDS)
            await watched.until(lambda one: one.served)
            assert watched.backend.fault == ""


async def test_a_model_that_the_server_lacks_is_named() -> None:
    async with open_fake(FakeServer(models=["other:7b"])) as server:
        watched = Watched(server)
        async with background(watched.backend.run):
            await watched.until(lambda one: one.fault)
            assert "has no model 'llama3.2:3b'; it has other:7b." in watched.backend.fault
            server.models.append(f"{NAME}:latest")  # Ollama's way.
            await watched.until(lambda one: one.served)


async def test_a_long_name_of_a_servers_model_fills_no_log() -> None:
    async with open_fake(FakeServer(models=["x" * 100_000, "y" * 100_000])) as server:
        watched = Watched(server)
        async with background(watched.backend.run):
            await watched.until(lambda one: one.fault)
            assert len(watched.backend.fault) < 1000


async def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "server.key"
    async with open_fake(FakeServer(key="s3cret")) as server:
        watched = Watched(server, api_key_file=file)
        async with background(watched.backend.run):
            await watched.until(lambda one: one.fault)
            assert "refused our key" in watched.backend.fault
            file.write_text("s3cret\n")
            await watched.until(lambda one: one.served)
            assert text_of(await told(watched.backend, task())) == "".join(WORDS)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 3}', b"x" * (2 << 20)])
async def test_a_list_of_models_that_is_none(body: bytes) -> None:
    server = FakeServer()
    server.listing = body
    async with open_fake(server):
        watched = Watched(server)
        async with background(watched.backend.run):
            await watched.until(lambda one: one.fault)
            assert "lists its models" in watched.backend.fault
