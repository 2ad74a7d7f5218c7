"""A testnet of real daemons with a tiny random model, for tests with real processes.

Daemons are started as a person starts them, and every process that a testnet ever had is
remembered, so that at the end each can be asked for.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import httpx
import psutil
from msgspec.structs import replace

from node.config import Config, LogSettings, WorkerSettings, find_paths, read_file, write
from node.testnet.plan import prepare
from tests.tiny_model import Q8_0, TinyShape, tiny_gguf, vocabulary

ROOT = Path(__file__).resolve().parents[2]
MODEL = "tiny"
PROVIDERS = ("maize", "potato")
SECONDS_MAX = 60  # For anything that has to come at all; a busy machine takes its time.
SAID_SECONDS_MAX = 120
GRACE_SECONDS = 60

T = TypeVar("T")
Engine = Literal["auto", "native", "torch"]


def tiny_weights(path: Path) -> Path:
    """A model deep enough to answer slowly, a few milliseconds a token, and that never ends an
    answer by itself: none of its tokens is an end. So an answer is in its middle for as long as
    a test needs that."""
    changes: dict[str, object] = {
        "tokenizer.ggml.token_type": [1] * len(vocabulary()[0]),
        "tokenizer.ggml.eos_token_id": None,
    }
    path.write_bytes(tiny_gguf(1, Q8_0, TinyShape(layers=24, context_tokens=8192), changes))
    return path


def models_file(weights: Path) -> str:
    """A catalogue of the user's own, with one model on this disk."""
    return f"""
[[models]]
name = "{MODEL}"
licence = "Apache-2.0"
context_tokens = 8192

[[models.files]]
role = "weights"
name = "{weights.name}"
sources = [{{ path = {json.dumps(str(weights))} }}]
"""


def until(what: str, test: Callable[[], T], seconds: float = SECONDS_MAX) -> T:
    """The first true answer of `test`."""
    deadline = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
    return found


class Done(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


def environment(models: Path | None) -> dict[str, str]:
    """That of a person who has set nothing of ours, but perhaps where models are kept."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AYNI_")}
    return own if models is None else {**own, "AYNI_MODELS_DIR": str(models)}


class Node:
    """One home, and the commands of its owner."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.name = folder.name
        self.folder = folder
        self.paths = find_paths(folder)
        self.variables = dict(variables)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "node", "--home", str(self.folder), *words]

    def ayni(self, *words: str, **variables: str) -> Done:
        """Run a command to its end; its standard input is empty."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SAID_SECONDS_MAX,
            env={**self.variables, **variables},
            cwd=ROOT,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def read(self, *words: str) -> Any:
        """The JSON that a command says, also one that fails."""
        return json.loads(self.ayni(*words, "--json").out)

    def asked(self, prompt: str, *words: str) -> Any:
        """A whole answer with its figures. It must come."""
        done = self.ayni("ask", "--json", *words, prompt)
        assert done.status == 0, done
        return json.loads(done.out)

    def start(self, *words: str, **variables: str) -> subprocess.Popen[bytes]:
        """`ayni up` beside the test. Whoever calls this ends it."""
        self.paths.api_file.unlink(missing_ok=True)
        with (self.folder / "up.log").open("ab") as log:
            return subprocess.Popen(
                self.command("up", *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.variables, **variables},
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def api(self) -> dict[str, Any]:
        """Where a running node answers, and its pid; empty while it does not."""
        try:
            return dict(json.loads(self.paths.api_file.read_bytes()))
        except (OSError, ValueError):
            return {}

    @property
    def key(self) -> str:
        return self.paths.api_key_file.read_text().strip()

    @property
    def pid(self) -> int:
        return int(self.api["pid"])

    @contextmanager
    def http(self, timeout: float = SECONDS_MAX) -> Iterator[httpx.Client]:
        headers = {"authorization": f"Bearer {self.key}"}
        with httpx.Client(
            base_url=self.api["url"], headers=headers, timeout=timeout, trust_env=False
        ) as client:
            yield client

    def get(self, path: str) -> Any:
        """What the API says under /ayni/v1."""
        with self.http() as client:
            return client.get(f"/ayni/v1/{path}").raise_for_status().json()

    def answers(self) -> bool:
        """Whether the API is up."""
        try:
            return bool(self.api) and bool(self.get("status"))
        except (httpx.TransportError, OSError):
            return False

    @property
    def worker(self) -> dict[str, Any]:
        return dict(self.get("status")["worker"])

    def peers(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return {peer["name"]: peer for peer in self.get("peers")}

    def running(self) -> list[dict[str, Any]]:
        return [job for job in self.get("jobs") if job["state"] == "running"]

    @property
    def free(self) -> bool:
        """Whether this node has a slot for others, and does nothing."""
        status = self.get("status")
        slots = [offer["slots_free"] for offer in status["offers"]]
        return status["sharing"]["state"] == "on" and any(slots) and not status["jobs_running"]

    def sharing(self) -> set[str]:
        """Names of the providers that this node knows of and is connected to."""
        return {
            name
            for name, peer in self.peers().items()
            if peer["connected"] and peer["sharing"] == "on" and peer["offers"]
        }

    def free_slots(self) -> dict[str, int]:
        """By provider, as the adverts that came here say."""
        return {
            name: sum(offer["slots_free"] for offer in peer["offers"])
            for name, peer in self.peers().items()
            if peer["offers"]
        }

    @contextmanager
    def asking(self, prompt: str, *words: str) -> Iterator["Asking"]:
        """An `ayni ask` beside the test; it is killed if it still runs at the end."""
        process = subprocess.Popen(
            self.command("ask", *words, prompt),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self.variables,
            cwd=ROOT,
        )
        with process:
            try:
                yield Asking(process)
            finally:
                process.kill()


class Asking:
    """An `ayni ask` that runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._read = b""

    def wait_for_words(self) -> None:
        """Return when some of the answer has come."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], SAID_SECONDS_MAX)
        assert ready, "no word of the answer came"
        self._read += os.read(self.process.stdout.fileno(), 65536)
        assert self._read, f"it ended without an answer: {self.end()}"

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def interrupt(self) -> Done:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> Done:
        """Wait for it."""
        out, err = self.process.communicate(timeout=SAID_SECONDS_MAX)
        text = (self._read + out).decode("utf-8", "replace")
        return Done(self.process.returncode, text, err.decode())


class Testnet:
    """The nodes by name, and all processes that they ever had."""

    __test__ = False

    def __init__(self, folder: Path, model: str = MODEL) -> None:
        """The tiny model is made here and kept here; another is the user's, in the catalogue."""
        self.folder = folder
        self.model = model
        self.variables = environment(folder / "models" if model == MODEL else None)
        self.nodes: dict[str, Node] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self._processes: dict[int, psutil.Process] = {}

    def __getattr__(self, name: str) -> Node:
        try:
            return self.nodes[name]
        except KeyError:
            raise AttributeError(name) from None

    engine: Engine = "torch"
    """Slow enough, with the tiny model, that an answer can be met in its middle."""

    def prepare(self, count: int | None = None) -> None:
        """Homes as `testnet up` makes them, then settings that a test wants: the model, and all
        that is ever logged in the log."""
        weights = tiny_weights(self.folder / "tiny.gguf")
        for home in prepare(self.folder, count):
            config = read_file(home.paths.config_file, Config)
            config = replace(
                config,
                node=replace(config.node, grace_seconds=GRACE_SECONDS),
                share=replace(config.share, models=(self.model,)),
                # The other tests of a run are no owner to whom the worker would have to yield.
                worker=WorkerSettings(idle_priority=False, threads=1, engine=self.engine),
                log=LogSettings(level="debug"),
            )
            write(home.paths.config_file, config)
            home.paths.models_file.write_text(models_file(weights))
            self.nodes[home.name] = Node(home.folder, self.variables)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "node", "--home", str(self.folder), "testnet", *words]

    def testnet(self, *words: str) -> Done:
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SAID_SECONDS_MAX,
            env=self.variables,
            cwd=ROOT,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def up(self) -> None:
        done = self.testnet("up", "--detach")
        assert done.status == 0, done
        self.remember()

    def restart(self, node: Node) -> None:
        """Start a node again that was killed or has ended; return when it answers."""
        process = node.start()
        self._started.append(process)
        until(f"{node.name} answers", lambda: node.answers() or process.poll() is not None)
        assert process.poll() is None, (node.folder / "up.log").read_text()[-2000:]
        self.remember()

    def settle(self) -> None:
        """Wait until all who share can take a job, the asker knows them, and nothing runs. What
        is free is asked of themselves: an advert tells of it ten seconds later."""
        asker, sharing = self.nodes["quinoa"], set(PROVIDERS) & set(self.nodes)
        until("free providers", lambda: all(self.nodes[name].free for name in sharing))
        until("adverts of all", lambda: asker.sharing() == sharing)
        self.remember()

    def remember(self) -> None:
        """Note the processes that run now."""
        for node in self.nodes.values():
            with suppress(psutil.NoSuchProcess, KeyError):
                daemon = psutil.Process(node.pid)
                for process in [daemon, *daemon.children(recursive=True)]:
                    self._processes[process.pid] = process

    def down(self) -> None:
        """Stop all of it. Raises AssertionError when a process outlives that, once it is dead."""
        self.remember()
        for daemon in self._started:
            daemon.terminate()
        self.testnet("down")
        for daemon in self._started:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(SECONDS_MAX)
        left = [process.pid for process in self._processes.values() if lives(process)]
        for pid in left:
            with suppress(psutil.NoSuchProcess):
                self._processes[pid].kill()
        assert not left, f"processes {left} outlived their testnet"


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def open_testnet(folder: Path, count: int, model: str = MODEL) -> Iterator[Testnet]:
    """So many nodes that know each other, those that share ready to serve; gone at the end."""
    testnet = Testnet(folder, model)
    try:
        testnet.prepare(count)
        testnet.up()
        quinoa = testnet.nodes["quinoa"]
        until("all peers", lambda: len(quinoa.peers()) == count - 1)
        testnet.settle()
        yield testnet
    finally:
        testnet.down()
