"""Compiles the C of this folder into one shared library; also `python -m` for the command line."""

import argparse
import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).resolve().parent
SECONDS_MAX: Final = 900
ERROR_LINES: Final = 20

# No product and sum may become one operation that nobody wrote, and no sum may change its order:
# each of these compilers then gives the same bits at -O2 and -O3.
PLAIN: Final = (
    "-std=c11",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-Wall",
    "-Wextra",
)
AVX2: Final = ("-mavx2", "-mfma", "-mf16c")
# What a file is compiled with beyond that. Where a compiler refuses such a flag (an older one, or
# one for another processor), the file is compiled without and says that it has no such path.
MACHINE_FLAGS: Final = {
    # Nobody asks which comparison met a NaN; its loops become vectors then, with the same bits.
    "sample.c": ("-fno-trapping-math",),
    "step_avx2.c": AVX2,
    "step_avxvnni.c": (*AVX2, "-mavxvnni"),
    "step_avx512vnni.c": (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"),
}
# Clangs of some years want the long registers of AVX-512 named apart; others know no such name.
MORE_FLAGS: Final = {"step_avx512vnni.c": ("-mevex512",)}


class CompilerError(Exception):
    """There is no compiler, or it could not do it: says which, and with what last words."""


def library_name(platform: str = sys.platform) -> str:
    """Of the shared library on a platform as `sys.platform` names it."""
    names = {"darwin": "libayni_kernels.dylib", "win32": "ayni_kernels.dll"}
    return names.get(platform, "libayni_kernels.so")


def compilers() -> list[list[str]]:
    """Commands that compile C here, best first: $CC, the system's, the package ziglang."""
    named = os.environ.get("CC")
    found = [shlex.split(named)] if named else []
    found += [[path] for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    if importlib.util.find_spec("ziglang"):
        # Without a name zig compiles for this very processor; a wheel is for all of its kind.
        found.append([sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"])
    return found


def build(folder: Path, compiler: Sequence[str] | None = None, optimise: str = "-O3") -> Path:
    """Compile all C files of the package into `folder` and return the library's path. The file
    appears whole or not at all. `compiler` is a command and its first arguments; by default the
    first of `compilers()`. Raises CompilerError."""
    if compiler is None:
        known = compilers()
        if not known:
            raise CompilerError(
                "No C compiler was found (looked for $CC, cc, gcc, clang and the package ziglang). "
                "Install gcc or clang, or `pip install ziglang`."
            )
        compiler = known[0]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / library_name()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        sources = sorted(SOURCES.glob("*.c"))
        # The longest first, so that nobody waits for it alone at the end.
        sources.sort(key=lambda path: not path.name.startswith("step_"))
        compile_ = functools.partial(_compiled, compiler, optimise, work)
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            objects = list(threads.map(compile_, sources))
        library = work / target.name
        # A compiler may be told to compile for Windows from elsewhere.
        is_windows = sys.platform == "win32" or any("-windows" in word for word in compiler)
        libraries = ["-lapi-ms-win-core-synch-l1-2-0"] if is_windows else ["-lm", "-pthread"]
        _run([*compiler, "-shared", "-o", str(library), *map(str, objects), *libraries])
        os.replace(library, target)
    return target


def _compiled(compiler: Sequence[str], optimise: str, work: Path, source: Path) -> Path:
    target = work / f"{source.stem}.o"
    probe = work / f"{source.stem}_probe"
    flags = MACHINE_FLAGS.get(source.name, ())
    tries = [(*flags, *MORE_FLAGS.get(source.name, ())), flags]
    flags = next((flags for flags in tries if _takes(compiler, flags, probe)), ())
    _run([*compiler, *PLAIN, optimise, *flags, "-c", str(source), "-o", str(target)])
    return target


def _takes(compiler: Sequence[str], flags: Sequence[str], probe: Path) -> bool:
    source = probe.with_suffix(".c")
    source.write_text("int ayni_probe;\n")
    command = [*compiler, "-Werror", *flags, "-c", str(source), "-o", f"{probe}.o"]
    return _attempt(command).returncode == 0


def _attempt(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_MAX,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise CompilerError(f"`{command[0]}` did not start: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise CompilerError(f"`{command[0]}` took more than {SECONDS_MAX} seconds.") from error


def _run(command: Sequence[str]) -> None:
    ended = _attempt(command)
    if ended.returncode:
        lines = (ended.stderr + ended.stdout).strip().splitlines()[-ERROR_LINES:]
        raise CompilerError(f"`{shlex.join(command)}` failed:\n" + "\n".join(lines))


def main() -> int:
    """Build into a folder given on the command line, by default that of this file."""
    parser = argparse.ArgumentParser(description="Build the native kernels of Ayni's engine.")
    parser.add_argument("folder", nargs="?", type=Path, default=SOURCES)
    parser.add_argument("--compiler", help="a command and its arguments, as in a shell")
    parser.add_argument("--optimise", default="-O3")
    arguments = parser.parse_args()
    compiler = shlex.split(arguments.compiler) if arguments.compiler else None
    try:
        print(build(arguments.folder, compiler, arguments.optimise))
    except (CompilerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
