"""Programs that the engine's benchmark measures: each in a session of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

END_SECONDS_MAX: Final = 20
GROUP_NICENESS: Final = -10
ENERGY: Final = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


def favour(pid: int) -> bool:
    """Ask Linux to serve this process's session before others while it lives. False where that is
    not allowed or no such thing. Linux shares the processor by session first and by niceness
    within one, so a `nice` in another terminal does not keep that one's work from disturbing us."""
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(GROUP_NICENESS), encoding="ascii")
    except OSError:
        return False
    return True


def enter_own_session(*, favoured: bool) -> None:
    """Go on in a child with a session of its own; this process waits and ends as it ends. What
    asks and takes the time must be served as promptly as what answers, and asking for that would
    otherwise change the session of the shell, for good."""
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if not child:
        os.setsid()
        if favoured:
            favour(os.getpid())
        return
    try:
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGINT)
        _, status = os.waitpid(child, 0)
    os._exit(abs(os.waitstatus_to_exitcode(status)))


class Program:
    """A child that answers a line of JSON by a line of JSON, and waits without working between."""

    def __init__(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
        *,
        favoured: bool = False,
    ) -> None:
        self._name = " ".join(Path(word).name for word in command[:2])
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("AYNI_BENCH_NOISE") else subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        if favoured:
            favour(self._process.pid)
        self.ready = self.hears()

    def hears(self) -> dict[str, Any]:
        """Its next line. Ends the benchmark when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise SystemExit(f"{self._name} ended with {status}; AYNI_BENCH_NOISE=1 shows why.")
        words: dict[str, Any] = json.loads(line)
        return words

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.hears()

    def end(self) -> None:
        """It ends once its input does, or it is ended."""
        try:
            self._process.communicate(timeout=END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def output_of(command: Sequence[str | Path], *, favoured: bool = False) -> str:
    """What a program printed. Ends the benchmark when it fails."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if favoured:
        favour(process.pid)
    out, err = process.communicate()
    if process.returncode:
        last = "\n".join(err.splitlines()[-5:])
        raise SystemExit(f"{last}\n{Path(command[0]).name} ended with {process.returncode}.")
    return out


def energy_joules() -> float | None:
    """What the processor's package has used since some moment. None where the system does not
    tell: it tells root only, and in a virtual machine mostly nobody."""
    try:
        return int(ENERGY.read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None


def say(text: str = "") -> None:
    """What is going on, for who waits; the results go to the standard output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
