"""The door and the server: who comes in, what is bounded, and how soon it ends."""

import json

import httpx
import pytest
import trio

from node.api.backend import Text
from node.api.door import BODY_BYTES_MAX
from node.api.scripted import Wait
from node.api.server import CONNECTIONS_MAX, open_server
from protocol.errors import Code, LocalError

KEYED = "GET /ayni/v1/status HTTP/1.1\r\nHost: {host}\r\nAuthorization: {key}\r\n\r\n"


async def dialled(url):
    return await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def status_line(scene, host="localhost", key=None):
    key = scene.client.headers["authorization"] if key is None else key
    async with await dialled(scene.url) as socket:
        await socket.send_all(KEYED.format(host=host, key=key).encode())
        return int((await socket.receive_some()).split()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:5"])
async def test_loopback_names_come_in(scene, host):
    assert await status_line(scene, host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost:x", "0.0.0.0"]
)
async def test_other_names_are_dns_rebinding_and_do_not(scene, host):
    assert await status_line(scene, host) == 403


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer wrong", "Basic {}", "Bearer {}x", "{}"])
async def test_no_key_no_answer(scene, key):
    right = scene.client.headers["authorization"].removeprefix("Bearer ")
    assert await status_line(scene, key=key.format(right)) == 401


async def test_every_path_but_the_health_check_wants_the_key(scene):
    async with httpx.AsyncClient(base_url=scene.url, trust_env=False) as stranger:
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}
        for path in ("/v1/models", "/ayni/v1/status", "/nowhere", "/healthz/"):
            assert (await stranger.get(path)).status_code == 401
        refused = await stranger.post("/ayni/v1/down")
        assert refused.json()["error"]["code"] == "invalid_api_key"
        preflight = await stranger.options("/v1/models", headers={"origin": "http://evil.example"})
        assert not [name for name in preflight.headers if name.startswith("access-control")]
    assert not scene.backend.done.is_set()


async def test_a_path_or_method_that_is_not_there_is_told_in_openais_shape(scene):
    nowhere = await scene.client.get("/v1/nowhere")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert (await scene.client.get("/v1/chat/completions")).status_code == 405


async def test_a_body_that_is_too_large_is_refused_and_the_next_client_served(scene):
    with trio.fail_after(10):
        refused = await scene.client.post(
            "/v1/chat/completions", content=b" " * (BODY_BYTES_MAX + 1)
        )
        assert refused.status_code == 413
        assert (await scene.chat()).status_code == 200


async def test_a_stranger_reads_the_refusal_although_its_body_was_large(scene):
    async with httpx.AsyncClient(base_url=scene.url, trust_env=False) as stranger:
        for _ in range(5):
            refused = await stranger.post("/v1/chat/completions", content=b" " * (1 << 20))
            assert refused.status_code == 401


async def test_a_stranger_is_refused_without_the_whole_of_an_endless_body(scene):
    async with await dialled(scene.url) as socket:
        await socket.send_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 100000000\r\n\r\n" + b" " * 400_000
        )
        with trio.fail_after(5):
            assert b"401" in (await socket.receive_some()).split(b"\r\n")[0]
    assert (await scene.chat()).status_code == 200


@pytest.mark.parametrize(
    "bytes_sent", [b"\x00" * 100, b"GET / HTTP/9\r\n\r\n", b"POST / HTTP/1.1\r\nHost", b""]
)
async def test_garbage_costs_its_own_connection_only(scene, bytes_sent):
    async with await dialled(scene.url) as socket:
        await socket.send_all(bytes_sent)
    assert (await scene.client.get("/ayni/v1/status")).status_code == 200


async def test_connections_are_bounded(scene):
    async with trio.open_nursery() as nursery:
        sockets = [await dialled(scene.url) for _ in range(CONNECTIONS_MAX)]
        beyond = await dialled(scene.url)
        with trio.fail_after(5):
            assert await beyond.receive_some() == b""
        for socket in [*sockets, beyond]:
            nursery.start_soon(socket.aclose)


async def test_a_websocket_is_turned_away(scene):
    async with await dialled(scene.url) as socket:
        await socket.send_all(
            b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b" 403 " in (await socket.receive_some()).split(b"\r\n")[0]


async def test_a_port_that_is_taken_is_named(scene):
    port = int(scene.url.rpartition(":")[2])
    with pytest.raises(LocalError) as taken:
        async with open_server(scene.backend, "key", port):
            raise AssertionError
    assert taken.value.code == Code.IN_USE
    assert str(port) in taken.value.sentence


async def stalled(scene, url):
    """A client that asks for a long stream and reads nothing of it."""
    scene.steps[1:] = [Text("x" * 100_000, 1)] * 200
    body = json.dumps({"messages": [{"role": "user", "content": "Why?"}], "stream": True})
    socket = await dialled(url)
    await socket.send_all(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return socket


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_server_ends_although_a_client_reads_nothing(scene, cancelled):
    with trio.fail_after(10):
        with trio.CancelScope() as scope:
            async with open_server(scene.backend, "k") as url:
                socket = await stalled(scene, url)
                idle = await dialled(url)
                await scene.backend.chat_begun.wait()
                await trio.testing.wait_all_tasks_blocked(0.05)
                if cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        await scene.backend.chat_left.wait()
        await idle.aclose()
        await socket.aclose()
    assert scene.backend.running == 0


async def test_an_answer_that_is_under_way_goes_out_when_the_server_ends(scene):
    scene.steps[1:1] = [Wait(0.05)]
    answers = []

    async def ask(url):
        headers = {"authorization": "Bearer k"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
            body = {"messages": [{"role": "user", "content": "Why?"}]}
            answers.append(await client.post("/v1/chat/completions", json=body))

    async with trio.open_nursery() as nursery, open_server(scene.backend, "k") as url:
        nursery.start_soon(ask, url)
        await scene.backend.chat_begun.wait()
    assert [answer.status_code for answer in answers] == [200]
