"""Start, watch and stop the processes of a testnet."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import psutil
import trio
from msgspec import Struct

from node.api.views import ApiFile, Status
from node.keystore import read_api_key
from node.testnet.plan import Home, genesis_of, join, prepare
from protocol.errors import Code, LocalError
from protocol.ids import node_text

START_SECONDS_MAX = 60  # A daemon imports for two seconds on a quiet machine.
STOP_SECONDS_MAX = 4
LOG_LINES_SHOWN = 20
_LOOK_SECONDS = 0.05

Tell = Callable[[str], None]


class Process(Struct, frozen=True):
    """A daemon that was started: its pid, and when, since pids are used again."""

    name: str
    home: str
    pid: int
    created: float
    shares: bool


class Running(Struct, frozen=True):
    """One node as `testnet status` shows it."""

    name: str
    home: str
    node: str
    pid: int | None
    url: str
    shares: bool
    log: str


async def up(folder: Path, nodes: int | None, tell: Tell) -> list[Running]:
    """Make the testnet in `folder` if it is not there, start those of its daemons that do not
    run, and return when each answers on its API. Workers go on loading; `ayni status` of a node
    shows how far they are.

    Raises LocalError IN_USE when all of it runs already, UNAVAILABLE when a daemon does not
    start; then those that were started are stopped.
    """
    homes = await trio.to_thread.run_sync(prepare, folder, nodes)
    kept = {one.name: one for one in _kept(folder) if _process(one) is not None}
    down_now = [home for home in homes if home.name not in kept]
    if not down_now:
        raise LocalError(
            Code.IN_USE, f"The testnet in {folder} runs already; `ayni testnet down` stops it."
        )
    started: list[Process] = []
    try:
        await _start_all(folder, homes, kept, started, tell)
    except BaseException:
        with trio.CancelScope(shield=True):
            await _stop(started)
            _keep(folder, list(kept.values()))
        raise
    return status(folder)


async def _start_all(
    folder: Path,
    homes: Sequence[Home],
    running: Mapping[str, Process],
    started: list[Process],
    tell: Tell,
) -> None:
    genesis = genesis_of(folder)
    # One node is where the others begin; its port is known once it listens.
    first = next((home for home in homes if home.name in running), homes[0])
    others = [home for home in homes if home is not first and home.name not in running]

    def start(home: Home, bootstrap: Sequence[str]) -> Process:
        join(home, genesis, bootstrap)
        started.append(_start(home))
        _keep(folder, [*running.values(), *started])
        return started[-1]

    if first.name in running:
        bootstrap = (await _answers(first, running[first.name])).addresses
    else:
        bootstrap = (await _answers(first, start(first, ()))).addresses
        tell(f"{first.name} is up.")
    for home, process in [(home, start(home, bootstrap)) for home in others]:
        await _answers(home, process)
        tell(f"{home.name} is up.")


async def down(folder: Path) -> int:
    """Stop the daemons of the testnet in `folder`: SIGTERM, then the end after four seconds.
    Returns how many there were; 0 when none runs."""
    count = await _stop(_kept(folder))
    _keep(folder, [])
    return count


async def _stop(processes: Sequence[Process]) -> int:
    live = [process for process in map(_process, processes) if process is not None]
    for process in live:
        _tolerant(process.terminate)
    _, left = await trio.to_thread.run_sync(psutil.wait_procs, live, STOP_SECONDS_MAX)
    for process in left:
        _tolerant(process.kill)
    await trio.to_thread.run_sync(psutil.wait_procs, left, 1)
    return len(live)


def status(folder: Path) -> list[Running]:
    """The nodes of the testnet in `folder`; those that run have a pid. Empty where none is."""
    if not (folder / "network.ayni").exists():
        return []
    kept = {one.name: one for one in _kept(folder)}
    found = []
    for home in prepare(folder, None):
        process = _process(kept[home.name]) if home.name in kept else None
        api = _api(home)
        running = process is not None and api is not None and api.pid == process.pid
        found.append(
            Running(
                name=home.name,
                home=str(home.folder),
                node=node_text(home.node),
                pid=process.pid if process is not None else None,
                url=api.url if running and api is not None else "",
                shares=home.shares,
                log=str(home.paths.log_file),
            )
        )
    return found


def log_tail(home: Home | Running) -> str:
    """The last lines that a node has written, and where the rest is."""
    folder = Path(home.home) if isinstance(home, Running) else home.folder
    path = folder / "up.log"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join([*lines[-LOG_LINES_SHOWN:], f"(the whole log: {path})"])


def _start(home: Home) -> Process:
    home.paths.api_file.unlink(missing_ok=True)
    variables = {name: value for name, value in os.environ.items() if name != "AYNI_HOME"}
    with (home.folder / "up.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "node", "--home", str(home.folder), "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables,
            cwd=Path(__file__).parents[2],
            # A session of its own: Ctrl-C at the terminal is for the testnet to hand on.
            start_new_session=True,
        )
    created = psutil.Process(child.pid).create_time()
    return Process(home.name, str(home.folder), child.pid, created, home.shares)


async def _answers(home: Home, process: Process) -> Status:
    """Wait until a daemon answers on its API."""
    with trio.move_on_after(START_SECONDS_MAX):
        while _process(process) is not None:
            api = _api(home)
            if api is not None and api.pid == process.pid:
                return await _status(home, api)
            await trio.sleep(_LOOK_SECONDS)
    raise LocalError(
        Code.UNAVAILABLE, f"{home.name} did not start. Its last words:\n{log_tail(home)}"
    )


async def _status(home: Home, api: ApiFile) -> Status:
    key = read_api_key(home.paths.api_key_file)
    async with httpx.AsyncClient(base_url=api.url, trust_env=False, timeout=30) as client:
        answer = await client.get("/ayni/v1/status", headers={"authorization": f"Bearer {key}"})
        answer.raise_for_status()
    return msgspec.json.decode(answer.content, type=Status)


def _api(home: Home) -> ApiFile | None:
    try:
        return msgspec.json.decode(home.paths.api_file.read_bytes(), type=ApiFile)
    except (OSError, msgspec.MsgspecError):
        return None


def _process(started: Process) -> psutil.Process | None:
    """The daemon, if it still runs."""
    try:
        process = psutil.Process(started.pid)
        same = abs(process.create_time() - started.created) < 0.01
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _tolerant(act: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        act()


def _kept(folder: Path) -> list[Process]:
    try:
        return msgspec.json.decode((folder / "processes.json").read_bytes(), type=list[Process])
    except (OSError, msgspec.MsgspecError):
        return []


def _keep(folder: Path, processes: Sequence[Process]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps([msgspec.to_builtins(process) for process in processes])
    (folder / "processes.json").write_text(text, encoding="utf-8")
