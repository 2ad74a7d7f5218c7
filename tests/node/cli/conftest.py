"""Homes on disk, and the command line run in this process or as one of its own."""

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import trio
from click.testing import CliRunner, Result

from node.api.backend import Accepted, Finished, Text
from node.api.scripted import ScriptedBackend, Step
from node.api.server import open_server
from node.api.views import (
    ApiFile,
    Check,
    Hardware,
    Job,
    KnownModel,
    ListedModel,
    Models,
    Network,
    Offer,
    Peer,
    Sharing,
    Status,
    Worker,
)
from node.cli.main import ayni
from node.config import find_paths
from node.keystore import api_key
from protocol.ids import NodeId, node_text

ROOT = Path(__file__).parents[3]
MAIZE, QUINOA = NodeId(b"m" * 32), NodeId(b"q" * 32)

OFFER = Offer(
    name="tiny",
    model="ab" * 32,
    mode="cpu-f32/gguf",
    context_tokens=2048,
    price_in_microcredits=500_000,
    price_out_microcredits=2_000_000,
    prefill_millitokens_per_second=90_000,
    decode_millitokens_per_second=21_500,
    slots=2,
    slots_free=1,
)
STEPS: tuple[Step, ...] = (
    Accepted(
        provider=MAIZE,
        provider_name="maize",
        model="tiny",
        mode="cpu-f32/gguf",
        prompt_tokens=7,
        price_in_microcredits=500_000,
        price_out_microcredits=2_000_000,
    ),
    Text("The sky\u2028", 2),  # A line break of Unicode that is none of a stream's.
    Text("is blü\x1b[2J.", 1),  # A provider that would wipe the terminal.
    Finished(
        reason="stop",
        provider=MAIZE,
        input_tokens=7,
        output_tokens=11,
        cost_microcredits=26,
        ms_first=250,
        ms_total=750,
    ),
)


def scripted() -> ScriptedBackend:
    return ScriptedBackend(
        script=lambda job: STEPS,
        node=Status(
            node=node_text(QUINOA),
            name="quinoa",
            version="0.1.0",
            network=Network(name="field", id="cd" * 32, supply_microcredits=0, accounts=0),
            started_at_ms=1_000,
            uptime_ms=65_000,
            addresses=(f"/ip4/10.0.0.5/tcp/4001/p2p/{node_text(QUINOA)}",),
            sharing=Sharing(state="on"),
            worker=Worker(state="ready", pid=77, device="cpu"),
            offers=(OFFER,),
            peers=1,
        ),
        known_peers=(
            Peer(
                node=node_text(MAIZE),
                name="maize",
                connected=True,
                hardware=Hardware(cpu="Z80", cores=2, memory_bytes=4_000_000_000),
                offers=(OFFER,),
                advert_age_ms=900,
                round_trip_ms=3,
            ),
        ),
        history=(
            Job(
                job="07" * 16,
                role="requester",
                peer=node_text(MAIZE),
                peer_name="maize",
                model="tiny",
                state="failed",
                code="LOST",
                started_at_ms=1_000,
                output_tokens=42,
            ),
        ),
        known_models=Models(
            served=(OFFER,),
            known=(
                KnownModel(
                    name="bigger",
                    model="ef" * 32,
                    modes=("cpu-f32/gguf",),
                    context_tokens=4096,
                    providers=1,
                    slots_free=0,
                    price_in_microcredits=1,
                    price_out_microcredits=2,
                ),
            ),
            catalogue=(
                ListedModel(
                    name="listed",
                    model="",
                    licence="Apache-2.0",
                    context_tokens=2048,
                    size_bytes=96_600_000,
                    cached=True,
                ),
            ),
        ),
        checks=(Check(name="clock of peers", state="ok", sentence="Near."),),
    )


@dataclass
class Ayni:
    """The command for one home."""

    home: Path
    environment: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        runner = CliRunner(env={"AYNI_HOME": str(self.home), **self.environment})
        result = runner.invoke(ayni, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    async def called(self, *arguments: str, stdin: str | None = None) -> Result:
        return await trio.to_thread.run_sync(lambda: self(*arguments, stdin=stdin))

    async def process(
        self,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> trio.Process:
        """As a person starts it, with pipes for what it says."""
        own = {"AYNI_HOME": str(self.home), "PYTHONPATH": str(ROOT), **self.environment}
        given = {name: value for name, value in own.items() if value is not None}
        environment = {**os.environ, **given}
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "node", *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=self.home.parent,
        )

    @asynccontextmanager
    async def served(self, backend: ScriptedBackend, pid: int | None = None):
        """A daemon for this home: its API, and the files that lead there."""
        paths = find_paths(self.home)
        pid = os.getpid() if pid is None else pid
        async with open_server(backend, api_key(paths.api_key_file)) as url:
            paths.api_file.write_bytes(msgspec.json.encode(ApiFile(url=url, pid=pid)))
            yield url
        paths.api_file.unlink(missing_ok=True)


@pytest.fixture
def command(tmp_path) -> Ayni:
    unset = dict.fromkeys(("AYNI_PASSPHRASE", "AYNI_PASSPHRASE_FILE", "AYNI_MODELS_DIR"))
    return Ayni(tmp_path / "home", {**unset, "HOME": str(tmp_path)})


@pytest.fixture
def backend() -> ScriptedBackend:
    return scripted()


@pytest.fixture
def steps() -> list[Step]:
    return list(STEPS)
