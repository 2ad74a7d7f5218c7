"""What the demo is made of: the testnet it runs on, watched commands, and checks."""

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import psutil

ROOT = Path(__file__).resolve().parent.parent
AYNI = ROOT / ".venv" / "bin" / "ayni"
LOG_LINES_SHOWN = 20


class Broken(Exception):
    """A promise that did not hold."""


def check(held: bool, what: str) -> None:
    if not held:
        raise Broken(what)


class Demo:
    """The testnet, the figures, and the way to show things."""

    def __init__(self, folder: Path, out: TextIO) -> None:
        self.folder = folder
        self.out = out
        self.figures: dict[str, Any] = {}
        self.log = folder / "quinoa" / "up.log"
        self.nodes: dict[str, dict[str, Any]] = {}
        self.processes: dict[int, psutil.Process] = {}
        self.wallets_before: dict[str, dict[str, Any]] = {}
        self.killed: dict[str, Any] = {}
        self.killed_at = 0.0

    def say(self, text: str = "") -> None:
        print(text, file=self.out, flush=True)

    def command(self, *words: str, node: str = "quinoa") -> list[str]:
        return [str(AYNI), "--home", str(self.folder / node), *words]

    def show(self, *words: str, node: str = "quinoa") -> str:
        """Run a command as a person would, and print what it prints."""
        self.say(f"\n$ ayni {' '.join(_quoted(words))}    (at {node})")
        done = subprocess.run(self.command(*words, node=node), capture_output=True, text=True)
        self.say((done.stdout + done.stderr).rstrip())
        check(done.returncode == 0, f"`ayni {words[0]}` ended with status {done.returncode}")
        return done.stdout

    def read(self, *words: str, node: str = "quinoa") -> Any:
        """What a command says as JSON, also when it fails."""
        done = subprocess.run(
            self.command(*words, "--json", node=node), capture_output=True, text=True
        )
        return json.loads(done.stdout)

    def remember_processes(self) -> None:
        """All processes of the testnet, so that at the end each can be asked for."""
        for node in self.nodes.values():
            try:
                daemon = psutil.Process(node["pid"])
                for process in [daemon, *daemon.children(recursive=True)]:
                    self.processes[process.pid] = process
            except psutil.NoSuchProcess:
                continue

    def left_behind(self) -> list[str]:
        return [
            f"{process.pid} {' '.join(process.cmdline()[:6])}"
            for process in self.processes.values()
            if not is_over(process)
        ]


def is_over(process: psutil.Process) -> bool:
    """Whether a process has ended, also where its parent has not asked yet how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _quoted(words: tuple[str, ...]) -> Iterator[str]:
    return (f'"{word}"' if " " in word else word for word in words)


def until(what: str, seconds: float, test: Callable[[], Any]) -> Any:
    """The first true answer of `test`, asked ten times a second."""
    began = time.monotonic()
    while not (found := test()):
        check(time.monotonic() - began < seconds, f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.1)
    return found


class Stream:
    """A command's output as it comes, with the time of each piece."""

    def __init__(self, command: list[str], out: TextIO | None) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False
        )
        self.pieces: list[tuple[float, bytes]] = []
        self._queue: queue.Queue[bytes] = queue.Queue()
        self._out = out
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while data := os.read(descriptor, 65536):
            self.pieces.append((time.monotonic(), data))
            if self._out is not None:
                self._out.write(data.decode("utf-8", "replace"))
                self._out.flush()
            self._queue.put(data)
        self._queue.put(b"")

    def wait_for_piece(self, seconds: float) -> bytes:
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            raise Broken(f"no output came within {seconds:.0f} s") from None

    def finish(self, seconds: float) -> tuple[int, str, str]:
        """(exit status, all of its output, all of its errors)."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Broken(f"{self.process.args!r} did not end within {seconds:.0f} s") from None
        self._reader.join(5)
        assert self.process.stderr is not None
        text = b"".join(data for _, data in self.pieces).decode("utf-8", "replace")
        return status, text, self.process.stderr.read().decode("utf-8", "replace")


def log_tail(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    except OSError:
        lines = []
    return "\n".join([f"The last lines of {path}:", *lines])
