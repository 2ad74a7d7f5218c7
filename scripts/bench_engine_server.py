"""llama.cpp's server as a program under load: started, asked over loopback, ended."""

import json
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import trio
from bench_engine_load import CONTEXT_TOKENS, MIN_P, SLOTS, TEMPERATURE, TOP_K, TOP_P
from bench_engine_process import favour

READY_SECONDS_MAX: Final = 60
LOOK_SECONDS: Final = 0.005


class LlamaServer:
    """Implements bench_engine_load.Answerer."""

    def __init__(self, pid: int, client: httpx.AsyncClient) -> None:
        self.pid = pid
        self._client = client
        self._asked = 0

    async def answer(self, prompt: str, tokens: int) -> Sequence[float]:
        self._asked += 1
        body = {
            "prompt": prompt,
            "n_predict": tokens,
            "temperature": TEMPERATURE,
            "top_k": TOP_K,
            "top_p": TOP_P,
            "min_p": MIN_P,
            "seed": self._asked,
            "ignore_eos": True,
            "stream": True,
        }
        times: list[float] = []
        async with self._client.stream("POST", "/completion", json=body) as response:
            rest = b""
            async for data in response.aiter_bytes():
                *events, rest = (rest + data).split(b"\n\n")
                now = trio.current_time()
                for event in events:
                    words = json.loads(event.removeprefix(b"data: "))
                    if not words.get("stop"):
                        times.append(now)
        if len(times) != tokens:
            raise SystemExit(f"llama-server gave {len(times)} tokens of {tokens}.")
        return times


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@asynccontextmanager
async def open_server(
    tool: Path, weights: Path, threads: int, *, favoured: bool
) -> AsyncIterator[LlamaServer]:
    """It is ready to answer; on leaving it has ended."""
    port = _free_port()
    command = [
        *(str(tool), "-m", str(weights), "--host", "127.0.0.1", "--port", str(port)),
        *("-t", str(threads), "-tb", str(threads), "-np", str(SLOTS)),
        *("-c", str(SLOTS * CONTEXT_TOKENS), "--no-webui"),
    ]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if favoured:
        favour(process.pid)
    try:
        url = f"http://127.0.0.1:{port}"
        # A new connection each time: the server closes one that is idle while it is taken up again.
        limits = httpx.Limits(max_connections=SLOTS, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=url, timeout=600, trust_env=False, limits=limits
        ) as client:
            await _wait_ready(process, client)
            yield LlamaServer(process.pid, client)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _wait_ready(process: trio.Process, client: httpx.AsyncClient) -> None:
    with trio.move_on_after(READY_SECONDS_MAX):
        while process.poll() is None:
            try:
                if (await client.get("/health")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await trio.sleep(LOOK_SECONDS)
    raise SystemExit("llama-server did not start.")
